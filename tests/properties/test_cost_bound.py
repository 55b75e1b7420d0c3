"""Hostile text does not get past the bound of its input."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from llm_cost_middleware.pricing.bound import bound
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.tokenizer import count_tokens
from llm_cost_middleware.pricing.vocabulary import tiktoken_encoding
from llm_cost_middleware.providers import get_provider

CATALOGUE = Catalogue()
WORST_OF_CLAUDE = [
    ("5ZJ" * 400, 1.68),  # the worst known of Claude 4.7 and later: words, shifts and capitals are tokens of their own
    ("aB" * 600, 1.50),  # the worst known of Claude 3
    ("\u0fda\u1d11e" * 200, 1.13),  # rare Unicode
]

hostile = st.one_of(
    st.text(max_size=400),
    st.text(alphabet=st.characters(min_codepoint=0x2000), max_size=300),
    st.text(alphabet="\u200d\ufe0f\u0301😀🏽aA0 \n\t", max_size=400),
    st.tuples(st.text(min_size=1, max_size=4), st.integers(1, 300)).map(lambda pair: pair[0] * pair[1]),
    st.text(alphabet='0123456789abcdefABCDEF{}[]":,\\', max_size=500),
    st.sampled_from(["<|endoftext|>", "<|im_start|>", "<|fim_prefix|>"]).map(lambda token: token * 30),
)


def _bound(provider, body):
    rules = get_provider(provider)
    request = rules.read_request(body, "messages" if provider == "anthropic" else "chat.completions")
    rates = CATALOGUE.upper_bound_rates(provider, request.model)
    limits = structs.replace(CATALOGUE.limits(provider, request.model), context_window=None)
    return request, bound(request, rules, rates, max_tokens=10, limits=limits)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "gpt-5-mini"])
def test_no_text_has_more_openai_tokens_than_its_bound(model):
    encoding = CATALOGUE.limits("openai", model).encoding
    vocabulary = tiktoken_encoding(encoding)
    if vocabulary is None:
        pytest.skip("the vocabulary is not installed")

    @settings(max_examples=250, deadline=None)
    @given(hostile, hostile)
    def law(system, words):
        words = words.encode("utf-8", "ignore").decode()
        system = system.encode("utf-8", "ignore").decode()
        messages = [{"role": "system", "content": system}, {"role": "user", "content": words}]
        request, most = _bound("openai", {"model": model, "messages": messages})
        tokens = len(vocabulary.encode_ordinary(system)) + len(vocabulary.encode_ordinary(words))
        # The framing that OpenAI documents: 4 a message and 3 to prime the answer.
        assert most.input_tokens >= tokens + 2 * 4 + 3
        assert tokens < count_tokens(request, encoding) <= most.input_tokens

    law()


@pytest.mark.parametrize(("words", "tokens_per_byte"), WORST_OF_CLAUDE)
def test_the_worst_known_texts_of_claude_stay_within_the_bound(words, tokens_per_byte):
    _, most = _bound("anthropic", {"model": "claude-opus-4-8", "messages": [{"role": "user", "content": words}]})
    assert most.input_tokens >= len(words.encode()) * tokens_per_byte + 16


@settings(max_examples=150, deadline=None)
@given(hostile, st.integers(1, 5), st.booleans())
def test_more_text_more_messages_and_tools_never_lower_a_bound(words, copies, tooled):
    body = {"model": "claude-opus-4-8", "messages": [{"role": "user", "content": words}]}
    _, least = _bound("anthropic", body)
    tools = [{"name": words[:8], "input_schema": {}}] if tooled else []
    _, more = _bound("anthropic", body | {"messages": body["messages"] * copies, "tools": tools})
    assert more.amount_nanousd >= least.amount_nanousd
    assert more.input_tokens >= least.input_tokens


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(categories=("Cs",)), min_size=1, max_size=20))
def test_lone_surrogates_are_counted_rather_than_raised(words):
    _, most = _bound("openai", {"model": "gpt-4o", "messages": [{"role": "user", "content": words}]})
    assert most.input_tokens >= 3 * len(words)
