"""The path of one call through the package, counted: Python calls, files, hops between files, values that are built.

``python tests/benchmarks/call_path.py`` prints them for one warm ``guard(ChatAnthropic).invoke`` that is routed to the
other provider on a memory ledger. They are counts, not timings: the same on every machine. ``--trace`` also prints the
path itself, and ``PYTHONPATH`` decides whose code is counted.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import llm_cost_middleware

PACKAGE = str(Path(llm_cost_middleware.__file__).parent) + "/"
WARM = 5  # calls before the one that is counted: targets, tables and caches are then filled


class CallPath(NamedTuple):
    """What was counted."""

    calls: int
    """Frames of the package that were entered; a generator counts each time it is resumed."""
    functions: int
    files: int
    hops: int
    """Calls from one file of the package to another."""
    values: int
    """Kinds of values of the package that were built."""


class Recorder:
    """A profiler function for ``sys.setprofile``."""

    def __init__(self) -> None:
        self.trail: list[tuple[str, str]] = []
        self.hops = 0
        self.values: Counter[str] = Counter()

    def __call__(self, frame: Any, event: str, _: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename == "<string>":  # what NamedTuple and dataclass generate
            self._built(frame.f_locals.get("_cls") or type(frame.f_locals.get("self")))
            return
        if not code.co_filename.startswith(PACKAGE):
            return
        if code.co_name == "__init__":
            self._built(type(frame.f_locals["self"]))
        self.trail.append((code.co_filename.removeprefix(PACKAGE), code.co_qualname))
        outer = frame.f_back
        while outer is not None and not outer.f_code.co_filename.startswith(PACKAGE):
            outer = outer.f_back
        self.hops += outer is not None and outer.f_code.co_filename != code.co_filename

    def _built(self, kind: type) -> None:
        if kind.__module__.startswith("llm_cost_middleware") or kind.__module__ == "types":
            self.values[kind.__name__] += 1

    def counted(self) -> CallPath:
        """The counts."""
        trail = self.trail
        return CallPath(len(trail), len(set(trail)), len({file for file, _ in trail}), self.hops, len(self.values))


def record(function: Any) -> Recorder:
    """Run ``function`` with every call in this thread recorded."""
    recorder = Recorder()
    sys.setprofile(recorder)
    try:
        function()
    finally:
        sys.setprofile(None)
    return recorder


def record_invoke() -> Recorder:
    """One warm ``guard(ChatAnthropic).invoke``, routed to OpenAI, over a memory ledger and a loopback provider."""
    from langchain_anthropic import ChatAnthropic

    from llm_cost_middleware import CostConfig
    from llm_cost_middleware.config.sections import DEFAULT_TIERS
    from llm_cost_middleware.integrations.langchain import guard
    from llm_cost_middleware.simulator import Simulator

    os.environ |= {"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}
    with Simulator() as simulator:
        urls = {"anthropic": simulator.anthropic_url, "openai": simulator.openai_url}
        config = CostConfig(
            budgets=[{"scope": "global", "limit": "9000"}],
            providers={name: {"base_url": url} for name, url in urls.items()},
            tiers=list(DEFAULT_TIERS),  # of its own, so that the call is routed
        )
        model: Any = ChatAnthropic(model="claude-haiku-4-5-20251001", api_key="k", base_url=urls["anthropic"])
        guarded = guard(model, config)
        for _ in range(WARM):
            guarded.invoke("What is the capital of France?")
        return record(lambda: guarded.invoke("What is the capital of France?"))


if __name__ == "__main__":
    recorded = record_invoke()
    for name, count in recorded.counted()._asdict().items():
        print(f"{name:10} {count:5}")
    if "--trace" in sys.argv:
        for file, name in recorded.trail:
            print(f"{file:45} {name}")
        print(sorted(recorded.values.items()))
