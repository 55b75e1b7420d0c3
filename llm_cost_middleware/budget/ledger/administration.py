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

from llm_cost_middleware.budget.backend import Snapshot, SupportsRegister, storage_of
from llm_cost_middleware.budget.ledger.arguments import Moment
from llm_cost_middleware.budget.model import Budget, WindowLike, parse_scope, parse_scopes, parse_window, read_budget
from llm_cost_middleware.budget.rules import Amended, BudgetLife, BudgetRegister, Decision, Pause
from llm_cost_middleware.budget.rules.names import Normalise
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import USD, floor_nanousd
from llm_cost_middleware.natural_values import read_seconds
from llm_cost_middleware.periods import coming_day, read_moment
from llm_cost_middleware.typed_fields import read_choice

End = Moment | timedelta | None
P = ParamSpec("P")
T = TypeVar("T")


def set_budget(register: BudgetRegister, budget: Budget | Mapping[str, Any] | str, *fields: Any) -> tuple[Budget, ...]:
    """Set the budget of a scope and window, by hand. What the window already holds counts; a raise ends.

    Names in scopes are written as the services of this ledger write them (``[attribution] normalise``), which may be in
    more than one way; returned is what was set.

    Args:
        register: The register of budgets.
        budget: A ``Budget``, a mapping of its fields, or its scope.
        *fields: The other fields, after a scope.
    """
    found = register.written(read_budget(budget, *fields))
    for written in found:
        register.set(written)
    return found


