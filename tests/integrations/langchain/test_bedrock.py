"""``ChatBedrockConverse``, guarded: whole and streamed, with tools and cache points, the ledger says what AWS bills."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

pytest.importorskip("langchain_aws", reason="langchain-aws is of the extra aws")
from botocore.exceptions import ClientError
from governed_chats import PROMPT, race
from langchain_aws import ChatBedrock, ChatBedrockConverse
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool

from llm_cost_middleware.errors import BudgetExceededError, UnsupportedRequestError
from llm_cost_middleware.events import Retried
from llm_cost_middleware.integrations.langchain import (
    CostCallbackHandler,
    guard,
    instrument,
    is_guarded,
)
from llm_cost_middleware.simulator import Fault, auto, fill
from llm_cost_middleware.simulator.bedrock import signing

HAIKU, GLOBAL = "us.anthropic.claude-haiku-4-5-20251001-v1:0", "global.anthropic.claude-haiku-4-5-20251001-v1:0"
RAISE = {"on_insufficient": ["raise"], "default_max_tokens": 400}


@pytest.fixture
def bedrock(sim):
    """Make a plain ChatBedrockConverse."""
    made = []

    def make(model=HAIKU, **settings):
        made.append(
            ChatBedrockConverse(
                model=model,
                endpoint_url=sim.bedrock_url,
                region_name="us-east-1",
                aws_access_key_id=signing.ACCESS_KEY,
                aws_secret_access_key=signing.SECRET_KEY,
                **settings,
            )
        )
        return made[-1]

    yield make
    for model in made:
        for client in (model.client, model.bedrock_client):
            getattr(client, "plain", client).close()


@tool
def get_weather(city: str) -> str:
    """Weather of a city."""
    return f"sun over {city}"


@pytest.mark.parametrize("model", [HAIKU, GLOBAL])
def test_ledger_and_bill_agree_whole_and_streamed_with_tools(make_harness, bedrock, model):
    harness = make_harness()
    governed = guard(bedrock(model), harness.pipeline)
    assert is_guarded(governed)
    assert isinstance(governed, ChatBedrockConverse)
    answer = governed.invoke(PROMPT)
    assert answer.response_metadata["llm_cost"]["model"] == f"bedrock/{model}"
    assert "cost" in answer.response_metadata["llm_cost"]
    list(governed.stream(PROMPT))
    called = governed.bind_tools([get_weather]).invoke("What is the weather in 'Bern'?")
    assert called.tool_calls[0]["args"] == {"city": "Bern"}
    history = [HumanMessage("What is the weather in 'Bern'?"), called, get_weather.invoke(called.tool_calls[0])]
    assert "sun over Bern" in governed.bind_tools([get_weather]).invoke(history).text
    whole = None
    for chunk in governed.bind_tools([get_weather]).stream("What is the weather in 'Bern'?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"] == {"city": "Bern"}
    assert whole.response_metadata["llm_cost"]["attempt"] == 1
    asyncio.run(governed.ainvoke(PROMPT))

    async def astreamed():
        return [chunk async for chunk in governed.astream(PROMPT)]

    asyncio.run(astreamed())
    harness.check()


def test_what_a_call_says_of_itself_is_booked_and_leaves_no_trace_in_the_request(make_harness, bedrock):
    harness = make_harness()
    governed = guard(bedrock(), harness.pipeline)
    governed.invoke(PROMPT, config={"metadata": {"llm_cost": {"user": "42"}}})
    list(governed.stream(PROMPT, config={"metadata": {"llm_cost": {"user": "42"}}}))
    assert harness.pipeline.ledger.balance("user:42").settled == harness.pipeline.ledger.balance("global").settled
    assert all("llm_cost" not in repr(request.body) for request in harness.sim.requests)
    harness.check()


def test_a_long_system_prompt_gets_a_cache_point_and_reads_are_booked_as_reads(make_harness, bedrock):
    harness = make_harness(cache={"mode": "system"})
    governed = guard(bedrock(), harness.pipeline)
    messages = [SystemMessage("You know all bridges. " * 2_000), HumanMessage(PROMPT)]
    for _ in range(3):
        governed.invoke(messages)
    list(governed.stream(messages))
    assert messages[0].content == "You know all bridges. " * 2_000
    assert {"cachePoint": {"type": "default"}} in harness.sim.requests[-1].body["system"]
    assert sum(record.usage.cache_read for record in harness.pipeline.records()) > 20_000
    harness.check()


def test_points_of_the_caller_stand_and_their_hour_is_booked(make_harness, bedrock):
    harness = make_harness()
    governed = guard(bedrock(), harness.pipeline)
    system = SystemMessage(
        [{"type": "text", "text": "You know all bridges. " * 2_000}, {"cachePoint": {"type": "default", "ttl": "1h"}}]
    )
    for _ in range(2):
        governed.invoke([system, HumanMessage(PROMPT)])
    first, second = harness.pipeline.records()
    assert (first.usage.cache_write_1h, second.usage.cache_read) == (
        first.usage.cache_write_1h,
        first.usage.cache_write_1h,
    )
    assert first.usage.cache_write_1h > 5_000
    harness.check()


@pytest.mark.parametrize("stream", [False, True])
def test_a_throttled_request_is_sent_again_by_us_alone(make_harness, bedrock, stream):
    harness = make_harness(retry={"max_attempts": 3, "max_delay_s": 0.01})
    governed = guard(bedrock(), harness.pipeline)
    harness.sim.script(Fault.aws("ThrottlingException"), times=2)
    _ = list(governed.stream(PROMPT)) if stream else governed.invoke(PROMPT)
    assert [request.status for request in harness.sim.requests] == [429, 429, 200]
    harness.check()
    harness.sim.script(Fault.aws("ValidationException"))
    with pytest.raises(ClientError, match="ValidationException"):
        _ = list(governed.stream(PROMPT)) if stream else governed.invoke(PROMPT)
    assert harness.sim.request_count == 4


@pytest.mark.parametrize(
    ("fault", "exact"),
    [
        (Fault.error_event(after=3, error_type="throttlingException"), False),
        (Fault.cut(after=3), False),
        (Fault.cut(after=3, clean=True), False),
        (Fault.no_usage(), False),
        (Fault.reset(), False),
    ],
    ids=["exception", "reset in a stream", "ended early", "no usage", "reset before"],
)
def test_a_broken_stream_is_booked_at_no_less_than_its_bill(make_harness, bedrock, fault, exact):
    harness = make_harness(retry={"max_attempts": 1})
    governed = guard(bedrock(), harness.pipeline)
    harness.sim.responder = fill
    harness.sim.script(fault)
    with suppress(Exception):  # each fault has its own: what was booked is what counts
        list(governed.stream(PROMPT))
    harness.check(exact=exact)


def test_a_stream_that_is_left_is_closed_and_booked(make_harness, bedrock):
    harness = make_harness()
    stream = guard(bedrock(), harness.pipeline).stream(PROMPT)
    next(stream)
    stream.close()
    harness.check(exact=False)


def test_a_tool_that_is_changed_while_a_retry_waits_is_sent_as_it_was(make_harness, bedrock, sim):
    shape = {"type": "object", "properties": {}}
    config = {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": shape}}}]}

    def change(event):
        if isinstance(event, Retried):
            shape["properties"]["x"] = {"type": "string", "description": "word " * 1_000}

    harness = make_harness(observers=[change], retry={"throttle_base_s": 0.01})
    sim.script(Fault.status(429))
    messages = [{"role": "user", "content": [{"text": "hello"}]}]
    client = guard(bedrock(), harness.pipeline).client
    client.converse(modelId=HAIKU, messages=messages, toolConfig=config, inferenceConfig={"maxTokens": 20})
    first, second = [request.body for request in sim.requests]
    assert first == second


def test_a_race_sends_exactly_what_fits(make_harness, sim, bedrock):
    race(make_harness, sim, bedrock, "bedrock")


def test_a_refusal_sends_nothing_and_is_no_error_that_langchain_retries(make_harness, bedrock):
    harness = make_harness(limit="0.000001")
    governed = guard(bedrock(), harness.pipeline)
    for ask in (governed.invoke, governed.with_retry(stop_after_attempt=3).invoke, lambda p: list(governed.stream(p))):
        with pytest.raises(BudgetExceededError):
            ask(PROMPT)
    assert harness.sim.request_count == 0


def test_a_handler_beside_a_guard_books_nothing_twice(make_harness, bedrock):
    harness = make_harness()
    governed = guard(bedrock(), harness.pipeline)
    config = {"callbacks": [CostCallbackHandler(harness.pipeline)]}
    governed.invoke(PROMPT, config)
    list(governed.stream(PROMPT, config))
    assert len(harness.pipeline.records()) == 2
    assert harness.pipeline.ledger.balance("global").settled_nanousd == harness.sim.bill.total_nanousd
    assert harness.pipeline.ledger.balance("global").pending == 0


def test_an_arn_is_governed_as_the_model_that_the_configuration_names(make_harness, bedrock, sim):
    arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    sim.bedrock.arns[arn] = GLOBAL
    harness = make_harness(platforms={"bedrock": {"deployments": {arn: GLOBAL}}})
    guard(
        bedrock(arn, provider="anthropic", base_model="anthropic.claude-haiku-4-5-20251001-v1:0"), harness.pipeline
    ).invoke(PROMPT)
    assert harness.pipeline.records()[0].model == GLOBAL
    harness.check()


def test_models_in_a_chain_are_found_and_other_makers_are_metered_only(make_harness, bedrock):
    harness = make_harness(on_ungoverned="deny")
    chain = instrument(bedrock() | (lambda message: message.text), harness.pipeline)
    assert "bridges" in chain.invoke(PROMPT)
    harness.check()
    with pytest.raises(UnsupportedRequestError, match="Claude alone is governed: guard a ChatBedrockConverse"):
        guard(bedrock("us.amazon.nova-pro-v1:0"), harness.pipeline)
    legacy = ChatBedrock(
        model=HAIKU, endpoint_url=harness.sim.bedrock_url, region="us-east-1",
        aws_access_key_id=signing.ACCESS_KEY, aws_secret_access_key=signing.SECRET_KEY,
    )  # fmt: skip
    with pytest.raises(UnsupportedRequestError):
        guard(legacy, harness.pipeline)
    for client in (legacy.client, legacy.bedrock_client):
        client.close()


def test_the_users_model_and_its_client_stay_as_they_were(make_harness, bedrock):
    harness = make_harness()
    plain = bedrock()
    client = plain.client
    guard(plain, harness.pipeline).invoke(PROMPT)
    assert plain.client is client
    assert not is_guarded(plain)
    harness.sim.script(Fault.aws("ThrottlingException"))
    plain.invoke(PROMPT)  # botocore still retries for its owner
    assert [request.status for request in harness.sim.requests] == [200, 429, 200]


def test_routing_picks_the_cheaper_of_two_places(make_harness, bedrock):
    tiers = [{"name": "only", "models": [f"bedrock/{HAIKU}", f"bedrock/{GLOBAL}"]}]
    harness = make_harness(tiers=tiers)
    harness.sim.responder = auto
    guard(bedrock(), harness.pipeline).invoke(PROMPT)
    assert harness.pipeline.records()[0].model == GLOBAL
    harness.check()


def test_two_caps_are_held_at_the_higher_and_left_for_bedrock_to_refuse(make_harness, bedrock):
    harness = make_harness()
    governed = guard(bedrock(), harness.pipeline)
    with pytest.raises(ClientError, match="conflicts"):
        governed.invoke(PROMPT, max_tokens=5, additional_model_request_fields={"max_tokens": 60_000})
    assert harness.sim.requests[0].body["inferenceConfig"]["maxTokens"] == 5
    harness.check()
    governed.invoke(PROMPT, additional_model_request_fields={"max_tokens": 60})
    harness.check()


def test_what_is_only_heard_is_booked_at_the_price_of_its_place(make_harness, bedrock):
    harness = make_harness()
    config = {"callbacks": [CostCallbackHandler(harness.pipeline)]}
    for model in (HAIKU, GLOBAL):
        bedrock(model).invoke(PROMPT, config)
        list(bedrock(model).stream(PROMPT, config))
    assert [record.model for record in harness.pipeline.records()] == [HAIKU, HAIKU, GLOBAL, GLOBAL]
    assert harness.pipeline.ledger.balance("global").settled_nanousd == harness.sim.bill.total_nanousd
