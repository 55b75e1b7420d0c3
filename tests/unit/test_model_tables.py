"""A model with a price is known to every table that a call rests on: a forgotten step of adding one fails here."""

import tomllib
from datetime import date
from importlib.resources import files

import pytest

from llm_cost_middleware.config.sections import DEFAULT_TIERS
from llm_cost_middleware.limits import ModelLimits, find_limits, read_table
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.genai import names_model
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.simulator.catalogue import catalogue as simulated

NOW = 1_795_435_200.0  # 2026-11-23, the day of the simulator's prices
NOT_CHAT = ("ada", "babbage", "curie", "davinci", "text-")
"""Completion and embedding models: they have a price, and no output limit of their own."""
NO_LIMIT_PUBLISHED = {"codex-mini", "gpt-chat-latest", "gpt-rosalind-discovery", "gpt-rosalind-research"}
"""No source states their output limit; their context window comes from genai-prices."""
NEVER_CACHED = {"claude-2", "claude-v1", "claude-3-sonnet"}
"""Retired before prompt caching, or never part of it."""
ASSUMED_BY_THE_SIMULATOR = {"claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"}
"""The simulator takes the usual minimum where one source alone has a lower one."""

PRICES = Catalogue()
PRICED = [
    (provider, model)
    for provider in NAMES
    for model in PRICES.models(provider)
    if not model.startswith(NOT_CHAT) and model not in NO_LIMIT_PUBLISHED
]


def _named(provider: str, model: str, key: str) -> bool:
    """Whether a row has ``key`` for this very model (Anthropic) or its generation (OpenAI: gpt-5.7 is not gpt-5)."""
    ref = model.removeprefix("ft:")
    names = [name for name, row in read_table(provider) if key in row and ref.startswith(name)]
    if provider == "anthropic":
        return any(names_model(name, ref) for name in names)
    return any(ref == name or ref[len(name)] in "-:" for name in names)


@pytest.mark.parametrize(("provider", "model"), PRICED)
def test_every_model_with_a_price_has_limits_of_its_own(provider, model):
    for key in ("context_window", "max_output", "default_output"):
        assert _named(provider, model, key), f"add {key} of {model} to limits/{provider}.toml"


@pytest.mark.parametrize("model", [model for provider, model in PRICED if provider == "anthropic"])
def test_every_claude_model_with_a_price_has_a_cache_minimum_of_its_own(model):
    if model not in NEVER_CACHED:
        assert _named("anthropic", model, "min_cache_tokens"), f"add min_cache_tokens of {model}"


@pytest.mark.parametrize("model", [model for provider, model in PRICED if provider == "openai"])
def test_every_model_of_openai_with_a_price_for_cached_input_has_a_cache_rule(model):
    level = PRICES.rates("openai", model, at=NOW).levels[0]
    special = any(
        part in model for part in ("audio", "realtime", "transcribe", "tts", "search", "image", "oss", "-pro")
    )
    if level.cache_read < level.uncached_input and not special:
        assert get_provider("openai").cache_capabilities(model).style != "none"


@pytest.mark.parametrize("provider", NAMES)
def test_every_row_of_limits_is_typed_dated_and_sourced(provider):
    rows = tomllib.loads(files("llm_cost_middleware.limits").joinpath(f"{provider}.toml").read_text())["model"]
    for row in rows:
        assert type(row["checked"]) is date
        assert row["source"]
        keys = set(row) - {"names", "source", "checked"}
        assert keys
        assert keys <= set(ModelLimits.__struct_fields__)
        assert all(type(row[key]) is (str if key == "encoding" else int) for key in keys)
    names = [(name, key) for row in rows for name in row["names"] for key in row]
    repeated = {pair for pair in names if names.count(pair) > 1 and pair[1] not in {"names", "source", "checked"}}
    assert not repeated  # of two rows with one key, one would win unseen


@pytest.mark.parametrize("target", [target for tier in DEFAULT_TIERS for target in tier.models], ids=str)
def test_the_default_models_are_priced_limited_cached_and_simulated(target):
    assert PRICES.rates(*target, at=NOW).levels
    assert find_limits(*target).max_output
    assert get_provider(target.provider).cache_capabilities(target.model).style != "none"
    assert target.model in simulated()


@pytest.mark.parametrize("name", sorted(simulated()))
def test_the_simulator_agrees_with_prices_and_limits_that_it_does_not_read(name):
    model = simulated()[name]
    level = PRICES.rates(model.provider, name, at=NOW).levels[0]
    card = model.card("standard", 1)
    assert (card.input, card.output, card.read) == (level.uncached_input, level.output, level.cache_read)
    limits = find_limits(model.provider, name)
    assert model.max_output == (limits.max_output or 0)  # an embedding has none
    assert model.window <= limits.context_window  # OpenAI's limit of input is the window less the output
    if model.cache == "none":
        assert get_provider(model.provider).cache_capabilities(name).style == "none"
    elif name not in ASSUMED_BY_THE_SIMULATOR:
        assert model.cache_min == get_provider(model.provider).cache_capabilities(name).min_tokens


def test_an_unknown_model_has_no_limits_but_a_default_cap():
    assert find_limits("anthropic", "nonsense") == ModelLimits()
    assert find_limits("nobody", "nonsense") == ModelLimits(default_output=4_096)
