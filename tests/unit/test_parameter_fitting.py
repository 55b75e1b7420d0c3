"""Parameters that meet another model: kept, translated, left out, refused; and what the decision says of it."""

import pytest

from llm_cost_middleware.capabilities.fitting import fit
from llm_cost_middleware.capabilities.thinking import cap_thinking, changes_for_cap, default_cap, least_cap
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import RoutingDecision

MINI, GPT, HAIKU = (
    ModelRef("openai", "gpt-5-mini"), ModelRef("openai", "gpt-4.1"), ModelRef("anthropic", "claude-haiku-4-5-20251001"),
)  # fmt: skip
DEFAULTS = (MINI, ModelRef("openai", "gpt-5.1"))
SAY = [{"role": "user", "content": "hi"}]


def chat(model="smart", **more):
    return get_provider("openai").read_request({"model": model, "messages": SAY, **more}, "chat.completions")


def claude(model="smart", **more):
    return get_provider("anthropic").read_request({"model": model, "messages": SAY, "max_tokens": 4_000, **more}, "")


@pytest.mark.parametrize(
    ("asked", "target", "changes", "left_out"),
    [
        ({"max_tokens": 9}, MINI, {"max_tokens": None, "max_completion_tokens": 9}, ()),
        ({"temperature": 0}, MINI, {"temperature": None}, ("temperature",)),
        ({"temperature": 1}, MINI, {}, ()),
        ({"temperature": 0}, GPT, {}, ()),
        ({"temperature": 0, "top_p": 0.1}, HAIKU, {"top_p": None}, ("top_p",)),
        ({"temperature": 1.5}, HAIKU, {"temperature": None}, ("temperature",)),
        ({"reasoning_effort": "none"}, MINI, {"reasoning_effort": "minimal"}, ()),
        ({"reasoning_effort": "high"}, GPT, {"reasoning_effort": None}, ("reasoning_effort",)),
        ({"verbosity": "low"}, GPT, {"verbosity": None}, ("verbosity",)),
        ({"logprobs": False, "n": 1, "frequency_penalty": 0}, MINI, {"logprobs": None, "frequency_penalty": None}, ()),
        ({"user": "u", "metadata": {}, "store": True}, MINI, {}, ()),
        ({"user": "u", "store": True}, HAIKU, {"store": None}, ()),
        ({"stop": ["END"]}, HAIKU, {}, ()),
        ({"service_tier": "default"}, HAIKU, {"service_tier": None}, ()),
    ],
)
def test_what_carries_over_is_translated_and_a_hint_is_left_out(asked, target, changes, left_out):
    fitted = fit(chat(**asked), target)
    assert (fitted.refused, dict(fitted.changes), fitted.left_out) == ("", changes, left_out)


@pytest.mark.parametrize(
    ("asked", "target", "why"),
    [
        ({"stop": ["END"]}, MINI, "does not take stop"),
        ({"logprobs": True}, MINI, "does not take logprobs"),
        ({"logit_bias": {"5": 1}}, MINI, "does not take logit_bias"),
        ({"n": 2}, HAIKU, "does not take n"),
        ({"logprobs": True}, HAIKU, "does not take logprobs"),
        ({"service_tier": "flex"}, GPT, "does not take service_tier"),
        ({"modalities": ["text", "audio"]}, GPT, "does not take modalities"),
        ({"some_new_parameter": 1}, GPT, "is not known to take some_new_parameter"),
        ({"response_format": {"type": "json_schema"}}, ModelRef("openai", "gpt-4"), "does not take response_format"),
        ({}, ModelRef("openai", "gpt-5-pro"), "is not served at chat.completions"),
    ],
)
def test_what_would_change_the_meaning_makes_a_model_ineligible(asked, target, why):
    assert why in fit(chat(**asked), target).refused


@pytest.mark.parametrize("value", [["flex"], {"tier": ["flex"]}, 3])
def test_a_service_tier_of_another_type_is_no_usual_one(value):
    for request in (chat(service_tier=value), claude(service_tier=value)):
        for target in (MINI, HAIKU):
            assert "service_tier" in fit(request, target).refused


