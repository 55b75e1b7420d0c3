"""The table of capabilities: whole, sourced, and at one with what LiteLLM and LangChain say of the same models."""

import json
import tomllib
from datetime import date
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from llm_cost_middleware.capabilities import ModelCapabilities, find_capabilities, read_parameters, read_table
from llm_cost_middleware.capabilities.efforts import LEVELS, nearest_effort
from llm_cost_middleware.capabilities.rules import RULES
from llm_cost_middleware.pricing.catalogue import Catalogue

NOT_CHAT = ("ada", "babbage", "curie", "davinci", "text-")
PRICED = [
    (provider, model)
    for provider in ("anthropic", "openai")
    for model in Catalogue().models(provider)
    if not model.startswith(NOT_CHAT)
]
OTHER_LITELLM = {
    ("gpt-5.2-pro", "minimal"): "the recorded refusal names medium, high and xhigh",
    ("gpt-5-pro", "minimal"): "the recorded refusal names high alone",
    ("gpt-5-chat", "minimal"): "the recorded refusal names the parameter itself",
    ("gpt-5-search-api", "minimal"): "search models take no effort, by LiteLLM's own list of their parameters",
    ("gpt-6.1-terra", "none"): "one version alone says so, and no other model of its generation takes it",
    ("gpt-5-nano", "service_tiers"): "a later version has the price of the flex tier alone",
    ("gpt-5-chat", "parallel_tools"): "it takes no tools at all there; gpt-5-chat-latest takes both",
    ("computer-use-preview", "endpoints"): "a model of responses, by OpenAI's page and the endpoints of LiteLLM's row",
    ("gpt-6-astra-law", "service_tiers"): "no price of its own here: held to gpt-6-astra",
}
"""Where the table differs from LiteLLM's map, and why."""


