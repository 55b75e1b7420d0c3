"""Mutations of recorded exchanges: a reader refuses with its own error or reports; it never raises anything else."""

from __future__ import annotations

import copy
import gc
import json
import random
import time
from collections import Counter
from contextlib import suppress

import pytest

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.metering import decode_memo, encode_memo, price_response
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.provider import Failure
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.request import AnswerContent, ModelRef
from llm_cost_middleware.retry.classify import classify_response

pytestmark = pytest.mark.data

CATALOGUE = Catalogue()
SAMPLE, LONG = 1_000, 20_000
SEED = 20_261_126


def deep(depth=3_000):
    made = leaf = []
    for _ in range(depth):
        leaf.append([])
        leaf = leaf[0]
    return made


ODD = [
    None, True, False, 0, -1, -50, 1.5, 12.0, 10**9, 10**18, 10**400, float("nan"), float("inf"), "", "1000", "-5", "x",
    "\ud800", "completed", "queued", "message", "error", [], {}, [None], {"a": 1}, [[1]], "9" * 5_000, "0" * 100_000,
]  # fmt: skip


def places(thing, path=()):
    """The paths of everything inside a JSON value, without recursion."""
    found, todo = [], [(thing, path)]
    while todo:
        value, at = todo.pop()
        if at:
            found.append(at)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        todo.extend((item, (*at, name)) for name, item in inner)
    return found


def mutated(thing, rng):
    """A copy with one to three changes: removed, replaced by something odd, doubled, moved, renamed or buried."""
    thing = copy.deepcopy(thing)
    for _ in range(rng.randint(1, 3)):
        paths = places(thing)
        if not paths:
            return copy.deepcopy(rng.choice(ODD))
        # usage is where it hurts: half of all changes
        hurting = [path for path in paths if "usage" in path or path[-1] in ("model", "type", "object", "id", "error")]
        *outer, last = rng.choice(hurting if hurting and rng.random() < 0.5 else paths)
        inner = thing
        for name in outer:
            inner = inner[name]
        how = rng.randrange(6)
        if how == 0:
            del inner[last]
        elif how == 1:
            inner[last] = copy.deepcopy(rng.choice(ODD))  # else a later change would change the list of odd things
        elif how == 2 and isinstance(inner, list):
            inner.append(copy.deepcopy(inner[last]))
        elif how == 3:
            inner[last] = {
                rng.choice(["usage", "body", "response", "result", "message"]): inner[last],
                "custom_id": "1",
            }
        elif how == 4 and isinstance(inner, dict):
            inner[rng.choice(["usage", "output_tokens", "error", "custom_id", "choices", "created", "tools"])] = (
                inner.pop(last)
            )
        elif rng.random() < 0.1:
            inner[last] = deep()
            return thing  # what is so deep cannot be copied any more
        else:
            inner[last] = [inner[last]]
    return thing


def mutated_text(text, rng):
    """Server-sent events with one changed, cut, doubled, dropped or damaged."""
    lines = text.split("\n")
    data = [at for at, line in enumerate(lines) if line.startswith("data: {")]
    if not data or rng.random() < 0.2:
        at = rng.randrange(len(text) + 1)
        damage = rng.choice(["", "\x00", "{", '"', "\n", "data: ", "\ud800", "é" * 9, text[: rng.randrange(200)]])
        return text[:at] + damage + (text[at:] if rng.random() < 0.7 else "")
    at = rng.choice(data[-2:] if rng.random() < 0.5 else data)
    how = rng.randrange(4)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(at, lines[at] + "\n")
    else:
        try:
            lines[at] = "data: " + json.dumps(mutated(json.loads(lines[at][6:]), rng))
        except (ValueError, RecursionError):  # a number of 400 digits cannot be written
            lines[at] = lines[at][: rng.randrange(len(lines[at]))]
    return "\n".join(lines)


def mutations(exchanges, count):
    rng = random.Random(SEED)
    bodies = [exchange for exchange in exchanges if exchange.response]
    for number in range(count):
        exchange = rng.choice(bodies)
        body = exchange.response
        if isinstance(body, str):
            yield number, exchange, mutated_text(body, rng)
            continue
        thing = mutated(body, rng)
        form = rng.random()
        if form < 0.3:
            try:
                text = json.dumps(thing)
            except (ValueError, RecursionError):
                text = repr(body)
            thing = text if form < 0.2 else text.encode()[: rng.randrange(len(text) + 1)]
        elif form < 0.35:
            thing = [thing, copy.deepcopy(body)]
        yield number, exchange, thing


