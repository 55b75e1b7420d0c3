"""A snapshot of a known model that no price list names yet, and the models of recorded traffic that are retired."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.metering import price_response
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.genai import family_of

CATALOGUE = Catalogue()
NOV = 1_793_500_000.0
UNDATED = [name for name in CATALOGUE.models("openai") if family_of(name) is None and not name.startswith("ft:")]


def answer(model):
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100}
    return {"id": "c", "object": "chat.completion", "model": model, "choices": [], "usage": usage}


@pytest.mark.parametrize("date", ["2031-01-15", "20310115"])
def test_every_undated_model_has_its_snapshots_of_tomorrow_priced_as_itself(date):
    assert len(UNDATED) > 60
    for name in UNDATED:
        for at in (NOV, None):
            known = price_response("openai", answer(name), at=at, catalogue=CATALOGUE)
            snapshot = price_response("openai", answer(f"{name}-{date}"), at=at, catalogue=CATALOGUE)
            if snapshot.status == "exact":  # the source itself says that every such name has this price
                assert snapshot.cost_usd == known.cost_usd
            else:
                assert (snapshot.status, snapshot.cost_usd) == ("estimated", known.cost_usd), (name, snapshot.notes)
                assert f"priced as {name}" in " ".join(snapshot.notes)


def test_a_snapshot_is_held_at_the_dearest_of_its_family_on_the_terms_that_were_asked_for():
    hold = CATALOGUE.upper_bound_rates("openai", "gpt-4o-2031-01-15", at=NOV, params={"service_tier": "default"})
    dearest = CATALOGUE.rates("openai", "gpt-4o-2024-05-13", at=NOV)
    assert dearest.levels[0].output > CATALOGUE.rates("openai", "gpt-4o", at=NOV).levels[0].output
    assert hold.levels[0].output == dearest.levels[0].output
    assert hold.levels[0].uncached_input == dearest.levels[0].uncached_input
    assert "snapshot" in hold.notes[0], "the bound is no guarantee"
    batch = CATALOGUE.upper_bound_rates("openai", "gpt-4o-2031-01-15", at=NOV, params={"batch": True})
    assert batch.levels[0].output == CATALOGUE.rates("openai", "gpt-4o-2024-05-13", at=NOV, batch=True).levels[0].output


def test_a_price_of_the_user_holds_for_the_snapshots_of_his_model():
    own = {"openai/acme-large": {"input_mtok": "1", "output_mtok": "2"}, "openai/gpt-5.1": {"output_mtok": "99"}}
    catalogue = Catalogue(own)
    assert catalogue.rates("openai", "acme-large-2031-01-15").levels[0].output == 2 * 10**6
    assert catalogue.rates("openai", "gpt-5.1-2031-01-15").levels[0].output == 99 * 10**6


def test_a_family_known_by_dated_names_alone_is_priced_as_the_latest_and_held_at_the_dearest():
    prices = {
        "openai/acme-2026-01-01": {"input_mtok": "9", "output_mtok": "9"},
        "openai/acme-2026-05-01": {"input_mtok": "1", "output_mtok": "2"},
    }
    catalogue = Catalogue(prices)
    assert catalogue.rates("openai", "acme-2031-01-15").levels[0].output == 2 * 10**6
    assert catalogue.upper_bound_rates("openai", "acme-2031-01-15").levels[0].output == 9 * 10**6


@pytest.mark.parametrize(
    "model", ["gpt-7-2031-01-15", "acme-2031-01-15", "gpt-5.1-large-2031-01-15", "gpt-5.1-2031", "-2031-01-15"]
)
def test_an_unknown_family_stays_an_error(model):
    with pytest.raises(PriceNotFoundError) as refused:
        CATALOGUE.rates("openai", model)
    assert refused.value.model == model


@pytest.mark.parametrize("tail", ["-" + "1" * 5_000, "1" * 5_000 + "x", "-20" * 2_000 + "!", "9" * 10**6 + "-"])
def test_a_name_of_endless_digits_is_refused_at_once(tail):
    started = time.process_time()
    for base in ("gpt-4o", "claude-sonnet-4-5", "gpt-5.1"):
        with pytest.raises(PriceNotFoundError):
            CATALOGUE.rates("anthropic" if base.startswith("claude") else "openai", base + tail)
    assert time.process_time() - started < 5


def test_a_name_that_could_be_divided_in_many_ways_is_refused_at_once():
    started = time.process_time()
    with pytest.raises(PriceNotFoundError):
        CATALOGUE.rates("anthropic", "claude-sonnet-4-5" + "1" * 200 + "x")
    assert time.process_time() - started < 1


SEARCH_MODELS = {
    "gpt-4o-search-preview": ("0.0285", "0.025"),
    "gpt-4o-mini-search-preview": ("0.02521", "0.025"),
    "gpt-5-search-api": ("0.01225", "0.01"),
}


@pytest.mark.parametrize("model", SEARCH_MODELS)
@pytest.mark.parametrize("snapshot", ["", "-2025-03-11", "-2031-01-15"])
def test_a_model_that_searches_each_time_carries_the_fee_of_a_search(model, snapshot):
    whole, fee = SEARCH_MODELS[model]
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100}
    priced = price_response("openai", answer(model + snapshot) | {"usage": usage}, at=NOV, catalogue=CATALOGUE)
    assert priced.cost_usd == Decimal(whole)
    assert priced.status == "estimated", "how often it searched is not reported"
    assert priced.items[-1].kind == "tool_fees"
    assert priced.items[-1].cost_nanousd.usd == Decimal(fee)


@pytest.mark.parametrize(
    ("model", "tool", "fee"),
    [
        ("gpt-4o", "web_search", "0.01"),
        ("gpt-4o", "web_search_preview", "0.025"),
        ("gpt-4.1-mini", "web_search_preview_2025_03_11", "0.025"),
        ("gpt-5.1", "web_search_preview", "0.01"),
        ("o4-mini", "web_search", "0.01"),
    ],
)
def test_a_hosted_search_costs_what_its_version_costs_at_the_model(model, tool, fee):
    call = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}}
    output = [call, call | {"status": "failed"}, call | {"action": {"type": "open_page", "url": "u"}}]
    body = {
        "id": "r", "object": "response", "status": "completed", "model": model, "tools": [{"type": tool}],
        "output": output, "usage": {"input_tokens": 1, "output_tokens": 0},
    }  # fmt: skip
    priced = price_response("openai", body, at=NOV, catalogue=CATALOGUE)
    assert sum(item.cost_nanousd for item in priced.items if item.kind == "tool_fees") == 2 * int(Decimal(fee) * 10**9)
    assert priced.status == "estimated"
