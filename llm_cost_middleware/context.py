"""Cost attributes of calls: scopes, tags, call site, a forced model.

Given for a block of code with ``cost_context``, or for one call in the host's own metadata under ``llm_cost``. Both
take the same keys; those of the call win. None of it reaches a provider.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from functools import wraps
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from llm_cost_middleware.budget.model import make_scope, parse_scope
from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.money import ceil_nanousd
from llm_cost_middleware.natural_values import read_patience, read_whole
from llm_cost_middleware.request import NO_CONTEXT, CallContext

METADATA_KEY = "llm_cost"
"""The key of a host's metadata under which a call carries these attributes."""

P = ParamSpec("P")
T = TypeVar("T")
_SCOPED = ("user", "team", "key", "end_user", "run", "thread", "agent")
_KEYS = (*_SCOPED, "tags", "site", "scopes", "force_model", "item_count", "conversation", "max_cost", "patience")
KINDS = frozenset({*_SCOPED, "tag", "site", "slice", "model", "provider"})
"""Kinds of scopes that calls have without a scope of the application's own making."""

_current: ContextVar[CallContext] = ContextVar("llm_cost_context", default=NO_CONTEXT)

_hosts: list[Callable[[CallContext], CallContext]] = []


def add_host(fill_in: Callable[[CallContext], CallContext]) -> None:
    """Let a host fill in what it knows of the running block: its run, its thread, its agent.

    Args:
        fill_in: Returns the context with what the application did not name itself. Called on every call.
    """
    if fill_in not in _hosts:
        _hosts.append(fill_in)


def current_context() -> CallContext:
    """The context of the running block, with what a host knows of it."""
    context = _current.get()
    for fill_in in _hosts:
        context = fill_in(context)
    return context


def export() -> str:
    """The context of the running block as text, for another process: ``cost_context.restore(text)`` takes it up there.

    It names scopes and settings, and holds no secret. The agent that LangGraph names stays here: what runs there has
    agents of its own. One that ``cost_context`` names goes along.
    """
    context, own = current_context(), _current.get().scopes
    kept = tuple(scope for scope in context.scopes if scope in own or not scope.startswith("agent:"))
    context = context._replace(scopes=kept)
    return json.dumps({name: value for name, value in context._asdict().items() if value != getattr(NO_CONTEXT, name)})


def _restored(text: str | Mapping[str, Any]) -> CallContext:
    try:
        read = json.loads(text) if isinstance(text, str) else text
        if not isinstance(read, Mapping):
            raise TypeError(type(read).__name__)  # noqa: TRY301 - one way to say so
        found = dict(read)
        for name in ("scopes", "tags"):
            found[name] = tuple(found.get(name, ()))
        context = CallContext(**found)
        scopes = tuple(map(parse_scope, context.scopes))
        if isinstance(context.patience_s, str):
            raise TypeError("str")  # noqa: TRY301 - as above
        read_patience(context.patience_s, METADATA_KEY)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"is not what export() returned: {error}", key="cost_context.restore") from error
    return context._replace(scopes=scopes)


