"""What bills show of OpenAI's framing: close counts, and who may rely on them."""

from __future__ import annotations

import pytest

from llm_cost_middleware.pricing.framing import close_overhead, shown_tools
from llm_cost_middleware.pricing.tokenizer import TokenCounter, count_tokens
from llm_cost_middleware.providers.openai.request import read_request

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Which city"},
                "unit": {"enum": ["c", "f"]},
                "days": {"type": ["integer", "null"], "default": 3},
                "stops": {"type": "array", "items": {"type": "object", "properties": {"at": {"anyOf": [{}]}}}},
            },
            "required": ["city"],
        },
    },
}


def request(*, model="gpt-4o", messages=None, **more):
    messages = messages or [{"role": "user", "content": "Hello there."}]
    return read_request({"model": model, "messages": messages} | more, "chat.completions")


def test_a_message_takes_four_tokens_and_the_end_three_as_recorded():
    assert close_overhead(request()) == 7
    assert close_overhead(request(messages=[{"role": "user", "content": "a"}] * 5)) == 23
    assert close_overhead(request(model="gpt-5-mini")) == 8, "six were billed for one message, sixteen for three"


def test_tools_are_shown_as_typescript():
    assert shown_tools(request(tools=[WEATHER])) == (
        "namespace functions {\n\n"
        "// Get the weather.\n"
        "type get_weather = (_: {\n"
        "// Which city\n"
        "city: string,\n"
        'unit?: "c" | "f",\n'
        "days?: number | null, // default: 3\n"
        "stops?: {\nat?: any,\n}[],\n"
        "}) => any;\n\n"
        "} // namespace functions"
    )


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {"a": True}}])
def test_odd_parameters_are_shown_all_the_same(parameters):
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert "type f = (" in shown_tools(request(tools=[tool]))


def test_a_close_count_is_below_the_one_that_allows_for_everything_and_above_the_text():
    asked = request(tools=[WEATHER], messages=[{"role": "user", "content": "The weather in Rome? " * 20}])
    counter = TokenCounter()
    safe = count_tokens(asked, "o200k_base")
    close = counter.close(asked, "o200k_base", safe)
    text = count_tokens(request(messages=[{"role": "user", "content": "The weather in Rome? " * 20}]), "o200k_base")
    assert text < close < safe / 4
    assert counter.close(asked, "o200k_base", safe) == close
    image = [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    assert counter.close(request(messages=[{"role": "user", "content": image}]), "o200k_base", 100) is None


def test_a_counter_gives_what_count_tokens_gives():
    asked = request(tools=[WEATHER], messages=[{"role": "user", "content": "A long sentence about ships. " * 40}] * 3)
    counter = TokenCounter()
    for _ in range(2):
        begun = counter.begin(asked, "o200k_base")
        assert counter.finish(begun) == count_tokens(asked, "o200k_base")
    assert begun.effort < 3 * 600, "only what is short, and the tool, is counted again"


GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "a" ' * 100}
UNPUBLISHED = {
    "custom": {"type": "custom", "name": "g", "format": GRAMMAR},
    "custom without a format": {"type": "custom", "name": "g"},
    "namespace": {"type": "namespace", "name": "n", "description": "d", "tools": [{"type": "function", "name": "f"}]},
    "of the provider": {"type": "apply_patch"},
}


@pytest.mark.parametrize("kind", UNPUBLISHED)
def test_tools_of_which_nobody_knows_how_they_are_shown_keep_the_count_that_allows_for_everything(kind):
    asked = read_request({"model": "gpt-5-mini", "input": "hi", "tools": [UNPUBLISHED[kind]]}, "responses")
    safe = count_tokens(asked, "o200k_base")
    assert safe is None or TokenCounter().close(asked, "o200k_base", safe) is None
    plain = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    asked = read_request({"model": "gpt-5-mini", "input": "hi", "tools": [plain]}, "responses")
    assert TokenCounter().close(asked, "o200k_base", count_tokens(asked, "o200k_base")) is not None


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": {"type": "string", "pattern": "WORD"}}},
        {"properties": {"a": {"type": "string", "examples": ["WORD"]}}},
        {"properties": {"a": {"type": "array", "items": {"type": "string", "description": "WORD"}}}},
        {"properties": {"a": {"anyOf": [{"type": "string", "description": "WORD"}, {"type": "null"}]}}},
        {"properties": {"a": {"type": "object", "additionalProperties": {"description": "WORD"}}}},
        {"properties": {"a": {"enum": ["WORD"]}}},
        {"properties": {}, "$defs": {"q": {"description": "WORD"}}},
    ],
)
def test_what_the_form_has_no_place_for_is_counted_as_it_was_written(parameters):
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    assert "WORD" in shown_tools(request(tools=[tool]))
