"""The Responses API, seen through the OpenAI client."""

import json

import openai
import pytest

from llm_cost_middleware.simulator import auto, fill

MINI = "gpt-5-mini"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


def test_a_text_answer(gpt):
    reply = gpt.responses.create(model=MINI, input="hello there", instructions="be brief")
    assert (reply.status, reply.output_text, reply.model) == (
        "completed",
        "You said: hello there",
        "gpt-5-mini-2025-08-07",
    )
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (2 + 3 + 3 + 3 + 3, 6)


def test_a_stream_builds_the_same_response(gpt):
    with gpt.responses.stream(
        model=MINI, input="hello there", reasoning={"effort": "low", "summary": "auto"}
    ) as stream:
        kinds = [event.type for event in stream]
        built = stream.get_final_response()
    assert built.output_text == "You said: hello there"
    assert built.usage.output_tokens == 64 + 6
    assert [item.type for item in built.output] == ["reasoning", "message"]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_round_trip(sim, gpt, streamed):
    sim.responder = auto
    ask = {"model": MINI, "tools": [WEATHER]}
    items = [{"role": "user", "content": "weather in 'Paris'"}]
    if streamed:
        with gpt.responses.stream(**ask, input=items) as stream:
            reply = stream.get_final_response()
    else:
        reply = gpt.responses.create(**ask, input=items)
    (call,) = reply.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Paris"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    echoed = {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments}
    assert gpt.responses.create(**ask, input=[*items, echoed, result]).output_text == "The tool says: sunny"
    continued = gpt.responses.create(**ask, input=[result], previous_response_id=reply.id)
    assert continued.output_text == "The tool says: sunny"


def test_the_limit_makes_it_incomplete(sim, gpt):
    sim.responder = fill
    reply = gpt.responses.create(model=MINI, input="hi", max_output_tokens=40)
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert reply.usage.output_tokens == 40
    *_, last = gpt.responses.create(model=MINI, input="hi", max_output_tokens=40, stream=True)
    assert last.type == "response.incomplete"


def test_a_background_response_is_billed_once_and_carries_usage_only_when_fetched(sim, gpt):
    pending = gpt.responses.create(model=MINI, input="hi", background=True)
    assert (pending.status, pending.usage, pending.output) == ("queued", None, [])
    early = gpt.responses.retrieve(pending.id)
    assert (early.status, early.usage, early.output) == ("in_progress", None, [])
    fetched = gpt.responses.retrieve(pending.id)
    assert (fetched.status, fetched.id, fetched.output_text) == ("completed", pending.id, "You said: hi")
    events = list(gpt.responses.retrieve(pending.id, stream=True))
    assert events[-1].response.usage == fetched.usage
    assert [line.request_id for line in sim.bill.lines] == [pending.id]


def test_a_background_response_can_be_cancelled_until_it_is_finished_and_no_other_can(gpt):
    pending = gpt.responses.create(model=MINI, input="hi", background=True)
    assert gpt.responses.cancel(pending.id).status == "cancelled"
    assert (gpt.responses.retrieve(pending.id).status, gpt.responses.retrieve(pending.id).usage) == ("cancelled", None)
    for _ in range(2):
        gpt.responses.retrieve((done := gpt.responses.create(model=MINI, input="hi", background=True)).id)
    gpt.responses.retrieve(done.id)
    assert gpt.responses.cancel(done.id).status == "completed"
    with pytest.raises(openai.BadRequestError, match="synchronous"):
        gpt.responses.cancel(gpt.responses.create(model=MINI, input="hi").id)
    with pytest.raises(openai.BadRequestError, match="store"):
        gpt.responses.create(model=MINI, input="hi", background=True, store=False)


def test_what_was_not_stored_cannot_be_fetched(gpt):
    kept = gpt.responses.create(model=MINI, input="hi")
    gone = gpt.responses.create(model=MINI, input="hi", store=False)
    assert gpt.responses.retrieve(kept.id).id == kept.id
    for call in (
        lambda: gpt.responses.retrieve(gone.id),
        lambda: gpt.responses.create(model=MINI, input="x", previous_response_id=gone.id),
    ):
        with pytest.raises(openai.APIStatusError, match=gone.id):
            call()
    gpt.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(kept.id)


def test_input_tokens_are_counted_free_of_charge(sim, gpt):
    counted = gpt.responses.input_tokens.count(model=MINI, input="hello there")
    assert counted.input_tokens == 9
    assert sim.bill.lines == ()


async def test_the_async_client_is_served(sim):
    async with openai.AsyncOpenAI(base_url=sim.openai_url, api_key="key", max_retries=0) as client:
        reply = await client.responses.create(model=MINI, input="hi")
        async with client.responses.stream(model=MINI, input="hi") as stream:
            built = await stream.get_final_response()
    assert reply.output_text == built.output_text == "You said: hi"


def test_structured_output_follows_the_schema(sim, gpt):
    sim.responder = auto
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "out", "schema": schema, "strict": True}
    assert json.loads(gpt.responses.create(model=MINI, input="42!", text={"format": form}).output_text) == {"n": 42}
