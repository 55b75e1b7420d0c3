"""One branch of a tree of agents, in a process of its own: ``python tree_worker.py URL SIM_URL CONTEXT HOW [SLICE]``.

A sub-agent calls four tools at once; each asks a model, two of them through SDKs. ``HOW`` is ``threads`` or ``tasks``;
with a ``SLICE`` it spends from one, and ``hang`` leaves it in the middle of a call, to be killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import nullcontext

from llm_cost_middleware import BudgetExceededError, CostPipeline, cost_context
from llm_cost_middleware.context import current_context

HAIKU, MINI, CAP = "claude-haiku-4-5-20251001", "gpt-5-mini", 200
ASK = {"messages": [("user", "ask them all")]}


def branch(pipeline, anthropic_url, openai_url, name):
    """A sub-agent with four tools."""
    import openai
    from langchain.agents import create_agent
    from langchain_anthropic import ChatAnthropic
    from langchain_core.tools import tool

    from llm_cost_middleware.integrations.langchain import CostMiddleware, guard
    from llm_cost_middleware.integrations.openai import wrap_openai

    claude = ChatAnthropic(model=HAIKU, api_key="k", base_url=anthropic_url, max_tokens=CAP)
    model, sdk = guard(claude, pipeline), wrap_openai(openai.OpenAI(api_key="k", base_url=openai_url), pipeline)

    def by_sdk(q):
        made = sdk.chat.completions.create(
            model=MINI, max_completion_tokens=CAP, messages=[{"role": "user", "content": q}]
        )
        return str(made.choices[0].message.content)

    def make(number):
        @tool(f"ask_{number}")
        def ask(q: str) -> str:
            """Ask a model."""
            return by_sdk(q) if number % 2 else model.invoke(q).text

        return ask

    middleware = CostMiddleware(pipeline, on_exceeded="end")
    return create_agent(claude, [make(number) for number in range(4)], middleware=[middleware], name=name)


async def _run(agent, how):
    if how == "tasks":
        return await agent.ainvoke(ASK)
    return await asyncio.to_thread(agent.invoke, ASK)


def main(url, sims, context, how, part=""):
    """Run the branch; print how it ended."""
    anthropic_url, openai_url = json.loads(sims)
    pipeline = CostPipeline({"ledger": {"url": url, "hold_ttl_s": 2, "on_expiry": "charge"}})
    with pipeline, cost_context.restore(context):
        if part == "hang":
            with pipeline.slice("0.01", name="killed"):
                pipeline.ledger.reserve("0.002", current_context().scopes, id="in flight")
                print("ready", flush=True)
                time.sleep(60)
        agent = branch(pipeline, anthropic_url, openai_url, "branch")
        for _ in range(3):
            try:
                with pipeline.slice(part, name="branch") if part else nullcontext():
                    answer = asyncio.run(_run(agent, how))
            except BudgetExceededError as refusal:
                print("refused", refusal, flush=True)
                break
            print(answer["messages"][-1].text, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
