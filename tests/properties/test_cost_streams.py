"""A stream says the same however it is cut, and nothing malformed does more than be refused."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware.errors import LLMCostError, UnreadableUsageError
from llm_cost_middleware.metering import price_response
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.providers.anthropic.usage import AnthropicStreamReader
from llm_cost_middleware.providers.openai.usage import OpenAIStreamReader

CATALOGUE = Catalogue()
READERS = {"anthropic": AnthropicStreamReader, "openai": OpenAIStreamReader}
counts = st.integers(0, 10**6)
words = st.text(max_size=30)


def _sse(events, *, named, newline):
    lines = []
    for event in events:
        if named:
            lines.append(f"event: {event['type']}")
        lines += [f"data: {json.dumps(event, ensure_ascii=False)}", ""]
    return newline.join([*lines, "data: [DONE]", "", ""])


@st.composite
def anthropic_streams(draw):
    usage = {"input_tokens": draw(counts) + 1, "cache_creation_input_tokens": draw(counts), "output_tokens": 1}
    message = {"id": "msg_1", "model": "claude-sonnet-4-6", "usage": usage}
    deltas = [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}
        for text in draw(st.lists(words, max_size=4))
    ]
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": draw(counts) + 1}}
    events = [{"type": "message_start", "message": message}, *deltas, end, {"type": "message_stop"}]
    return _sse(events, named=True, newline=draw(st.sampled_from(["\n", "\r\n"])))


@st.composite
def openai_streams(draw):
    texts = draw(st.lists(words, max_size=4))
    usage = {"prompt_tokens": draw(counts) + 1, "completion_tokens": draw(counts)}
    events = [{"id": "c", "model": "gpt-5", "choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    events.append({"id": "c", "model": "gpt-5", "choices": [], "usage": usage})
    return _sse(events, named=False, newline=draw(st.sampled_from(["\n", "\r\n"])))


@pytest.mark.parametrize(("provider", "streams"), [("anthropic", anthropic_streams()), ("openai", openai_streams())])
def test_cuts_do_not_matter(provider, streams):
    @settings(max_examples=150, deadline=None)
    @given(streams, st.lists(st.integers(0, 2_000), max_size=30))
    def law(text, cuts):
        whole = get_provider(provider).read_usage(text)
        assert whole.complete
        raw = text.encode()
        places = sorted({0, len(raw), *(min(cut, len(raw)) for cut in cuts)})
        reader = READERS[provider]()
        for start, end in pairwise(places):
            reader.feed(raw[start:end])
            reader.reading()  # looking in between changes nothing
        assert reader.reading() == whole

    law()


@pytest.mark.parametrize(("provider", "streams"), [("anthropic", anthropic_streams()), ("openai", openai_streams())])
def test_a_truncated_stream_never_raises_and_never_reports_more_than_arrived(provider, streams):
    @settings(max_examples=150, deadline=None)
    @given(streams, st.integers(0, 3_000))
    def law(text, length):
        whole = price_response(provider, text, catalogue=CATALOGUE)
        cut = price_response(provider, text.encode()[:length], catalogue=CATALOGUE)
        assert cut.cost_nanousd is None or cut.cost_nanousd <= whole.cost_nanousd
        assert cut.status == "exact" or cut.notes

    law()


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**14, 10**40),
    st.floats(),
    words,
    st.sampled_from(
        ["message", "message_start", "message_delta", "error", "queued", "response.completed", "claude-opus-5", "gpt-5"]
    ),
)
NAMES = [
    "id", "type", "object", "model", "usage", "error", "message", "response", "delta", "choices", "output", "status",
    "input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "iterations", "cache_creation", "result",
    "prompt_tokens_details", "input_tokens_details", "cached_tokens", "server_tool_use", "custom_id", "body", "content",
    "cache_creation_input_tokens", "ephemeral_1h_input_tokens", "service_tier", "speed", "inference_geo", "action",
]  # fmt: skip
nonsense = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=8)),
    max_leaves=25,
)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_nonsense_is_answered_or_refused_with_an_error_of_ours(provider):
    @settings(max_examples=500, deadline=None)
    @given(nonsense, st.sampled_from(["object", "json", "sse", "raw", "cut"]), st.binary(max_size=200))
    def law(thing, form, raw):
        if form != "object":
            text = json.dumps(thing)
            thing = {"json": text, "sse": f"data: {text}\n\n", "raw": raw, "cut": text[: len(text) // 2]}[form]
        try:
            reading = get_provider(provider).read_usage(thing)
        except UnreadableUsageError:
            reading = None
        priced = price_response(provider, thing, catalogue=CATALOGUE, at=1.79e9)
        assert (priced.cost_nanousd is None) == (priced.status == "unknown")
        if reading is None:
            assert priced.status == "unknown"
        reader = READERS[provider]()
        reader.feed(thing)
        with suppress(LLMCostError):
            reader.reading()

    law()
