"""Requests, prices and a replayed conversation for the tests of cache planning."""

from __future__ import annotations

import pytest

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.plan import CachePolicy, CachePrices
from llm_cost_middleware.prompt_cache.planner import plan
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, Message, ModelRef, Part, Tool
from llm_cost_middleware.usage import TokenUsage

SONNET = ModelRef("anthropic", "claude-sonnet-4-6")
SONNET_PRICES = CachePrices(300_000, {"5m": 3_750_000, "1h": 6_000_000}, 3_000_000)


@pytest.fixture
def sonnet():
    return SONNET


@pytest.fixture
def prices():
    return SONNET_PRICES


@pytest.fixture
def conversation():
    """``conversation(turns, …)``: a request with so many turns of the caller, the last one unanswered."""

    def make(
        turns=1, *, system="S" * 8_000, text=2_000, tools=0, results=False, salt="", provider="anthropic", **kwargs
    ):
        messages = [Message("system", (Part("text", system),))] if system else []
        for turn in range(turns):
            if turn and results:
                messages.append(Message("user", (Part("tool_result", f"{salt}r{turn}" + "r" * text),)))
            else:
                messages.append(Message("user", (Part("text", f"{salt}q{turn}" + "q" * text),)))
            if turn + 1 < turns:
                messages.append(Message("assistant", (Part("text", f"{salt}a{turn}" + "a" * text),)))
        defined = tuple(Tool(f"t{at}", f"{{{'d' * 600}{at}}}") for at in range(tools))
        return CallRequest(provider, "model", tuple(messages), defined, **kwargs)

    return make


class Player:
    """Plays requests through the planner as a provider whose every mark is cached would answer them."""

    def __init__(self, target=SONNET, prices=SONNET_PRICES, **policy):
        self.target, self.prices, self.policy = target, prices, CachePolicy(**policy)
        self.statistics = PrefixStatistics()
        self.now = 1_000.0

    def plan(self, request):
        ability = get_provider(self.target.provider).cache_capabilities(self.target.model)
        layout = read_layout(request)
        made = plan(layout, ability, self.prices, self.statistics, self.policy, now=self.now, target=self.target)
        return layout, made

    def call(self, request, *, after=0.0):
        """Send ``request`` ``after`` seconds; its answer takes two. Returns its plan."""
        self.now += after
        layout, made = self.plan(request)
        self.statistics.begin(layout, made, now=self.now)
        ends = {each.ref: each.tokens for each in layout.boundaries}
        deepest = max((ends[mark.position] for mark in made.marks), default=made.warm)
        if made.marks_end:  # the provider's own breakpoint
            deepest = layout.boundaries[-1].tokens
        written = {
            "cache_write_1h" if any(m.ttl == "1h" for m in made.marks) else "cache_write_5m": deepest - made.warm
        }
        usage = TokenUsage(uncached_input=layout.tokens - deepest, cache_read=made.warm, **written)
        self.now += 2.0
        self.statistics.observe(layout, self.target, made, usage, now=self.now)
        return made


@pytest.fixture
def player():
    return Player
