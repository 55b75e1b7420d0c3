"""Makers of traffic, over three sets of tools: what applications send, with times, in the shape of Anthropic's API.

A kind of traffic is a maker with its arguments (``kinds_table``). The recorded conversations carry no times; they are
given seeded ones here. Sizes are in characters, four of which the simulator counts as a token.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from traffic import ANSWER_S, MODEL, Call, _added, _text, _tool, _user

HERE = Path(__file__).parent
Maker = Callable[[random.Random], list[Call]]


@cache
def tools_of(name: str) -> list[dict[str, Any]]:
    """A set of tools that was written for this: ``code`` for a coding agent, ``desk`` for a back office."""
    return json.loads((HERE / "tools" / f"{name}.json").read_text())


def _words(rng: random.Random, length: int) -> str:
    return _text(rng, length)


def _answer(rng: random.Random, length: int = 400) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": _words(rng, length)}]}


def _request(
    at: float, system: list[str], messages: list[dict[str, Any]], tools: Any = None, model: str = MODEL
) -> Call:
    body = {"model": model, "max_tokens": 64, "system": [{"type": "text", "text": text} for text in system]}
    return Call(at, {**({"tools": tools} if tools else {}), **body, "messages": messages})


def _sorted(calls: list[Call]) -> list[Call]:
    return sorted(calls, key=lambda call: call.at)


def recorded(
    rng: random.Random,
    *,
    folder: Path,
    talks: int,
    between: float,
    tool_s: float,
    person_s: tuple[float, float],
    first: int = 0,
) -> list[Call]:
    """Recorded airline support: each answer is one call that sends everything before it again."""
    tools = [_tool(each["function"]) for each in json.loads((folder / "airline_tools.json").read_text())]
    with gzip.open(folder / "airline_conversations.jsonl.gz", "rt", encoding="utf-8") as lines:
        traces = [json.loads(line)["messages"] for line in lines][first : first + talks]
    calls, begun = [], 0.0
    for trace in traces:
        now, history = begun, []
        for message in trace[1:]:
            if message["role"] == "assistant":
                calls.append(_request(now, [trace[0]["content"]], list(history), tools))
                now += ANSWER_S
            else:
                now += tool_s if message["role"] == "tool" else rng.uniform(*person_s)
            history = _added(history, message)
        begun = now + 5.0 if between == 0 else begun + rng.expovariate(1 / between)
    return _sorted(calls)


def agents(
    rng: random.Random,
    *,
    tools: str,
    talks: int,
    steps: tuple[int, int],
    result: tuple[int, int],
    gap: tuple[float, float],
    between: float,
    own_system: bool = False,
    parallel: int = 1,
    system: int = 7_000,
) -> list[Call]:
    """An agent that calls tools until it is done. ``own_system``: each with instructions of its own."""
    shared, calls, begun = _words(rng, system), [], 0.0
    for talk in range(talks):
        head = _words(rng, system) if own_system else shared
        now, messages = begun, [_user(_words(rng, 600))]
        for step in range(rng.randint(*steps)):
            calls.append(_request(now, [head], list(messages), tools_of(tools)))
            ids = [f"c{talk}_{step}_{number}" for number in range(parallel)]
            name = tools_of(tools)[step % 5]["name"]
            uses = [{"type": "tool_use", "id": each, "name": name, "input": {"path": _words(rng, 30)}} for each in ids]
            results = [
                {"type": "tool_result", "tool_use_id": each, "content": _words(rng, rng.randint(*result))}
                for each in ids
            ]
            messages += [{"role": "assistant", "content": uses}, {"role": "user", "content": results}]
            now += ANSWER_S + rng.uniform(*gap)
        begun = now + 5.0 if between == 0 else begun + rng.expovariate(1 / between)
    return _sorted(calls)


def dialogue(
    rng: random.Random,
    *,
    talks: int,
    turns: tuple[int, int],
    gap: float,
    between: float,
    system: str = "own",
    size: int = 8_000,
    question: int = 1_200,
    answer: int = 1_500,
    window: int | None = None,
    tools: str | None = None,
) -> list[Call]:
    """People who talk: ``system`` is ``own``, ``shared`` or ``none``; ``window``: only so many messages are sent."""
    shared, calls, begun = _words(rng, size), [], 0.0
    for _ in range(talks):
        head = {"own": _words(rng, size), "shared": shared, "none": ""}[system]
        now, messages = begun, []
        for _ in range(rng.randint(*turns)):
            messages.append(_user(_words(rng, question)))
            sent = messages if window is None or len(messages) <= window else messages[-window:]
            calls.append(_request(now, [head] if head else [], list(sent), tools_of(tools) if tools else None))
            messages.append(_answer(rng, answer))
            now += ANSWER_S + gap * rng.uniform(0.8, 1.2)
        begun += rng.expovariate(1 / between)
    return _sorted(calls)


def questions(
    rng: random.Random,
    *,
    count: int,
    gap: float,
    system: int,
    question: int,
    systems: int = 1,
    tools: str | None = None,
    stamp: str = "",
    shuffled: str = "",
    shots: int = 0,
) -> list[Call]:
    """Single questions, never followed up, in turn over so many system prompts (0: a new one each time).

    Args:
        rng: Randomness.
        count: Calls.
        gap: Seconds between them.
        system: Size of a system prompt.
        question: Size of a question.
        systems: Number of system prompts.
        tools: A set of tools.
        stamp: Where the time stands: ``first``, or in a ``last`` block of system.
        shuffled: The tools are in another order for each ``call``, or each ``ten`` calls.
        shots: Examples that stand before every question as turns of a conversation.
    """
    heads = [_words(rng, system) for _ in range(systems)]
    examples = [m for _ in range(shots) for m in (_user(_words(rng, 700)), _answer(rng, 500))]
    calls, order = [], list(tools_of(tools)) if tools else None
    for at in range(count):
        head = heads[at % systems] if systems else _words(rng, system)
        blocks = {"": [head], "first": [f"It is {at} past nine. {head}"], "last": [head, f"It is {at} past nine."]}[
            stamp
        ]
        if order and (shuffled == "call" or (shuffled == "ten" and at % 10 == 0)):
            rng.shuffle(order)
        calls.append(
            _request(gap * at, blocks, [*examples, _user(_words(rng, question))], list(order) if order else None)
        )
    return calls


def documents(
    rng: random.Random,
    *,
    count: int,
    per: int,
    gap: float,
    apart: float,
    size: int = 16_000,
    at_once: int = 1,
    place: str = "block",
) -> list[Call]:
    """So many questions on each document, ``at_once`` of them at a time. The document stands in ``place``."""
    calls, now = [], 0.0
    system = _words(rng, 1_000)
    for _ in range(count):
        document = _words(rng, size)
        for number in range(per):
            question = _words(rng, 300)
            if place == "system":
                calls.append(_request(now, [system, document], [_user(question)]))
            elif place == "string":
                calls.append(_request(now, [system], [_user(f"{document}\n{question}")]))
            else:
                blocks = [{"type": "text", "text": document}, {"type": "text", "text": question}]
                calls.append(_request(now, [system], [{"role": "user", "content": blocks}]))
            now += 0.02 if (number + 1) % at_once else gap
        now += apart
    return calls


def repeats(rng: random.Random, *, prompts: int, times: int, gap: float, size: int = 6_000) -> list[Call]:
    """The same prompt so many times in a row, then another: retries, votes, evaluations."""
    calls, now = [], 0.0
    for _ in range(prompts):
        system, asked = _words(rng, size), _user(_words(rng, size))
        for _ in range(times):
            calls.append(_request(now, [system], [asked]))
            now += gap
    return calls


def bursts(
    rng: random.Random, *, count: int, width: int, every: float, system: int = 9_000, tools: str | None = None
) -> list[Call]:
    """So many different questions in a row, every so often, over one system prompt: a job that a clock starts."""
    head = _words(rng, system)
    return [
        _request(every * burst + 4.0 * at, [head], [_user(_words(rng, 900))], tools_of(tools) if tools else None)
        for burst in range(count)
        for at in range(width)
    ]


def mixed(rng: random.Random, *, parts: tuple[Maker, ...]) -> list[Call]:
    """Several kinds at the same time."""
    return _sorted([call for part in parts for call in part(rng)])
