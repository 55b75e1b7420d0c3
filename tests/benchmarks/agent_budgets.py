"""What an agent's budget counts and when it stops: eleven scenarios, with the requests that left.

``python tests/benchmarks/agent_budgets.py [--out FILE]``. Every agent is of ``create_agent`` with
``CostMiddleware(on_exceeded="end")`` under one ``run:*`` budget; the provider is on loopback, strict, and bills: every
answer is as long as its cap. A line is marked ``!`` where the bill is above the budget, where ledger and bill differ
although every outcome is known, where money stays pending, or where a call of a tool has no result.
"""

# ruff: noqa: E402 - run by its path: where it imports from is said first

from __future__ import annotations

import argparse
import os
import sys
from decimal import Decimal
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [folder for folder in (str(HERE.parents[1]),) if folder not in sys.path]
for variable in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
    os.environ.setdefault(variable, "k")

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool

from llm_cost_middleware import Budget, CostConfig, CostPipeline
from llm_cost_middleware.integrations.langchain import CostMiddleware, guard
from llm_cost_middleware.simulator import Answer, Fault, Simulator, ToolCall

HAIKU, CAP = "claude-haiku-4-5-20251001", 400
ASK = {"messages": [("user", "look it up, and do not stop before you know")]}


class Stage:
    """A provider, a pipeline with one budget for every run, and models of it."""

    def __init__(self, sim, limit, **config):
        self.sim, self.limit = sim, limit
        providers = {"anthropic": {"base_url": sim.anthropic_url, "timeout_s": config.pop("timeout_s", 30.0)}}
        budgets = [{"scope": "run:*", "limit": limit}]
        self.pipeline = CostPipeline(
            CostConfig(providers=providers, budgets=budgets, routing={"policy": "off"}, **config)
        )
        sim.responder = self.answer

    @staticmethod
    def answer(request):
        if not request.tools:
            return Answer(text="words", output_tokens=min(CAP, request.max_tokens or CAP))
        calls = tuple(ToolCall(one.name, {"q": "x"}) for one in request.tools)
        return Answer(tool_calls=calls, output_tokens=min(CAP, request.max_tokens or CAP))

    def claude(self):
        return ChatAnthropic(model=HAIKU, api_key="k", base_url=self.sim.anthropic_url, max_tokens=CAP)

    def model(self):
        return guard(self.claude(), self.pipeline)

    def agent(self, tools, **more):
        middleware = CostMiddleware(self.pipeline, on_exceeded="end")
        return create_agent(self.claude(), tools, middleware=[middleware], **more)

    def delegate(self, inner, name="delegate"):
        @tool(name)
        def ask(q: str) -> str:
            """Let another agent do it."""
            return inner.invoke({"messages": [("user", q)]})["messages"][-1].text

        return ask


@tool
def look(q: str) -> str:
    """Look something up."""
    return f"{q} found"


def is_call(exchange):
    """Whether a request is for an answer, not for a count."""
    return not exchange.path.endswith("count_tokens")


def simple_loop(stage):
    return stage.agent([look]).invoke(ASK)


def delegation(stage):
    return stage.agent([stage.delegate(stage.agent([look], name="inner"))], name="outer").invoke(ASK)


def parallel_tools(stage):
    model = stage.model()

    def make(number):
        @tool(f"ask_{number}")
        def ask(q: str) -> str:
            """Ask a model."""
            return model.invoke(q).text

        return ask

    return stage.agent([make(number) for number in range(4)]).invoke(ASK)


def errors_and_retries(stage):
    for status in (529, 500, 529):
        stage.sim.script(Fault.status(status), match=is_call)
    return stage.agent([look]).invoke(ASK)


def streaming(stage):
    last = None
    for mode, seen in stage.agent([look]).stream(ASK, stream_mode=["messages", "values"]):
        last = seen if mode == "values" else last
    return last


def large_tool_output(stage):
    @tool
    def read(q: str) -> str:
        """Read a large file."""
        return f"{q} and more of it, line by line\n" * 1_500

    return stage.agent([read]).invoke(ASK)


def repeated_system_prompt(stage):
    return stage.agent([look], system_prompt="You know every rule of the house by heart. " * 600).invoke(ASK)


def three_levels(stage):
    inner = stage.agent([look], name="third")
    middle = stage.agent([stage.delegate(inner, "ask_third")], name="second")
    return stage.agent([stage.delegate(middle, "ask_second")], name="first").invoke(ASK)


def timeout(stage):
    stage.sim.script(Fault.hang(), match=is_call)
    return stage.agent([look]).invoke(ASK)


def changed_limit(stage):
    @tool
    def lower(q: str) -> str:
        """Look something up, while somebody lowers the limit."""
        stage.pipeline.ledger.set_budget(Budget("run:*", "0.009"))
        return q

    return stage.agent([lower]).invoke(ASK)


SCENARIOS = (
    ("simple loop", simple_loop, "0.02", {}),
    ("exhaustion: no money for the first call", simple_loop, "0.0001", {}),
    ("delegation", delegation, "0.02", {}),
    ("parallel tools that call models", parallel_tools, "0.02", {}),
    ("errors and retries", errors_and_retries, "0.02", {"retry": {"max_attempts": 4, "quota": False}}),
    ("streaming", streaming, "0.02", {}),
    ("large tool output", large_tool_output, "0.03", {}),
    ("repeated system prompt", repeated_system_prompt, "0.05", {}),
    ("three-level delegation", three_levels, "0.02", {}),
    ("timeout, then retried", timeout, "0.02", {"timeout_s": 1.0, "retry": {"max_attempts": 2, "quota": False}}),
    ("limit lowered to $0.009 in mid-run", changed_limit, "0.02", {}),
)


def line(name, scenario, limit, config):
    """Run one scenario."""
    with Simulator() as sim:
        stage = Stage(sim, limit, **config)
        with stage.pipeline:
            answer = scenario(stage)
            messages = answer["messages"]
            ledger = stage.pipeline.ledger
            runs = {scope for row in ledger.rows() for scope in row.scopes if scope.startswith("run:")}
            booked = sum((ledger.balance(scope).settled for scope in runs), Decimal(0))
            pending = sum((ledger.balance(scope).pending for scope in runs), Decimal(0))
            exact = {record.status for record in stage.pipeline.records()} <= {"exact"}
        bill = Decimal(sim.bill.total_nanousd).scaleb(-9)
        called = [call["id"] for one in messages if isinstance(one, AIMessage) for call in one.tool_calls]
        answered = [one.tool_call_id for one in messages if isinstance(one, ToolMessage)]
        stamp = messages[-1].response_metadata.get("llm_cost", {})
        fault = (
            bill > Decimal(limit)
            or pending
            or sorted(called) != sorted(answered)
            or (exact and bill != booked)
            or stamp.get("ended") != "budget"
        )
        left = len(list(filter(is_call, sim.requests)))
        told = f"${Decimal(stamp.get('missing', 0)):.6f} short"
        mark = "!" if fault else " "
        return f"{mark}{name:42} {limit:>7} {left:>5} {bill:>10.6f} {booked:>10.6f} {len(called):>6}  {told}"


def main():
    """Write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    head = f" {'scenario':42} {'budget':>7} {'left':>5} {'bill':>10} {'booked':>10} {'tools':>6}  at the end"
    lines = [head, *(line(*one) for one in SCENARIOS)]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return int(any(one.startswith("!") for one in lines))


if __name__ == "__main__":
    sys.exit(main())
