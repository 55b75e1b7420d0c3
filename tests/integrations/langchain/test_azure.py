"""``AzureChatOpenAI``, guarded: whole and streamed, with tools, chats and responses, the ledger says what is billed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from importlib import import_module

import openai
import pytest
from governed_chats import PROMPT, agree, race
from langchain_core.messages import SystemMessage
from langchain_core.tools import tool
from langchain_openai import AzureChatOpenAI, AzureOpenAIEmbeddings, ChatOpenAI
from pydantic import BaseModel

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, PriceNotFoundError
from llm_cost_middleware.integrations.langchain import (
    CostCallbackHandler,
    CostMiddleware,
    guard,
    instrument,
    is_guarded,
)
from llm_cost_middleware.simulator import Answer, Fault, auto, fill

MINI, NANO = "eu--gpt-5-mini", "gpt-5-nano"
DEPLOYMENTS = {
    MINI: {"model": "gpt-5-mini", "region": "swedencentral"},
    NANO: {"model": "gpt-5-nano", "place": "global"},
    "gpt-5.1": {"model": "gpt-5.1", "place": "global"},
    "eu--text-embedding-3-small": "eu/text-embedding-3-small",
}
VECTORS = "eu--text-embedding-3-small"
PLATFORMS = {"azure": {"deployments": DEPLOYMENTS}}


@pytest.fixture
def make(make_harness):
    """Make a pipeline whose configuration knows the deployments."""
    return lambda **sections: make_harness(**{"platforms": PLATFORMS, **sections})


@pytest.fixture
def azure(sim):
    """Make a plain AzureChatOpenAI."""

    def make(deployment=MINI, **settings):
        settings = {"max_tokens": 300, "api_version": "2025-04-01-preview"} | settings
        return AzureChatOpenAI(
            azure_deployment=deployment, api_key="k", azure_endpoint=sim.openai_url.removesuffix("/v1"), **settings
        )  # fmt: skip

    return make


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sun over {city}"


class City(BaseModel):
    """A city."""

    name: str


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("deployment", [MINI, NANO])
def test_ledger_and_bill_agree_whole_and_streamed_with_tools(make, sim, azure, deployment, responses):
    harness = make()
    sim.responder = auto
    governed = guard(azure(deployment, use_responses_api=responses), harness.pipeline)
    assert is_guarded(governed)
    assert isinstance(governed, AzureChatOpenAI)
    answer = governed.invoke(PROMPT)
    assert answer.response_metadata["llm_cost"]["call_id"] == harness.pipeline.records()[0].call_id
    assert "".join(chunk.text for chunk in governed.stream(PROMPT))
    armed = governed.bind_tools([get_weather])
    assert armed.invoke("weather in 'Bern'").tool_calls
    assert any([chunk.tool_call_chunks for chunk in armed.stream("weather in 'Bern'")])  # noqa: C419 - to its end
    assert governed.with_structured_output(City).invoke("Name 'Bern'").name
    agree(harness, sim, 5)
    place = "swedencentral" if deployment == MINI else "global"
    assert {record.model for record in harness.pipeline.records()} == {f"{place}/{deployment.removeprefix('eu--')}"}
    assert {exchange.served_by for exchange in sim.requests} == {"azure"}


def test_asynchronous_calls_batches_and_metadata_are_governed(make, sim, azure):
    harness = make(budgets=[{"scope": "provider:azure", "limit": "5"}, {"scope": "global", "limit": "5"},
                            {"scope": "user:42", "limit": "5"}])  # fmt: skip
    governed = guard(azure(), harness.pipeline)
    config = {"metadata": {"llm_cost": {"user": "42", "patience": "24h"}}}

    async def all_of_them():
        await governed.ainvoke(PROMPT, config)
        async for _ in governed.astream(PROMPT, config):
            pass
        await governed.abatch([PROMPT, PROMPT], config)

    asyncio.run(all_of_them())
    asyncio.run(governed.ainvoke(PROMPT, config))  # another event loop
    agree(harness, sim, 5)
    for scope in ("user:42", "provider:azure"):
        assert harness.pipeline.ledger.balance(scope).settled_nanousd == sim.bill.total_nanousd


def test_the_model_beside_a_deployment_decides_nothing_of_a_chat_and_all_of_a_response(make, sim, azure):
    """As LangChain sends them: a chat to the deployment of the client, a response to the one that it names."""
    harness = make()
    guard(azure(MINI, model="gpt-5.1"), harness.pipeline).invoke(PROMPT)
    guard(azure(MINI, model="gpt-5.1", use_responses_api=True), harness.pipeline).invoke(PROMPT)
    agree(harness, sim, 2)
    assert [record.model for record in harness.pipeline.records()] == ["swedencentral/gpt-5-mini", "global/gpt-5.1"]


def test_a_deployment_without_a_model_is_refused_before_it_leaves(make, sim, azure):
    governed = guard(azure("ours"), make().pipeline)
    with pytest.raises(PriceNotFoundError, match=r'\[platforms\.azure\.deployments\] "ours" = "MODEL"'):
        governed.invoke(PROMPT)
    assert sim.request_count == 0


def test_calls_are_routed_among_deployments_whatever_the_model_was_made_for(make, sim, azure):
    tiers = [{"name": "small", "models": ["azure/gpt-5-nano"]}, {"name": "large", "models": ["azure/gpt-5.1"]}]
    harness = make(tiers=tiers)
    governed = guard(azure(MINI), harness.pipeline)
    governed.invoke("hi")
    asyncio.run(governed.ainvoke(PROMPT * 1_000))
    agree(harness, sim, 2)
    assert [exchange.path.split("/")[3] for exchange in sim.requests] == ["gpt-5-nano", "gpt-5.1"]
    guard(azure(MINI), harness.pipeline, pinned=True).invoke("hi")
    assert f"/{MINI}/" in sim.requests[-1].path


def test_a_call_stays_on_azure_where_the_tiers_are_of_others(make, sim, azure):
    harness = make()
    guard(azure(MINI), harness.pipeline).invoke("hi")
    assert [exchange.served_by for exchange in sim.requests] == ["azure"]
    agree(harness, sim, 1)


def test_a_region_is_a_hard_rule(make, sim, azure):
    harness = make(routing={"policy": "off", "regions": ["eu"]})
    guard(azure(MINI), harness.pipeline).invoke(PROMPT)
    with pytest.raises(NoEligibleModelError):
        guard(azure(NANO), harness.pipeline).invoke(PROMPT)
    agree(harness, sim, 1)


def test_the_hosts_retries_do_not_send_behind_the_hold(make, sim, azure):
    harness = make(retry={"base_s": 0.01, "throttle_base_s": 0.01})
    governed = guard(azure(max_retries=1), harness.pipeline)
    sim.script(Fault.status(429, retry_after_ms=5))
    governed.invoke(PROMPT)
    assert sim.request_count == 2
    agree(harness, sim, 1)
    sim.script(Fault.status(429, retry_after_ms=5), times=9)
    with pytest.raises(openai.RateLimitError):
        governed.invoke(PROMPT)
    assert sim.request_count == 4  # two attempts, as its owner said


def test_a_refusal_is_raised_before_anything_is_sent(make, sim, azure):
    harness = make(budgets=[{"scope": "global", "limit": "0.0000001"}], output={"on_insufficient": ["raise"]})
    governed = guard(azure(), harness.pipeline)
    for call in (governed.invoke, lambda prompt: list(governed.stream(prompt))):
        with pytest.raises(BudgetExceededError) as caught:
            call(PROMPT)
        assert caught.value.is_retryable is False  # so that LangChain leaves it alone
    assert not sim.bill.lines


def test_an_answer_that_the_content_filter_keeps_is_booked(make, sim, azure):
    """LangChain raises a ``ValueError`` for it; Azure bills its tokens (learn.microsoft.com, content filtering)."""
    harness = make()
    sim.responder = lambda _: Answer(text="gone", stop="refusal")
    governed = guard(azure(), harness.pipeline)
    with pytest.raises(ValueError, match="content filter"):
        governed.invoke(PROMPT)
    agree(harness, sim, 1)


def test_a_broken_and_an_abandoned_stream_are_booked(make, sim, azure):
    sim.responder = fill
    harness = make()
    governed = guard(azure(), harness.pipeline)
    sim.script(Fault.error_event(after=4))
    with suppress(Exception):
        list(governed.stream(PROMPT))
    left = governed.stream(PROMPT)
    next(left)
    left.close()
    balance = harness.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd >= sim.bill.total_nanousd


def test_a_version_that_reports_no_usage_of_streams_is_booked_at_its_hold(make, sim, azure):
    harness = make()
    assert list(guard(azure(api_version="2024-06-01"), harness.pipeline).stream(PROMPT))
    balance = harness.pipeline.ledger.balance("global")
    assert balance.settled_nanousd >= sim.bill.total_nanousd > 0


def test_a_handler_an_instrumented_chain_and_an_agent_book_once(make, sim, azure):
    from langchain.agents import create_agent

    harness = make()
    handler = CostCallbackHandler(harness.pipeline)
    instrument(azure() | (lambda message: message.text), harness.pipeline).invoke(PROMPT, {"callbacks": [handler]})
    list(guard(azure(), harness.pipeline).stream(PROMPT, {"callbacks": [handler]}))
    agent = create_agent(azure(), middleware=[CostMiddleware(harness.pipeline)])
    agent.invoke({"messages": [("human", "hi")]}, {"callbacks": [handler]})
    agree(harness, sim, 3)


def test_a_plain_model_is_metered_at_its_own_place(make, sim, azure):
    harness = make()
    azure().invoke(PROMPT, {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    agree(harness, sim, 1)


def test_instructions_stay_where_they_were_written(make, sim, azure):
    governed = guard(azure(), make().pipeline)
    governed.invoke([("human", "hi"), ("ai", "hello"), SystemMessage("Be brief."), ("human", "go on")])
    assert [message["role"] for message in sim.requests[-1].body["messages"]] == ["user", "assistant", "system", "user"]


def test_a_race_sends_exactly_what_fits(make, sim, azure):
    race(make, sim, azure, "azure")


def test_embeddings_of_azure_are_governed(make, sim):
    harness = make()
    model = AzureOpenAIEmbeddings(
        azure_deployment=VECTORS, api_key="k", api_version="2024-10-21", check_embedding_ctx_length=False,
        azure_endpoint=sim.openai_url.removesuffix("/v1"),
    )  # fmt: skip
    governed = guard(model, harness.pipeline)
    assert len(governed.embed_documents(["one", "two"])) == 2

    async def embed():
        assert await governed.aembed_query("three")
        await model.async_client._client.close()

    asyncio.run(embed())
    agree(harness, sim, 2)
    assert {record.model for record in harness.pipeline.records()} == {"eu/text-embedding-3-small"}


def test_openais_class_at_an_address_of_azure_pays_what_azure_asks(make, sim):
    """``https://RESOURCE.openai.azure.com/openai/v1/``: the model that is sent is the deployment."""
    httpx = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])
    port = int(sim.openai_url.rpartition(":")[2].split("/")[0])

    class Here(httpx.HTTPTransport):
        def handle_request(self, request):
            request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=port)
            return super().handle_request(request)

    harness = make()
    address, client = "https://ours.openai.azure.com/openai/v1/", httpx.Client(transport=Here())
    plain = ChatOpenAI(model=MINI, api_key="k", base_url=address, max_tokens=300, http_client=client)
    governed = guard(plain, harness.pipeline)
    governed.invoke(PROMPT)
    assert list(governed.stream(PROMPT, stream_usage=True))
    agree(harness, sim, 2)
    client.close()


def test_deployments_that_a_reload_brings_are_known_to_a_model_that_was_guarded_before(make, sim, azure):
    harness = make(platforms={})
    governed = guard(azure(), harness.pipeline)
    with pytest.raises(PriceNotFoundError):
        governed.invoke(PROMPT)
    harness.pipeline.reload(replace(harness.pipeline.config, platforms=PLATFORMS))
    governed.invoke(PROMPT)
    agree(harness, sim, 1)


def test_what_a_plain_model_calls_is_its_deployment_not_the_model_beside_it(make, sim, azure):
    harness = make()
    azure(MINI, model="gpt-5.1").invoke(PROMPT, {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    agree(harness, sim, 1)
