"""Governed layers around one another on the same ledger: one call is held and booked once.

A client that is wrapped already is taken apart again (``unwrapped``). Where a listener holds money for a run and a
governed client answers inside it, the client, which can refuse and retry, takes the call over (``enclosing_run``). A
host that sends through a governed client is told by the place it calls from (``join_leaving``): the client steps back
where the host's own hold covers the call, and else books it in the place of whoever would book the host's report.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import FrameType
from typing import Any, NamedTuple

from llm_cost_middleware.lifecycle.external import ExternalCall
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.usage import NOT_SENT

_MARK = "_llm_cost_wrapped"


class WrappedClient(NamedTuple):
    """What stands behind a governed client of an SDK."""

    pipeline: CostPipeline
    client: Any
    """The plain client."""
    retries_chosen: bool
    """Its number of retries was given to ``with_options``."""


def mark_wrapped(governed: Any, behind: WrappedClient) -> None:
    """Remember what stands behind a governed client."""
    vars(governed)[_MARK] = behind


def wrapped_client(client: Any, pipeline: CostPipeline) -> WrappedClient | None:
    """What stands behind a client that books into the ledger of ``pipeline``; ``None`` for every other."""
    found = getattr(client, "__dict__", {}).get(_MARK)
    return found if isinstance(found, WrappedClient) and same_ledger(found.pipeline, pipeline) else None


def is_wrapped(client: Any) -> bool:
    """Whether it is a governed client, of any pipeline."""
    return isinstance(getattr(client, "__dict__", {}).get(_MARK), WrappedClient)


def unwrapped_ids(objects: Iterable[Any]) -> set[int]:
    """The ids of the plain clients that stand behind the governed ones among these objects."""
    return {id(one.client) for one in objects if isinstance(one, WrappedClient)}


def unwrapped(client: Any, pipeline: CostPipeline) -> Any:
    """The plain client behind one that books into the ledger of ``pipeline``; any other as it is."""
    found = wrapped_client(client, pipeline)
    return client if found is None else found.client


def same_ledger(one: CostPipeline, other: CostPipeline) -> bool:
    """Whether two pipelines book into one ledger, so that a call through both would count twice against a budget."""
    if one is other:
        return True
    mine, theirs = one.ledger, other.ledger
    if mine.backend is theirs.backend:
        return True
    # "memory://" is a ledger of its own each time; another URL is one ledger for each tenant
    shared = bool(mine.url) and mine.url == theirs.url and bool(mine.url.partition("://")[2])
    return shared and one.config.ledger.tenant == other.config.ledger.tenant


class MeteredRun:
    """A run of a host that a listener holds money for, until the first part of its answer is there.

    Args:
        pipeline: The listener's.
        held: The money.
    """

    __slots__ = ("_held", "_pipeline", "call_ids", "waiting")

    def __init__(self, pipeline: CostPipeline, held: ExternalCall) -> None:
        self._pipeline, self._held = pipeline, [held]
        self.waiting = True
        """Its answer has not begun: a call that is made now is this run's."""
        self.call_ids: set[str] = set()
        """The governed calls that it consists of."""

    def take(self) -> ExternalCall | None:
        """The money, to be resolved by the caller: only the first gets it."""
        try:
            return self._held.pop()  # atomic
        except IndexError:
            return None

    def give_back(self) -> None:
        """A governed client makes this call: it holds the money itself."""
        if (held := self.take()) is not None:
            held.settle(NOT_SENT)

    def is_about(self, pipeline: CostPipeline, model: str) -> bool:
        """Whether a call of ``model`` that is made now through ``pipeline`` is this run's."""
        mine = self._held[0].attempt.target.model if self._held else model
        # a run may name the family of the dated model that is called
        named = model.startswith(mine) or mine.startswith(model)
        return self.waiting and named and same_ledger(self._pipeline, pipeline)


_enclosing: ContextVar[MeteredRun | None] = ContextVar("llm_cost_metered_run", default=None)


def enclose(run: MeteredRun) -> None:
    """Let the calls that this context makes from here on find ``run``, as long as it waits."""
    _enclosing.set(run)


def enclosing_run(pipeline: CostPipeline, model: str) -> MeteredRun | None:
    """The run that a call of ``model`` through ``pipeline`` is made for, where a listener holds money for it."""
    run = _enclosing.get()
    return run if run is not None and run.is_about(pipeline, model) else None


class LeavingCall:
    """A request that a host is about to hand over to be sent, and the ledgers that account for it.

    Args:
        host: The host's package.
        call_id: The host's own id of the call.
    """

    __slots__ = ("_holders", "_reported", "call_id", "host")

    def __init__(self, host: str, call_id: str) -> None:
        self.host, self.call_id = host, call_id
        self._holders: list[CostPipeline] = []
        self._reported: list[tuple[CostPipeline, Callable[[], None]]] = []

    def held_by(self, pipeline: CostPipeline) -> None:
        """Note that ``pipeline`` has set its money aside."""
        self._holders.append(pipeline)

    def reported_to(self, pipeline: CostPipeline, step_back: Callable[[], None]) -> None:
        """Note that ``pipeline`` would book the host's report of it, unless it is told to ``step_back``."""
        self._reported.append((pipeline, step_back))

    def join(self, pipeline: CostPipeline) -> bool:
        """See ``join_leaving``."""
        if any(same_ledger(holder, pipeline) for holder in self._holders):
            return True
        for listener, step_back in self._reported:
            if same_ledger(listener, pipeline):
                step_back()
        return False


_leaving: ContextVar[LeavingCall | None] = ContextVar("llm_cost_leaving_call", default=None)
_BETWEEN = frozenset({__name__.partition(".")[0], "functools", "contextlib", *NAMES})
"""Packages that are passed through on the way to the SDK, which is called as its provider."""


def leaving_call(host: str, call_id: str) -> LeavingCall:
    """The request that ``host`` announces to its listeners, in this context, before it sends it; the same for each."""
    found = _leaving.get()
    if found is None or (found.host, found.call_id) != (host, call_id):
        found = LeavingCall(host, call_id)
        _leaving.set(found)
    return found


def join_leaving(pipeline: CostPipeline) -> bool:
    """Make a call of a governed client part of the host's that it is made for.

    Returns:
        Whether the money is held already on the ledger of ``pipeline``: then the client only sends. Otherwise it books
        the call, and nobody books the host's report of it.
    """
    found = _leaving.get()
    return found is not None and _is_called_by(found.host) and found.join(pipeline)


def _is_called_by(host: str) -> bool:
    """Whether what called the SDK is the host's own code; what its callbacks call is a call of their own."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - the only way to ask who calls
    while frame is not None:
        root = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if root not in _BETWEEN:
            return root == host
        frame = frame.f_back
    return False
