from __future__ import annotations

import random

import pytest

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.routing.decision_log import LoggedCall, Outcome, Settlement
from llm_cost_middleware.routing.learning.replay import replay
from llm_cost_middleware.routing.policy import RoutingPolicy

QUALITY = {0: 0.6, 1: 0.9}


@pytest.fixture
def log(route, ask):
    """Two sites, half the calls explored; every call cost twice what was expected of it."""
    rng, entries = random.Random(0), []
    policy = RoutingPolicy(explore=0.5, tiers=("small", "large"))
    for number in range(2_000):
        request = ask("x" * rng.choice((500, 20_000)), context={"call_site": rng.choice("ab")})
        decision = route(request, policy, seed=number)._replace(call_id=str(number))
        score = float(rng.random() < QUALITY[decision.tier])
        paid = NanoUSD(2 * decision.expected_nanousd)
        entries.append(
            LoggedCall(
                decision,
                (Outcome(str(number), "feedback", score, 0.0),),
                Settlement(str(number), decision.target, paid, 1, 0.0),
            )
        )
    return entries


def test_always_strong_costs_more_and_is_as_good_as_the_strong_model(log):
    *sites, total = replay(log, RoutingPolicy(floor=1, tiers=("small", "large")))
    assert {row.site for row in sites} == {"a", "b"}
    assert total.calls == 2_000
    assert total.moved == sum(entry.decision.tier == 0 for entry in log)
    assert total.after_nanousd.value > total.paid_nanousd
    assert total.quality_after.low < QUALITY[1] < total.quality_after.high
    assert total.unsupported == 0


def test_costs_of_moved_calls_follow_how_the_site_turned_out(log):
    cheap = replay(log, RoutingPolicy(ceiling=0, tiers=("small", "large")))[-1]
    expected = sum(2 * c.expected_nanousd for e in log for c in e.decision.candidates if c.target.model == "gpt-5-mini")
    assert cheap.after_nanousd.value == pytest.approx(expected)
    assert cheap.quality_after.low < QUALITY[0] < cheap.quality_after.high


def test_the_policy_that_was_logged_replays_to_the_bill_that_was_paid(route, ask):
    policy = RoutingPolicy(tiers=("small", "large"))
    entries = [LoggedCall(route(ask("x" * size), policy)._replace(call_id=str(size))) for size in (5, 50_000)]
    total = replay(entries, policy)[-1]
    assert (total.moved, total.after_nanousd.value) == (0, pytest.approx(total.paid_nanousd))
    assert total.quality_after is None


def test_forced_calls_stay_where_they_were(route, ask):
    forced = LoggedCall(route(ask("x", context={"forced_model": "claude-x"})))
    assert replay([forced], RoutingPolicy(floor=1))[-1].moved == 0


def test_quality_that_was_not_measured_is_reported_as_an_estimate(route, ask):
    decision = route(ask("x", context={"call_site": "a"}))
    entries = [
        LoggedCall(decision._replace(call_id=str(n)), (Outcome(str(n), "feedback", 1.0, 0.0),)) for n in range(10)
    ]
    assert replay(entries, RoutingPolicy(floor=1))[-1].unsupported == 1.0


def test_a_rule_on_what_the_log_does_not_keep_is_refused(log, tiers):
    policy = RoutingPolicy.from_mapping(
        {"policy": "rules", "rules": [{"tier": "large", "when": {"tag": "vip"}}]}, tiers
    )
    with pytest.raises(ConfigurationError, match="does not keep tag"):
        replay(log, policy)


def test_an_empty_log_is_an_empty_bill():
    (total,) = replay([], RoutingPolicy())
    assert (total.calls, total.paid_nanousd, total.after_nanousd.value) == (0, 0.0, 0.0)


def test_a_call_that_was_refused_or_never_ended_is_none(log):
    policy = RoutingPolicy(tiers=("small", "large"))
    refused = [LoggedCall(entry.decision._replace(call_id=f"r{at}")) for at, entry in enumerate(log[:50])]
    assert replay([*log, *refused], policy) == replay(log, policy)
    graded = LoggedCall(refused[0].decision, (Outcome("r0", "feedback", 0.5, 0.0),))
    assert replay([*log, graded], policy)[-1].calls == 2_001
    assert replay(iter([*log, *refused]), policy)[-1].calls == 2_000