def test_no_mutation_raises_anything_but_the_readers_own_error(exchanges, soak):
    statuses = Counter()
    for number, exchange, thing in mutations(exchanges, LONG if soak else SAMPLE):
        provider = get_provider(exchange.provider)
        told = f"mutation {number} of {exchange.id}"
        try:
            reading = provider.read_usage(thing)
        except UnreadableUsageError:
            reading = None
        except Exception as error:  # noqa: BLE001 - what is looked for
            pytest.fail(f"{told}: {type(error).__name__} {error!s:.200}")
        priced = price_response(exchange.provider, thing, catalogue=CATALOGUE)
        statuses[priced.status if priced.cost_nanousd != 0 else "free"] += 1
        assert (priced.cost_nanousd is None) == (priced.status == "unknown"), told
        assert priced.cost_nanousd is None or priced.cost_nanousd >= 0, told
        if reading is None:
            assert priced.status == "unknown", told
            continue
        if priced.cost_nanousd == 0:
            assert reading.unbilled or not any(price.cost_nanousd for price in priced.items), told
            assert reading.unbilled or reading.usage.total_tokens, f"{told}: nothing was counted, and it costs nothing"
        if reading.items:
            assert reading.usage.input_tokens > 0, told
        memo = encode_memo(call_id="c", attempt=1, target=ModelRef("a", "b"), priced=priced, reading=reading)
        assert len(decode_memo(memo).items) == len(reading.items), told
        reader = provider.new_stream_reader()
        reader.feed(thing)
        with suppress(UnreadableUsageError):
            reader.reading()
        assert isinstance(classify_response(exchange.provider, exchange.status, {}, thing), Failure), told
        assert isinstance(read_content(thing), AnswerContent), told
    print(f"\n{dict(statuses)}")
    assert min(statuses[status] for status in ("exact", "unknown", "estimated", "free")) > 10


def _seconds(work):
    gc.collect()
    gc.disable()  # a collection looks at the whole corpus, whatever is measured
    try:
        started = time.process_time()
        work()
        return time.process_time() - started
    finally:
        gc.enable()


def _chat(size):
    text = "word " * (size // 5)
    usage = {"prompt_tokens": 9, "completion_tokens": 9}
    return {
        "object": "chat.completion",
        "model": "gpt-5.1",
        "choices": [{"message": {"content": text}}],
        "usage": usage,
    }


def _events(size):
    chunk = {"id": "c", "model": "gpt-5.1", "choices": [{"index": 0, "delta": {"content": "word " * 20}}]}
    line = f"data: {json.dumps(chunk)}\n\n"
    last = {"id": "c", "model": "gpt-5.1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
    return line * (size // len(line)) + f"data: {json.dumps(last)}\n\n"


def _in_pieces(text):
    reader = get_provider("openai").new_stream_reader()
    for at in range(0, len(text), 4_096):
        reader.feed(text[at : at + 4_096])
    return reader.reading()


def _line(size):
    """One event that does not end."""
    return 'data: {"text": "' + "x" * size


def _iterations(size):
    entry = {"type": "message", "input_tokens": 1, "output_tokens": 1}
    usage = {"input_tokens": 1, "output_tokens": 1, "iterations": [entry] * (size // 1_000)}
    return {"id": "m", "type": "message", "model": "claude-opus-5", "usage": usage}


def _lines(size):
    body = {"object": "chat.completion", "model": "gpt-5.1", "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
    return "\n".join([json.dumps({"custom_id": "1", "response": {"body": body}})] * (size // 1_500))


BIG = {
    "a chat": (lambda size: json.dumps(_chat(size)), lambda text: price_response("openai", text)),
    "events": (_events, lambda text: price_response("openai", text)),
    "events in pieces": (_events, _in_pieces),
    "a line in pieces": (_line, _in_pieces),
    "iterations": (_iterations, lambda body: price_response("anthropic", body)),
    "lines of a batch": (_lines, lambda text: price_response("openai", text)),
    "a cut chat": (lambda size: json.dumps(_chat(size))[:-9], lambda text: price_response("openai", text)),
    "brackets": (lambda size: "[" * size, lambda text: price_response("openai", text)),
    "braces": (lambda size: '{"usage":' * (size // 9), lambda text: price_response("anthropic", text)),
    "a name": (
        lambda size: _chat(10) | {"model": "gpt-5.1-" + "1" * size},
        lambda body: price_response("openai", body),
    ),
}


@pytest.mark.parametrize("what", BIG)
def test_the_work_grows_with_the_size_and_not_faster(what):
    """Ten times the body takes about ten times as long; what is quadratic takes a hundred times."""
    make, work = BIG[what]
    small, large = make(10**6), make(10**7)
    work(small)
    few, many = min(_seconds(lambda: work(small)) for _ in range(2)), _seconds(lambda: work(large))
    assert many < 50 * max(few, 0.01), (few, many)


def test_depth_is_unknown_and_no_recursion_error():
    nested = {"model": "gpt-5.1", "usage": {"prompt_tokens": 9, "completion_tokens": 9}}
    for _ in range(20_000):
        nested = {"custom_id": "1", "response": {"body": nested}}
    for provider in ("openai", "anthropic"):
        assert price_response(provider, nested).status == "unknown"
        assert price_response(provider, {"usage": deep(100_000), "content": deep(100_000)}).status == "unknown"
    inner = {"type": "message", "usage": {"input_tokens": 1, "output_tokens": 1}}
    for _ in range(20_000):
        inner = {"custom_id": "1", "result": {"type": "succeeded", "message": inner}}
    assert price_response("anthropic", inner).status == "unknown"
