"""How long a decision takes on real prompts, beside LiteLLM's complexity router in the same run; nothing asserted."""

from __future__ import annotations

import random
from time import perf_counter_ns

import numpy as np
import pytest

from llm_cost_middleware.request import CallRequest, Message, ModelRef, Part
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import Candidate, RoutingContext, decide

pytestmark = [pytest.mark.data, pytest.mark.litellm]

FLEET = [
    Candidate(ModelRef(provider, model), tier, 10**6, 5 * 10**6, 200_000, 64_000, frozenset())
    for tier, models in enumerate(
        (("anthropic/claude-haiku-4-5", "openai/gpt-5-mini"), ("anthropic/claude-sonnet-4-6", "openai/gpt-5.1"))
    )
    for provider, _, model in (name.partition("/") for name in models)
]


def request(text):
    return CallRequest("openai", "gpt-5.1", (Message("user", (Part("text", text),)),))


def timed(call, texts, repeats=3):
    """Microseconds of each text: the best of a few runs, so that the machine's other work does not count."""
    taken = []
    for text in texts:
        best = min(_once(call, text) for _ in range(repeats))
        taken.append(best / 1000)
    return np.array(taken)


def _once(call, text):
    start = perf_counter_ns()
    call(text)
    return perf_counter_ns() - start


def test_a_decision_takes_microseconds(outcomes, litellm_score, show, keep_figures):
    from llm_cost_middleware.routing.learning.fitting import design_of, fit, to_policy

    rng = random.Random(0)
    texts = [
        text
        for name in ("mmlu", "gsm8k", "mmlu-pro", "mix", "math gpt")
        for text in rng.sample(outcomes(name).prompts, 100)
    ]
    found = outcomes("mmlu-pro")
    design = design_of(found.labels(sites=False))
    weak, strong = FLEET[1].target, FLEET[3].target
    learned = to_policy(fit(design, np.arange(len(found))), design, weak, strong, 0.05)
    policies = {
        "threshold": RoutingPolicy(),
        "learned": RoutingPolicy(kind="learned", learned=learned),
    }

    def router(policy):
        def call(text):
            asked = request(text)
            decide(policy, FLEET, asked, read_features(asked), RoutingContext("c", 0.0, rng))

        return call

    calls = {name: router(policy) for name, policy in policies.items()}
    calls["litellm complexity router"] = litellm_score
    long = [("\n".join(rng.sample(found.prompts, 120)))[:40_000] for _ in range(5)]
    assert all(len(text) == 40_000 for text in long)
    kept, table = {}, []
    for name, call in calls.items():
        short, huge = timed(call, texts), timed(call, long)
        kept[name] = {
            "p50_us": float(np.percentile(short, 50)),
            "p95_us": float(np.percentile(short, 95)),
            "chars_40000_us": float(huge.max()),
        }
        at = kept[name]
        table.append((name, f"{at['p50_us']:.0f}", f"{at['p95_us']:.0f}", f"{at['chars_40000_us']:,.0f}"))
    show(
        f"Microseconds a decision, {len(texts)} real prompts, a learned policy of {len(learned.weights):,} n-grams",
        ("router", "p50", "p95", "40,000 characters"),
        table,
    )
    keep_figures("latency", kept)
