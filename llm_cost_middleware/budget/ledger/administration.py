"""Who may spend what, decided in the ledger: budgets with their history, raises, pauses.

Each function below is a verb of ``Ledger`` and of ``AsyncLedger``, with the register in place of the ledger. The newest
decision about a budget holds. A decision is one atomic step, and every process heeds it from its next reservation on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, timedelta
from inspect import signature
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from llm_cost_middleware.budget.backend import SupportsRegister
from llm_cost_middleware.budget.ledger.arguments import Moment
from llm_cost_middleware.budget.model import Budget, WindowLike, parse_scope, parse_window, read_budget
from llm_cost_middleware.budget.rules import Amended, BudgetLife, BudgetRegister, Decision, Pause
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import USD, floor_nanousd
from llm_cost_middleware.natural_values import read_seconds
from llm_cost_middleware.periods import read_moment

End = Moment | timedelta | None
P = ParamSpec("P")
T = TypeVar("T")


def set_budget(register: BudgetRegister, budget: Budget | Mapping[str, Any] | str, *fields: Any) -> None:
    """Set the budget of a scope and window, by hand. What the window already holds counts; a raise ends.

    Args:
        register: The register of budgets.
        budget: A ``Budget``, a mapping of its fields, or its scope.
        *fields: The other fields, after a scope.
    """
    register.set(read_budget(budget, *fields))


def remove_budget(register: BudgetRegister, scope: str, window: WindowLike = "none") -> bool:
    """Remove a budget, by hand; return whether there was one."""
    return register.remove(_key(scope, window))


def raise_budget(
    register: BudgetRegister,
    scope: str,
    limit: USD,
    window: WindowLike = "none",
    *,
    until: End = None,
) -> BudgetLife:
    """Raise the limit of a budget.

    Args:
        register: The register of budgets.
        scope: The budget's own, a template if it is one.
        limit: US dollars, above the limit that stands.
        window: The budget's own.
        until: A ``datetime``, a ``date``, text such as ``2026-12-01``, seconds since the epoch; or how long:
            ``"2h"``, a ``timedelta``. Then the limit is what it was, unless something was decided since. ``None``:
            for good.

    Raises:
        ConfigurationError: There is no such budget, the limit is no higher, or the time has passed.
    """
    return register.raise_(_key(scope, window), floor_nanousd(limit), _end(until, register))


def configure_budgets(
    register: BudgetRegister,
    budgets: Iterable[Budget],
    *,
    name: str | None = "default",
    version: int = 0,
    written_at: Moment | None = None,
    origin: str | None = None,
) -> tuple[Decision, ...]:
    """Take in the budgets of a configuration, as a pipeline does when it opens; return what became of it.

    A line that is not what it was in the configuration before is a decision; budgets whose line is gone are retired.
    A configuration that is older than the newest of its name decides nothing.

    Args:
        register: The register of budgets.
        budgets: All that it has.
        name: Of the configuration. Services with budgets of their own on one ledger take a name each. ``None``: that
            of the configuration which this one follows on: of the same origin, with the same budgets, or with a budget
            in common. With nothing in common it is another's, and retires nothing; no budgets and no origin end those
            of the only one there is.
        version: A higher one is newer, whenever it comes.
        written_at: When its file was changed: a ``datetime``, or seconds since the epoch. One that was replaced by
            another of its version is the newer one again only if it was written since.
        origin: What tells its file from others.
    """
    return register.configure(name, version, tuple(budgets), _moment(written_at, "written_at"), origin)


def budget_lives(register: BudgetRegister) -> tuple[BudgetLife, ...]:
    """Return every budget that there is or was: where it comes from, since when, and what it is raised to."""
    return register.lives()


def budget_history(register: BudgetRegister) -> tuple[Decision, ...]:
    """Return the last 500 decisions about budgets and pauses, oldest first."""
    return register.history()


def pause(register: BudgetRegister, scope: str, *, until: End = None, reason: str = "") -> None:
    """Refuse the calls of a scope, or of each scope of a kind (``team:*``), in every process, until it is resumed.

    Its calls and holds raise ``ScopePausedError``; calls that are under way end as they would.

    Args:
        register: The register of budgets.
        scope: ``global`` stops everything.
        until: As for ``raise_budget``; ``None``: until ``resume``.
        reason: Why. It stands in the error; no secrets.

    Raises:
        ConfigurationError: The time has passed, or the storage cannot pause.
    """
    register.pause(scope, _end(until, register), reason)


def resume(register: BudgetRegister, scope: str) -> bool:
    """End a pause, named as it was paused; return whether there was one."""
    return register.resume(scope)


def pauses(register: BudgetRegister) -> tuple[Pause, ...]:
    """Return what is paused now."""
    return register.pauses()


_YEAR_10000 = 253_402_300_800


def _end(until: End, register: BudgetRegister) -> int | None:
    """Return the end of a raise or a pause, ms since the Unix epoch. A length of time lies ahead."""
    length = None
    if isinstance(until, str | timedelta):
        with suppress(ConfigurationError):  # then it is a moment
            length = read_seconds(until, "until")
    return _moment(until, "until") if length is None else _ms(register.now / 1000 + length, "until")


def _moment(when: Moment | None, what: str) -> int | None:
    return None if when is None else _ms(read_moment(when, what, zone=UTC, relative=False), what)


def _ms(seconds: float, what: str) -> int:
    if not 0 <= seconds < _YEAR_10000:  # no date can be made of it
        raise ConfigurationError("must be a date, or seconds, from 1970 to the year 10000", key=what)
    return round(seconds * 1000)


def _key(scope: str, window: WindowLike) -> tuple[str, str]:
    return parse_scope(scope, template=True), parse_window(window)


# --- as methods of the façades ---------------------------------------------------------------------------------------


class RegisterStep(Generic[T]):
    """A ``BudgetStep`` that runs a verb on the register, and keeps what it returned."""

    result: T

    def __init__(self, verb: Callable[[BudgetRegister], T]) -> None:
        self._verb = verb

    def __call__(self, document: bytes, budgets: tuple[Budget, ...], now: int) -> Amended | None:
        """Decide."""
        register = BudgetRegister(document, budgets, now)
        self.result = self._verb(register)
        return register.amended()


class _Facade(Protocol):
    @property
    def backend(self) -> Any: ...


def blocking(verb: Callable[Concatenate[BudgetRegister, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Make the method of ``Ledger``."""

    def run(self: _Facade, /, *args: P.args, **kwargs: P.kwargs) -> T:
        backend = self.backend
        if not keeps_register(backend):
            return _without_register(backend, verb.__name__)(*args, **kwargs)  # type: ignore[no-any-return]  # the same verb
        step = RegisterStep(lambda register: verb(register, *args, **kwargs))
        backend.amend(step)
        return step.result

    return _named(run, verb, (verb.__doc__ or "").replace("    register: The register of budgets.\n", ""))


