"""The simulator's answers beside recorded ones: the same fields, the same events in the same order."""

import gzip
import json
import os
import re
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from llm_cost_middleware.simulator import Answer, ToolCall

DATA = Path(os.environ.get("LLM_COST_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "recorded").is_dir(), reason=f"no recorded exchanges in {DATA} (LLM_COST_DATA)"),
]

CLAUDE_HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
GPT_HEADERS = {"authorization": "Bearer k"}
TOOL_TURN = Answer(text="Let me look.", tool_calls=(ToolCall("get_weather", {"city": "Paris"}),))


@pytest.fixture(scope="module")
def recorded():
    """Recorded exchanges by id."""
    wanted = {
        "a-5c5f3e6f4d1d", "a-4780f27254c2", "a-39d473bbbc78", "a-70237862750f", "a-728d25079f4f", "o-e7823ce6cc07",
        "o-54ed6d6b7da0", "o-4efb6e099c18", "o-5a8162d4d43f", "o-7eef0740c1ac", "o-a5bdbce5522e", "o-578b6db09c00",
        "o-92dfe2a5584d", "o-f5f6a39c16a6",
    }  # fmt: skip
    found = {}
    with gzip.open(DATA / "recorded" / "exchanges.jsonl.gz", "rt") as lines:
        for line in lines:
            if line[7:21] in wanted:
                found[line[7:21]] = json.loads(line)["response"]
    assert found.keys() == wanted
    return found


@pytest.fixture
def post(sim):
    def post(path, body):
        headers = CLAUDE_HEADERS if "messages" in path else GPT_HEADERS
        return httpx.post(sim.url + path, json=body, headers=headers)

    return post


def claude_body(**more):
    return {"model": "claude-sonnet-4-6", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}]} | more


def gpt_body(model="gpt-5-mini", **more):
    return {"model": model, "messages": [{"role": "user", "content": "hi"}]} | more


def events(text):
    """The data of every event."""
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def folded(kinds):
    return [kind for kind, _ in groupby(kinds)]


def usage_keys(usage):
    return {key: set(value) if isinstance(value, dict) else None for key, value in usage.items()}


def test_a_message_has_the_recorded_fields(sim, post, recorded):
    sim.responder = lambda _: Answer(tool_calls=TOOL_TURN.tool_calls)
    real = recorded["a-5c5f3e6f4d1d"]["body"]
    ours = post("/v1/messages", claude_body()).json()
    assert ours.keys() == real.keys()
    assert usage_keys(ours["usage"]) == usage_keys(real["usage"])
    assert ours["content"][0].keys() == real["content"][0].keys()
    assert ours["stop_reason"] == real["stop_reason"] == "tool_use"
    assert [len(ours["id"]), len(ours["content"][0]["id"])] == [len(real["id"]), len(real["content"][0]["id"])]


def test_a_message_stream_has_the_recorded_events(sim, post, recorded):
    sim.responder = lambda _: TOOL_TURN
    real = events(recorded["a-70237862750f"]["body"])
    ours = events(post("/v1/messages", claude_body(stream=True)).text)
    blocks = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert folded(event["type"] for event in ours if event["type"] != "ping") == [
        "message_start",
        *blocks,
        *blocks,
        "message_delta",
        "message_stop",
    ]
    real_kinds = {event["type"] for event in real}
    assert {event["type"] for event in ours} <= real_kinds
    real_start, our_start = real[0]["message"], ours[0]["message"]
    assert our_start.keys() == real_start.keys()
    assert usage_keys(our_start["usage"]) == usage_keys(real_start["usage"])
    real_delta, our_delta = real[-2], ours[-2]
    assert our_delta["delta"].keys() == real_delta["delta"].keys()
    assert our_delta["usage"].keys() | {"server_tool_use"} == real_delta["usage"].keys()
    for kind in ("text", "tool_use"):
        real_open = next(event for event in real if event.get("content_block", {}).get("type") == kind)
        our_open = next(event for event in ours if event.get("content_block", {}).get("type") == kind)
        assert our_open["content_block"].keys() == real_open["content_block"].keys()


def test_a_thinking_stream_has_the_recorded_deltas(post, recorded):
    thinking = {"type": "enabled", "budget_tokens": 1024}

    def deltas(text):
        return folded(event["delta"]["type"] for event in events(text) if event["type"] == "content_block_delta")

    real = deltas(recorded["a-39d473bbbc78"]["body"])
    ours = deltas(post("/v1/messages", claude_body(stream=True, thinking=thinking)).text)
    assert ours == ["thinking_delta", "signature_delta", "text_delta"]
    assert real[:2] == ours[:2]


def test_a_message_batch_has_the_recorded_fields(post, recorded):
    made = post("/v1/messages/batches", {"requests": [{"custom_id": "0", "params": claude_body()}]}).json()
    real = recorded["a-728d25079f4f"]["body"]
    assert made.keys() == real.keys()
    assert made["request_counts"] == real["request_counts"]
    assert (made["processing_status"], made["results_url"]) == (real["processing_status"], None)


