"""What governing adds to a bare SDK call and to a chunk of its stream, in one run.

The transport answers in this process, so that only the client is measured. Prints its table; no time is asserted.
Run with ``pytest tests/benchmarks/test_bench_sdk.py -s``.
"""

from __future__ import annotations

import gc
import json
import statistics
import time

import anthropic
import httpx
import httpx2
import openai
import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

TURN = [{"role": "user", "content": "word " * 100}]
CHUNKS = 500
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001",
    "content": [{"type": "text", "text": "An answer."}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 100, "output_tokens": 10},
}  # fmt: skip
CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "An answer."}}],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
}  # fmt: skip


def _sse(events):
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def _claude_stream():
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}}
    return _sse(
        [
            {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *[delta] * CHUNKS,
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": CHUNKS}},
            {"type": "message_stop"},
        ]
    )


def _chat_stream():
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-mini"}
    words = base | {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
    last = base | {"choices": [], "usage": CHAT["usage"]}
    lines = [json.dumps(words)] * CHUNKS + [json.dumps(last), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def _transport(kit, plain, stream):
    def answer(request):
        if json.loads(request.content).get("stream"):
            return kit.Response(200, content=stream, headers={"content-type": "text/event-stream"})
        return kit.Response(200, json=plain)

    return kit.Client(transport=kit.MockTransport(answer))


@pytest.fixture
def kits():
    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "1000"}]))
    claude = anthropic.Anthropic(api_key="k", http_client=_transport(httpx2, MESSAGE, _claude_stream()), max_retries=0)
    gpt = openai.OpenAI(api_key="k", http_client=_transport(httpx, CHAT, _chat_stream()), max_retries=0)
    yield {"anthropic": (claude, wrap_anthropic(claude, pipeline)), "openai": (gpt, wrap_openai(gpt, pipeline))}
    claude.close()
    gpt.close()


def _ask(name, client, **kwargs):
    if name == "anthropic":
        return lambda: client.messages.create(model="claude-haiku-4-5", max_tokens=64, messages=TURN, **kwargs)
    return lambda: client.chat.completions.create(model="gpt-5-mini", max_completion_tokens=64, messages=TURN, **kwargs)


def _cpu(call, times):
    rounds = []
    for _ in range(times):
        start = time.thread_time()
        for _ in range(10):
            call()
        rounds.append((time.thread_time() - start) / 10)
    return statistics.median(rounds)


def _compare(calls, times):
    found = {name: [] for name in calls}
    for call in calls.values():
        _cpu(call, 3)
    gc.collect()
    for _ in range(5):  # by turns, so that the machine's moods meet all alike
        for name, call in calls.items():
            found[name].append(_cpu(call, times))
    return {name: min(seconds) for name, seconds in found.items()}


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_overhead_over_a_bare_client(name, kits, soak):
    bare, wrapped = kits[name]
    found = _compare({"bare": _ask(name, bare), "wrapped": _ask(name, wrapped)}, 30 if soak else 5)
    added = found["wrapped"] - found["bare"]
    print(f"\n{name}: bare {found['bare'] * 1e6:.0f} µs CPU, added {added * 1e6:.0f} µs ({added / found['bare']:.1%})")
    assert found["wrapped"] > 0


@pytest.mark.parametrize("name", ["anthropic", "openai"])
def test_overhead_of_a_chunk(name, kits, soak):
    bare, wrapped = kits[name]

    def drain(client):
        ask = _ask(name, client, stream=True)

        def run():
            for _ in ask():
                pass

        return run

    found = _compare({"bare": drain(bare), "wrapped": drain(wrapped)}, 3 if soak else 1)
    added = (found["wrapped"] - found["bare"]) / CHUNKS
    print(f"\n{name}: a chunk {found['bare'] / CHUNKS * 1e6:.1f} µs CPU, added {added * 1e6:.2f} µs")
    assert found["wrapped"] > 0
