"""What an answer shows of itself, and a question that comes back."""

from __future__ import annotations

import json

import pytest

from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.request import AnswerContent, CallContext, CallRequest, Message, Part, ServerTool, Tool
from llm_cost_middleware.routing.schemas import asks_for_json, inner_schema, matches_schema, text_matches_schema
from llm_cost_middleware.routing.signals import (
    REPEAT_WINDOW_S,
    RepeatDetector,
    failure_signals,
    question_key,
    tool_calls_match,
)

ARGUMENTS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS = {
    "anthropic": {"name": "weather", "input_schema": ARGUMENTS},
    "chat": {"type": "function", "function": {"name": "weather", "parameters": ARGUMENTS}},
    "responses": {"type": "function", "name": "weather", "parameters": ARGUMENTS},
}
FORMATS = {
    "anthropic": {"type": "json_schema", "schema": ARGUMENTS},
    "chat": {"type": "json_schema", "json_schema": {"name": "trip", "schema": ARGUMENTS}},
    "responses": {"type": "json_schema", "name": "trip", "schema": ARGUMENTS},
    "bare": ARGUMENTS,
}


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def request(*said, tools=(), schema="", **context):
    messages = tuple(
        Message(role, tuple(Part("text", part) if isinstance(part, str) else part for part in parts))
        for role, *parts in said
    )
    return CallRequest("openai", "smart", messages, tools, output_schema=schema, context=CallContext(**context))


@pytest.mark.parametrize("shape", TOOLS)
@pytest.mark.parametrize(
    ("arguments", "well"),
    [
        ({"city": "Rome"}, True),
        ('{"city": "Rome", "days": 3}', True),
        ({"city": "Rome", "days": 3.0}, True),
        ({}, False),
        ("", False),
        ({"city": 5}, False),
        ('{"city": "Rome", "days": "three"}', False),
        ('{"city": "Ro', False),
        ("[]", False),
    ],
)
def test_a_tool_call_that_does_not_fit_its_tool_is_seen(shape, arguments, well):
    asked = request(("user", "x"), tools=(Tool("weather", compact(TOOLS[shape])),))
    said = AnswerContent("", (("weather", arguments),))
    assert tool_calls_match(asked, said) is well
    assert failure_signals(asked, said) == (() if well else ("schema_violated",))


def test_a_call_of_a_tool_that_was_not_offered_is_seen_where_any_was():
    said = AnswerContent("", (("forecast", {}),))
    assert failure_signals(request(("user", "x"), tools=(Tool("weather", compact(TOOLS["chat"])),)), said)
    assert not failure_signals(request(("user", "x")), said)  # they may stand in a stored prompt


WORDS, RIGHT = AnswerContent("no idea"), AnswerContent("", (("weather", {"city": "Oslo"}),))
OTHER = AnswerContent("", (("people", {"city": "Oslo"}),))


@pytest.mark.parametrize(
    ("choice", "accepted"),
    [
        (None, [WORDS, RIGHT, OTHER]),
        ("auto", [WORDS, RIGHT, OTHER]),
        ("none", [WORDS, RIGHT, OTHER]),
        ({"type": "auto"}, [WORDS, RIGHT, OTHER]),
        ("required", [RIGHT, OTHER]),
        ({"type": "any"}, [RIGHT, OTHER]),
        ({"type": "any", "disable_parallel_tool_use": True}, [RIGHT, OTHER]),
        ({"type": "function", "function": {"name": "weather"}}, [RIGHT]),
        ({"type": "function", "name": "weather"}, [RIGHT]),
        ({"type": "tool", "name": "weather"}, [RIGHT]),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
            [WORDS, RIGHT, OTHER],
        ),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}, [RIGHT]),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "people"}}]},
            },
            [OTHER],
        ),
        ({"type": "web_search"}, [WORDS, RIGHT, OTHER]),  # what the provider runs is not seen
        ({"type": "function", "name": "not offered"}, [WORDS, RIGHT, OTHER]),
        (7, [WORDS, RIGHT, OTHER]),
    ],
)
def test_a_call_that_is_demanded_and_missing_is_a_failure(choice, accepted):
    tools = tuple(Tool(name, compact({"name": name, "input_schema": ARGUMENTS})) for name in ("weather", "people"))
    asked = request(("user", "x"), tools=tools)._replace(params={} if choice is None else {"tool_choice": choice})
    assert [said for said in (WORDS, RIGHT, OTHER) if not failure_signals(asked, said)] == accepted


def test_a_demand_that_a_tool_of_the_provider_may_meet_is_not_judged():
    asked = request(("user", "x"), tools=(Tool("weather", compact(TOOLS["chat"])),))
    asked = asked._replace(params={"tool_choice": "required"}, server_tools=(ServerTool("web_search"),))
    assert not failure_signals(asked, WORDS)


@pytest.mark.parametrize("held", [{"type": "bash_20250124", "name": "bash"}, {"type": "custom", "name": "free"}])
def test_a_tool_whose_definition_the_provider_holds_is_not_judged(held):
    asked = request(("user", "x"), tools=(Tool(held["name"], compact(held)),))
    assert not failure_signals(asked, AnswerContent("", ((held["name"], {"anything": 1}),)))


@pytest.mark.parametrize("shape", FORMATS)
def test_text_that_does_not_fit_the_schema_it_was_asked_in_is_seen(shape):
    asked = request(("user", "x"), schema=compact(FORMATS[shape]))
    assert failure_signals(asked, AnswerContent('{"city": "Rome"}')) == ()
    assert failure_signals(asked, AnswerContent('{"days": 3}')) == ("parse_failed",)
    assert failure_signals(asked, AnswerContent("Rome")) == ("parse_failed",)
    assert failure_signals(asked, AnswerContent("")) == ("parse_failed",)


