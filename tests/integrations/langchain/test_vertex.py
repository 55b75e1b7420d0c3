"""``ChatAnthropicVertex``, guarded: whole and streamed, with tools and caches, the ledger says what Google bills."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anthropic
import pytest

pytest.importorskip("langchain_google_vertexai", reason="langchain-google-vertexai is of the extra google")
from governed_chats import PROMPT, agree, race
from langchain_core.messages import SystemMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from langchain_google_vertexai.model_garden import ChatAnthropicVertex

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard, instrument, is_guarded
from llm_cost_middleware.simulator import Fault, auto, fill

HAIKU = "claude-haiku-4-5@20251001"


@pytest.fixture
def vertex(sim):
    """Make a plain ChatAnthropicVertex."""

    def make(model=HAIKU, location="europe-west1", **settings):
        settings = {"max_tokens": 200} | settings
        return ChatAnthropicVertex(
            model_name=model, location=location, project="acme", access_token="ya29.t", api_endpoint=sim.vertex_url,
            **settings,
        )  # fmt: skip

    return make


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sun over {city}"


@pytest.mark.parametrize(
    ("model", "location"), [(HAIKU, "global"), (HAIKU, "europe-west1"), ("claude-sonnet-4-6", "eu")]
)
def test_ledger_and_bill_agree_whole_and_streamed_with_tools(make_harness, sim, vertex, model, location):
    harness = make_harness()
    sim.responder = auto
    governed = guard(vertex(model, location), harness.pipeline)
    assert is_guarded(governed)
    assert isinstance(governed, ChatAnthropicVertex)
    answer = governed.invoke(PROMPT)
    assert answer.response_metadata["llm_cost"]["call_id"] == harness.pipeline.records()[0].call_id
    assert "".join(chunk.text for chunk in governed.stream(PROMPT))
    armed = governed.bind_tools([get_weather])
    assert armed.invoke("weather in 'Bern'").tool_calls
    assert any([chunk.tool_call_chunks for chunk in armed.stream("weather in 'Bern'")])  # noqa: C419 - to its end
    agree(harness, sim, 4)
    assert {record.model for record in harness.pipeline.records()} == {f"{location}/{model}"}


def test_asynchronous_calls_batches_and_metadata_are_governed(make_harness, sim, vertex):
    harness = make_harness(budgets=[{"scope": "global", "limit": "5"}, {"scope": "user:42", "limit": "5"}])
    governed = guard(vertex(), harness.pipeline)
    config = {"metadata": {"llm_cost": {"user": "42"}}}

    async def all_of_them():
        await governed.ainvoke(PROMPT, config)
        async for _ in governed.astream(PROMPT, config):
            pass
        await governed.abatch([PROMPT, PROMPT], config)

    asyncio.run(all_of_them())
    agree(harness, sim, 4)
    assert harness.pipeline.ledger.balance("user:42").settled_nanousd == sim.bill.total_nanousd


def test_a_cached_prompt_is_booked_as_written_and_as_read(make_harness, sim, vertex):
    harness = make_harness()
    governed = guard(vertex(), harness.pipeline)
    block = {"type": "text", "text": "rules " * 5_000, "cache_control": {"type": "ephemeral"}}
    first, second = (governed.invoke([SystemMessage([block]), ("human", "hi")]) for _ in range(2))
    assert second.usage_metadata["input_token_details"]["cache_read"] > 4_096
    del first
    agree(harness, sim, 2)


def test_the_hosts_retries_do_not_send_behind_the_hold(make_harness, sim, vertex):
    harness = make_harness()
    governed = guard(vertex(max_retries=2), harness.pipeline)
    sim.script(Fault.google("RESOURCE_EXHAUSTED"))
    governed.invoke(PROMPT)
    assert sim.request_count == 2
    agree(harness, sim, 1)
    sim.script(Fault.google("RESOURCE_EXHAUSTED"), times=9)
    with pytest.raises(anthropic.RateLimitError):
        governed.invoke(PROMPT)
    assert sim.request_count == 4  # two attempts, as its owner said
    alone = guard(vertex(max_retries=1), harness.pipeline)
    with pytest.raises(anthropic.RateLimitError):
        list(alone.stream(PROMPT))
    assert sim.request_count == 5


def test_a_refusal_is_raised_before_anything_is_sent(make_harness, sim, vertex):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.0000001"}], output={"on_insufficient": ["raise"]})
    governed = guard(vertex(), harness.pipeline)
    for call in (governed.invoke, lambda prompt: list(governed.stream(prompt))):
        with pytest.raises(BudgetExceededError) as caught:
            call(PROMPT)
        assert caught.value.is_retryable is False  # so that LangChain leaves it alone
    assert not sim.bill.lines


def test_a_broken_and_an_abandoned_stream_are_booked(make_harness, sim, vertex):
    sim.responder = fill
    harness = make_harness()
    governed = guard(vertex(), harness.pipeline)
    sim.script(Fault.error_event(after=4))
    with suppress(Exception):
        list(governed.stream(PROMPT))
    left = governed.stream(PROMPT)
    next(left)
    left.close()
    balance = harness.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd >= sim.bill.total_nanousd


def test_a_handler_and_an_instrumented_chain_book_once(make_harness, sim, vertex):
    harness = make_harness()
    chain = instrument(vertex() | (lambda message: message.text), harness.pipeline)
    handler = CostCallbackHandler(harness.pipeline)
    chain.invoke(PROMPT, {"callbacks": [handler]})
    list(guard(vertex(), harness.pipeline).stream(PROMPT, {"callbacks": [handler]}))
    agree(harness, sim, 2)


def test_a_model_that_langchain_makes_anew_is_governed_as_well(make_harness, sim, vertex):
    """For configurable fields; its retries stay the client's, under holds."""
    harness = make_harness(retry={"base_s": 0.001, "throttle_base_s": 0.001})
    governed = guard(vertex(max_retries=3), harness.pipeline).configurable_fields(
        max_output_tokens=ConfigurableField(id="d")
    )
    sim.script(Fault.status(500), times=2)
    governed.invoke(PROMPT, {"configurable": {"d": 60}})
    assert sim.request_count == 3
    list(governed.stream(PROMPT, {"configurable": {"d": 60}}))
    agree(harness, sim, 2)


def test_a_race_sends_exactly_what_fits(make_harness, sim, vertex):
    race(make_harness, sim, vertex, "vertex_ai")


def test_a_model_of_another_maker_is_not_taken_for_a_claude(make_harness, vertex):
    harness = make_harness(on_ungoverned="warn")
    assert not is_guarded(guard(vertex("mistral-large@2411"), harness.pipeline))
