"""What holds of every decision, whatever the request, the fleet and the policy."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallContext, CallRequest, Message, ModelRef, Part, Tool
from llm_cost_middleware.routing.complexity import ngram_hashes
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import Candidate, RoutingContext, decide, downgrade, fallbacks

targets = st.builds(ModelRef, st.sampled_from(["anthropic", "openai"]), st.sampled_from(list("abcdef")))
candidates = st.builds(
    Candidate,
    targets,
    st.integers(0, 3),
    st.integers(0, 10**8),
    st.integers(0, 10**8),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 10**5),
    st.frozensets(st.sampled_from(["tools", "images", "schema"])),
    st.none() | st.just("no key"),
)
fleets = st.lists(candidates, max_size=8, unique_by=lambda c: c.target)
texts = st.text(max_size=60).map(lambda text: text * 9)
requests = st.builds(
    lambda text, tools, cap, items, schema, system: CallRequest(
        "anthropic",
        "m",
        (Message("system", (Part("text", system),)), Message("user", (Part("text", text),))),
        tools=(Tool("t", "{}"),) if tools else (),
        max_tokens=cap,
        output_schema="{}" if schema else "",
        context=CallContext(item_count=items),
    ),
    texts,
    st.booleans(),
    st.none() | st.integers(1, 10**5),
    st.integers(1, 60),
    st.booleans(),
    st.text(max_size=20),
)
policies = st.builds(
    lambda text, floor, height, explore: RoutingPolicy(
        text_threshold=text, floor=floor, ceiling=None if height is None else (floor or 0) + height, explore=explore
    ),
    st.integers(1, 500),
    st.none() | st.integers(0, 3),
    st.none() | st.integers(0, 3),
    st.sampled_from([0.0, 0.3, 1.0]),
)


@settings(max_examples=300)
@given(requests, fleets, policies, st.none() | targets, st.none() | st.integers(0, 10**12), st.data())
def test_a_decision_names_an_eligible_model_or_every_reason(request, fleet, policy, sticky, available, data):
    affinity = data.draw(st.dictionaries(targets, st.integers(0, 10**10), max_size=4))
    facts = {
        "rng": random.Random(data.draw(st.integers(0, 5))),
        "call_id": "c",
        "now": 1.0,
        "affinity": affinity,
        "sticky": sticky,
        "available": None if available is None else NanoUSD(available),
    }
    try:
        decision = decide(policy, fleet, request, read_features(request), RoutingContext(**facts))
    except NoEligibleModelError as error:
        told = error.reasons
    else:
        told = {}
        check(decision, fleet, sticky)
    assert not told or set(told) == {str(candidate.target) for candidate in fleet}
    assert all(told.values())


def check(decision, fleet, sticky):
    eligible = {c.target: c for c in decision.eligible}
    assert decision.target in eligible
    assert decision.tier == eligible[decision.target].tier
    assert {c.target for c in decision.candidates} == {c.target for c in fleet}
    assert 0 < decision.propensity <= 1
    assert RoutingDecision.from_json(decision.to_json()) == decision
    assert decision.explain().startswith(str(decision.target))
    others = fallbacks(decision)
    assert set(others) == set(eligible) - {decision.target}
    assert set(downgrade(decision)) <= set(others)
    assert all(eligible[t].expected_nanousd < decision.expected_nanousd for t in downgrade(decision))
    here, there = eligible.get(sticky, eligible[decision.target]), eligible[decision.target]
    # A switch saves more than the cache that it throws away, but for one to a better tier: that is the policy's to say.
    if here is not there and here.tier >= there.tier:
        assert here.expected_nanousd > there.expected_nanousd
        assert here.expected_nanousd + here.cache_saving_nanousd > there.expected_nanousd + there.cache_saving_nanousd


@given(st.text(max_size=400))
def test_any_text_has_grams_and_they_are_stable(text):
    assert ngram_hashes(text) == ngram_hashes(text)
    assert all(0 <= bucket < 1 << 18 and count > 0 for bucket, count in ngram_hashes(text).items())
