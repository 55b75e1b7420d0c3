"""A small fleet of models, and requests in one line."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from llm_cost_middleware.request import CallContext, CallRequest, Message, ModelRef, Part, Tool
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.policy import RoutingPolicy, Tier
from llm_cost_middleware.routing.router import Candidate, RoutingContext, decide

ALL = frozenset({"tools", "images", "documents", "audio", "schema"})
HAIKU = ModelRef("anthropic", "claude-haiku-4-5-20251001")
MINI = ModelRef("openai", "gpt-5-mini")
SONNET = ModelRef("anthropic", "claude-sonnet-4-6")
GPT = ModelRef("openai", "gpt-5.1")
PRICES = {HAIKU: (1, 5), MINI: (0.25, 2), SONNET: (3, 15), GPT: (1.25, 10)}  # USD a million tokens
TIERS = (Tier("small", (HAIKU, MINI)), Tier("large", (SONNET, GPT)))


def candidate(target, tier, **changes):
    price_in, price_out = (int(dollars * 1_000_000) for dollars in PRICES[target])
    return replace(Candidate(target, tier, price_in, price_out, 200_000, 64_000, ALL), **changes)


@pytest.fixture
def fleet():
    return [candidate(target, tier) for tier, (_, models) in enumerate(TIERS) for target in models]


@pytest.fixture
def ask():
    def make(text="Hello", *, system="", tools=(), context=None, provider="anthropic", extra=(), **fields):
        messages = (Message("system", (Part("text", system),)),) if system else ()
        return CallRequest(
            provider,
            fields.pop("model", "claude-sonnet-4-6"),
            (*messages, Message("user", (Part("text", text), *extra))),
            tools=tuple(Tool(name, "{}") for name in tools),
            context=CallContext(**(context or {})),
            **fields,
        )

    return make


@pytest.fixture
def route(fleet):
    def run(request, policy=None, *, candidates=None, seed=0, **facts):
        return decide(
            policy or RoutingPolicy(tiers=("small", "large")),
            fleet if candidates is None else candidates,
            request,
            read_features(request),
            RoutingContext("call-1", 1_793_000_000.0, random.Random(seed), **facts),
        )

    return run


@pytest.fixture
def tiers():
    return TIERS


@pytest.fixture
def models():
    return {"haiku": HAIKU, "mini": MINI, "sonnet": SONNET, "gpt": GPT}


@pytest.fixture
def make_candidate():
    return candidate
