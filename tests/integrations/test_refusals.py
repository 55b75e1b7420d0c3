"""Refusals at every door: what people catch catches them, and what retries by default leaves them alone."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

SPENT = [{"scope": "global", "limit": "0.0000001"}]
ASK = [{"role": "user", "content": "hi"}]
SDKS = {"openai": openai, "anthropic": anthropic}
WRAP = {"openai": wrap_openai, "anthropic": wrap_anthropic}


def spent():
    return CostPipeline(CostConfig(budgets=SPENT))


def call(client, provider, **more):
    if provider == "openai":
        return client.chat.completions.create(model="gpt-5-mini", messages=ASK, **more)
    return client.messages.create(model="claude-sonnet-4-6", max_tokens=9, messages=ASK, **more)


def plain_of(sim, provider):
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    if provider == "openai":
        return ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url)
    return ChatAnthropic(model="claude-sonnet-4-6", api_key="k", base_url=sim.anthropic_url)


def guarded(sim, provider):
    return guard(plain_of(sim, provider), spent(), pinned=True)


@pytest.mark.parametrize("provider", SDKS)
@pytest.mark.parametrize("form", ["plain", "stream", "raw", "with_options"])
def test_a_refusal_of_a_wrapped_client_is_caught_as_the_sdks_own(sim, clients, provider, form):
    sdk, client = SDKS[provider], WRAP[provider](clients[provider], spent())
    base = sdk.OpenAIError if provider == "openai" else sdk.AnthropicError
    with pytest.raises(base) as caught:
        if form == "stream":
            call(client, provider, stream=True)
        elif form == "raw":
            resource = client.chat.completions if provider == "openai" else client.messages
            resource.with_raw_response.create(
                model="gpt-5-mini" if provider == "openai" else "claude-sonnet-4-6", max_tokens=9, messages=ASK
            )
        else:
            call(client.with_options(max_retries=5) if form == "with_options" else client, provider)
    assert isinstance(caught.value, BudgetExceededError)
    assert not isinstance(caught.value, sdk.APIError)
    assert sim.request_count == 0


def test_a_refused_batch_is_caught_as_the_sdks_own(sim, clients):
    client = wrap_anthropic(clients["anthropic"], spent())
    params = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": ASK}
    with pytest.raises(anthropic.AnthropicError, match="budget"):
        client.messages.batches.create(requests=[{"custom_id": "a", "params": params}])
    assert sim.request_count == 0


@pytest.mark.parametrize("provider", SDKS)
async def test_a_refusal_of_an_asynchronous_client_is_caught_as_the_sdks_own(sim, async_clients, provider):
    client = WRAP[provider](async_clients[provider], spent())
    with pytest.raises(SDKS[provider].OpenAIError if provider == "openai" else SDKS[provider].AnthropicError) as caught:
        await call(client, provider)
    assert isinstance(caught.value, BudgetExceededError)
    assert sim.request_count == 0


@pytest.mark.parametrize("provider", SDKS)
def test_a_helper_that_retries_what_the_sdks_documents_name_leaves_a_refusal_alone(sim, clients, provider):
    """Tenacity as in the cookbooks of both providers: rate limits, connections, status errors."""
    sdk, client, tries = SDKS[provider], WRAP[provider](clients[provider], spent()), []
    kinds = retry_if_exception_type((sdk.RateLimitError, sdk.APIConnectionError, sdk.APIStatusError, sdk.APIError))
    with pytest.raises(BudgetExceededError):
        for attempt in Retrying(retry=kinds, stop=stop_after_attempt(4), reraise=True):
            with attempt:
                tries.append(1)
                call(client, provider)
    assert len(tries) == 1
    assert sim.request_count == 0


@pytest.mark.parametrize("provider", SDKS)
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_langgraphs_retry_policy_runs_a_refused_node_once(sim, provider, is_async):
    """The default of ``RetryPolicy`` retries no ``RuntimeError``."""
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import RetryPolicy

    runs, model = [], guarded(sim, provider)

    def node(state):
        runs.append(1)
        return {"text": model.invoke("hi").text}

    async def anode(state):
        runs.append(1)
        return {"text": (await model.ainvoke("hi")).text}

    graph = StateGraph(dict)
    graph.add_node("n", anode if is_async else node, retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.01))
    graph.add_edge(START, "n")
    graph.add_edge("n", END)
    compiled = graph.compile()
    with pytest.raises(BudgetExceededError):
        asyncio.run(compiled.ainvoke({})) if is_async else compiled.invoke({})
    assert len(runs) == 1
    assert sim.request_count == 0


@pytest.mark.parametrize("provider", SDKS)
def test_langgraphs_retry_policy_runs_a_node_with_a_wrapped_client_once(sim, clients, provider):
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import RetryPolicy

    runs, client = [], WRAP[provider](clients[provider], spent())

    def node(state):
        runs.append(1)
        call(client, provider)

    graph = StateGraph(dict)
    graph.add_node("n", node, retry_policy=RetryPolicy(max_attempts=3, initial_interval=0.01))
    graph.add_edge(START, "n")
    graph.add_edge("n", END)
    with pytest.raises(BudgetExceededError):
        graph.compile().invoke({})
    assert len(runs) == 1


@pytest.mark.parametrize("provider", SDKS)
@pytest.mark.parametrize("where", ["model", "chain", "chain of a guarded model"])
def test_with_retry_asks_a_refused_model_once(sim, provider, where):
    """Of a model, or of a chain that was instrumented."""
    from langchain_core.runnables import RunnableLambda

    from llm_cost_middleware.integrations.langchain import instrument

    runs, model = [], guarded(sim, provider)
    head = RunnableLambda(lambda given: runs.append(1) or given)
    if where == "model":
        chain = head | model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
    else:
        inner = model if "guarded" in where else plain_of(sim, provider)
        chain = instrument((head | inner).with_retry(stop_after_attempt=3, wait_exponential_jitter=False), spent())
    with pytest.raises(BudgetExceededError):
        chain.invoke("hi")
    assert len(runs) == 1
    assert sim.request_count == 0


@pytest.mark.parametrize("provider", SDKS)
def test_with_fallbacks_goes_on_and_the_next_model_is_refused_in_turn(sim, provider):
    model = guarded(sim, provider)
    with pytest.raises(BudgetExceededError):
        model.with_fallbacks([guarded(sim, provider)]).invoke("hi")
    assert sim.request_count == 0


@pytest.mark.parametrize("kind", ["unpriced", "ineligible", "breaker"])
def test_other_refusals_are_the_sdks_own_as_well(sim, clients, kind):
    from llm_cost_middleware.errors import CircuitOpenError, NoEligibleModelError, PriceNotFoundError
    from llm_cost_middleware.simulator import Fault

    expected = {"unpriced": PriceNotFoundError, "ineligible": NoEligibleModelError, "breaker": CircuitOpenError}[kind]
    tiers = [{"name": "only", "models": ["anthropic/claude-sonnet-4-6"]}]
    config = CostConfig(tiers=tiers, retry={"max_attempts": 1})
    client = wrap_openai(clients["openai"], CostPipeline(config))
    model = {"unpriced": "gpt-99", "ineligible": "smart", "breaker": "gpt-5-mini"}[kind]
    if kind == "breaker":
        sim.script(Fault.status(500), times=100)

    def refused():
        for _ in range(60):
            try:
                client.chat.completions.create(model=model, messages=ASK)
            except openai.APIStatusError:
                continue
            except openai.OpenAIError as error:
                return error
        raise AssertionError("never refused")

    error = refused()
    assert isinstance(error, expected)
    assert not isinstance(error, openai.APIError)
