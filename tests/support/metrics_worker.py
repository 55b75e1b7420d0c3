"""A process that calls a loopback provider and serves its metrics; run by tests of several processes.

Arguments: ledger, address of the provider, first port, team, how many calls, ``fork`` where a child is to do the calls.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import openai

from llm_cost_middleware import BudgetExceededError, CostPipeline, cost_context
from llm_cost_middleware.integrations.openai import wrap_openai


def main(ledger, provider, port, team, calls, how=""):
    config = {
        "ledger": {"url": ledger, "durability": "normal"}, "output": {"on_insufficient": ["raise"]},
        "metrics": {"prometheus_port": int(port), "prometheus_ports": 40},
        "budgets": [{"scope": "team:*", "limit": "1", "window": "month"}],
    }  # fmt: skip
    with CostPipeline(config) as pipeline:
        (endpoint,) = pipeline._listeners.metrics
        if how == "fork":
            with cost_context(team="parent"):
                ask(pipeline, provider, 1)
            parent, child = endpoint.port, os.fork()
            if child:
                os.waitpid(child, 0)
                return
            assert endpoint.port != parent
        with cost_context(team=team):
            ask(pipeline, provider, int(calls))
            pipeline.ledger.book("0.85", [f"team:{team}"])  # by hand, past the pipeline: in the gauges alone
            with suppress(BudgetExceededError):
                ask(pipeline, provider, 1, cap=100_000)
        print(endpoint.port, flush=True)
        sys.stdin.readline()


def ask(pipeline, provider, calls, cap=50):
    with openai.OpenAI(base_url=provider, api_key="k") as client:
        wrapped = wrap_openai(client, pipeline)
        for _ in range(calls):
            wrapped.chat.completions.create(
                model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}], max_completion_tokens=cap
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