def test_claudes_thinking_is_written_in_the_style_of_the_model():
    enabled, adaptive = {"type": "enabled", "budget_tokens": 2_000}, {"type": "adaptive"}
    new = ModelRef("anthropic", "claude-haiku-5-5")
    assert fit(claude(thinking=enabled), new).changes == {"thinking": {"type": "adaptive"}}
    assert fit(claude(thinking=adaptive), HAIKU).changes["thinking"]["budget_tokens"] == 2_000
    assert "thinking" in fit(claude(thinking=adaptive, max_tokens=900), HAIKU).refused
    assert "thinking" in fit(claude(thinking={"type": "disabled"}), ModelRef("anthropic", "claude-sonnet-5-5")).refused
    assert "thinking" in fit(claude(thinking=enabled), ModelRef("anthropic", "claude-3-5-haiku-latest")).refused


def test_the_callers_own_model_and_an_unknown_one_are_sent_what_was_written():
    asked = chat("gpt-5-mini", stop=["END"], foo=1)
    for target in (MINI, ModelRef("openai", "my-finetune")):
        assert fit(asked, target) == ("", {}, ())


def test_a_lowered_cap_lowers_the_budget_or_leaves_no_room():
    thinking = {"type": "enabled", "budget_tokens": 10_000}
    assert cap_thinking(thinking, 10_256) is thinking
    assert cap_thinking(thinking, 6_000) == {"type": "enabled", "budget_tokens": 3_000}
    assert cap_thinking(thinking, 1_280)["budget_tokens"] == 1_024
    assert cap_thinking(thinking, 1_279) is None
    asked, target = claude("claude-haiku-4-5", thinking=thinking), ModelRef("anthropic", "claude-haiku-4-5")
    assert changes_for_cap(asked, target, 20_000) == {}
    assert changes_for_cap(asked, target, 2_000)["thinking"]["budget_tokens"] == 1_024
    assert changes_for_cap(asked, target, 500) is None
    assert (least_cap(asked, target, {}), least_cap(chat(), GPT, {})) == (1_280, 256)
    assert default_cap(asked, find_limits(*target), None) == 8_192 + 10_000


@pytest.fixture
def route(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def decide(request, models=DEFAULTS, **routing):
        tiers = [{"name": str(at), "models": [str(model)]} for at, model in enumerate(models)]
        return CostPipeline(CostConfig(tiers=tiers, routing=routing)).prepare(request).decision

    return decide


def test_a_hint_that_was_left_out_is_told_in_the_decision(route):
    decision = route(chat(temperature=0))
    assert decision.target == MINI
    assert decision.left_out == ("temperature",)
    assert "without temperature" in decision.reason
    assert RoutingDecision.from_json(decision.to_json()).left_out == ("temperature",)


def test_a_demand_leads_to_a_model_that_meets_it(route):
    decision = route(chat(stop=["END"]), (MINI, HAIKU))
    assert decision.target == HAIKU
    assert "does not take stop" in decision.explain()


def test_without_such_a_model_the_call_stays_with_the_one_it_names(route):
    for asked in ({"stop": ["END"]}, {"some_new_parameter": 1}):
        decision = route(chat("gpt-4o", **asked))
        assert (decision.policy, decision.target) == ("home", ModelRef("openai", "gpt-4o"))


def test_a_call_that_names_none_goes_without_or_is_refused(route):
    decision = route(chat(stop=["END"]))
    assert (decision.target, decision.left_out) == (MINI, ("stop",))
    for asked in ({"stop": ["END"]}, {"logprobs": True}):
        with pytest.raises(NoEligibleModelError, match="does not take"):
            route(chat(**asked), on_unsupported="refuse")
    with pytest.raises(NoEligibleModelError, match="some_new_parameter"):
        route(chat(some_new_parameter=1))


def test_a_forced_model_must_take_the_parameters(route):
    forced = chat(stop=["END"])
    forced = forced._replace(context=forced.context._replace(forced_model="o3"))
    with pytest.raises(NoEligibleModelError, match="does not take stop"):
        route(forced)
