"""A model that one source knows and another does not is noticed: prices, limits, caches, retirements, model lists."""

from __future__ import annotations

import json
import tomllib
import typing
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import pytest

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.retirements import find_retirement

PRICES = Catalogue()
MAKERS = ("anthropic", "openai")
KNOWN = tomllib.loads(Path(__file__).with_name("model_differences.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def litellms():
    """LiteLLM's rows of chat models, by provider and name."""
    spec = find_spec("litellm")
    if spec is None:
        pytest.skip("litellm is not installed: there is nothing to compare with")
    text = Path(spec.origin).with_name("model_prices_and_context_window_backup.json").read_text(encoding="utf-8")
    return {
        (row["litellm_provider"], name.removeprefix(f"{row['litellm_provider']}/")): row
        for name, row in json.loads(text).items()
        if row.get("litellm_provider") in MAKERS and row.get("mode") in ("chat", "responses")
    }


def reason(table, name, key=None):
    rows = (row for row in KNOWN[table] if key is None or row["key"] == key)
    return next((row["why"] for row in rows if any(fnmatchcase(name, glob) for glob in row["names"])), None)


def priced(provider, name):
    try:
        PRICES.rates(provider, name)
    except PriceNotFoundError:
        return False
    return True


def test_limits_and_cache_minimums_are_litellms_or_differ_for_a_stated_reason(litellms):
    compared, wrong, met = 0, [], set()
    fields = (("max_output", "max_output_tokens"), ("context_window", "max_input_tokens"),
              ("min_cache_tokens", "prompt_cache_min_tokens"))  # fmt: skip
    for (provider, name), row in litellms.items():
        if name not in PRICES.models(provider):
            continue
        ours = PRICES.limits(provider, name)
        for key, theirs in fields:
            if row.get(theirs) is None:
                continue
            compared += 1
            if getattr(ours, key) == row[theirs]:
                continue
            why = reason("limits", name, key)
            met.add(why)
            if why is None:
                wrong.append(f"{name}: {key} is {row[theirs]} there, {getattr(ours, key)} here")
    assert compared > 100
    assert wrong == []
    assert met == {row["why"] for row in KNOWN["limits"]}, "a difference that is no longer there"


def test_every_model_of_the_sdks_and_of_litellm_has_a_price_or_a_reason(litellms):
    from anthropic.types import model
    from openai.types.shared import chat_model

    listed = [("anthropic", name) for name in typing.get_args(typing.get_args(model.Model)[0])]
    listed += [("openai", name) for name in typing.get_args(chat_model.ChatModel)]
    listed += [(provider, name) for provider, name in litellms if "/" not in name]
    missing = [name for provider, name in listed if not priced(provider, name)]
    assert len(listed) > 150
    assert [name for name in missing if reason("unpriced", name) is None] == []


def test_every_listed_gap_of_prices_is_still_one():
    for row in KNOWN["unpriced"]:
        for name in row["names"]:
            provider = "anthropic" if name.startswith("claude") else "openai"
            assert name.endswith("*") or not priced(provider, name), f"{name} has a price now: take it off the list"


def test_retirements_are_those_of_litellm_and_of_the_sdk(litellms):
    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    compared, wrong = 0, []
    for (provider, name), row in litellms.items():
        day = row.get("deprecation_date")
        found = find_retirement(provider, name)
        if name.startswith("ft:") or not priced(provider, name):
            continue
        compared += day is not None
        if (found.day.isoformat() if found else None) != day and reason("retirement", name) is None:
            wrong.append(f"{provider}/{name}: {day} there, {found and found.day} here")
    for name, told in DEPRECATED_MODELS.items():
        month, day, year = told.replace(",", "").split()
        there = datetime.strptime(f"{month} {day.rstrip('stndrh')} {year}", "%B %d %Y").replace(tzinfo=UTC).date()
        found = find_retirement("anthropic", name)
        compared += 1
        if priced("anthropic", name) and (found is None or found.day != there):
            wrong.append(f"anthropic/{name}: {there} in the SDK, {found and found.day} here")
    assert compared > 40
    assert wrong == []


def test_a_retirement_is_told_in_days():
    found = find_retirement("anthropic", "claude-sonnet-4-5")
    assert found.day == date(2026, 11, 30)
    at = datetime(2026, 11, 27, 12, tzinfo=UTC).timestamp()
    assert (found.days_left(at), found.told(at)) == (2, "is retired on 2026-11-30, in 3 days")
    assert found.told(at + 10 * 86_400) == "retired since 2026-11-30"
    assert find_retirement("anthropic", "claude-haiku-5-5") is None
