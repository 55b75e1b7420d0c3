"""What pricing costs, beside genai-prices and LiteLLM in the same run. CPU time is printed; none is asserted.

``pytest -s --soak tests/benchmarks/test_bench_pricing.py`` runs it; the last full run is kept in
``results/pricing.txt``.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from time import process_time

import pytest

from llm_cost_middleware.metering import encode_memo, price_response
from llm_cost_middleware.pricing.bound import bound
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.providers.anthropic.usage import AnthropicStreamReader
from llm_cost_middleware.providers.openai.usage import OpenAIStreamReader
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import TokenUsage

pytestmark = [
    pytest.mark.soak,
    pytest.mark.litellm,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),  # of LiteLLM's import
]
AT = datetime(2026, 11, 1, tzinfo=UTC)
BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "gpt-4o-2024-08-06",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 200}}],
    "usage": {
        "prompt_tokens": 1_250,
        "completion_tokens": 210,
        "total_tokens": 1_460,
        "prompt_tokens_details": {"cached_tokens": 1_024, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
}


def _us(call, *, rounds=7, least_s=0.02):
    """Microseconds a call: the best of several rounds, each long enough to be measured."""
    call()
    number, best = 1, float("inf")
    while (took := _time(call, number)) < least_s:
        number *= 4
    for _ in range(rounds):
        best = min(best, took / number, _time(call, number) / number)
    return best * 1e6


def _time(call, number):
    start = process_time()
    for _ in range(number):
        call()
    return process_time() - start


def _table(title, rows, ours):
    print(f"\n{title}")
    base = next(us for name, us in rows if name == ours)
    for name, us in rows:
        print(f"  {name:44} {us:10.2f} us   {us / base:8.1f}x")


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue()


def test_a_rate_and_a_whole_response_beside_the_libraries(catalogue, capsys):
    litellm = pytest.importorskip("litellm")
    genai = pytest.importorskip("genai_prices")
    usage = TokenUsage(uncached_input=226, cache_read=1_024, output=210)
    theirs = genai.Usage(input_tokens=1_250, cache_read_tokens=1_024, output_tokens=210)
    at = AT.timestamp()

    def ours_rate():
        return catalogue.rates("openai", "gpt-4o-2024-08-06", at=at).cost(usage)

    def genai_rate():
        return genai.calc_price(theirs, "gpt-4o-2024-08-06", provider_id="openai", genai_request_timestamp=AT)

    def litellm_rate():
        return litellm.cost_per_token(
            model="gpt-4o-2024-08-06", prompt_tokens=1_250, completion_tokens=210, cache_read_input_tokens=1_024
        )

    def genai_whole():
        found = genai.extract_usage(BODY, provider_id="openai", api_flavor="chat")
        return found.calc_price(genai_request_timestamp=AT)

    answer = litellm.ModelResponse(**BODY)

    def litellm_whole():
        return litellm.completion_cost(completion_response=answer, model="gpt-4o-2024-08-06")

    dollars = float(genai_rate().total_price)
    assert float(ours_rate().usd) == pytest.approx(dollars)
    assert float(price_response("openai", BODY, at=at, catalogue=catalogue).cost_usd) == pytest.approx(dollars)
    text = json.dumps(BODY)
    with capsys.disabled():
        _table(
            "usage to money",
            [
                ("llm_cost_middleware: rates().cost()", _us(ours_rate)),
                ("genai-prices: calc_price", _us(genai_rate)),
                ("litellm: cost_per_token", _us(litellm_rate)),
            ],
            "llm_cost_middleware: rates().cost()",
        )
        _table(
            "response to money",
            [
                (
                    "llm_cost_middleware: price_response(dict)",
                    _us(lambda: price_response("openai", BODY, at=at, catalogue=catalogue)),
                ),
                (
                    "llm_cost_middleware: price_response(text)",
                    _us(lambda: price_response("openai", text, at=at, catalogue=catalogue)),
                ),
                ("json.loads alone", _us(lambda: json.loads(text))),
                ("genai-prices: extract_usage + calc_price", _us(genai_whole)),
                ("litellm: completion_cost(ModelResponse)", _us(litellm_whole)),
            ],
            "llm_cost_middleware: price_response(dict)",
        )


def test_the_rest_of_the_hot_path(catalogue, capsys):
    turns = [{"role": ("user", "assistant")[i % 2], "content": "some words of a turn " * 20} for i in range(40)]
    bodies = {"one user turn": turns[:1], "40 messages": turns}
    rules = get_provider("openai")
    limits = catalogue.limits("openai", "gpt-5-mini")
    rates = catalogue.upper_bound_rates("openai", "gpt-5-mini", at=AT.timestamp())
    rows = []
    for name, messages in bodies.items():
        body = {"model": "gpt-5-mini", "messages": messages}
        request = rules.read_request(body, "chat.completions")
        rows.append((f"read_request, {name}", _us(lambda body=body: rules.read_request(body, "chat.completions"))))
        rows.append(
            (f"bound, {name}", _us(lambda request=request: bound(request, rules, rates, max_tokens=900, limits=limits)))
        )
    reading = rules.read_usage(BODY)
    priced = price_response("openai", BODY, catalogue=catalogue)
    target = ModelRef("openai", "gpt-5-mini")
    rows.append(
        ("encode_memo", _us(lambda: encode_memo(call_id="c", attempt=1, target=target, priced=priced, reading=reading)))
    )
    chunk = {
        "id": "c",
        "model": "gpt-5",
        "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}],
        "usage": None,
    }
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    chat, messages = OpenAIStreamReader(), AnthropicStreamReader()
    types = pytest.importorskip("openai.types.chat")
    sdk = types.ChatCompletionChunk.construct(**chunk)
    rows.append(("stream reader, a chat chunk as dict", _us(lambda: chat.feed(chunk))))
    rows.append(("stream reader, a chat chunk of the SDK", _us(lambda: chat.feed(sdk))))
    rows.append(("stream reader, a Claude delta as dict", _us(lambda: messages.feed(delta))))
    with capsys.disabled():
        print("\nthe rest of the hot path")
        for name, us in rows:
            print(f"  {name:44} {us:10.2f} us")
