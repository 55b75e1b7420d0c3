"""Short governed calls inside a LangGraph node, with and without the scopes of their run, thread and agent.

``valgrind --tool=callgrind python tests/benchmarks/short_scopes.py 60 scoped``, then 160, then both with ``plain``: a
hundredth of a difference is one call, and the difference of these is the scopes. ``… N both`` times pairs of them in
one process instead, and prints the medians in microseconds.
"""

import gc
import sys
import time
from statistics import median
from typing import TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.context import current_context
from llm_cost_middleware.integrations.langchain import run_scopes  # noqa: F401 - it tells of LangGraph
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import NO_CONTEXT, CallResult
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BODY = {"model": "smart", "messages": [{"role": "user", "content": "x" * 500}]}
USAGE = UsageReport(items=(BilledItem(TokenUsage(uncached_input=120, output=50)),), model="gpt-5-mini", complete=True)
RESULT, BOTH = CallResult(object(), USAGE), frozenset({"anthropic", "openai"})


class State(TypedDict):
    """Nothing."""

    done: bool


def main(count, how):
    """Make so many calls in one run."""
    budgets = [{"scope": "global", "limit": "9000"}, {"scope": "run:*", "limit": "9000"}]
    pipeline = CostPipeline(CostConfig(budgets=budgets))
    times = {"plain": [], "scoped": []}

    def call(kind):
        context = current_context() if kind == "scoped" else NO_CONTEXT
        request = get_provider("openai").read_request(BODY, "chat.completions")._replace(context=context)
        pipeline.run(request, lambda _: RESULT, providers=BOTH)

    def node(_):
        for kind in times:
            call(kind)  # the plans of both are made
        for _ in range(count):
            for kind in times if how == "both" else (how,):
                started = time.perf_counter_ns()
                call(kind)
                times[kind].append(time.perf_counter_ns() - started)
        return {"done": True}

    graph = StateGraph(State).add_node("node", node).add_edge(START, "node").compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}, "metadata": {"lc_agent_name": "a"}}
    gc.collect()
    gc.disable()
    graph.invoke({"done": False}, config)
    if how == "both":
        found = {kind: median(values) / 1000 for kind, values in times.items()}
        extra = median(b - a for a, b in zip(times["plain"], times["scoped"], strict=True)) / 1000
        told = " ".join(f"{kind} {value:.1f}" for kind, value in found.items())
        sys.stdout.write(f"{told} difference of pairs {extra:.1f} ratio {found['scoped'] / found['plain']:.3f}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
