"""What is counted of a request once, and what of a call is worked out once for all calls of the same shape."""

import pytest

from llm_cost_middleware import wire
from llm_cost_middleware.capabilities import fitting
from llm_cost_middleware.capabilities.arms import Arm
from llm_cost_middleware.capabilities.fitting import Fits, fit, fit_eligible
from llm_cost_middleware.pricing.bound import measure
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallContext, CallRequest, Message, ModelRef, Part, Tool
from llm_cost_middleware.routing.features import read_features

CLAUDE, GPT = ModelRef("anthropic", "claude-haiku-4-5-20251001"), ModelRef("openai", "gpt-5-mini")


def chat(**more):
    body = {"model": "smart", "messages": [{"role": "user", "content": "Hello"}], **more}
    return get_provider("openai").read_request(body)


def test_one_walk_counts_what_stands_in_messages_and_tools():
    request = CallRequest(
        "anthropic", "smart",
        (
            Message("system", (Part("text", "rules", "5m"),)),
            Message("user", (Part("text", "wörd"), Part("image", "", None, {"width": 28, "height": 28}))),
            Message("assistant", (Part("tool_use", "look {}"),)),
            Message("user", (Part("tool_result", "found", None, {}, (Part("image"),), ("1h",)),)),
            Message("user", ()),
        ),
        (Tool("look", '{"name":"look","defer_loading":true}'),),
    )  # fmt: skip
    counts = request.contents
    assert counts is request.contents
    assert (counts.characters, counts.text_bytes, counts.handed) == (21, 22, 9)
    assert (counts.text_blocks, counts.call_blocks, counts.user_turns) == (6, 2, 3)
    assert (counts.speaks, counts.blanks_user, counts.begins_answer, counts.instructs_inside) == (
        True,
        True,
        False,
        False,
    )
    assert counts.defers_tools
    assert counts.texts == ["rules", "wörd", "", "look {}", "found"]
    size = measure(request)
    assert (size.text_bytes, size.blocks, size.marks, len(size.images)) == (22, 6 + 2 * 2 + 1, {"5m", "1h"}, 2)
    features = read_features(request)
    assert (features.media, features.needs, features.text_length) == (2, ("images", "tools"), 9)


def test_contents_follow_the_messages_of_a_changed_request():
    request = chat()
    assert request.contents.characters == 5
    longer = request._replace(messages=(*request.messages, Message("system", (Part("text", "more"),))))
    assert (longer.contents.characters, longer.contents.instructs_inside) == (9, True)
    assert request._replace(context=CallContext(tags=("a",))).contents.characters == 5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"temperature": 1}, {"temperature": 0.5}),
        ({"temperature": 1}, {"temperature": True}),
        ({"logprobs": True}, {"logprobs": 1}),
        ({"reasoning_effort": "max"}, {"reasoning_effort": "low"}),
        ({"response_format": {"type": "text"}}, {"response_format": {"type": "json_object"}}),
        ({}, {"stop": ["a"]}),
        ({}, {"messages": [{"role": "user", "content": " "}]}),
        ({}, {"messages": [{"role": "assistant", "content": "Well"}]}),
        ({}, {"messages": [{"role": "system", "content": "Well"}]}),
        ({}, {"tools": [{"type": "function", "function": {"name": "a"}, "defer_loading": True}]}),
        ({"max_tokens": 10}, {"max_completion_tokens": 10}),
    ],
)
def test_a_known_fit_is_that_of_a_request_seen_for_the_first_time(before, after):
    """Another request was fitted before; what is remembered of it says nothing of this one."""
    for target in (CLAUDE, GPT, ModelRef("openai", "gpt-4o"), ModelRef("anthropic", "claude-sonnet-4-6")):
        for given in (before, after, before):
            for lenient in (False, True):
                remembered = fit(chat(**given), target, lenient=lenient)
                fitting._shapes.clear()
                assert fit(chat(**given), target, lenient=lenient) == remembered


@pytest.mark.parametrize(("provider", "models", "target"), [
    ("openai", ("gpt-5.1", "gpt-4o"), Arm("openai", "gpt-5.1", {"reasoning_effort": "low"})),
    ("azure", ("eu/gpt-5-mini", "eu/gpt-4o"), ModelRef("azure", "us/gpt-5-mini")),
    ("openai", ("gpt-5-mini", "gpt-4o"), ModelRef("azure", "us/gpt-5-mini")),
])  # fmt: skip
def test_requests_of_one_shape_for_two_models_do_not_share_a_fit(provider, models, target, monkeypatch):
    monkeypatch.setattr(fitting, "_shapes", {})
    for model in models:
        request = chat(model=model, temperature=0.2, reasoning_effort="high")._replace(provider=provider)
        with monkeypatch.context() as alone:
            alone.setattr(fitting, "_shapes", {})
            wanted = fit(request, target)
        assert fit(request, target) == wanted


