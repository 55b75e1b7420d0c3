"""One model at home, at Bedrock and at Vertex through a ``CostAwareRouter``: arms of one tier, groups of all three."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError
from llm_cost_middleware.simulator import Fault

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "Hello there, how are you?"}]
BARE, AT_VERTEX = "claude-haiku-4-5-20251001", "claude-haiku-4-5@20251001"
AT_BEDROCK = "us-gov.anthropic.claude-haiku-4-5-20251001-v1:0"
HOME, VERTEX, BEDROCK = f"anthropic/{BARE}", f"vertex_ai/europe-west1/{AT_VERTEX}", f"bedrock/{AT_BEDROCK}"
DOWN = {
    "anthropic": (Fault.overloaded(), Fault.status(500), Fault.status(429)),
    "vertex_ai": (Fault.google("RESOURCE_EXHAUSTED"), Fault.google("UNAVAILABLE"), Fault.google("INTERNAL")),
    "bedrock": (Fault.aws("ThrottlingException"), Fault.aws("ServiceUnavailableException"),
                Fault.aws("ModelErrorException")),
}  # fmt: skip
"""What another house may help with."""
WRONG = {
    "anthropic": Fault.status(400), "vertex_ai": Fault.google("INVALID_ARGUMENT"),
    "bedrock": Fault.aws("ValidationException"),
}  # fmt: skip
TIERS = [{"name": "only", "models": [BEDROCK, VERTEX, HOME]}]  # the dearest first: a fifth and a tenth above the list


def house_of(exchange):
    return {"": "anthropic", "vertex": "vertex_ai"}.get(exchange.served_by, exchange.served_by)


@pytest.fixture
def make_router(make_harness, bedrock, vertex):
    """A router with a group of each house, and its harness."""

    def make(*, together=False, **config):
        config.setdefault("retry", {"max_attempts": 3, "retry_on": [], "breaker": False})  # once in each house
        harness = make_harness(tiers=TIERS, **config)
        names = ("all", "all", "all") if together else ("home", "vertex", "bedrock")
        return harness, harness.router([
            harness.deployment(names[0], HOME), vertex(names[1], "europe-west1", AT_VERTEX),
            bedrock(names[2], AT_BEDROCK, aws_region_name="us-gov-west-1"),
        ])  # fmt: skip

    return make


def break_house(sim, house, fault):
    sim.script(fault, times=20, match=lambda exchange: house_of(exchange) == house)


def asked(sim):
    return [house_of(exchange) for exchange in sim.requests]


@pytest.mark.parametrize("number", range(3))
def test_the_cheapest_house_is_asked_first_and_the_next_when_it_fails(make_router, sim, number):
    harness, router = make_router()
    router.completion("smart", ASK, max_tokens=100)
    break_house(sim, "anthropic", DOWN["anthropic"][number])
    router.completion("smart", ASK, max_tokens=100)
    break_house(sim, "vertex_ai", DOWN["vertex_ai"][number])
    for _ in router.completion("smart", ASK, max_tokens=100, stream=True):
        pass
    asyncio.run(router.acompletion("smart", ASK, max_tokens=100))
    order = ["anthropic", "vertex_ai", "bedrock"]
    assert asked(sim) == [*order[:1], *order[:2], *order, *order]
    assert [line.geo for line in sim.bill.lines] == ["", "regional", "govcloud", "govcloud"]
    assert [record.provider for record in harness.pipeline.records()] == [*order, "bedrock"]
    harness.agree()
    break_house(sim, "bedrock", DOWN["bedrock"][number])
    with pytest.raises(Exception):  # noqa: B017 - LiteLLM's own, of the last house
        router.completion("smart", ASK, max_tokens=100)
    assert asked(sim)[-3:] == order
    harness.agree()


@pytest.mark.parametrize("house", list(WRONG))
def test_what_no_house_helps_is_sent_once(make_router, sim, house):
    regions = {"vertex_ai": ["eu"], "bedrock": ["us-gov"]}.get(house, [])
    harness, router = make_router(routing={"regions": regions})
    break_house(sim, house, WRONG[house])
    with pytest.raises(Exception):  # noqa: B017 - LiteLLM's own
        router.completion("smart", ASK, max_tokens=100)
    assert asked(sim) == [house]
    harness.agree()


@pytest.mark.parametrize(
    ("regions", "house", "outside"),
    [(["eu"], "vertex_ai", "bedrock"), (["us-gov"], "bedrock", "vertex"), (["global"], "anthropic", "bedrock"),
     (["europe-west1", "us-gov-west-1"], "vertex_ai", "home")],
)  # fmt: skip
def test_the_rule_of_regions_holds_for_routes_fallbacks_and_groups(make_router, sim, regions, house, outside):
    harness, router = make_router(routing={"regions": regions})
    router.completion("smart", ASK, max_tokens=100)
    assert asked(sim) == [house]
    with pytest.raises(NoEligibleModelError, match="is not served in"):
        router.completion(outside, ASK, max_tokens=100)
    break_house(sim, house, DOWN[house][0])
    with pytest.raises(Exception):  # noqa: B017 - LiteLLM's own: no other house may help
        router.completion("smart", ASK, max_tokens=100)
    assert set(asked(sim)) == {house}
    harness.agree()


def test_the_budget_of_a_house_is_of_its_calls_alone(make_router, sim):
    scopes = ("provider:anthropic", "provider:vertex_ai", "provider:bedrock")
    budgets = [{"scope": scope, "limit": "0.0012"} for scope in scopes]  # of two calls each
    harness, router = make_router(budgets=[*budgets, {"scope": "global", "limit": "9"}])
    for name, scope in zip(("home", "vertex", "bedrock"), scopes, strict=True):
        with pytest.raises(BudgetExceededError, match=scope):
            for _ in range(9):
                router.completion(name, ASK, max_tokens=100)
        assert 0 < harness.pipeline.ledger.balance(scope).settled_nanousd <= 1_200_000
    assert sorted(set(asked(sim))) == ["anthropic", "bedrock", "vertex_ai"]
    harness.agree()


def test_a_call_never_falls_over_to_a_house_whose_budget_is_spent(make_router, sim):
    spent = [{"scope": "provider:vertex_ai", "limit": "0.0000001"}, {"scope": "global", "limit": "9"}]
    harness, router = make_router(budgets=spent)
    break_house(sim, "anthropic", DOWN["anthropic"][0])
    with pytest.raises(BudgetExceededError, match="provider:vertex_ai"):
        router.completion("smart", ASK, max_tokens=100)
    assert asked(sim) == ["anthropic"]
    harness.agree()


@pytest.mark.parametrize("stream", [False, True])
def test_a_group_of_all_three_is_booked_as_whoever_answered(make_router, sim, stream):
    harness, router = make_router(together=True)
    for _ in range(15):
        answer = router.completion("all", ASK, max_tokens=100, stream=stream)
        if stream:
            for _ in answer:
                pass
    assert set(asked(sim)) == {"anthropic", "vertex_ai", "bedrock"}
    assert [record.provider for record in harness.pipeline.records()] == asked(sim)
    assert {record.model for record in harness.pipeline.records()} <= {
        BARE, AT_BEDROCK, f"europe-west1/{AT_VERTEX}",
    }  # fmt: skip
    harness.agree()


def test_a_group_of_all_three_is_held_at_the_dearest_and_judged_by_each(make_router, sim):
    harness, router = make_router(together=True)
    router.completion("all", ASK, max_tokens=100)
    (record,) = harness.pipeline.records()
    probe, alone = make_router()
    alone.completion("bedrock", ASK, max_tokens=100)
    assert record.reserved_nanousd == probe.pipeline.records()[0].reserved_nanousd
    _, ruled = make_router(together=True, routing={"regions": ["us-gov"]})  # LiteLLM might choose another house
    before = sim.request_count
    with pytest.raises(NoEligibleModelError):
        ruled.completion("all", ASK, max_tokens=100)
    assert sim.request_count == before


def test_responses_and_messages_fail_over_too(make_router, sim):
    harness, router = make_router()
    break_house(sim, "anthropic", DOWN["anthropic"][0])

    async def run():
        await router.aresponses(input="Hello there", model="smart", max_output_tokens=100)
        await router.aanthropic_messages(model="smart", messages=ASK, max_tokens=100)
        async for _ in await router.aanthropic_messages(model="smart", messages=ASK, max_tokens=100, stream=True):
            pass

    asyncio.run(run())
    assert asked(sim) == ["anthropic", "vertex_ai"] * 3
    harness.agree()


def test_gpt_at_openai_and_at_azure_are_arms_of_one_tier(make_harness, azure, sim):
    home, there = "openai/gpt-5-mini", "azure/eu/gpt-5-mini"
    harness = make_harness(
        tiers=[{"name": "only", "models": [there, home]}],
        platforms={"azure": {"deployments": {"eu--gpt-5-mini": "eu/gpt-5-mini"}}},
        retry={"max_attempts": 2, "retry_on": [], "breaker": False},
    )
    router = harness.router([harness.deployment("home", home), azure("there", "eu--gpt-5-mini")])
    router.completion("smart", ASK, max_tokens=100)
    sim.script(Fault.overloaded(), match=lambda exchange: not exchange.served_by)
    router.completion("smart", ASK, max_tokens=100)
    assert asked(sim) == ["anthropic", "anthropic", "azure"]  # "anthropic": at home
    assert [record.provider for record in harness.pipeline.records()] == ["openai", "azure"]
    harness.agree()
