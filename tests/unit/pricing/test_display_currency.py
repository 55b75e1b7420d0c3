"""Display currency: what may be written, what it changes, and that it decides nothing."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from llm_cost_middleware import (
    Budget,
    BudgetExceededError,
    ConfigurationError,
    CostConfig,
    CostPipeline,
    CostTracker,
    cost_context,
    process,
    process_many,
)
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import CallContext, CallRequest, Message, Part

EUR = {"currency": "EUR", "rate": {"EUR": "0.86", "date": date(2026, 11, 1)}}


def test_a_currency_has_a_dated_rate_and_converts_exactly():
    shown = CostConfig(prices=EUR).display_currency
    assert (shown.code, shown.rate, shown.date) == ("EUR", Decimal("0.86"), "2026-11-01")
    assert shown.convert(Decimal("123456789.123456789")) == Decimal("106172838.64617283854")
    assert shown.format(NanoUSD(-2_500_000_000)) == "-EUR 2.15"
    assert "2026-11-01" in shown.note


@pytest.mark.parametrize("prices", [{}, {"currency": "USD"}, {"rate": EUR["rate"]}])
def test_without_one_amounts_are_dollars(prices):
    assert CostConfig(prices=prices).display_currency is None


def test_a_configuration_file_says_it(tmp_path):
    path = tmp_path / "llm-cost.toml"
    path.write_text('[prices]\ncurrency = "JPY"\n[prices.rate]\nJPY = "151.2"\nEUR = "0.86"\ndate = 2026-11-01\n')
    assert CostConfig.from_toml(path).display_currency == ("JPY", Decimal("151.2"), "2026-11-01")


@pytest.mark.parametrize(
    ("prices", "told"),
    [
        ({"currency": "EUR"}, "there is no rate for EUR; write"),
        ({"currency": "GBP", "rate": EUR["rate"]}, 'GBP = "0.86"'),
        ({"currency": "EURO", "rate": EUR["rate"]}, "did you mean .*EUR"),
        ({"currency": "eur", "rate": EUR["rate"]}, "did you mean .*EUR"),
        ({"currency": 7}, "ISO 4217"),
        ({"currency": "EUR", "rate": "0.86"}, "must be a table"),
        ({"currency": "EUR", "rate": {"EUR": "1e300", "date": "2026-11-01"}}, "prices.rate.EUR: 1e300: no rate"),
        ({"currency": "EUR", "rate": {"EUR": "1e-300", "date": "2026-11-01"}}, "no rate is below"),
        ({"currency": "EUR", "rate": {"EUR": "0." + "1" * 99, "date": "2026-11-01"}}, "no rate is below"),
        ({"currency": "EUR", "rate": {"EUR": 0.86, "date": "2026-11-01"}}, "as text"),
        ({"currency": "EUR", "rate": {"EUR": "0", "date": "2026-11-01"}}, "one US dollar"),
        ({"currency": "EUR", "rate": {"EUR": "nan", "date": "2026-11-01"}}, "one US dollar"),
        ({"currency": "EUR", "rate": {"EUR": "0,86", "date": "2026-11-01"}}, "one US dollar"),
        ({"currency": "EUR", "rate": {"EUR": "0.86", "EURO": "1", "date": "2026-11-01"}}, "ISO 4217"),
        ({"currency": "EUR", "rate": {"EUR": "0.86"}}, "day of the rate"),
        ({"currency": "EUR", "rate": {"EUR": "0.86", "date": "yesterday"}}, "day of the rate"),
    ],
)
def test_what_is_no_currency_or_has_no_rate_is_refused_with_the_form(prices, told):
    with pytest.raises(ConfigurationError, match=told) as caught:
        CostConfig(prices=prices)
    assert "prices" in str(caught.value)


def test_it_is_no_price_and_changes_no_version():
    assert Catalogue(EUR).version == Catalogue({}).version
    catalogue = Catalogue({})
    catalogue.reprice(EUR)
    assert catalogue.currency.code == "EUR"


def test_a_report_says_its_rate_once_and_stays_in_dollars():
    with CostPipeline(CostConfig(prices=EUR)) as pipeline:
        pipeline.ledger.book("2.5")
        report = pipeline.report()
    assert report.shown(report.total.cost_usd) == "EUR 2.15"
    assert sum("EUR at 0.86 for a US dollar, the rate of 2026-11-01" in note for note in report.notes) == 1
    assert '"cost_usd": "2.500000000"' in report.to_json()
    with CostPipeline(CostConfig()) as pipeline:
        plain = pipeline.report()
    assert (plain.shown(Decimal("2.5")), plain.notes) == ("$2.50", ())


def test_a_refusal_tells_both_and_its_fields_stay_dollars(clients):
    config = CostConfig(prices=EUR, budgets=[Budget("global", "0.000001", "day")])
    with CostPipeline(config) as pipeline, pytest.raises(BudgetExceededError) as caught:
        process("hello", pipeline, CostTracker(None), client=clients["openai"])
    told = str(caught.value)
    assert "$0.00 of $0.000001 spent" in told
    assert "at 0.86 of 2026-11-01: EUR 0.00 of EUR 0.00000086 spent, EUR " in told
    assert caught.value.budget_limit == Decimal("0.000001")


def test_the_refusal_of_a_call_s_own_limit_and_of_a_batch_tell_both(clients):
    config = CostConfig(prices=EUR, budgets=[Budget("global", "0.000001", "day")])
    asked = CallRequest("openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), endpoint="chat.completions")
    shown = r"at 0\.86 of 2026-11-01: EUR"
    with CostPipeline(config) as pipeline:
        with (
            cost_context(max_cost="0.00000001"),
            pytest.raises(BudgetExceededError, match=f"max_cost of the call .*{shown}"),
        ):
            process("hello", pipeline, CostTracker(None), client=clients["openai"])
        with pytest.raises(BudgetExceededError, match=shown):
            pipeline.reserve_batch("openai", [asked], CallContext(("global",)))
        with pytest.raises(BudgetExceededError, match=f"left for the batch .*{shown}"):
            process_many(["hello"] * 9, pipeline, CostTracker(None), client=clients["openai"])