def test_a_fit_sees_what_a_caller_writes_into_an_object_that_it_passed_before():
    shape = {"type": "text"}
    assert not fit(chat(response_format=shape), CLAUDE).refused
    shape["type"] = "json_object"
    assert fit(chat(response_format=shape), CLAUDE).refused


def test_nothing_of_a_caller_is_remembered_and_nothing_remembered_can_be_changed():
    config = {"effort": "max", "format": {"type": "json_schema"}}
    request = CallRequest(
        "anthropic", "smart", (Message("user", (Part("text", "Hi"),)),), settings={"output_config": config}
    )
    first = fit(request, CLAUDE).changes
    assert first["output_config"]["format"] is config["format"]
    fresh = {"effort": "max", "format": {"type": "json_schema"}}
    again = fit(request._replace(settings={"output_config": fresh}), CLAUDE).changes
    assert again["output_config"]["format"] is fresh["format"]
    plain = fit(chat(max_tokens=7), GPT).changes
    with pytest.raises(TypeError):
        plain["max_tokens"] = 8


def test_what_is_remembered_of_shapes_is_bounded(monkeypatch):
    monkeypatch.setattr(fitting, "_SHAPES", 8)
    for cap in range(50):
        fit(chat(max_tokens=cap), CLAUDE)
        assert len(fitting._shapes) <= 8
    fits = Fits(chat())
    for number in range(200):
        fits.at(ModelRef("openai", f"gpt-5-mini-{number}"))
    assert all(len(known) <= fitting._TARGETS for known in fitting._shapes.values())


def test_a_definition_is_written_once_and_follows_every_change(monkeypatch):
    """A caller may write into a tool that it passed before; values that only look alike are told apart."""
    tool = {"type": "function", "function": {"name": "a", "parameters": {"minimum": 1}}}
    texts = [chat(tools=[tool]).tools[0].text]
    for value in (1.0, True, "1", None, [1], (1,), 2, {"a": 1, "b": 2}, {"b": 2, "a": 1}, b"1", bytearray(b"1")):
        tool["function"]["parameters"]["minimum"] = value
        texts += [chat(tools=[tool]).tools[0].text, chat(tools=[tool]).tools[0].text]
    assert texts == [
        f'{{"type":"function","function":{{"name":"a","parameters":{{"minimum":{each}}}}}}}'
        for each in (
            "1", "1.0", "1.0", "true", "true", '"1"', '"1"', "null", "null", "[1]", "[1]", "[1]", "[1]", "2", "2",
            '{"a":1,"b":2}', '{"a":1,"b":2}', '{"b":2,"a":1}', '{"b":2,"a":1}',
            '"b\'1\'"', '"b\'1\'"', '"bytearray(b\'1\')"', '"bytearray(b\'1\')"',
        )
    ]  # fmt: skip
    monkeypatch.setattr(wire, "_DEFINITIONS", 4)
    for number in range(20):
        wire.definition_text({"name": str(number)})
        assert len(wire._definitions) <= 4


@pytest.mark.parametrize("model", ["claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5-mini", "gpt-4o", "o3"])
@pytest.mark.parametrize(
    "given", [{}, {"tools": [{"type": "function", "function": {"name": "a"}}]}, {"temperature": 2}]
)
@pytest.mark.parametrize("parameters", [{}, {"reasoning_effort": "low"}])
def test_the_short_way_of_a_chosen_model_changes_what_the_long_one_does(model, given, parameters):
    provider = "anthropic" if model.startswith("claude") else "openai"
    target = Arm(provider, model, parameters) if parameters else ModelRef(provider, model)
    messages = ([{"role": "user", "content": "Hi"}], [{"role": "assistant", "content": "Hi"}], [])
    for said in messages:
        request = chat(messages=said, **given)
        for lenient in (False, True):
            short, long = fit_eligible(request, target, lenient=lenient), fit(request, target, lenient=lenient)
            assert (short.changes, short.left_out) == (long.changes, long.left_out)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_tools_are_read_once_and_follow_every_change(provider, monkeypatch):
    read = get_provider(provider).read_request
    tool = {"name": "a", "input_schema": {"type": "object"}}
    body = {"model": "m", "messages": [], "tools": [tool]}
    first = read(body)
    assert read({**body, "tools": [{**tool}]}).tools is first.tools
    for key, value in (("name", "b"), ("cache_control", {"type": "ephemeral"}), ("defer_loading", True)):
        before = read(body).tools
        tool[key] = value
        assert read(body).tools != before
        assert read(body).tools == read({**body, "tools": iter([tool])}).tools, "those that nobody remembers"
    assert (first.tools[0].name, first.tools[0].cache_ttl, first.tools[0].deferred) == ("a", None, False)
    monkeypatch.setattr(wire, "_LISTS", 4)
    monkeypatch.setattr(wire, "_LONGEST_LIST", 500)
    kept = wire.ByValue(list)
    for number in range(20):
        kept([str(number)])
        assert len(kept._known) <= 4
    assert kept(["x" * 600]) == ["x" * 600]
    assert not any(len(key) > 500 for key in kept._known)
