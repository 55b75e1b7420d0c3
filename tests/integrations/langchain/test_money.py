"""What a guarded model spends: refusals, scopes, caches, answers that do not parse, models out of reach."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnablePassthrough
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from llm_cost_middleware import cost_context
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import (
    BudgetExceededError,
    NoEligibleModelError,
    PriceNotFoundError,
    UnsupportedRequestError,
)
from llm_cost_middleware.events import BudgetRefused, Ungoverned
from llm_cost_middleware.integrations.langchain import guard, instrument
from llm_cost_middleware.simulator import Answer, Fault

HAIKU, SONNET, MINI = "claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5-mini"


class City(BaseModel):
    """A city."""

    name: str
    country: str


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def force(model, **more):
    return {"metadata": {"llm_cost": {"force_model": model, **more}}}


def test_a_refused_call_sends_nothing_and_is_a_model_error_that_no_retry_can_help(make_harness, claude, sim):
    from langchain_core.exceptions import ModelError

    harness = make_harness(limit="0.000001")
    guarded = guard(claude(), harness.pipeline)

    async def drain():
        return [chunk async for chunk in guarded.astream("hi")]

    for call in (
        lambda: guarded.invoke("hi"),
        lambda: list(guarded.stream("hi")),
        lambda: asyncio.run(guarded.ainvoke("hi")),
        lambda: asyncio.run(drain()),
        lambda: guarded.batch(["hi"]),
    ):
        with pytest.raises(BudgetExceededError) as caught:
            call()
        assert isinstance(caught.value, ModelError)
        assert caught.value.is_retryable is False
        assert caught.value.scope in ("global", "batch")
        assert caught.value.budget_limit == Decimal("0.000001")
    assert sim.request_count == 0


@pytest.mark.parametrize("wrap", ["model", "binding", "chain"])
def test_a_budget_refusal_is_not_retried(wrap, make_harness, claude, sim):
    harness = make_harness(limit="0.000001", retry={"max_attempts": 1})
    if wrap == "chain":
        chain = instrument((RunnablePassthrough() | claude()).with_retry(), harness.pipeline)
    else:
        guarded = guard(claude(), harness.pipeline)
        chain = (guarded.bind_tools([weather]) if wrap == "binding" else guarded).with_retry()
    with pytest.raises(BudgetExceededError):
        chain.invoke("hi")
    assert len(harness.observer.of(BudgetRefused)) == 1
    harness.pipeline.ledger.set_budget(Budget("global", "1"))
    sim.script(Fault.status(500))
    assert chain.invoke("hi").text or wrap == "binding"  # what a retry can help is still retried
    assert sim.request_count == 2


def test_a_refusal_of_a_call_is_shown_in_its_run(make_harness, claude):
    class Errors(BaseCallbackHandler):
        seen = ()

        def on_llm_error(self, error, **kwargs):
            Errors.seen += (type(error).__name__,)

    harness = make_harness(tiers=[{"name": "one", "models": [f"anthropic/{HAIKU}"]}])
    guarded = guard(claude(), harness.pipeline)
    with pytest.raises(PriceNotFoundError):
        guarded.invoke("hi", {"callbacks": [Errors()], **force("claude-nobody-knows")})
    with pytest.raises(NoEligibleModelError):
        guarded.invoke("x " * 1_200_000, {"callbacks": [Errors()]})
    assert Errors.seen == ("PriceNotFoundError", "NoEligibleModelError")


def test_scopes_come_from_the_run_and_from_the_block(make_harness, claude):
    harness = make_harness(
        budgets=[{"scope": scope, "limit": "1"} for scope in ("global", "user:42", "team:blue", "tag:search")]
    )
    guarded = guard(claude(), harness.pipeline)
    with cost_context(team="blue"):
        guarded.invoke("hi", {"metadata": {"llm_cost": {"user": "42", "tags": ["search"]}}})
        list((guarded | (lambda message: message)).stream("hi", {"metadata": {"llm_cost": {"user": "42"}}}))
    guarded.with_config(metadata={"llm_cost": {"tags": ["search"]}}).invoke("hi")
    spent = {scope: harness.pipeline.ledger.balance(scope).settled for scope in ("user:42", "team:blue", "tag:search")}
    costs = [record.cost_usd for record in harness.pipeline.records()]
    assert spent == {"user:42": sum(costs[:2]), "team:blue": sum(costs[:2]), "tag:search": costs[0] + costs[2]}


def test_an_answer_out_of_langchains_cache_costs_nothing_and_the_key_holds_the_route(make_harness, claude, sim):
    harness = make_harness()
    guarded = guard(claude(cache=InMemoryCache()), harness.pipeline)
    for _ in range(2):
        guarded.invoke("hi", force(HAIKU))
        guarded.invoke("hi", force(SONNET))
    assert [exchange.body["model"] for exchange in sim.requests] == [HAIKU, SONNET]
    harness.check()


def test_an_answer_that_does_not_parse_is_booked_at_what_it_cost(make_harness, gpt, sim):
    harness = make_harness()
    sim.responder = lambda request: Answer(text='{"name": "Rome"}')  # no country
    for stream in (False, True):
        chain = guard(gpt(), harness.pipeline, pinned=True).with_structured_output(City)
        with pytest.raises(ValueError, match="country"):
            list(chain.stream("Where?")) if stream else chain.invoke("Where?")
        chain = guard(gpt(), harness.pipeline).with_structured_output(City)
        with pytest.raises(ValueError, match="parsed"):
            chain.invoke("Where?", force(HAIKU))
    assert [record.status for record in harness.pipeline.records() if record.provider == "anthropic"] == ["exact"] * 2
    harness.check(exact=False)


class Elsewhere(ChatOpenAI):
    """A class that was derived from OpenAI's for another transport."""

    @property
    def _llm_type(self):
        return "elsewhere"


