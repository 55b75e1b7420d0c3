"""``ChatAnthropicBedrock`` and ``ChatAnthropicMantle``, guarded: the ledger says what AWS bills."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anthropic
import pytest

pytest.importorskip("langchain_aws", reason="langchain-aws is of the extra aws")
from governed_chats import PROMPT, agree, race
from langchain_aws import ChatAnthropicBedrock
from langchain_aws.chat_models.anthropic import ChatAnthropicMantle
from langchain_core.messages import SystemMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from pydantic import BaseModel

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, UnsupportedRequestError
from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard, instrument, is_guarded
from llm_cost_middleware.simulator import Fault, auto, fill
from llm_cost_middleware.simulator.bedrock import signing

HAIKU, PLAIN = "us.anthropic.claude-haiku-4-5-20251001-v1:0", "anthropic.claude-sonnet-5"
KINDS = [ChatAnthropicBedrock, ChatAnthropicMantle]


@pytest.fixture
def claude(sim, monkeypatch):
    """Make a plain model of one of the two classes."""
    monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", sim.bedrock_url)

    def make(kind=ChatAnthropicBedrock, model=HAIKU, region="us-east-1", **settings):
        if kind is ChatAnthropicMantle:
            settings["base_url"] = f"{sim.bedrock_url}/anthropic"
        settings = {"max_tokens": 200} | settings
        return kind(
            model=model, region_name=region, aws_access_key_id=signing.ACCESS_KEY,
            aws_secret_access_key=signing.SECRET_KEY, **settings,
        )  # fmt: skip

    return make


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sun over {city}"


class Person(BaseModel):
    name: str


@pytest.mark.parametrize("kind", KINDS)
def test_ledger_and_bill_agree_whole_and_streamed_with_tools(make_harness, sim, claude, kind):
    harness = make_harness()
    sim.responder = auto
    model = claude(kind, PLAIN)
    governed = guard(model, harness.pipeline)
    assert is_guarded(governed)
    assert isinstance(governed, kind)
    answer = governed.invoke(PROMPT)
    assert answer.response_metadata["llm_cost"]["call_id"] == harness.pipeline.records()[0].call_id
    chunks = list(governed.stream(PROMPT))
    assert "".join(chunk.text for chunk in chunks)
    assert chunks[0].response_metadata["llm_cost"]["call_id"] == harness.pipeline.records()[1].call_id
    armed = governed.bind_tools([get_weather])
    assert armed.invoke("weather in 'Bern'").tool_calls
    assert any([chunk.tool_call_chunks for chunk in armed.stream("weather in 'Bern'")])  # noqa: C419 - to its end
    agree(harness, sim, 4)
    assert {record.model for record in harness.pipeline.records()} == {f"us-east-1/{PLAIN}"}
    model.invoke(PROMPT)  # it is not changed
    assert len(harness.pipeline.records()) == 4


def test_asynchronous_calls_batches_and_metadata_are_governed(make_harness, sim, claude):
    harness = make_harness(budgets=[{"scope": "global", "limit": "5"}, {"scope": "user:42", "limit": "5"}])
    governed = guard(claude(), harness.pipeline)
    config = {"metadata": {"llm_cost": {"user": "42"}}}

    async def all_of_them():
        await governed.ainvoke(PROMPT, config)
        async for _ in governed.astream(PROMPT, config):
            pass
        await governed.abatch([PROMPT, PROMPT], config)
        async for _ in governed.astream_events(PROMPT, config, version="v2"):
            pass

    asyncio.run(all_of_them())
    governed.with_structured_output(Person).invoke("who is 'Jan'", config)
    agree(harness, sim, 6)
    assert harness.pipeline.ledger.balance("user:42").settled_nanousd == sim.bill.total_nanousd


def test_a_cached_prompt_is_booked_as_written_and_as_read(make_harness, sim, claude):
    harness = make_harness()
    governed = guard(claude(), harness.pipeline)
    block = {"type": "text", "text": "rules " * 5_000, "cache_control": {"type": "ephemeral"}}
    for _ in range(2):
        governed.invoke([SystemMessage([block]), ("human", "hi")])
    assert sum(record.usage.cache_read for record in harness.pipeline.records()) > 4_096
    agree(harness, sim, 2)


def test_the_hosts_retries_do_not_send_behind_the_hold(make_harness, sim, claude):
    harness = make_harness()
    governed = guard(claude(max_retries=1), harness.pipeline)
    sim.script(Fault.aws("ThrottlingException"))
    governed.invoke(PROMPT)
    assert sim.request_count == 2
    sim.script(Fault.aws("ThrottlingException"), times=9)
    with pytest.raises(anthropic.RateLimitError):
        governed.invoke(PROMPT)
    assert sim.request_count == 4  # two attempts, as its owner said
    agree(harness, sim, 1)


def test_a_refusal_is_raised_before_anything_is_sent(make_harness, sim, claude):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.0000001"}], output={"on_insufficient": ["raise"]})
    governed = guard(claude(), harness.pipeline)
    for call in (governed.invoke, lambda prompt: list(governed.stream(prompt))):
        with pytest.raises(BudgetExceededError) as caught:
            call(PROMPT)
        assert caught.value.is_retryable is False
    ruled = make_harness(routing={"policy": "off", "regions": ["eu"]})
    with pytest.raises(NoEligibleModelError):
        guard(claude(model=PLAIN), ruled.pipeline).invoke(PROMPT)
    guard(claude(model=PLAIN, region="eu-west-1"), ruled.pipeline).invoke(PROMPT)
    assert len(sim.bill.lines) == 1


def test_a_broken_and_an_abandoned_stream_are_booked(make_harness, sim, claude):
    sim.responder = fill
    harness = make_harness()
    governed = guard(claude(), harness.pipeline)
    sim.script(Fault.error_event(after=4, error_type="throttlingException"))
    with suppress(Exception):
        list(governed.stream(PROMPT))
    left = governed.stream(PROMPT)
    next(left)
    left.close()
    balance = harness.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd >= sim.bill.total_nanousd


def test_a_handler_and_an_instrumented_chain_book_once(make_harness, sim, claude):
    harness = make_harness()
    chain = instrument(claude() | (lambda message: message.text), harness.pipeline)
    handler = CostCallbackHandler(harness.pipeline)
    chain.invoke(PROMPT, {"callbacks": [handler]})
    list(guard(claude(), harness.pipeline).stream(PROMPT, {"callbacks": [handler]}))
    agree(harness, sim, 2)


@pytest.mark.parametrize("fields", [{"max_tokens": 60}, {"model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"}])
def test_a_model_that_langchain_makes_anew_is_governed_as_well(make_harness, sim, claude, fields):
    """For configurable fields it makes one of the same class, of the same fields."""
    harness = make_harness()
    ((name, value),) = fields.items()
    governed = guard(claude(), harness.pipeline).configurable_fields(**{name: ConfigurableField(id="chosen")})
    chosen = {"configurable": {"chosen": value}}
    governed.invoke(PROMPT, chosen)
    list(governed.stream(PROMPT, chosen))
    asyncio.run(governed.ainvoke(PROMPT, chosen))
    agree(harness, sim, 3)
    poor = make_harness(budgets=[{"scope": "global", "limit": "0.0000001"}], output={"on_insufficient": ["raise"]})
    again = guard(claude(), poor.pipeline).configurable_fields(**{name: ConfigurableField(id="chosen")})
    with pytest.raises(BudgetExceededError):
        again.invoke(PROMPT, chosen)
    assert len(sim.bill.lines) == 3


def test_a_race_sends_exactly_what_fits(make_harness, sim, claude):
    race(make_harness, sim, claude, "bedrock")


def test_a_model_that_is_no_claude_is_refused_or_metered(make_harness, claude):
    with pytest.raises(UnsupportedRequestError):
        guard(claude(model="us.amazon.nova-pro-v1:0"), make_harness(on_ungoverned="deny").pipeline)
