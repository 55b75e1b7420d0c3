"""The Messages API, seen through the Anthropic client."""

import anthropic
import pytest

from llm_cost_middleware.simulator import Answer, ToolCall, auto

HAIKU = "claude-haiku-4-5"
WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def test_an_alias_is_answered_by_its_dated_model_and_tokens_follow_the_stated_rule(claude, user):
    reply = claude.messages.create(model=HAIKU, max_tokens=100, messages=user("hello there"))
    assert reply.model == "claude-haiku-4-5-20251001"
    assert reply.content[0].text == "You said: hello there"
    # 11 bytes: 3 tokens, 4 for the message, 3 to end the prompt; 21 bytes of answer: 6 tokens.
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (10, 6)
    assert (reply.stop_reason, reply.usage.service_tier) == ("end_turn", "standard")
    assert reply._request_id.startswith("req_011C")


def test_a_stream_builds_the_same_message_as_the_json_answer(claude, user):
    whole = claude.messages.create(model=HAIKU, max_tokens=100, messages=user("hello there, how are you"))
    with claude.messages.stream(model=HAIKU, max_tokens=100, messages=user("hello there, how are you")) as stream:
        built = stream.get_final_message()
    assert built.content[0].text == whole.content[0].text
    assert built.stop_reason == whole.stop_reason
    assert built.usage.output_tokens == whole.usage.output_tokens
    assert built.usage.input_tokens == whole.usage.input_tokens


async def test_the_async_client_is_served_in_json_and_in_events(sim, user):
    async with anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="key", max_retries=0) as client:
        reply = await client.messages.create(model=HAIKU, max_tokens=50, messages=user("hi"))
        async with client.messages.stream(model=HAIKU, max_tokens=50, messages=user("hi")) as stream:
            built = await stream.get_final_message()
    assert built.content[0].text == reply.content[0].text == "You said: hi"
    assert [line.outcome for line in sim.bill.lines] == ["complete", "complete"]


def test_an_answer_is_cut_at_max_tokens(sim, claude, user):
    sim.responder = lambda _: Answer(text="x" * 1000)
    reply = claude.messages.create(model=HAIKU, max_tokens=10, messages=user("hi"))
    assert (reply.stop_reason, reply.usage.output_tokens, reply.content[0].text) == ("max_tokens", 10, "x" * 40)


def test_max_tokens_zero_only_warms_the_cache(claude):
    system = [{"type": "text", "text": "s" * 20_000, "cache_control": {"type": "ephemeral"}}]
    messages = [{"role": "user", "content": "hi"}]
    warm = claude.messages.create(model=HAIKU, max_tokens=0, system=system, messages=messages)
    assert (warm.content, warm.usage.output_tokens) == ([], 0)
    assert warm.usage.cache_creation_input_tokens == 5000
    after = claude.messages.create(model=HAIKU, max_tokens=5, system=system, messages=messages)
    assert after.usage.cache_read_input_tokens == 5000


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_call_round_trip(sim, claude, user, streamed):
    sim.responder = auto
    ask = {"model": HAIKU, "max_tokens": 200, "tools": [WEATHER]}
    messages = user("weather in 'Paris' please")

    def call(messages):
        if not streamed:
            return claude.messages.create(**ask, messages=messages)
        with claude.messages.stream(**ask, messages=messages) as stream:
            return stream.get_final_message()

    first = call(messages)
    assert first.stop_reason == "tool_use"
    block = first.content[0]
    assert (block.name, block.input) == ("get_weather", {"city": "Paris"})
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
    messages += [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}],
        },
        {"role": "user", "content": [result]},
    ]
    second = call(messages)
    assert second.content[0].text == "The tool says: sunny"


def test_thinking_yields_a_signed_block_that_counts_as_output(claude, user):
    ask = {"model": HAIKU, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    reply = claude.messages.create(**ask, messages=user("hi"))
    thought, text = reply.content
    assert (thought.type, text.type) == ("thinking", "text")
    assert thought.signature
    assert reply.usage.output_tokens_details.thinking_tokens == 14
    assert reply.usage.output_tokens == 14 + 3
    with claude.messages.stream(**ask, messages=user("hi")) as stream:
        built = stream.get_final_message()
    assert (built.content[0].thinking, bool(built.content[0].signature)) == (thought.thinking, True)


def test_several_blocks_stream_in_order(sim, claude, user):
    sim.responder = lambda _: Answer(
        text="let me see",
        tool_calls=(ToolCall("get_weather", {"city": "Rome"}), ToolCall("get_weather", {"city": "Oslo"})),
    )
    with claude.messages.stream(model=HAIKU, max_tokens=200, tools=[WEATHER], messages=user("hi")) as stream:
        built = stream.get_final_message()
    assert [block.type for block in built.content] == ["text", "tool_use", "tool_use"]
    assert [block.input["city"] for block in built.content[1:]] == ["Rome", "Oslo"]


def test_counting_tokens_agrees_with_the_bill_and_is_free(sim, claude, user):
    counted = claude.messages.count_tokens(model=HAIKU, messages=user("hello there"), tools=[WEATHER])
    reply = claude.messages.create(model=HAIKU, max_tokens=9, messages=user("hello there"), tools=[WEATHER])
    assert counted.input_tokens == reply.usage.input_tokens
    assert len(sim.bill.lines) == 1


def test_web_searches_are_reported(sim, claude, user):
    sim.responder = lambda _: Answer(text="found", searches=3)
    reply = claude.messages.create(model=HAIKU, max_tokens=100, messages=user("hi"))
    assert reply.usage.server_tool_use.web_search_requests == 3


def test_a_failing_responder_is_a_500_that_names_the_error(sim, claude, user):
    sim.responder = lambda _: 1 / 0
    with pytest.raises(anthropic.InternalServerError, match="ZeroDivisionError"):
        claude.messages.create(model=HAIKU, max_tokens=100, messages=user("hi"))


def test_unknown_endpoints_are_404_in_the_form_of_the_provider(sim, claude):
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.post("/v1/nothing", cast_to=object, body={})
    assert caught.value.body["error"]["type"] == "not_found_error"
    assert sim.requests[-1].status == 404


@pytest.mark.parametrize(
    ("block", "tokens"),
    [
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "w" * 40}}, 10),
        ({"type": "document", "title": "t" * 8, "context": "c" * 4,
          "source": {"type": "content", "content": [{"type": "text", "text": "w" * 40}]}}, 13),
        ({"type": "search_result", "source": "s" * 4, "title": "t" * 8, "content": [{"type": "text", "text": "w"}]}, 4),
        ({"type": "document", "source": {"type": "url", "url": "https://a/b.pdf"}}, 1_000),
    ],
)  # fmt: skip
def test_documents_of_text_cost_their_text(claude, block, tokens):
    asked = [{"role": "user", "content": [block, {"type": "text", "text": "x"}]}]
    assert claude.messages.count_tokens(model=HAIKU, messages=asked).input_tokens == tokens + 1 + 4 + 3
