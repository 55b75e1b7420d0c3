"""Run, thread and agent of a call, from LangGraph's runtime and LangChain's config: ``run:``, ``thread:``, ``agent:``.

A run is one invocation of a graph, with everything that it starts: LangGraph gives all of it one ``RunControl``. A
resume is another invocation, and keeps the run of its thread: what a graph is invoked with tells the two apart, and
``CostMiddleware`` keeps the run in the checkpoint for a process that resumes what another began.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook

from llm_cost_middleware.budget.model import make_scope
from llm_cost_middleware.context import METADATA_KEY, add_host
from llm_cost_middleware.errors import InvalidScopeError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.request import EMPTY, CallContext

if TYPE_CHECKING:
    from contextvars import ContextVar
    from uuid import UUID

_KEPT = 10_000
_IN_GRAPH = "langgraph_step"
"""In the metadata of everything that runs inside a graph."""


class Runs:
    """The runs of graphs in this process. Safe between threads."""

    _lock = ForkSafeLock()

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[Any, str]] = OrderedDict()
        self._of_thread: OrderedDict[str, str] = OrderedDict()
        self._resumes: OrderedDict[str, bool] = OrderedDict()
        self._guessed: OrderedDict[int, Any] = OrderedDict()
        """Controls of runs that were begun in another process, as long as nobody has said by which name."""

    def starts(self, thread: str, *, resumes: bool) -> None:
        """A graph is invoked in a thread: anew, or to go on."""
        with self._lock:
            _put(self._resumes, thread, resumes)

    def of(self, runtime: Any) -> str | None:
        """The run that a LangGraph ``Runtime`` belongs to."""
        control = getattr(runtime, "control", None)
        if control is None:
            return None
        known = self._known.get(id(control))
        if known is not None and known[0] is control:
            with suppress(KeyError):  # just forgotten
                self._known.move_to_end(id(control))
            return known[1]
        info = runtime.execution_info
        thread = getattr(info, "thread_id", None)
        with self._lock:
            known = self._known.get(id(control))  # branches of one run may come at the same moment
            if known is not None and known[0] is control:
                return known[1]
            resumes = thread is not None and self._resumes.pop(str(thread), False)
            run = self._of_thread.get(str(thread)) if resumes else None
            if run is None:
                run = str(getattr(info, "run_id", None) or uuid4().hex)
                if resumes:
                    _put(self._guessed, id(control), control)
            self._bind(control, thread, run)
        return run

    def adopt(self, runtime: Any, run: str) -> None:
        """Take the run that a checkpoint names, where a graph goes on with what another process began."""
        if self.of(runtime) is not None and self._guessed.pop(id(runtime.control), None) is runtime.control:
            with self._lock:
                self._bind(runtime.control, getattr(runtime.execution_info, "thread_id", None), run)

    def _bind(self, control: Any, thread: Any, run: str) -> None:
        _put(self._known, id(control), (control, run))
        if thread is not None:
            _put(self._of_thread, str(thread), run)


def _put(table: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    table.move_to_end(key)
    if len(table) > _KEPT:
        table.popitem(last=False)


runs = Runs()


class _Invocations(BaseCallbackHandler):
    """Hears what graphs are invoked with: a ``Command`` or nothing goes on with what was interrupted."""

    run_inline = True
    ignore_llm = ignore_chat_model = ignore_retriever = ignore_retry = ignore_agent = ignore_custom_event = True

    def on_chain_start(
        self,
        serialized: Mapping[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        metadata: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        del serialized, run_id, kwargs
        thread = (metadata or {}).get("thread_id")
        if thread is not None:
            runs.starts(str(thread), resumes=inputs is None or type(inputs).__name__ == "Command")


class _OutsideOfGraphs:
    """What LangChain reads as the ``ContextVar`` of a handler: there is one where nothing of a graph runs yet."""

    def __init__(self) -> None:
        self._handler = _Invocations()

    def get(self) -> BaseCallbackHandler | None:
        config = var_child_runnable_config.get()
        return self._handler if config is None or _IN_GRAPH not in (config.get("metadata") or ()) else None


# once, at import: LangChain keeps every hook for good
register_configure_hook(cast("ContextVar[Any]", _OutsideOfGraphs()), inheritable=False)


@lru_cache(maxsize=4096)
def named_scope(kind: str, name: str) -> str | None:
    """A scope by a name of the host's, which may be of any length; ``None`` for an empty one."""
    if not name:
        return None
    try:
        return make_scope(kind, name)
    except InvalidScopeError:
        return make_scope(kind, blake2b(name.encode(errors="replace"), digest_size=16).hexdigest())


@lru_cache(maxsize=4096)
def _with(scopes: tuple[str, ...], run: str | None, thread: str | None, agent: str | None) -> tuple[str, ...]:
    """Scopes with those that a host names, where the application named none of the kind."""
    kinds = {scope.partition(":")[0] for scope in scopes}
    named = (("run", run), ("thread", thread), ("agent", agent))
    found = (named_scope(kind, name) for kind, name in named if name is not None and kind not in kinds)
    return (*(scope for scope in found if scope is not None), *scopes)


def with_metadata(context: CallContext, metadata: Mapping[str, Any], run: str | None = None) -> CallContext:
    """The context of a call with the thread and the agent that LangChain's metadata names."""
    thread, agent = metadata.get("thread_id"), metadata.get("lc_agent_name")
    given = metadata.get(METADATA_KEY)
    if isinstance(given, Mapping):  # the application's own names, for everything that the invocation starts
        run, thread, agent = given.get("run", run), given.get("thread", thread), given.get("agent", agent)
    if run is None and thread is None and agent is None:
        return context
    scopes = _with(context.scopes, *(None if name is None else str(name) for name in (run, thread, agent)))
    return context if scopes is context.scopes or scopes == context.scopes else context._replace(scopes=scopes)


def _fill_in(context: CallContext) -> CallContext:
    config = var_child_runnable_config.get()
    if config is None:
        return context
    metadata: Mapping[str, Any] = config.get("metadata") or EMPTY
    if _IN_GRAPH in metadata:
        return with_metadata(context, metadata, runs.of(_runtime()()))
    thread = (config.get("configurable") or EMPTY).get("thread_id")  # LangChain alone does not write it on
    return with_metadata(context, metadata if thread is None else {"thread_id": thread, **metadata})


@lru_cache(maxsize=1)
def _runtime() -> Callable[[], Any]:
    from langgraph.runtime import get_runtime  # inside a graph, so it is there; without one it need not be

    return get_runtime


add_host(_fill_in)
