"""A deployment's own price belongs to that deployment: nobody else on the pipeline is booked at it."""

from __future__ import annotations

import asyncio
import copy

import openai
import pytest

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = [{"role": "user", "content": "Count to forty."}]
MINI = "openai/gpt-5-mini"
DEAR = {"input_cost_per_token": 1e-4, "output_cost_per_token": 3e-4}
CHEAP = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}


def cost_of(usage, prices):
    per_token = {name: round(price * 1e9) for name, price in prices.items()}
    asked = usage.prompt_tokens * per_token["input_cost_per_token"]
    return asked + usage.completion_tokens * per_token["output_cost_per_token"]


def booked_by(harness, call):
    """The answer of one call, what it was booked at, and what the provider lists it at."""
    before, bill = harness.settled, harness.sim.bill.total_nanousd
    answer = call()
    return answer, harness.settled - before, harness.sim.bill.total_nanousd - bill


def test_two_routers_and_a_plain_client_on_one_pipeline_each_keep_their_own_price(harness):
    dear = harness.router([harness.deployment("m", MINI, **DEAR)])
    cheap = harness.router([harness.deployment("m", MINI, **CHEAP)])
    listed = harness.router([harness.deployment("m", MINI)])
    client = wrap_openai(openai.OpenAI(base_url=harness.sim.openai_url, api_key="k"), pipeline=harness.pipeline)
    for name in ("m", "smart", MINI):
        for router, prices in ((dear, DEAR), (cheap, CHEAP), (dear, DEAR), (listed, None)):
            answer, booked, bill = booked_by(harness, lambda: router.completion(name, ASK, max_tokens=9))  # noqa: B023
            assert booked == (bill if prices is None else cost_of(answer.usage, prices)), (name, prices)
    _, booked, bill = booked_by(
        harness, lambda: client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=9)
    )
    assert booked == bill > 0
    with client:
        _, booked, bill = booked_by(harness, lambda: list(cheap.completion("m", ASK, max_tokens=9, stream=True)))
    assert booked != bill


def test_a_price_that_is_taken_away_is_gone(harness):
    router = harness.router([harness.deployment("m", MINI, **DEAR)])
    answer, booked, _ = booked_by(harness, lambda: router.completion("m", ASK, max_tokens=9))
    assert booked == cost_of(answer.usage, DEAR)
    for name in DEAR:  # LiteLLM keeps it twice
        del router.model_list[0]["litellm_params"][name], router.model_list[0]["model_info"][name]
    for name in ("m", "smart"):
        _, booked, bill = booked_by(harness, lambda: router.completion(name, ASK, max_tokens=9))  # noqa: B023
        assert booked == bill > 0


def test_of_two_prices_in_one_group_the_dearer_is_held(make_harness):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.001"}])
    router = harness.router([harness.deployment("m", MINI, **DEAR), harness.deployment("m", MINI, **CHEAP)])
    with pytest.raises(BudgetExceededError):
        router.completion("m", ASK, max_tokens=300)
    assert harness.sim.request_count == 0


def test_the_dearest_of_a_group_is_found_anew_when_prices_change(make_harness):
    """As a watched file or a reload changes them."""
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.01"}])
    nano = "openai/gpt-5-nano"
    router = harness.router([harness.deployment("m", MINI), harness.deployment("m", nano)])
    router.completion("m", ASK, max_tokens=9)
    harness.pipeline.reload(harness.pipeline.config.__class__(
        ledger=harness.pipeline.config.ledger, budgets=harness.pipeline.config.budgets,
        prices={nano: {"input_mtok": "1000", "output_mtok": "4000"}},
    ))  # fmt: skip
    sent = harness.sim.request_count
    with pytest.raises(BudgetExceededError):
        router.completion("m", ASK, max_tokens=9)
    assert harness.sim.request_count == sent


def test_a_budget_of_a_model_counts_its_deployments_at_prices_of_their_own(make_harness):
    harness = make_harness(budgets=[{"scope": "model:gpt-5-mini", "limit": "1"}])
    router = harness.router([harness.deployment("m", MINI, **DEAR), harness.deployment("listed", MINI)])
    answer = router.completion("m", ASK, max_tokens=9)
    assert harness.pipeline.ledger.balance("model:gpt-5-mini").settled_nanousd == cost_of(answer.usage, DEAR)


