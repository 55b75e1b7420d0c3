"""Traffic to replay: recorded agent conversations and synthetic kinds, as request bodies with times.

The recorded traces carry no times. They are given seeded ones: an answer takes two seconds, a tool four, a person ten
seconds to a minute, and a conversation begins every forty seconds on average, so that a handful overlap.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

ANSWER_S = 2.0
READABLE_S = 1.0
"""When the answer begins, and what it wrote can be read."""
MODEL = "claude-sonnet-4-6"


class Call(NamedTuple):
    """One request."""

    at: float
    body: dict[str, Any]
    """In the shape of Anthropic's ``messages``."""


def agents(
    folder: Path, *, conversations: int = 120, pause: tuple[float, float] = (10.0, 60.0), seed: int = 1
) -> list[Call]:
    """The recorded agent conversations, each answer one call that re-sends everything before it."""
    rng = random.Random(seed)
    tools = [_tool(each["function"]) for each in json.loads((folder / "airline_tools.json").read_text())]
    with gzip.open(folder / "airline_conversations.jsonl.gz", "rt", encoding="utf-8") as lines:
        traces = [json.loads(line)["messages"] for line in lines][:conversations]
    calls, begun = [], 0.0
    for trace in traces:
        begun += rng.expovariate(1 / 40.0)
        now = begun
        system = [{"type": "text", "text": trace[0]["content"]}]
        history: list[dict[str, Any]] = []
        for message in trace[1:]:
            if message["role"] == "assistant":
                body = {"model": MODEL, "max_tokens": 1024, "tools": tools, "system": system, "messages": list(history)}
                calls.append(Call(now, body))
                now += ANSWER_S
            else:
                now += 4.0 if message["role"] == "tool" else rng.uniform(*pause)
            history = _added(history, message)
    return sorted(calls, key=lambda call: call.at)


def single_shot(count: int = 200, seed: int = 2) -> list[Call]:
    """One system prompt, a new question each time; answers are never continued. A question a minute."""
    rng = random.Random(seed)
    system = _text(rng, 8_000)
    return [_call(60.0 * at, system, [_user(_text(rng, 2_000))]) for at in range(count)]


def never_repeating(count: int = 200, seed: int = 3) -> list[Call]:
    """Long prompts of which nothing ever comes back: a new system prompt and a new document each time."""
    rng = random.Random(seed)
    return [_call(20.0 * at, _text(rng, 6_000), [_user(_text(rng, 12_000))]) for at in range(count)]


def fan_out(count: int = 12, width: int = 16, seed: int = 4) -> list[Call]:
    """A document, and at the same moment so many questions about it; a new document every ten minutes."""
    rng = random.Random(seed)
    calls = []
    for batch in range(count):
        system, document = _text(rng, 1_000), _text(rng, 20_000)
        for at in range(width):
            blocks = [{"type": "text", "text": document}, {"type": "text", "text": _text(rng, 300)}]
            calls.append(_call(600.0 * batch + 0.02 * at, system, [{"role": "user", "content": blocks}]))
    return calls


def slow(gap_s: float, conversations: int = 12, turns: int = 10, seed: int = 5) -> list[Call]:
    """Conversations whose person takes ``gap_s`` to answer. Each has a system prompt of its own."""
    rng = random.Random(seed)
    calls = []
    for conversation in range(conversations):
        now, system = conversation * 97.0, _text(rng, 8_000)
        history: list[dict[str, Any]] = []
        for _ in range(turns):
            history = [*history, _user(_text(rng, 1_200))]
            calls.append(_call(now, system, history))
            history = [*history, {"role": "assistant", "content": [{"type": "text", "text": _text(rng, 1_500)}]}]
            now += gap_s * rng.uniform(0.9, 1.1)
    return sorted(calls, key=lambda call: call.at)


def all_kinds(folder: Path, *, conversations: int = 120, share: float = 1.0) -> dict[str, list[Call]]:
    """Every kind of traffic by name; ``share`` shortens the synthetic ones."""

    def some(count: int) -> int:
        return max(int(count * share), 4)

    return {
        "agents (recorded)": agents(folder, conversations=conversations),
        "single-shot": single_shot(some(200)),
        "fan-out": fan_out(some(12)),
        "slow, 12 min": slow(720.0, some(12)),
        "slow, 90 min": slow(5_400.0, some(12)),
        "never repeating": never_repeating(some(200)),
    }


def _call(at: float, system: str, messages: list[dict[str, Any]]) -> Call:
    blocks = [{"type": "text", "text": system}]
    return Call(at, {"model": MODEL, "max_tokens": 1024, "system": blocks, "messages": messages})


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def _text(rng: random.Random, length: int) -> str:
    words = (
        "flight",
        "reservation",
        "passenger",
        "policy",
        "refund",
        "segment",
        "baggage",
        "credit",
        "airport",
        "delay",
    )
    out, size = [], 0
    while size < length:
        word = f"{rng.choice(words)}{rng.randrange(1000)}"
        out.append(word)
        size += len(word) + 1
    return " ".join(out)[:length]


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function["description"],
        "input_schema": function["parameters"],
    }


def _added(history: list[dict[str, Any]], message: dict[str, Any]) -> list[dict[str, Any]]:
    """One OpenAI-shaped message more, in Anthropic's shape. Results of parallel calls share a message."""
    role, text = message["role"], message.get("content") or ""
    if role == "tool":
        block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": text}
        last = history[-1]
        if last["role"] == "user":
            return [*history[:-1], {**last, "content": [*last["content"], block]}]
        return [*history, {"role": "user", "content": [block]}]
    blocks = [{"type": "text", "text": text}] if text else []
    blocks += [
        {
            "type": "tool_use",
            "id": call["id"],
            "name": call["function"]["name"],
            "input": json.loads(call["function"]["arguments"]),
        }
        for call in message.get("tool_calls") or ()
    ]
    return [*history, {"role": role, "content": blocks}]


def to_openai(body: dict[str, Any], model: str) -> dict[str, Any]:
    """A body of Anthropic's as chat completions."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": block["text"]} for block in body["system"]]
    for message in body["messages"]:
        texts = [block for block in message["content"] if block["type"] == "text"]
        results = [block for block in message["content"] if block["type"] == "tool_result"]
        uses = [block for block in message["content"] if block["type"] == "tool_use"]
        messages += [
            {"role": "tool", "tool_call_id": block["tool_use_id"], "content": block["content"]} for block in results
        ]
        if texts or uses:
            content = [{"type": "text", "text": block["text"]} for block in texts]
            added: dict[str, Any] = {"role": message["role"], "content": content or None}
            if uses:
                added["tool_calls"] = [
                    {
                        "id": block["id"],
                        "type": "function",
                        "function": {"name": block["name"], "arguments": json.dumps(block["input"])},
                    }
                    for block in uses
                ]
            messages.append(added)
    out = {"model": model, "messages": messages}
    if body.get("tools"):
        out["reasoning_effort"] = "none"  # a chat with tools takes no other from GPT-5.6 on
        out["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool["name"],
                    "description": tool["description"],
                    "parameters": tool["input_schema"],
                },
            }
            for tool in body["tools"]
        ]
    return out
