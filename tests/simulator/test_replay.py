"""Recorded conversations, played back through every endpoint."""

import gzip
import json
import os
from pathlib import Path

import pytest

from llm_cost_middleware.simulator import Answer, Replay

DATA = Path(os.environ.get("LLM_COST_DATA", Path(__file__).parents[3] / "shared" / "data"))

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"b": 2, "a": "x"}'}}
TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "find x"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "found"},
    {"role": "assistant", "content": "here it is"},
]
OTHER = [*TALK[:2], {"role": "assistant", "content": "good day"}]


def test_each_point_of_a_conversation_is_answered_as_recorded(sim, gpt):
    sim.responder = replay = Replay([TALK])
    for end in (2, 4, 6):
        reply = gpt.chat.completions.create(model="gpt-4o", messages=TALK[:end]).choices[0].message
        assert reply.content == TALK[end]["content"]
        for call, wanted in zip(reply.tool_calls or [], TALK[end].get("tool_calls", []), strict=True):
            assert json.loads(call.function.arguments) == json.loads(wanted["function"]["arguments"])
    assert replay.misses == 0


def test_a_conversation_is_recognised_through_the_other_provider(sim, claude, gpt):
    sim.responder = replay = Replay([TALK])
    messages = [
        *TALK[1:4],
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {"a": "x", "b": 2}}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "found"}]},
    ]
    ask = {"model": "claude-haiku-4-5", "max_tokens": 99, "system": "something else"}
    assert claude.messages.create(**ask, messages=messages[:3]).content[0].input == {"a": "x", "b": 2}
    assert claude.messages.create(**ask, messages=messages).content[0].text == "here it is"
    items = [
        *TALK[1:4],
        {"type": "function_call", "call_id": "c", "name": "find", "arguments": '{"a":"x","b":2}'},
        {"type": "function_call_output", "call_id": "c", "output": "found"},
    ]
    assert gpt.responses.create(model="gpt-4o", input=items).output_text == "here it is"
    assert replay.misses == 0


def test_recordings_that_begin_alike_take_turns_unless_one_is_named(sim, gpt):
    sim.responder = Replay([{"name": "first", "messages": TALK}, {"name": "second", "messages": OTHER}])

    def say(**headers):
        return (
            gpt.chat.completions.create(model="gpt-4o", messages=TALK[:2], extra_headers=headers)
            .choices[0]
            .message.content
        )

    assert [say(), say(), say()] == ["hello", "good day", "hello"]
    assert [say(**{"x-sim-conversation": "second"}) for _ in range(2)] == ["good day"] * 2


def test_what_no_recording_knows_goes_to_the_fallback(sim, gpt, user):
    sim.responder = replay = Replay([TALK], fallback=lambda _: Answer(text="who knows"))
    assert gpt.chat.completions.create(model="gpt-4o", messages=user("?")).choices[0].message.content == "who knows"
    assert replay.misses == 1


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "agent_traces").is_dir(), reason=f"no agent traces in {DATA} (LLM_COST_DATA)")
def test_recorded_agent_conversations_are_played_word_for_word_with_their_caches(sim, gpt):
    with gzip.open(DATA / "agent_traces" / "airline_conversations.jsonl.gz", "rt") as lines:
        talks = [json.loads(line) for line in lines]
    tools = json.loads((DATA / "agent_traces" / "airline_tools.json").read_text())
    named = [{"name": f"{talk['task_id']}.{talk['trial']}", "messages": talk["messages"]} for talk in talks]
    sim.responder = replay = Replay(named)
    calls = 0
    for talk in named[:8]:
        for at, message in enumerate(talk["messages"]):
            if message["role"] != "assistant":
                continue
            reply = gpt.chat.completions.create(
                model="gpt-4o",
                messages=talk["messages"][:at],
                tools=tools,
                extra_headers={"x-sim-conversation": talk["name"]},
            )
            calls += 1
            said = reply.choices[0].message
            assert (said.content or "") == (message.get("content") or "")
            assert [call.function.name for call in said.tool_calls or ()] == [
                call["function"]["name"] for call in message.get("tool_calls") or ()
            ]
    assert (replay.misses, len(sim.bill.lines)) == (0, calls)
    read = sum(line.tokens.read for line in sim.bill.lines)
    assert read > 0.8 * sum(line.tokens.prompt for line in sim.bill.lines)