def test_a_copy_of_a_router_keeps_its_prices(harness):
    router = copy.copy(harness.router([harness.deployment("m", MINI, **DEAR)]))
    answer, booked, _ = booked_by(harness, lambda: router.completion("m", ASK, max_tokens=9))
    assert booked == cost_of(answer.usage, DEAR)


def test_a_model_that_is_priced_by_its_deployment_alone_is_governed(harness):
    router = harness.router([harness.deployment("mine", "openai/gpt-5-mini", **CHEAP)])
    answer, booked, _ = booked_by(harness, lambda: router.completion("mine", ASK, max_tokens=9))
    assert booked == cost_of(answer.usage, CHEAP)


def answer_of(router, way, name):
    """One call at one of LiteLLM's doors: the id of the deployment that answered, as LiteLLM tells it."""
    if way == "completion":
        return router.completion(name, ASK, max_tokens=9)._hidden_params["model_id"]
    if way == "stream":
        stream = router.completion(name, ASK, max_tokens=9, stream=True)
        list(stream)
        return stream._hidden_params["model_id"]
    if way == "acompletion":
        return asyncio.run(router.acompletion(name, ASK, max_tokens=9))._hidden_params["model_id"]
    if way == "responses":
        return router.responses(model=name, input="Count.", max_output_tokens=16)._hidden_params["model_id"]
    answer = asyncio.run(router.anthropic_messages(model=name, messages=ASK, max_tokens=9))
    if "model_id" not in answer.get("_hidden_params", {}):
        pytest.skip("this LiteLLM tells of messages not which deployment answered")  # 1.102
    return answer["_hidden_params"]["model_id"]


@pytest.mark.parametrize(
    ("way", "other"),
    [("completion", CHEAP), ("stream", {}), ("acompletion", CHEAP), ("responses", {}), ("messages", CHEAP)],
)
def test_of_two_prices_in_one_group_the_one_that_answered_is_booked(way, other, harness):
    router = harness.router([
        {**harness.deployment("m", MINI, **DEAR), "model_info": {"id": "dear"}},
        {**harness.deployment("m", MINI, **other), "model_info": {"id": "other"}},
    ])  # fmt: skip
    seen = set()
    for _ in range(40):
        before, bill = harness.settled, harness.sim.bill.total_nanousd
        seen.add(deployment := answer_of(router, way, "m"))
        (record,) = harness.pipeline.records()[-1:]
        usage, booked = record.usage, harness.settled - before
        if deployment == "other" and not other:
            assert booked == harness.sim.bill.total_nanousd - bill
        else:
            per_token = {name: round(price * 1e9) for name, price in (DEAR if deployment == "dear" else other).items()}
            expected = usage.uncached_input * per_token["input_cost_per_token"]
            assert booked == expected + usage.output * per_token["output_cost_per_token"]
        if len(seen) == 2:
            break
    assert seen == {"dear", "other"}
    assert set(harness.statuses) == {"exact"}


def test_of_a_group_of_two_models_each_deployment_keeps_its_price(harness):
    router = harness.router([
        {**harness.deployment("m", "anthropic/claude-haiku-4-5-20251001", **DEAR), "model_info": {"id": "dear"}},
        {**harness.deployment("m", MINI, **CHEAP), "model_info": {"id": "cheap"}},
        {**harness.deployment("m", MINI), "model_info": {"id": "listed"}},
    ])  # fmt: skip
    prices, seen = {"dear": DEAR, "cheap": CHEAP}, set()
    for _ in range(60):
        answer, booked, bill = booked_by(harness, lambda: router.completion("m", ASK, max_tokens=9))
        seen.add(deployment := answer._hidden_params["model_id"])
        assert booked == (bill if deployment == "listed" else cost_of(answer.usage, prices[deployment]))
        if len(seen) == 3:
            break
    assert seen == {"dear", "cheap", "listed"}
