"""The service tiers of OpenAI: what they refuse, how long they take, what the answer says, and what is billed."""

import openai
import pytest

from llm_cost_middleware.simulator import TierMarket
from llm_cost_middleware.simulator.catalogue import catalogue
from llm_cost_middleware.simulator.tiers import resource_unavailable


def ask(gpt, user, **more):
    return gpt.chat.completions.create(**{"model": "gpt-5-mini", "messages": user("hello"), **more})


def respond(gpt, **more):
    return gpt.responses.create(**{"model": "gpt-5-mini", "input": "hello", **more})


def test_flex_is_served_at_half_the_price_and_the_answer_says_so(sim, gpt, user):
    costs = {}
    for tier in ("default", "flex"):
        assert ask(gpt, user, service_tier=tier).service_tier == tier
        assert respond(gpt, service_tier=tier).service_tier == tier
        costs[tier] = [line.cost_nanousd for line in sim.bill.lines[-2:]]
    assert costs["default"] == [2 * cost for cost in costs["flex"]]


def test_a_model_that_does_not_sell_flex_refuses_it(sim, gpt, user):
    sold = {name for name, model in catalogue().items() if "flex" in model.rates}
    assert {"gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5.1", "gpt-5.4", "o3", "o4-mini"} <= sold
    assert not sold & {"gpt-4o", "gpt-4o-mini", "gpt-4.1"}
    for model in ("gpt-4o-mini", "gpt-4.1"):
        with pytest.raises(openai.BadRequestError) as refused:
            ask(gpt, user, model=model, service_tier="flex")
        assert refused.value.param == "service_tier"
    assert not sim.bill.lines


def test_without_capacity_flex_answers_429_and_charges_nothing(sim, gpt, user):
    sim.tiers = TierMarket(flex_unavailable=1.0)
    for call in (lambda: ask(gpt, user, service_tier="flex"), lambda: respond(gpt, service_tier="flex", stream=True)):
        with pytest.raises(openai.RateLimitError, match="Resource Unavailable"):
            call()
    assert not sim.bill.lines
    ask(gpt, user)
    ask(gpt, user, service_tier="default")
    assert len(sim.bill.lines) == 2


def test_a_flex_request_that_ends_in_408_is_on_the_bill(sim, gpt, user):
    sim.tiers = TierMarket(flex_timeouts=1.0, timeout_s=0.01)
    with pytest.raises(openai.APIStatusError) as timed_out:
        ask(gpt, user, service_tier="flex")
    assert timed_out.value.status_code == 408
    (line,) = sim.bill.lines
    assert (line.tier, line.outcome) == ("flex", "failed")
    assert line.cost_nanousd > 0


def test_delays_are_told_and_waited_for_at_the_pace(sim, gpt, user):
    sim.tiers = TierMarket(flex_delay_s=60.0, standard_delay_s=4.0, pace=0)
    took = {"flex": [], "default": []}
    for tier, seen in took.items():
        for _ in range(30):
            raw = gpt.chat.completions.with_raw_response.create(
                model="gpt-5-mini", messages=user("hello"), service_tier=tier
            )
            seen.append(int(raw.headers["openai-processing-ms"]) / 1_000)
    middle = {tier: sorted(seen)[15] for tier, seen in took.items()}
    assert 30 < middle["flex"] < 120
    assert 2 < middle["default"] < 8
    assert [request.took_s for request in sim.requests[:30]] == pytest.approx(took["flex"], abs=0.001)


def test_priority_may_be_served_and_billed_at_the_default(sim, gpt, user):
    usual = ask(gpt, user)
    sim.tiers = TierMarket(priority_default=1.0)
    served = ask(gpt, user, service_tier="priority")
    assert (usual.service_tier, served.service_tier) == ("default", "default")
    assert len({line.cost_nanousd for line in sim.bill.lines}) == 1
    sim.tiers = TierMarket()
    assert ask(gpt, user, service_tier="fast").service_tier == "priority"
    assert sim.bill.lines[-1].cost_nanousd > sim.bill.lines[0].cost_nanousd


@pytest.mark.parametrize("asked", [{}, {"service_tier": "auto"}])
def test_a_project_that_is_set_to_a_tier_serves_requests_without_one_at_it(sim, gpt, user, asked):
    sim.tiers = TierMarket(project="priority")
    assert ask(gpt, user, **asked).service_tier == "priority"
    assert ask(gpt, user, service_tier="default").service_tier == "default"
    assert ask(gpt, user, service_tier="flex").service_tier == "flex"


def test_draws_are_the_same_in_every_run(sim, gpt, user):
    told = []
    for _ in range(2):
        sim.reset()
        sim.tiers = TierMarket(flex_unavailable=0.5, seed=3)
        statuses = []
        for _ in range(12):
            try:
                ask(gpt, user, service_tier="flex")
                statuses.append(200)
            except openai.RateLimitError:
                statuses.append(429)
        told.append(statuses)
    assert told[0] == told[1]
    assert set(told[0]) == {200, 429}


def test_the_refusal_says_that_nothing_was_charged():
    assert "not charged" in resource_unavailable().body["error"]["message"]
