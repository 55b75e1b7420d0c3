"""The money of retries and fallbacks: each attempt has a reservation of its own, at the price of its own group."""

from __future__ import annotations

import asyncio
import copy
import pickle
from decimal import Decimal

import pytest

from llm_cost_middleware.errors import BudgetExceededError, CircuitOpenError
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.simulator import Answer, Fault, fill

ASK = [{"role": "user", "content": "Count to forty."}]
MINI, LARGE, HAIKU = "openai/gpt-5-mini", "openai/gpt-5.1", "anthropic/claude-haiku-4-5-20251001"
TO_LARGE = [{"mini": ["large"]}]


def deployments(harness):
    return [harness.deployment(name, model) for name, model in (("mini", MINI), ("large", LARGE), ("haiku", HAIKU))]


def bare(model):
    return model.partition("/")[2]


def of(model):
    return lambda request: request.body["model"] == bare(model)


def reserved(harness):
    """The model and the amount of each reservation, in order."""
    rows = [row for row in harness.pipeline.ledger.rows() if row.kind == "reserve"]
    return [
        (next(m for m in (MINI, LARGE, HAIKU) if f"model:{bare(m)}" in row.scopes), row.amount_nanousd) for row in rows
    ]


def ask(router, model="mini", **said):
    return router.completion(model, ASK, max_tokens=40, **said)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_fallback_is_held_and_booked_at_the_price_of_its_own_group(asynchronous, harness, sim):
    router = harness.router(deployments(harness), fallbacks=TO_LARGE, num_retries=1)
    sim.script(Fault.status(500), times=9, match=of(MINI))
    answer = asyncio.run(router.acompletion("mini", ASK, max_tokens=40)) if asynchronous else ask(router)
    assert [model for model, _ in reserved(harness)] == [MINI, MINI, LARGE]
    assert reserved(harness)[2][1] > 4 * reserved(harness)[0][1]
    headers = answer._hidden_params["additional_headers"]
    assert headers["x-litellm-model-group"] == "large"
    assert headers["x-litellm-attempted-fallbacks"] == 1
    harness.agree()
    assert harness.pipeline.records()[-1].model == "gpt-5.1"


def test_the_number_of_retries_is_the_requests_else_the_owners_else_ours(make_harness, sim):
    sent = {}
    for said in (None, 1):
        for asked in (None, 0, 3):
            harness = make_harness(retry={"max_attempts": 5, "quota": False})  # its breakers know of no failure
            router = harness.router(deployments(harness), **({} if said is None else {"num_retries": said}))
            sim.reset()
            sim.script(Fault.status(500), times=99)
            with pytest.raises(Exception, match=r"server had an error"):
                ask(router, **({} if asked is None else {"num_retries": asked}))
            sent[said, asked] = sim.request_count
    assert sent == {(None, None): 5, (None, 0): 1, (None, 3): 4, (1, None): 2, (1, 0): 1, (1, 3): 4}


def test_a_budget_that_refuses_is_no_reason_to_fall_back(make_harness, sim):
    harness = make_harness(budgets=[{"scope": f"model:{bare(MINI)}", "limit": "0.0000001"}])
    router = harness.router(deployments(harness), fallbacks=TO_LARGE, default_fallbacks=["haiku"])
    with pytest.raises(BudgetExceededError):
        ask(router)
    with pytest.raises(BudgetExceededError):
        asyncio.run(router.aresponses(model="mini", input="x", max_output_tokens=40))
    assert sim.request_count == 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_refusal_is_litellms_own_and_keeps_its_facts(asynchronous, make_harness):
    import litellm

    from llm_cost_middleware.integrations.litellm.errors import BudgetExceededError as Ours

    router = make_harness(budgets=[{"scope": "global", "limit": "0.0000001"}]).router()
    with pytest.raises(litellm.BudgetExceededError) as caught:
        asyncio.run(router.acompletion("smart", ASK)) if asynchronous else ask(router, "smart")
    error = caught.value
    for each in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(each) is Ours
        assert isinstance(each, BudgetExceededError)
        assert isinstance(each, RuntimeError)
        assert not isinstance(each, litellm.RateLimitError)
        assert (each.scope, each.current_cost, each.max_budget, each.status_code) == ("global", 0.0, 1e-07, 422)
        assert each.message == str(error)
        assert classify_error(each).retryable is False