def rows(provider):
    text = files("llm_cost_middleware.capabilities").joinpath(f"{provider}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["model"]


@pytest.mark.parametrize(("provider", "model"), PRICED)
def test_every_model_with_a_price_has_capabilities(provider, model):
    assert find_capabilities(provider, model) is not None, f"add {model} to capabilities/{provider}.toml"


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_every_row_has_a_source_a_date_and_known_keys_of_the_right_type(provider):
    hints = get_type_hints(ModelCapabilities)
    for row in rows(provider):
        assert len(row["source"]) > 20
        assert isinstance(row["checked"], date)
        for key, value in row.items():
            if key in ("names", "source", "checked"):
                continue
            choices = [choice for choice in get_args(hints[key]) if isinstance(choice, str)]
            if isinstance(value, list):
                assert all(isinstance(each, str) for each in value), key
            else:
                assert value in choices if choices else isinstance(value, bool | str), key
        assert set(row.get("efforts", ())) <= set(LEVELS)


def test_an_unknown_model_has_no_capabilities_and_a_longer_name_wins():
    assert find_capabilities("openai", "my-own-model") is None
    assert find_capabilities("openai", "gpt-5.1-codex-max").sampling == "fixed"
    assert find_capabilities("openai", "gpt-5.1-2025-11-13").sampling == "unreasoned"
    assert [name for name, _ in read_table("openai")] == sorted((name for name, _ in read_table("openai")), key=len)


def test_every_concept_of_a_parameter_has_a_rule():
    concepts = {each.concept for table in read_parameters().values() for each in table.values()} - {""}
    assert concepts <= RULES.keys()


def test_the_nearest_effort_is_the_lower_of_two():
    assert nearest_effort("xhigh", ("low", "medium", "high", "max")) == "high"
    assert nearest_effort("none", ("minimal", "low")) == "minimal"
    assert nearest_effort("max", ()) is None
    assert nearest_effort("enormous", ("low",)) is None


def litellm_says(model, row):
    """What a row of LiteLLM's map says, by the names of our fields."""
    openai = row["litellm_provider"] == "openai"
    for level in LEVELS:
        if (flag := row.get(f"supports_{level}_reasoning_effort")) is not None:
            yield level, flag
    if openai:
        yield "endpoints", ("responses",) if row["mode"] == "responses" else "other"
        yield "service_tiers", tuple(tier for tier in ("flex", "priority") if f"input_cost_per_token_{tier}" in row)
        if row.get("supports_parallel_function_calling") is False and row.get("supports_reasoning"):
            yield "parallel_tools", False
        if row.get("default_reasoning_effort"):
            yield "default_effort", row["default_reasoning_effort"]
        if row.get("supports_response_schema") is not None:
            yield "schema", row["supports_response_schema"]
    else:
        yield "adaptive", bool(row.get("supports_adaptive_thinking"))
        if (prefill := row.get("supports_assistant_prefill")) is not None:
            yield "prefill", prefill
        if row.get("supports_sampling_params") is False:
            yield "sampling", "fixed"
        if (always := row.get("thinking_always_on")) is not None:
            yield "disabled", not always
        if row.get("supports_mid_conversation_system"):
            yield "mid_system", True
        if row.get("supports_native_structured_output"):
            yield "schema", True
    if (forced := row.get("supports_forced_tool_use")) is not None:
        yield "forced_tools", forced
    if (search := row.get("supports_tool_search")) is not None:
        yield "deferred_tools", search


def ours(known, what):
    if what in LEVELS:
        return what in known.efforts
    if what in ("adaptive", "disabled"):
        return what in known.thinking
    value = getattr(known, what)
    return value if what != "endpoints" or value == ("responses",) else "other"


def test_the_table_agrees_with_litellms_map():
    spec = find_spec("litellm")
    if spec is None:
        pytest.skip("litellm is not installed: there is nothing to compare with")
    text = Path(spec.origin).with_name("model_prices_and_context_window_backup.json").read_text(encoding="utf-8")
    compared, wrong, seen = 0, [], set()
    for model, row in json.loads(text).items():
        makers = ("openai", "anthropic")
        if row.get("litellm_provider") not in makers or row.get("mode") not in ("chat", "responses"):
            continue
        known = find_capabilities(row["litellm_provider"], model)
        if known is None or model.startswith("ft:"):  # a name of LiteLLM's own; models of other prices
            continue
        for what, theirs in litellm_says(model, row):
            compared += 1
            if ours(known, what) == theirs:
                continue
            reason = next((key for key in OTHER_LITELLM if model.startswith(key[0]) and key[1] == what), None)
            seen.add(reason)
            if reason is None:
                wrong.append(f"{model}: {what} is {theirs} there, {ours(known, what)} here")
    print(f"{compared} facts compared, {len(seen)} known differences")
    assert compared > 400
    assert not wrong, wrong


def test_the_table_agrees_with_langchains_profiles():
    compared, wrong = 0, []
    for provider in ("anthropic", "openai"):
        pytest.importorskip(f"langchain_{provider}")
        profiles = import_module(f"langchain_{provider}.data._profiles")
        for model, profile in profiles._PROFILES.items():
            known = find_capabilities(provider, model)
            if known is None or "name" not in profile:  # profiles without a name hold what was added to a family
                continue
            facts = []
            if (temperature := profile.get("temperature")) is not None and profile.get("text_outputs", True):
                free = known.sampling != "fixed" and (known.sampling != "unreasoned" or known.default_effort == "none")
                facts.append(("temperature", temperature, free))
            if profile.get("tool_choice") is False:
                facts.append(("tool_choice", False, known.forced_tools))
            if provider == "anthropic" and (levels := profile.get("reasoning_effort_levels")):
                facts.append(("reasoning_effort_levels", tuple(levels), known.efforts))
            compared += len(facts)
            differing = [fact for fact in facts if fact[1] != fact[2]]
            wrong += [f"{model}: {what} is {theirs} there, {here} here" for what, theirs, here in differing]
    print(f"{compared} facts compared")
    assert compared > 50
    assert not wrong, wrong
