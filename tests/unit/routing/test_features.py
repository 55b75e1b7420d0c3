from __future__ import annotations

import pytest

from llm_cost_middleware.request import CallRequest, Message, Part, ServerTool, Tool
from llm_cost_middleware.routing.complexity import STAT_NAMES, head_and_tail, ngram_hashes, text_stats
from llm_cost_middleware.routing.features import last_user_text, read_features


def test_text_length_counts_user_and_tool_turns_and_nothing_else(ask):
    request = CallRequest(
        "anthropic",
        "m",
        (
            Message("system", (Part("text", "s" * 1000),)),
            Message("user", (Part("text", "u" * 100),)),
            Message("assistant", (Part("text", "a" * 500),)),
            Message("tool", (Part("tool_result", "t" * 40),)),
            Message("user", (Part("text", "v" * 7),)),
        ),
        tools=(Tool("search", "{" + "x" * 58 + "}"),),
    )
    features = read_features(request)
    assert features.text_length == 147
    assert features.total_chars == 1000 + 100 + 500 + 40 + 7 + 60
    assert (features.turns, features.messages, features.tools) == (2, 5, 1)
    assert features.needs == ("tools",)


def test_needs_are_seen_inside_tool_results_too(ask):
    image = Part("image")
    request = ask(
        "look", extra=(Part("tool_result", "", nested=(image, image)), Part("document", "pdf")), output_schema="{}"
    )
    features = read_features(request)
    assert features.needs == ("documents", "images", "schema")
    assert features.media == 3


def test_foreign_text_is_expected_to_take_more_tokens(ask):
    assert read_features(ask("a" * 400)).input_tokens == 100
    assert read_features(ask("写" * 400)).input_tokens == 200


@pytest.mark.parametrize("text", ["", "\x00\xff\ud800", "\ud83d", "🙂" * 10, " \n\t"])
def test_odd_text_is_read_without_complaint(ask, text):
    request = ask(text)
    assert read_features(request).text_length == len(text)
    assert len(text_stats(head_and_tail(last_user_text(request)))) == len(STAT_NAMES)
    assert sum(ngram_hashes(text).values()) >= 0


def test_a_request_without_messages_is_empty_not_an_error():
    request = CallRequest("openai", "m", ())
    assert read_features(request).text_length == 0
    assert last_user_text(request) == ""


def test_the_working_text_is_that_of_the_last_user_turn_that_has_any():
    request = CallRequest(
        "anthropic",
        "m",
        (
            Message("user", (Part("text", "first"),)),
            Message("user", (Part("text", "book it"), Part("text", "please"))),
            Message("assistant", (Part("tool_use", "{}"),)),
            Message("user", (Part("tool_result", "a long result"),)),
        ),
    )
    assert last_user_text(request) == "book it\nplease"


def test_server_tools_count_as_tools(ask):
    assert read_features(ask(server_tools=(ServerTool("web_search", 3),))).tools == 1


def test_clip_keeps_both_ends():
    text = "a" * 5000 + "b" * 5000
    assert head_and_tail(text) == "a" * 2000 + " " + "b" * 1000
    assert head_and_tail("short") == "short"


def test_ngrams_distinguish_a_pair_from_a_word_and_count_repeats():
    assert set(ngram_hashes("ab")) != set(ngram_hashes("a b"))
    assert max(ngram_hashes("no no no").values()) == 3
    assert ngram_hashes("Same Words") == ngram_hashes("same words")
    assert all(0 <= bucket < 1 << 18 for bucket in ngram_hashes("some words, 42 of them!"))