def test_of_the_fallbacks_the_one_that_fits_is_asked(make_harness, sim):
    harness = make_harness(budgets=[{"scope": f"model:{bare(LARGE)}", "limit": "0.0000001"}])
    router = harness.router(deployments(harness), fallbacks=[{"mini": ["large", "haiku"]}], num_retries=0)
    sim.script(Fault.status(500), match=of(MINI))
    assert ask(router).model == "claude-haiku-4-5-20251001"
    assert sim.request_count == 2
    harness.agree()


def test_where_no_fallback_fits_the_first_error_is_raised_and_says_so(make_harness, sim):
    import litellm

    harness = make_harness(budgets=[{"scope": f"model:{bare(LARGE)}", "limit": "0.0000001"}])
    router = harness.router(deployments(harness), fallbacks=TO_LARGE, num_retries=0)
    sim.script(Fault.status(500), match=of(MINI))
    with pytest.raises(litellm.InternalServerError) as caught:
        ask(router)
    assert "fallback 'large': BudgetExceededError" in "".join(caught.value.__notes__)
    assert sim.request_count == 1


def test_a_retry_that_does_not_fit_leaves_the_fallbacks(make_harness, sim):
    """The failed attempt may have been billed, and takes the room of the next one; the other group has its own."""
    first = make_harness()
    ask(first.router(deployments(first)))
    sim.reset()
    enough_for_one = reserved(first)[0][1].usd * Decimal("1.5")
    budgets = [{"scope": f"model:{bare(MINI)}", "limit": enough_for_one}]
    harness = make_harness(budgets=budgets, output={"on_insufficient": ["raise"]})
    router = harness.router(deployments(harness), fallbacks=[{"mini": ["haiku"]}], num_retries=3)
    sim.script(Fault.reset(billed=True), times=9, match=of(MINI))
    assert ask(router).model == "claude-haiku-4-5-20251001"
    assert [request.body["model"] for request in sim.requests] == ["gpt-5-mini", "claude-haiku-4-5-20251001"]
    harness.settled  # noqa: B018 - nothing is pending


def test_an_open_circuit_breaker_leads_to_the_fallback(make_harness, sim):
    harness = make_harness()
    sim.script(Fault.status(500), times=99, match=of(MINI))
    alone = harness.router(deployments(harness), num_retries=0, disable_cooldowns=True)
    for _ in range(12):
        with pytest.raises(Exception, match=r"."):
            ask(alone)
    with pytest.raises(CircuitOpenError):
        ask(alone)
    vars(alone)["_held"].fallbacks = [{"mini": ["haiku"]}]
    sent = sim.request_count
    assert ask(alone).model == "claude-haiku-4-5-20251001"
    assert sim.request_count == sent + 1


def test_a_platform_that_is_not_governed_falls_back_to_a_call_that_is(harness, sim):
    params = {"model": "mistral/ours", "api_key": "k", "api_base": "http://127.0.0.1:9"}
    away = {"model_name": "away", "litellm_params": params}
    router = harness.router([away, *deployments(harness)], fallbacks=[{"away": ["mini"]}], num_retries=0)
    ask(router, "away")
    asyncio.run(router.acompletion("away", ASK, max_tokens=40))
    assert [model for model, _ in reserved(harness)] == [MINI, MINI]
    assert sim.request_count == 2


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_breaks_before_its_first_chunk_passes_no_reservation(asynchronous, harness, sim):
    import litellm

    given = litellm.Router(deployments(harness), fallbacks=[{"mini": ["haiku"]}], num_retries=0)
    router = harness.router(given)
    sim.script(Fault.error_event(after=0), times=1, match=of(MINI))

    async def consumed():
        return [chunk async for chunk in await router.acompletion("mini", ASK, max_tokens=40, stream=True)]

    assert len(asyncio.run(consumed()) if asynchronous else list(ask(router, stream=True))) > 1
    assert len(reserved(harness)) == sim.request_count
    assert harness.settled >= sim.bill.total_nanousd > 0


