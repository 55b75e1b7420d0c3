"""Names that come to mean another model, or one that no list shows: what is called is what is held and booked."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import litellm
import pytest

from llm_cost_middleware.errors import BudgetExceededError, UnsupportedRequestError
from llm_cost_middleware.money import ceil_nanousd
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Count to forty."}]
HAIKU, SONNET, MINI = "anthropic/claude-haiku-4-5-20251001", "anthropic/claude-sonnet-4-6", "openai/gpt-5-mini"
NO_MONEY = {"budgets": [{"scope": "global", "limit": "0.000000001"}]}


def deployments(harness):
    return [harness.deployment("haiku", HAIKU), harness.deployment("sonnet", SONNET)]


def by_hand(router):
    router.model_group_alias = {"ali": "sonnet"}


def by_settings(router):
    router.update_settings(model_group_alias={"ali": "sonnet"})


@pytest.mark.parametrize("set_alias", [by_hand, by_settings])
def test_an_alias_that_is_set_after_a_miss_is_held(make_harness, set_alias):
    harness = make_harness(**NO_MONEY)
    router = harness.router(deployments(harness))
    with pytest.raises(litellm.BadRequestError):
        router.completion("ali", ASK, max_tokens=9)
    set_alias(router)
    with pytest.raises(BudgetExceededError):
        router.completion("ali", ASK, max_tokens=9)
    assert harness.sim.request_count == 0


@pytest.mark.parametrize("name", ["ali", "haiku"])
def test_an_alias_that_leads_elsewhere_is_booked_at_the_model_it_leads_to(harness, name):
    router = harness.router(deployments(harness), model_group_alias={"ali": "haiku"})
    assert router.completion(name, ASK, max_tokens=9).model == HAIKU.partition("/")[2]
    router.model_group_alias = {name: "sonnet"}
    assert router.completion(name, ASK, max_tokens=9).model == SONNET.partition("/")[2]
    harness.agree()


def test_a_deployment_that_is_edited_in_place_is_held_at_its_new_model(make_harness):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.025"}])
    router = harness.router(deployments(harness))
    router.completion("haiku", ASK, max_tokens=9)
    router.model_list[0]["litellm_params"]["model"] = SONNET
    router.completion("haiku", ASK, max_tokens=4_000)
    assert harness.sim.requests[-1].body["max_tokens"] < 25_000_000 / 15_000  # lowered to what the budget has of it
    assert harness.settled <= 25_000_000
    harness.agree()


def test_a_price_that_is_edited_in_place_is_the_one_that_is_booked(harness):
    router = harness.router([harness.deployment("own", MINI, input_cost_per_token=1e-6, output_cost_per_token=3e-6)])
    router.completion("own", ASK, max_tokens=9)
    before = harness.settled
    router.model_list[0]["litellm_params"].update(input_cost_per_token=2e-6, output_cost_per_token=6e-6)
    router.completion("own", ASK, max_tokens=9)
    assert harness.settled - before == 2 * before > 0


def test_a_deployment_that_is_appended_in_place_is_held_or_unknown_to_litellm(make_harness):
    harness = make_harness(**NO_MONEY)
    router = harness.router(deployments(harness))
    router.model_list.append(harness.deployment("new", MINI))
    with pytest.raises(BudgetExceededError):
        router.completion("new", ASK, max_tokens=9)
    assert harness.sim.request_count == 0


def test_a_deployment_that_is_called_by_its_id_is_held(harness):
    router = harness.router(deployments(harness))
    identity = router.model_list[1]["model_info"]["id"]
    assert router.completion(identity, ASK, max_tokens=9).model == SONNET.partition("/")[2]
    harness.agree()


def test_what_a_default_deployment_serves_under_any_name_is_held(make_harness):
    harness = make_harness(**NO_MONEY, on_ungoverned="deny")
    router = harness.router(deployments(harness))
    router.default_deployment = router.model_list[0]
    with pytest.raises(BudgetExceededError):
        router.completion(MINI, ASK, max_tokens=9)
    with pytest.raises(UnsupportedRequestError, match="'together_ai/x'"):
        router.completion("together_ai/x", ASK, max_tokens=9)
    router.default_deployment = None
    with pytest.raises(litellm.BadRequestError):
        router.completion(MINI, ASK, max_tokens=9)
    assert harness.sim.request_count == 0


@pytest.mark.parametrize("caller", ["sync", "async"])
def test_another_platform_is_booked_at_the_price_that_litellm_names(harness, caller, caplog):
    params = {"model": "together_ai/x", "api_base": harness.sim.openai_url, "api_key": "k"}
    own = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    router = harness.router([{"model_name": "other", "litellm_params": {**params, **own}}])
    said = {"llm_cost": {"user": "9"}}
    if caller == "sync":
        answer = router.completion("other", ASK, max_tokens=9, metadata=said, mock_response="Twelve.")
    else:
        answer = asyncio.run(router.acompletion("other", ASK, max_tokens=9, metadata=said, mock_response="Twelve."))
    (record,) = harness.pipeline.records()
    named = Decimal(repr(answer._hidden_params["response_cost"]))
    assert record.cost_nanousd == ceil_nanousd(named) > 0
    assert (record.status, record.scopes) == ("estimated", ("user:9",))
    assert "'other' is not governed" in caplog.text


def shadowed(harness):
    return [harness.deployment("watched", HAIKU, silent_model="sonnet"), harness.deployment("sonnet", SONNET)]


def test_shadow_traffic_is_reported_and_not_sent(harness, caplog):
    router = harness.router(shadowed(harness))
    router.completion("watched", ASK, max_tokens=9)
    list(router.completion("watched", ASK, max_tokens=9, stream=True))
    router.completion("sonnet", ASK, max_tokens=9, silent_model="watched")

    async def call():
        await router.acompletion("watched", ASK, max_tokens=9)
        await asyncio.sleep(0.5)

    asyncio.run(call())
    time.sleep(0.5)  # a thread of LiteLLM's would have asked by then
    assert harness.sim.request_count == 4
    assert "the silent_model of model group 'watched' is not governed" in caplog.text
    harness.agree()


def test_shadow_traffic_is_refused_where_configured_and_never_routed_to(make_harness):
    harness = make_harness(on_ungoverned="deny")
    router = harness.router(shadowed(harness))
    with pytest.raises(UnsupportedRequestError, match="silent_model"):
        router.completion("watched", ASK, max_tokens=9)
    assert router.completion("smart", ASK, max_tokens=9).model == SONNET.partition("/")[2]
    harness.agree()


@pytest.mark.parametrize("caller", ["sync", "async"])
def test_a_claude_call_that_fails_before_it_leaves_costs_nothing(harness, caller):
    router = harness.router(deployments(harness))
    with pytest.raises(Exception, match="str"):
        if caller == "sync":
            router.completion("haiku", "hello")
        else:
            asyncio.run(router.acompletion("haiku", "hello"))
    assert harness.sim.request_count == harness.settled == 0


@pytest.mark.parametrize("caller", ["sync", "async"])
@pytest.mark.parametrize("output", [5, [5], [{"type": "message", "content": 5}]])
def test_an_unreadable_answer_that_is_not_shown_is_not_taken_for_a_call_that_never_left(make_harness, caller, output):
    """LiteLLM translates a chat to the responses API here, and shows nothing of it."""
    harness = make_harness(retry={"max_attempts": 1})
    router = harness.router([harness.deployment("mini", "openai/responses/gpt-5-mini")])
    harness.sim.script(Fault.status(200, body={"id": "r", "created_at": 1, "model": "gpt-5-mini", "output": output}))
    with pytest.raises(Exception, match=r"."):
        if caller == "sync":
            router.completion("mini", ASK, max_tokens=20)
        else:
            asyncio.run(router.acompletion("mini", ASK, max_tokens=20))
    assert harness.sim.request_count == 1
    (reserved,) = (row.amount_nanousd for row in harness.pipeline.ledger.rows() if row.kind == "reserve")
    assert harness.settled == reserved > 0
    assert harness.statuses == ["unconfirmed"]
