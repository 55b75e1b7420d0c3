"""``llm-cost doctor`` names newer and cheaper siblings of the configured models, from the prices that are installed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llm_cost_middleware import CostConfig
from llm_cost_middleware.cli.doctor import _money
from llm_cost_middleware.cli.init import todays_tiers
from llm_cost_middleware.cli.siblings import siblings
from llm_cost_middleware.pricing.catalogue import Catalogue

CATALOGUE = Catalogue()


def found_of(*models):
    tiers = CostConfig(tiers=[{"name": str(n), "models": [model]} for n, model in enumerate(models)]).tiers
    return {str(sibling.target): sibling for sibling in siblings(tiers, todays_tiers(), CATALOGUE)}


def test_the_packaged_tiers_have_newer_siblings_and_todays_have_none():
    packaged, todays = CostConfig().tiers, todays_tiers()
    models = {str(model) for tier in packaged for model in tier.models}
    assert {str(sibling.target) for sibling in siblings(packaged, todays, CATALOGUE)} == models
    assert not [sibling for sibling in siblings(todays, todays, CATALOGUE) if sibling.cheaper]


@pytest.mark.parametrize(
    ("model", "sibling"),
    [
        ("anthropic/claude-haiku-4-5-20251001", "claude-haiku-5-5"),
        ("anthropic/claude-opus-4-1", "claude-opus-5"),
        ("openai/gpt-5.1", "gpt-"),
    ],
)
def test_a_sibling_has_the_same_name_with_a_later_version(model, sibling):
    assert found_of(model)[model].told.startswith(sibling)


def test_what_is_called_cheaper_is_cheaper_in_both_directions():
    now = datetime.now(tz=UTC).timestamp()
    for provider in ("anthropic", "openai"):
        for model in CATALOGUE.models(provider):
            for target, sibling in found_of(f"{provider}/{model}").items():
                other = sibling.told.split()[0]
                was, is_now = (
                    CATALOGUE.rates(provider, name, at=now).level(1_000) for name in (target.partition("/")[2], other)
                )
                if sibling.cheaper:
                    assert is_now.uncached_input <= was.uncached_input
                    assert is_now.output <= was.output


def test_a_model_of_no_line_has_no_sibling():
    assert found_of("openai/o3") == {}


def test_the_doctor_shows_them_beside_the_prices():
    rows = {what: (state, text) for state, what, text in _money(CostConfig())}
    state, text = rows["model anthropic/claude-haiku-4-5-20251001"]
    assert "claude-haiku-5-5 is newer and" in text
    assert "a million tokens for $1/$5" in text
    assert ("look" in state) == ("costs less" in text)
