"""Tools of an agent that call a provider through a client that nobody wrapped: told once for each client and tool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

from llm_cost_middleware.context import current_context
from llm_cost_middleware.events import Ungoverned
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.sdk_clients.unwrapped import reached_by


class PlainClientsOfTools:
    """Looks at the tools that a model is offered. Nothing is run, and no text of a prompt is read."""

    _lock = ForkSafeLock()

    def __init__(self, pipeline: CostPipeline) -> None:
        self._pipeline, self._seen, self._told = pipeline, WeakSet[Any](), set[tuple[str, str]]()

    def look(self, tools: Iterable[Any]) -> None:
        """Tell of what was not told yet, by an ``Ungoverned`` event that names client, tool and run."""
        for tool in tools:
            functions = [found for name in ("func", "coroutine") if callable(found := getattr(tool, name, None))]
            for function in functions:
                with self._lock:
                    try:
                        if function in self._seen:
                            continue
                        self._seen.add(function)
                    except TypeError:  # it cannot be remembered: looked at each time, told once all the same
                        pass
                for client in reached_by(function):
                    self._tell(str(getattr(tool, "name", "")), f"{client.name} ({client.kind})", client.advice)

    def _tell(self, tool: str, client: str, advice: str) -> None:
        with self._lock:
            if (tool, client) in self._told:
                return
            self._told.add((tool, client))
        run = next((scope for scope in current_context().scopes if scope.startswith("run:")), "")
        what = f"{client} in the tool {tool!r}{f' of {run}' if run else ''}"
        self._pipeline.emit(Ungoverned("", self._pipeline.clock.now(), what, advice))