def asynchronous(
    verb: Callable[Concatenate[BudgetRegister, P], T],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Make the method of ``AsyncLedger``."""

    async def run(self: _Facade, /, *args: P.args, **kwargs: P.kwargs) -> T:
        backend = self.backend
        if not keeps_register(backend):
            return await _without_register(backend, verb.__name__)(*args, **kwargs)  # type: ignore[no-any-return]  # the same
        step = RegisterStep(lambda register: verb(register, *args, **kwargs))
        await backend.amend(step)
        return step.result

    return _named(run, verb, f"See ``Ledger.{verb.__name__}``.")


def _named(run: Callable[P, T], verb: Callable[..., Any], text: str) -> Callable[P, T]:
    """Give a method the name, the signature and the text of its verb."""
    run.__name__, run.__doc__ = verb.__name__, text
    ours, *parameters = signature(verb).parameters.values()
    run.__annotations__ = {"return": verb.__annotations__["return"]}
    run.__signature__ = signature(verb).replace(parameters=[ours.replace(name="self"), *parameters])  # type: ignore[attr-defined]  # heeded by ``inspect``
    return run


def keeps_register(backend: Any) -> bool:
    """Whether a backend, or what an ``AsyncAdapter`` stands over, keeps a register."""
    return isinstance(getattr(backend, "backend", backend), SupportsRegister)


def _without_register(backend: Any, verb: str) -> Callable[..., Any]:
    """The verb of a storage that keeps budgets alone. Raises ``ConfigurationError`` for those that it cannot have."""
    if verb == "set_budget":
        return lambda *budget: backend.set_budget(read_budget(*budget))
    if verb == "remove_budget":
        return lambda scope, window="none": backend.remove_budget(*_key(scope, window))
    kind = type(getattr(backend, "backend", backend)).__name__
    raise ConfigurationError(f"{kind} keeps no register of budgets, so it has no {verb}", key="ledger.url")