@pytest.mark.parametrize(("model", "exchange"), [("gpt-5.6", "o-e7823ce6cc07"), ("gpt-5", "o-4efb6e099c18")])
def test_a_completion_has_the_recorded_fields(post, recorded, model, exchange):
    real = recorded[exchange]["body"]
    ours = post("/v1/chat/completions", gpt_body(model)).json()
    assert ours.keys() == real.keys()
    assert usage_keys(ours["usage"]) == usage_keys(real["usage"])
    assert ours["choices"][0].keys() - {"logprobs"} == real["choices"][0].keys()
    assert ours["choices"][0]["message"].keys() == real["choices"][0]["message"].keys() - {"tool_calls"}
    assert len(ours["id"]) == len(real["id"])


def test_a_completion_stream_has_the_recorded_chunks(sim, post, recorded):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    real_text = recorded["o-54ed6d6b7da0"]["body"]
    our_text = post("/v1/chat/completions", gpt_body(**options)).text
    assert our_text.rstrip().endswith("data: [DONE]")
    real, ours = events(real_text), events(our_text)
    for at in (0, -2, -1):  # opening, finish, usage
        assert ours[at].keys() | {"obfuscation"} == real[at].keys()
    assert ours[0]["choices"][0]["delta"] == real[0]["choices"][0]["delta"]
    assert ours[-2]["choices"][0]["delta"] == real[-2]["choices"][0]["delta"] == {}
    assert usage_keys(ours[-1]["usage"]) == usage_keys(real[-1]["usage"])
    assert ours[-1]["choices"] == real[-1]["choices"] == []

    sim.responder = lambda _: Answer(tool_calls=TOOL_TURN.tool_calls)
    real, ours = (
        events(recorded["o-f5f6a39c16a6"]["body"]),
        events(post("/v1/chat/completions", gpt_body(**options)).text),
    )

    def calls(chunks):
        found = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
        return [delta["tool_calls"][0] for delta in found if delta.get("tool_calls")]

    opening = calls(real)[0]
    assert calls(ours)[0].keys() == opening.keys()
    assert calls(ours)[1].keys() == calls(real)[1].keys() == {"index", "function"}


def test_a_response_has_the_recorded_fields(post, recorded):
    real = recorded["o-a5bdbce5522e"]["body"]
    ours = post("/v1/responses", {"model": "gpt-4o", "input": "hi"}).json()
    assert ours.keys() == real.keys()
    assert usage_keys(ours["usage"]) == usage_keys(real["usage"])
    assert ours["output"][0].keys() == real["output"][0].keys()
    assert ours["output"][0]["content"][0].keys() == real["output"][0]["content"][0].keys()
    pending = post("/v1/responses", {"model": "gpt-4o", "input": "hi", "background": True}).json()
    waiting = recorded["o-578b6db09c00"]["body"]
    same = ("status", "usage", "output", "background", "service_tier", "completed_at")
    assert [pending[key] for key in same] == [waiting[key] for key in same]


@pytest.mark.parametrize("exchange", ["o-7eef0740c1ac", "o-5a8162d4d43f"])
def test_a_response_stream_has_the_recorded_events(sim, post, recorded, exchange):
    real_text = recorded[exchange]["body"]
    if "function_call" in real_text:
        sim.responder = lambda _: Answer(tool_calls=TOOL_TURN.tool_calls * 2)
        body = {"model": "gpt-5-mini", "input": "hi", "reasoning": {"effort": "medium"}}
    else:
        body = {"model": "gpt-4.1", "input": "hi"}
    our_text = post("/v1/responses", body | {"stream": True}).text
    names = re.compile(r"^event: (.*)$", re.MULTILINE)
    assert folded(names.findall(our_text)) == folded(names.findall(real_text))
    shapes = {}
    for event in events(real_text):
        shapes.setdefault(event["type"], event.keys() - {"obfuscation", "sequence_number"})
    for event in events(our_text):
        assert event.keys() - {"obfuscation", "sequence_number", "logprobs"} == shapes[event["type"]] - {"logprobs"}
    assert [event["sequence_number"] for event in events(our_text)] == list(range(len(events(our_text))))


def test_an_openai_batch_has_the_recorded_fields(sim, recorded):
    line = {"custom_id": "0", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt-5-nano", "input": "hi"}}
    file = httpx.post(
        sim.url + "/v1/files",
        files={"file": ("in.jsonl", json.dumps(line))},
        data={"purpose": "batch"},
        headers=GPT_HEADERS,
    ).json()
    order = {"input_file_id": file["id"], "endpoint": "/v1/responses", "completion_window": "24h"}
    made = httpx.post(sim.url + "/v1/batches", json=order, headers=GPT_HEADERS).json()
    real = recorded["o-92dfe2a5584d"]["body"]
    assert made.keys() == real.keys()
    assert {key: made[key] for key in ("status", "request_counts", "usage", "model")} == {
        key: real[key] for key in ("status", "request_counts", "usage", "model")
    }
