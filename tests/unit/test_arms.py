"""Arms: what a tier may state beside a model, what becomes of it for a call, and that the caller's own words win."""

from __future__ import annotations

import copy
import pickle

import pytest

from llm_cost_middleware import CostConfig
from llm_cost_middleware.capabilities.arms import Arm, arm_for, parse_arm
from llm_cost_middleware.capabilities.efforts import LEVELS
from llm_cost_middleware.capabilities.fitting import fit
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.request import CallRequest, Message, ModelRef, Part, Tool

GPT, SONNET, HAIKU = "openai/gpt-5.1", "anthropic/claude-sonnet-4-6", "anthropic/claude-haiku-4-5-20251001"
LOW = parse_arm(f"{GPT}+reasoning_effort=low")
HELLO = (Message("user", (Part("text", "Hello"),)),)


def request(endpoint="chat.completions", settings=None, **fields):
    provider = "anthropic" if endpoint == "messages" else "openai"
    model = fields.pop("model", "smart")
    return CallRequest(
        provider, model, fields.pop("messages", HELLO), endpoint=endpoint, settings=settings or {}, **fields
    )


def tiers(*models):
    return CostConfig(tiers=[{"name": "one", "models": list(models)}]).tiers[0].models


def test_a_tier_lists_arms_beside_models():
    found = tiers(
        GPT, {"model": GPT, "reasoning_effort": "low"}, {"model": SONNET, "thinking_budget": 4096},
        {"model": GPT, "verbosity": "low", "reasoning_effort": "high"}, f"{GPT}+reasoning_effort=medium",
        {"model": "openai/gpt-4.1-nano"},
    )  # fmt: skip
    assert [str(arm) for arm in found] == [
        GPT, f"{GPT}+reasoning_effort=low", f"{SONNET}+thinking_budget=4096",
        f"{GPT}+reasoning_effort=high+verbosity=low", f"{GPT}+reasoning_effort=medium", "openai/gpt-4.1-nano",
    ]  # fmt: skip
    assert [parse_arm(str(arm)) for arm in found] == list(found)
    assert found[1] != found[0] != found[4] != found[1]
    assert len({*found}) == len(found)
    assert found[1].plain == found[0]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"model": "openai/gpt-4.1", "reasoning_effort": "low"}, "takes no reasoning_effort"),
        ({"model": "openai/gpt-5-pro", "reasoning_effort": "low"}, "has the efforts"),
        ({"model": GPT, "reasoning_effort": "enormous"}, "must be one of none, minimal"),
        ({"model": GPT, "reasoning_effort": 3}, "must be one of none, minimal"),
        ({"model": GPT, "reasoning_effort": True}, "must be one of none, minimal"),
        ({"model": GPT, "reasoning_effort": None}, "must be one of none, minimal"),
        ({"model": GPT, "reasoning_effort": ["low"]}, "must be one of none, minimal"),
        ({"model": GPT, "thinking_budget": 4096}, "takes no thinking_budget"),
        ({"model": HAIKU, "reasoning_effort": "low"}, "takes no reasoning_effort"),
        ({"model": HAIKU, "thinking_budget": 12}, "1,024 tokens or more"),
        ({"model": HAIKU, "thinking_budget": 2048.0}, "1,024 tokens or more"),
        ({"model": HAIKU, "thinking_budget": "2048"}, "1,024 tokens or more"),
        ({"model": HAIKU, "thinking_budget": True}, "1,024 tokens or more"),
        ({"model": SONNET, "verbosity": "low"}, "takes no verbosity"),
        ({"model": "openai/gpt-4o", "verbosity": "low"}, "takes no verbosity"),
        ({"model": GPT, "verbosity": "chatty"}, "must be one of low, medium, high"),
        ({"model": GPT, "resoning_effort": "low"}, "did you mean 'reasoning_effort'"),
        ({"model": GPT, "temperature": 0}, "unknown key"),
        ({"reasoning_effort": "low"}, "needs a model"),
        ({"model": ""}, "PROVIDER/MODEL"),
        ({"model": {"model": GPT}, "reasoning_effort": {}}, "must be one of"),
        ({}, "needs a model"),
        (f"{GPT}+reasoning_effort=enormous", "must be one of"),
        ([GPT], "PROVIDER/MODEL"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_the_form(entry, told):
    with pytest.raises(ConfigurationError, match=told):
        tiers(entry)


def test_an_arm_twice_in_a_tier_is_refused():
    with pytest.raises(ConfigurationError, match="twice"):
        tiers({"model": GPT, "reasoning_effort": "low"}, f"{GPT}+reasoning_effort=low")


def test_what_the_table_does_not_know_is_the_owners_to_say():
    (arm,) = tiers({"model": "openai/my-own-model", "reasoning_effort": "xhigh"})
    assert fit(request(), arm).changes == {"reasoning_effort": "xhigh"}


def test_arms_are_values():
    for twin in (copy.copy(LOW), copy.deepcopy(LOW), pickle.loads(pickle.dumps(LOW))):  # noqa: S301 - our own
        assert twin == LOW
        assert hash(twin) == hash(LOW)
    assert ModelRef("openai", "gpt-5.1") != LOW
    assert ModelRef("openai", "gpt-5.1") != LOW
    assert LOW != ("openai", "gpt-5.1")
    with pytest.raises(TypeError):
        LOW.parameters["reasoning_effort"] = "high"
    assert Arm("openai", "m", {"b": 1, "a": 2}) == Arm("openai", "m", {"a": 2, "b": 1})


RENDERED = {
    ("chat.completions", LOW): {"reasoning_effort": "low"},
    ("responses", LOW): {"reasoning": {"effort": "low"}},
    ("chat.completions", parse_arm(f"{GPT}+verbosity=low")): {"verbosity": "low"},
    ("responses", parse_arm(f"{GPT}+verbosity=low")): {"text": {"verbosity": "low"}},
    ("messages", parse_arm(f"{SONNET}+reasoning_effort=low")): {"output_config": {"effort": "low"}},
    ("messages", parse_arm(f"{HAIKU}+thinking_budget=2048")): {"thinking": {"type": "enabled", "budget_tokens": 2048}},
    ("messages", parse_arm(f"{HAIKU}+thinking_budget=0")): {"thinking": {"type": "disabled"}},
}


@pytest.mark.parametrize(("endpoint", "arm"), RENDERED, ids=str)
def test_an_arm_is_asked_for_in_the_words_of_the_endpoint(endpoint, arm):
    for model in ("smart", arm.model):  # the model that the caller names is an arm like any other
        found = fit(request(endpoint, model=model), arm)
        assert not found.refused
        assert found.changes == RENDERED[endpoint, arm]


def test_what_else_a_field_holds_stays_in_it():
    settings = {"reasoning": {"summary": "auto"}, "text": {"format": {"type": "text"}}}
    arm = parse_arm(f"{GPT}+reasoning_effort=low+verbosity=high")
    changes = fit(request("responses", settings), arm).changes
    assert changes["reasoning"] == {"summary": "auto", "effort": "low"}
    assert changes["text"] == {"format": {"type": "text"}, "verbosity": "high"}
    assert settings["reasoning"] == {"summary": "auto"}


OWN = [
    {"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}, {"output_config": {"effort": "high"}},
    {"effort": "high"}, {"reasoning_effort": {"effort": "high", "summary": "auto"}}, {"thinking": {"type": "adaptive"}},
    {"thinking": {"type": "disabled"}}, {"thinking": {"type": "enabled", "budget_tokens": 2048}},
]  # fmt: skip


@pytest.mark.parametrize("settings", OWN, ids=str)
def test_the_callers_own_effort_wins_over_the_arm(settings):
    arm = parse_arm(f"{GPT}+reasoning_effort=low+verbosity=low")
    assert str(arm_for(arm, request(settings=settings))) == f"{GPT}+verbosity=low"
    assert arm_for(LOW, request(settings=settings)) == ModelRef("openai", "gpt-5.1")
    budget = parse_arm(f"{SONNET}+thinking_budget=2048")
    assert arm_for(budget, request("messages", settings)) == budget.plain


@pytest.mark.parametrize("settings", [{"verbosity": "high"}, {"text": {"verbosity": "high"}}], ids=str)
def test_the_callers_own_verbosity_wins_over_the_arm(settings):
    arm = parse_arm(f"{GPT}+reasoning_effort=low+verbosity=low")
    assert str(arm_for(arm, request(settings=settings))) == f"{GPT}+reasoning_effort=low"


TOOL = (Tool("look", "{}"),)
RESULT = Message("user", (Part("tool_result", "1"),))
CUT = request("messages", messages=(*HELLO, Message("assistant", (Part("tool_use", "{}"),)), RESULT))
THOUGHT = Message("assistant", (Part("thinking", "…"), Part("tool_use", "{}")))
THINKING = parse_arm(f"{HAIKU}+thinking_budget=2048")


@pytest.mark.parametrize(
    ("asked", "arm", "told"),
    [
        (request(tools=TOOL), parse_arm("openai/gpt-5.6+reasoning_effort=low"), "only with reasoning_effort = none"),
        (request("messages", max_tokens=1500), THINKING, "no room"),
        (request("messages", {"tool_choice": {"type": "any"}}, tools=TOOL), THINKING, "forces a tool"),
        (request("messages", messages=(*HELLO, Message("assistant", (Part("text", "{"),)))), THINKING, "begun"),
        (CUT, THINKING, "begun without thoughts"),
    ],
)
def test_an_arm_that_cannot_be_kept_takes_no_call(asked, arm, told):
    assert told in fit(asked, arm).refused
    assert not fit(asked, arm.plain).refused or arm.provider == "openai"


def test_thinking_goes_on_where_it_was_begun():
    assert not fit(request("messages", messages=(*HELLO, THOUGHT, RESULT)), THINKING).refused


def test_sampling_that_an_arm_rules_out_is_left_out():
    found = fit(request("messages", {"temperature": 0.2, "top_k": 5}), parse_arm(f"{HAIKU}+thinking_budget=2048"))
    assert set(found.left_out) == {"temperature", "top_k"}
    found = fit(request(settings={"temperature": 0.2}), LOW)
    assert found.left_out == ("temperature",)
    assert not fit(request(settings={"temperature": 0.2}), parse_arm(f"{GPT}+reasoning_effort=none")).left_out


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_sent_as_it_is_stated_or_not_at_all(level):
    try:
        (arm,) = tiers({"model": "anthropic/claude-opus-4-6", "reasoning_effort": level})
    except ConfigurationError:
        return
    assert fit(request("messages"), arm).changes == {"output_config": {"effort": level}}