class cost_context:  # noqa: N801 - reads as the statement it is
    """Attach cost attributes to every call in a block, in this thread or task and those it starts.

    Also ``async with``, and a decorator of plain and of coroutine functions.

    Args:
        **attributes: ``user``, ``team``, ``key``, ``end_user``, ``run``, ``thread``, ``agent`` (each becomes a budget
            scope such as ``user:42``; the last three win over what LangGraph and LangChain say of themselves),
            ``tags`` (a list; each becomes ``tag:NAME``), ``site`` (``site:NAME``), ``scopes`` (further ones, as
            written), ``force_model``, ``item_count``, ``conversation``, ``max_cost`` (US dollars that one call may
            cost at most, its attempts together), ``patience`` (how long an answer may take, such as ``"10m"``, a
            ``timedelta`` or seconds: what can wait goes where it costs less; 0 ends the patience of the block or of
            the site around it).

    Entering the block returns the context, blocks around this one included, and

    Raises:
        UnknownKeyError: A key that does not exist. InvalidScopeError, InvalidAmountError: A value that cannot be used.
    """

    __slots__ = ("_attributes", "_restored", "_tokens")

    def __init__(self, **attributes: Any) -> None:
        self._attributes = attributes
        self._restored: CallContext | None = None
        self._tokens: list[Token[CallContext]] = []  # one object may be entered again, inside itself too

    @classmethod
    def restore(cls, exported: str | Mapping[str, Any]) -> cost_context:
        """A block under the context that ``context.export()`` made text of, here or in another process.

        What is called in it spends from the same run, slices and budgets, where both use one ledger.

        Raises:
            ConfigurationError: It is something else.
        """
        block = cls()
        block._restored = _restored(exported)
        return block

    def __enter__(self) -> CallContext:
        context = self._restored if self._restored is not None else read_context(self._attributes, block=True)
        self._tokens.append(_current.set(context))
        return context

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())

    async def __aenter__(self) -> CallContext:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _again(self) -> cost_context:
        return (
            cost_context(**self._attributes)
            if self._restored is None
            else cost_context.restore(self._restored._asdict())
        )

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Run every call of a function in such a block of its own."""
        if iscoroutinefunction(function):  # the block must last until the coroutine ends, not until it is made

            @wraps(function)
            async def run(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return cast("Callable[P, T]", run)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with self._again():
                return function(*args, **kwargs)

        return call


def read_context(attributes: object, *, block: bool = False) -> CallContext:
    """The context of one call: the running block's, with ``attributes`` (a mapping of the keys above, or ``None``).

    Args:
        attributes: What the call, or the block, says of itself.
        block: It is read for a block, which must not keep what a host says: another run may begin inside.

    Raises:
        ConfigurationError: ``attributes`` is no mapping, or a value cannot be used. ``UnknownKeyError`` for a key
            that does not exist.
    """
    # A copy of the running block: what a call gives wins, and the block stays as it is.
    base = _current.get() if block else current_context()
    if not attributes:
        return base
    if not isinstance(attributes, Mapping):
        raise ConfigurationError(f"must be a mapping, not {attributes!r}", key=METADATA_KEY)
    for name in attributes:
        # Strictly: a misspelt key would leave a call without its budget.
        if name not in _KEYS:
            raise UnknownKeyError(f"{METADATA_KEY}.{name}", _KEYS)
    scopes = [make_scope(kind, name) for kind in _SCOPED if (name := _name(attributes, kind)) is not None]
    tags = _strings(attributes.get("tags"), "tags")
    scopes += [make_scope("tag", tag) for tag in tags]
    site = _name(attributes, "site")
    if site:
        scopes.append(make_scope("site", site))
    scopes += [parse_scope(scope) for scope in _strings(attributes.get("scopes"), "scopes")]
    # A call has one user, one team, one key: the inner one replaces the outer one. Tags add up, and so do slices.
    kinds, new = {scope.partition(":")[0] for scope in scopes} - {"tag", "slice"}, set(scopes)
    kept = tuple(scope for scope in base.scopes if scope.partition(":")[0] not in kinds and scope not in new)
    item_count = attributes.get("item_count", base.item_count)
    item_count = read_whole(item_count, "llm_cost.item_count")
    if item_count < 1:
        raise ConfigurationError(f"must be a positive whole number, not {item_count!r}", key="llm_cost.item_count")
    max_cost, patience = attributes.get("max_cost"), attributes.get("patience")
    forced_model = attributes.get("force_model")
    if forced_model is not None and not isinstance(forced_model, str):
        raise ConfigurationError(f"must be the name of a model, not {forced_model!r}", key="llm_cost.force_model")
    return base._replace(
        scopes=(*kept, *dict.fromkeys(scopes)),
        tags=tuple(dict.fromkeys((*base.tags, *tags))),
        call_site=site or base.call_site,
        forced_model=forced_model or base.forced_model,
        item_count=item_count,
        conversation=_name(attributes, "conversation") or base.conversation,
        max_cost_nanousd=base.max_cost_nanousd if max_cost is None else ceil_nanousd(max_cost, what="max_cost"),
        patience_s=base.patience_s if patience is None else read_patience(patience, f"{METADATA_KEY}.patience") or 0.0,
    )


def _name(attributes: Mapping[str, Any], key: str) -> str | None:
    """A name as text: a string, a number, a ``UUID`` or whatever else is written as one word."""
    value = attributes.get(key)
    # "" is no user, and must not pass for one; the text of a container is no name, and may be of any length
    if isinstance(value, Mapping | list | tuple | set | frozenset | bytes | bool):
        raise ConfigurationError(f"must be a name, not a {type(value).__name__}", key=f"{METADATA_KEY}.{key}")
    return None if value is None else str(value)


def _strings(value: object, key: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ConfigurationError(f"must be a list of strings such as ['a'], not {value!r}", key=f"{METADATA_KEY}.{key}")
    return tuple(str(item) for item in value)
