"""Which handler hears the tools of a running agent: the one of the middleware that called its model.

A middleware that wraps tool calls would give every agent a node for tools, those without any included, and switch off
LangChain's check that a tool has a handler. So the handler is found when a tool of the run starts: by the run itself,
or, where a run is resumed in the middle of a turn, by its thread.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers.context import register_configure_hook
from langgraph.runtime import get_runtime

from llm_cost_middleware.fork import ForkSafeLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import ContextVar

    from llm_cost_middleware.integrations.langchain.callback import CostCallbackHandler

_TOOLS = "tools"
"""The node of ``create_agent`` that runs tools."""
_AGENTS = 10_000


class AgentRuns:
    """The handlers of running agents, read by LangChain as a ``ContextVar``. Safe between threads."""

    _lock = ForkSafeLock()

    def __init__(self) -> None:
        self._known: OrderedDict[Any, tuple[Any, CostCallbackHandler]] = OrderedDict()

    def note(self, runtime: Any, handler: CostCallbackHandler) -> None:
        """Let ``handler`` hear the tools of the agent whose model is called with this LangGraph ``Runtime``."""
        with self._lock:
            for key, kept in _keys_of(runtime):
                self._known[key] = kept, handler
                self._known.move_to_end(key)
            while len(self._known) > _AGENTS:
                self._known.popitem(last=False)

    def get(self) -> CostCallbackHandler | None:
        """The handler for what starts now; ``None`` outside of the tools of an agent that is governed."""
        config = var_child_runnable_config.get()
        if config is None or (config.get("metadata") or {}).get("langgraph_node") != _TOOLS:
            return None
        with self._lock:
            for key, kept in _keys_of(get_runtime()):
                known = self._known.get(key)
                if known is not None and known[0] is kept:
                    return known[1]
        return None


def _keys_of(runtime: Any) -> Iterator[tuple[Any, Any]]:
    """What names a run, and an object that is kept so that its id is not used again."""
    control, info = getattr(runtime, "control", None), getattr(runtime, "execution_info", None)
    if control is not None:
        yield id(control), control
    if info is not None and info.thread_id is not None:  # and where in the thread the agent stands
        yield (str(info.thread_id), str(info.checkpoint_ns).rpartition("|")[0]), None


agent_runs = AgentRuns()
# once, at import: LangChain keeps every hook for good
register_configure_hook(cast("ContextVar[Any]", agent_runs), inheritable=True)
