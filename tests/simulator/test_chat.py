"""Chat completions, seen through the OpenAI client."""

import json

import openai
import pytest

from llm_cost_middleware.simulator import Answer, auto, fill

MINI = "gpt-5-mini"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_an_alias_is_answered_by_its_dated_model_and_tokens_follow_the_stated_rule(sim, gpt, user):
    reply = gpt.chat.completions.create(model=MINI, messages=user("hello there"))
    assert reply.model == "gpt-5-mini-2025-08-07"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3 + 3 + 3, 6)
    assert (reply.service_tier, reply.created) == ("default", int(sim.clock.now()))
    assert gpt.chat.completions.create(model="gpt-5.6", messages=user("hi")).model == "gpt-5.6-sol"


@pytest.mark.parametrize("asked", [False, True])
def test_a_stream_carries_usage_only_when_asked(gpt, user, asked):
    options = {"stream_options": {"include_usage": True}} if asked else {}
    chunks = list(gpt.chat.completions.create(model=MINI, messages=user("hello"), stream=True, **options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: hello"
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert [usage.total_tokens for usage in usages] == ([8 + 4] if asked else [])


async def test_the_async_client_is_served(sim, user):
    async with openai.AsyncOpenAI(base_url=sim.openai_url, api_key="key", max_retries=0) as client:
        reply = await client.chat.completions.create(model=MINI, messages=user("hi"))
        stream = await client.chat.completions.create(model=MINI, messages=user("hi"), stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert reply.choices[0].message.content == text == "You said: hi"


@pytest.mark.parametrize("streamed", [False, True])
def test_fill_uses_exactly_the_limit_in_every_choice(sim, gpt, user, streamed):
    sim.responder = fill
    ask = {"model": MINI, "messages": user("hi"), "n": 3, "max_completion_tokens": 50}
    if streamed:
        *_, last = gpt.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
        usage = last.usage
    else:
        reply = gpt.chat.completions.create(**ask)
        usage = reply.usage
        assert [len(choice.message.content) for choice in reply.choices] == [200, 200, 200]
        assert {choice.finish_reason for choice in reply.choices} == {"length"}
    assert usage.completion_tokens == 150
    assert sim.bill.lines[0].tokens.output == 150


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_round_trip(sim, gpt, user, streamed):
    sim.responder = auto
    messages = user("weather in 'Paris' please")
    if streamed:
        with gpt.chat.completions.stream(model=MINI, messages=messages, tools=[WEATHER]) as stream:
            reply = stream.get_final_completion()
    else:
        reply = gpt.chat.completions.create(model=MINI, messages=messages, tools=[WEATHER])
    (call,) = reply.choices[0].message.tool_calls
    assert reply.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    asked = {
        "id": call.id,
        "type": "function",
        "function": {"name": "get_weather", "arguments": call.function.arguments},
    }
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
    ]
    final = gpt.chat.completions.create(model=MINI, messages=messages, tools=[WEATHER])
    assert final.choices[0].message.content == "The tool says: sunny"


def test_a_json_schema_is_obeyed(sim, gpt, user):
    sim.responder = auto
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["name", "age", "kind"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema, "strict": True}}
    reply = gpt.chat.completions.create(model="gpt-4o", messages=user("'Tom' is 3"), response_format=form)
    assert json.loads(reply.choices[0].message.content) == {"name": "Tom", "age": 3, "kind": "cat"}


def test_reasoning_effort_costs_tokens_inside_the_output(gpt, user):
    reply = gpt.chat.completions.create(model=MINI, messages=user("hi"), reasoning_effort="medium")
    assert reply.usage.completion_tokens_details.reasoning_tokens == 128
    assert reply.usage.completion_tokens == 128 + 3
    cut = gpt.chat.completions.create(
        model=MINI, messages=user("hi"), reasoning_effort="medium", max_completion_tokens=50
    )
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("", "length")
    assert cut.usage.completion_tokens == cut.usage.completion_tokens_details.reasoning_tokens == 50


def test_the_service_tier_is_answered_and_billed(sim, gpt, user):
    sim.responder = lambda _: Answer(text="ok", output_tokens=100)
    for tier, name in (("flex", "flex"), ("priority", "priority"), ("auto", "default"), ("fast", "priority")):
        reply = gpt.chat.completions.create(model=MINI, messages=user("hello there"), service_tier=tier)
        assert reply.service_tier == name
    # 9 in, 100 out: flex 0.125/1, priority 0.45/3.6, standard 0.25/2 USD a million
    assert [line.cost_nanousd for line in sim.bill.lines] == [101_125, 364_050, 202_250, 364_050]


def test_unknown_endpoints_are_404_in_the_form_of_the_provider(gpt):
    with pytest.raises(openai.NotFoundError, match=r"Invalid URL \(POST /v1/nothing\)"):
        gpt.post("/nothing", cast_to=object, body={})