def test_plain_text_is_no_failed_parse_and_any_object_is_json():
    assert not asks_for_json("")
    assert not failure_signals(request(("user", "x"), schema='{"type":"text"}'), AnswerContent("hi"))
    loose = request(("user", "x"), schema='{"type":"json_object"}')
    assert failure_signals(loose, AnswerContent("hi")) == ("parse_failed",)
    assert not failure_signals(loose, AnswerContent("{}"))


def test_what_pydantic_writes_is_understood():
    pydantic = pytest.importorskip("pydantic")

    class Leg(pydantic.BaseModel):
        to: str
        via: list[str] | None = None

    class Trip(pydantic.BaseModel):
        legs: list[Leg]

    rules = Trip.model_json_schema()
    assert matches_schema(rules, {"legs": [{"to": "Rome", "via": ["Bern"]}, {"to": "Bari", "via": None}]})
    assert not matches_schema(rules, {"legs": [{"via": None}]})
    assert not matches_schema(rules, {"legs": [{"to": "Rome", "via": [1]}]})
    assert matches_schema({"allOf": [{"required": ["a"]}]}, {"a": 1})
    assert not matches_schema({"allOf": [{"required": ["a"]}]}, {})


def test_a_schema_that_refers_to_itself_ends():
    rules = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert matches_schema(rules, 1)
    assert matches_schema({"$ref": "https://elsewhere"}, 1)
    assert inner_schema(None) is None
    assert not text_matches_schema("{not json", "{}")


MESSAGE = {"content": [{"type": "text", "text": "a"}, {"type": "tool_use", "name": "t", "input": {"x": 1}}]}
CHAT = {
    "choices": [{"message": {"content": "a", "tool_calls": [{"function": {"name": "t", "arguments": '{"x": 1}'}}]}}]
}
RESPONSES = {
    "output": [
        {"type": "reasoning"},
        {"type": "message", "content": [{"type": "output_text", "text": "a"}]},
        {"type": "function_call", "name": "t", "arguments": '{"x": 1}'},
    ]
}


@pytest.mark.parametrize(("response", "arguments"), [(MESSAGE, {"x": 1}), (CHAT, '{"x": 1}'), (RESPONSES, '{"x": 1}')])
def test_every_shape_of_answer_is_read(response, arguments):
    assert read_content(response) == AnswerContent("a", (("t", arguments),))


@pytest.mark.parametrize("odd", [None, {}, {"choices": [{}]}, {"output": "x"}, {"content": None}, 5, "text"])
def test_what_is_no_answer_has_no_content(odd):
    assert read_content(odd) == AnswerContent()


# --- a question that comes back

LONG = "Which of these two flats should I rent?"


def test_the_same_question_of_the_same_person_has_the_same_key():
    asked = question_key(request(("user", LONG), conversation="c"), "site")
    again = request(("user", LONG), ("assistant", "the first"), ("user", LONG), conversation="c")
    assert question_key(again, "site") == asked
    assert question_key(request(("user", LONG), scopes=("user:7",)), "site") == question_key(
        request(("user", LONG), scopes=("tag:x", "user:7")), "site"
    )
    assert len({asked, question_key(request(("user", LONG), conversation="d"), "site")}) == 2
    assert len({asked, question_key(request(("user", LONG), conversation="c"), "elsewhere")}) == 2


def test_go_on_is_the_same_question_only_in_the_same_place():
    said = (("user", LONG), ("assistant", "the first"), ("user", "go on"))
    once = question_key(request(*said, conversation="c"), "s")
    assert question_key(request(*said, conversation="c"), "s") == once
    assert question_key(request(*said, ("assistant", "..."), ("user", "go on"), conversation="c"), "s") != once


def test_another_picture_is_another_question():
    def shown(digest):
        return request(("user", LONG, Part("image", "", None, {"digest": digest})), conversation="c")

    assert question_key(shown("a"), "s") != question_key(shown("b"), "s")


@pytest.mark.parametrize(
    "asked",
    [
        request(("user", LONG)),  # nobody says who asks
        request(("user", LONG), conversation="c", forced_model="gpt-5.1"),
        request(("user", LONG), ("assistant", "a"), ("tool", Part("tool_result", "r")), conversation="c"),
        request(("user", Part("tool_result", "r"), LONG), conversation="c"),
        request(("user", LONG), ("assistant", "begin"), conversation="c"),
        request(conversation="c"),
    ],
)
def test_what_is_not_a_person_asking_is_no_question(asked):
    assert question_key(asked, "s") is None


def test_a_repeat_counts_after_the_answer_and_for_some_minutes():
    repeats = RepeatDetector(keep=2)
    repeats.answered(1, "first", 100.0)
    assert repeats.earlier(1, 99.0) is None  # both were under way at once
    assert repeats.earlier(1, 100.0) == "first"
    assert repeats.earlier(1, 100.0 + REPEAT_WINDOW_S) is None
    assert repeats.earlier(2, 100.0) is None
    repeats.answered(1, "second", 150.0)
    assert repeats.earlier(1, 151.0) == "second"


def test_only_so_many_questions_are_remembered():
    repeats = RepeatDetector(keep=2)
    for key in (1, 2, 1, 3):
        repeats.answered(key, str(key), 0.0)
    assert [repeats.earlier(key, 0.0) for key in (1, 2, 3)] == ["1", None, "3"]