def test_other_transports_are_metered_or_refused_as_configured(make_harness, sim):
    elsewhere = Elsewhere(api_key="k", base_url=sim.openai_url, model=MINI)
    with pytest.raises(UnsupportedRequestError, match="guard a ChatAnthropic or ChatOpenAI"):
        guard(elsewhere, make_harness(on_ungoverned="deny").pipeline)
    harness = make_harness(on_ungoverned="allow", limit="0.000001")
    metered = guard(elsewhere, harness.pipeline)
    assert type(metered) is Elsewhere
    assert "Elsewhere" in harness.observer.of(Ungoverned)[0].what
    with pytest.raises(BudgetExceededError):
        metered.invoke("hi")
    assert sim.request_count == 0


class ToTheSimulator(httpx.HTTPTransport):
    """Azure's address and key in front, OpenAI's API behind."""

    def __init__(self, url):
        super().__init__()
        self._url = httpx.URL(f"{url}/chat/completions")

    def handle_request(self, request):
        assert request.url.path.endswith("/deployments/d/chat/completions")
        request.url, request.headers["authorization"] = self._url, f"Bearer {request.headers.pop('api-key')}"
        return super().handle_request(request)


def test_the_model_that_langchain_was_told_is_what_is_behind_a_deployment(make_harness, sim):
    from langchain_openai import AzureChatOpenAI

    harness = make_harness(platforms={"azure": {"place": "global"}})
    with httpx.Client(transport=ToTheSimulator(sim.openai_url)) as client:
        azure = AzureChatOpenAI(
            api_key="k", azure_endpoint="http://azure", api_version="2025-01-01", azure_deployment="d", model=MINI,
            http_client=client, stream_usage=True,
        )  # fmt: skip
        governed = guard(azure, harness.pipeline)
        assert governed.invoke("hi").content
        assert list(governed.stream("hi"))
    assert [(record.provider, record.model) for record in harness.pipeline.records()] == [
        ("azure", f"global/{MINI}")
    ] * 2
    harness.check()


def test_a_fake_model_is_metered_only(make_harness):
    harness = make_harness()
    assert guard(FakeListChatModel(responses=["a"]), harness.pipeline).invoke("hi").content == "a"
    assert (
        len(harness.observer.of(Ungoverned)) == 2
    )  # when it was guarded, and when it was called without a known price