def test_an_answer_that_a_filter_cut_is_paid_before_the_next_group_is_asked(harness, sim):
    def filtered(request):
        cut = request.model.startswith("gpt")
        return Answer(text="No.", stop="refusal", output_tokens=2) if cut else fill(request)

    sim.responder = filtered
    router = harness.router(deployments(harness), content_policy_fallbacks=[{"mini": ["haiku"]}])
    assert ask(router).model == "claude-haiku-4-5-20251001"
    assert [model for model, _ in reserved(harness)] == [MINI, HAIKU]
    assert harness.settled == sim.bill.total_nanousd


def test_no_group_is_asked_after_the_deadline():
    from llm_cost_middleware.integrations.litellm.fallbacks import FallbackWalk, drive
    from llm_cost_middleware.integrations.litellm.owner import OwnerSettings

    settings = OwnerSettings(2, 0, 5, None, None, [{"a": ["b", "c"]}], None, None, True)
    left = iter([5.0, 5.0, -1.0])
    asked = []

    def fails(hop):
        asked.append((hop.arguments["model"], hop.deadline_s))
        raise OSError(hop.arguments["model"])

    with pytest.raises(OSError, match=r"^a\b"):
        drive(FallbackWalk(lambda: settings, lambda: next(left)).steps({"model": "a"}), fails)
    assert asked == [("a", None), ("b", 5.0)]


def test_settings_that_change_count_from_the_next_call_on(harness, sim):
    router = harness.router(deployments(harness), num_retries=0)
    sim.script(Fault.status(500), times=99, match=of(MINI))
    with pytest.raises(Exception, match=r"server had an error"):
        ask(router)
    router.update_settings(fallbacks=[{"mini": ["haiku"]}], num_retries=1)
    assert ask(router).model == "claude-haiku-4-5-20251001"
    assert sim.request_count == 1 + 3
    assert router.fallbacks == [{"mini": ["haiku"]}]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_retries_that_a_deployment_names_are_made_here_for_responses_too(asynchronous, status, harness, sim):
    router = harness.router([harness.deployment("mini", MINI, num_retries=3)])
    sim.script(Fault.status(status), times=9)
    with pytest.raises(Exception, match=r"(?i)server had an error|could not parse"):
        if asynchronous:
            asyncio.run(router.aresponses(model="mini", input="x", max_output_tokens=40))
        else:
            router.responses(model="mini", input="x", max_output_tokens=40)
    assert sim.request_count == len(reserved(harness)) == (4 if status == 500 else 1)


def test_a_routed_call_that_is_too_long_for_one_model_goes_to_another_and_not_to_a_twin_of_the_first(harness, sim):
    twins = [harness.deployment("gpt-5-mini", MINI), harness.deployment("gpt-5-mini", MINI)]
    router = harness.router([*twins, harness.deployment("claude-sonnet-4-6", "anthropic/claude-sonnet-4-6")])
    long = {"error": {"message": "This model's maximum context length is 8192 tokens.", "param": "messages",
                      "type": "invalid_request_error", "code": "context_length_exceeded"}}  # fmt: skip
    sim.script(Fault.status(400, body=long), times=9, match=of(MINI))
    answer = router.completion("smart", ASK, max_tokens=40, metadata={"llm_cost": {"site": "long"}})
    assert [request.body["model"] for request in sim.requests] == ["gpt-5-mini", "claude-sonnet-4-6"]
    assert answer.model == "claude-sonnet-4-6"
    harness.agree()