def remove_budget(register: BudgetRegister, scope: str, window: WindowLike = "none") -> bool:
    """Remove a budget, by hand; return whether there was one."""
    return any([register.remove(key) for key in _keys(register, scope, window)])  # noqa: C419 - every one


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
        scope: The budget's own, a template if it is one; its name is written as the services of this ledger write it.
        limit: US dollars, above the limit that stands.
        window: The budget's own.
        until: A ``datetime``, a ``date``, text such as ``2026-12-01``, ``tomorrow`` or ``monday`` (in UTC), seconds
            since the epoch; or how long: ``"2h"``, a ``timedelta``. Then the limit is what it was, unless something was
            decided since. ``None``: for good.

    Raises:
        ConfigurationError: There is no such budget, the limit is no higher, or the time has passed.
    """
    keys, amount, end = _keys(register, scope, window), floor_nanousd(limit), _end(until, register)
    standing = {life.budget.key for life in register.lives() if life.state == "active"}
    return [register.raise_(key, amount, end) for key in [key for key in keys if key in standing] or keys[-1:]][-1]


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


def learn_names(register: BudgetRegister, who: str, rules: Mapping[str, Normalise]) -> None:
    """Note how a service writes names in scopes, so that decisions by hand are written so; a pipeline does it.

    Args:
        register: The register of budgets.
        who: Tells the service from others; the same again replaces what was noted.
        rules: ``none``, ``unicode`` or ``case`` by kind of scope.
    """
    if not isinstance(rules, Mapping):
        raise ConfigurationError(f"must be a table such as {{'team': 'case'}}, not {rules!r}", key="rules")
    read = {
        parse_scope(f"{kind}:*", template=True)[:-2]: read_choice(Normalise, how, kind) for kind, how in rules.items()
    }
    register.learn_names(str(who), read)


def budget_lives(register: BudgetRegister) -> tuple[BudgetLife, ...]:
    """Return every budget that there is or was: where it comes from, since when, and what it is raised to."""
    return register.lives()


def budget_history(register: BudgetRegister) -> tuple[Decision, ...]:
    """Return the last 500 decisions about budgets and pauses, oldest first."""
    return register.history()


def pause(register: BudgetRegister, scope: str, *, until: End = None, reason: str = "") -> tuple[Pause, ...]:
    """Refuse the calls of a scope, or of each scope of a kind (``team:*``), in every process, until it is resumed.

    Its calls and holds raise ``ScopePausedError``; calls that are under way end as they would. Names are written as for
    ``set_budget``; returned is what is paused.

    Args:
        register: The register of budgets.
        scope: ``global`` stops everything.
        until: As for ``raise_budget``; ``None``: until ``resume``.
        reason: Why, in at most 500 characters, on one line. It stands in the error; no secrets.

    Raises:
        ConfigurationError: The time has passed, or the storage cannot pause.
    """
    end, found, why = _end(until, register), register.spellings(parse_scope(scope, template=True)), _reason(reason)
    for written in found:
        register.pause(written, end, why)
    return tuple(pause for pause in register.pauses() if pause.scope in found)


def resume(register: BudgetRegister, scope: str) -> bool:
    """End a pause, named as it was paused; return whether there was one."""
    return any([register.resume(written) for written in _written(register, scope)])  # noqa: C419 - every one


def pauses(register: BudgetRegister) -> tuple[Pause, ...]:
    """Return what is paused now."""
    return register.pauses()


_LONGEST_REASON = 500


def _reason(reason: object) -> str:
    """Return a reason as it may stand in a log and on a screen: one line, without control characters."""
    if reason is not None and not isinstance(reason, str):
        raise ConfigurationError(f"must be text, not {reason!r}", key="reason")
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in reason or "").split())
    if len(text) > _LONGEST_REASON:
        raise ConfigurationError(f"is longer than {_LONGEST_REASON} characters: every error shows it", key="reason")
    return text


_YEAR_10000 = 253_402_300_800


def _end(until: End, register: BudgetRegister) -> int | None:
    """Return the end of a raise or a pause, ms since the Unix epoch. A length of time lies ahead."""
    length = None
    if isinstance(until, str):
        day = coming_day(until, now=register.now / 1000, zone=UTC)
        until = until if day is None else day
    if isinstance(until, str | timedelta):
        with suppress(ConfigurationError):  # then it is a moment
            length = read_seconds(until, "until")
    if length is not None:
        return _ms(register.now / 1000 + length, "until")
    try:
        return _moment(until, "until")
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; or '2h', '1d', 'tomorrow', 'monday'") from None


def _moment(when: Moment | None, what: str) -> int | None:
    return None if when is None else _ms(read_moment(when, what, zone=UTC, relative=False), what)


def _ms(seconds: float, what: str) -> int:
    if not 0 <= seconds < _YEAR_10000:  # no date can be made of it
        raise ConfigurationError("must be a date, or seconds, from 1970 to the year 10000", key=what)
    return round(seconds * 1000)


def _written(register: BudgetRegister, scope: str) -> tuple[str, ...]:
    """Return a scope as it is given, which is how it was decided before a rule was known, and by every rule."""
    return tuple(dict.fromkeys((parse_scope(scope, template=True), *register.spellings(scope))))


def _keys(register: BudgetRegister, scope: str, window: WindowLike) -> list[tuple[str, str]]:
    return [(written, parse_window(window)) for written in _written(register, scope)]


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


def check_paused(self: _Facade, scopes: Iterable[str] = ()) -> None:
    """Check that a call of these scopes may be made, where nothing is reserved for it.

    Raises:
        ScopePausedError: One of them is paused.
    """
    _refuse_paused(self.backend.read(()), scopes)


async def acheck_paused(self: _Facade, scopes: Iterable[str] = ()) -> None:
    """See ``Ledger.check_paused``."""
    _refuse_paused(await self.backend.read(()), scopes)


def _refuse_paused(snapshot: Snapshot, scopes: Iterable[str]) -> None:
    found = snapshot.budget_index.overlay.pause(parse_scopes(scopes), snapshot.now)
    if found is not None:
        scope, pause = found
        raise pause.error(scope)


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
    return isinstance(storage_of(backend), SupportsRegister)


def _set_in(backend: Any, budget: Budget) -> Any:
    """Set a budget; return it as ``set_budget`` does, awaited where the backend is asynchronous."""
    done = backend.set_budget(budget)
    if done is None:
        return (budget,)

    async def later() -> tuple[Budget, ...]:
        await done
        return (budget,)

    return later()


def _without_register(backend: Any, verb: str) -> Callable[..., Any]:
    """The verb of a storage that keeps budgets alone. Raises ``ConfigurationError`` for those that it cannot have."""
    if verb == "set_budget":
        return lambda *budget: _set_in(backend, read_budget(*budget))
    if verb == "remove_budget":
        return lambda scope, window="none": backend.remove_budget(
            parse_scope(scope, template=True), parse_window(window)
        )
    kind = type(storage_of(backend)).__name__
    raise ConfigurationError(f"{kind} keeps no register of budgets, so it has no {verb}", key="ledger.url")
