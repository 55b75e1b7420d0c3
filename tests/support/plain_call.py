"""One plain call for tests of the lifecycle, which need no host: what is asked, what is answered, what that costs."""

from __future__ import annotations

from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BOTH = frozenset({"anthropic", "openai"})
COST = 130_000
"""Nano-dollars: 120 tokens at 0.25 and 50 at 2 dollars a million."""


def request():
    return CallRequest(
        "openai", "gpt-5-mini", (Message("user", (Part("text", "hello"),)),), endpoint="chat.completions",
        model_pinned=True,
    )  # fmt: skip


def answer():
    usage = UsageReport(items=(BilledItem(TokenUsage(uncached_input=120, output=50)),), complete=True)
    return CallResult("fine", usage)
