"""Every recorded exchange with a label is priced to the label's nano-dollar, and nothing of the corpus raises."""

from __future__ import annotations

from collections import Counter
from decimal import ROUND_CEILING, Decimal

import pytest

from llm_cost_middleware.metering import price_response
from llm_cost_middleware.providers import get_provider

pytestmark = pytest.mark.data

WRONG_LABELS: dict[str, str] = {}
"""Labels that are wrong, with the evidence, by the id of the exchange."""


@pytest.fixture(scope="module")
def priced(exchanges, catalogue):
    return [
        (exchange, price_response(exchange.provider, exchange.response, at=exchange.at, catalogue=catalogue))
        for exchange in exchanges
    ]


def test_every_label_is_met_to_the_nano_dollar(priced):
    met, off = 0, {}
    for exchange, call in priced:
        label = exchange.label.get("cost_usd")
        if label is None or exchange.id in WRONG_LABELS:
            continue
        expected = int((Decimal(label) * 10**9).to_integral_value(ROUND_CEILING))
        # Labels count tokens and Anthropic's searches; what OpenAI's own tools cost by the call stands apart.
        pico = sum(sum(item.components_picousd.values()) for item in call.items if item.kind != "tool_fees")
        if call.cost_nanousd is not None and -(-pico // 1_000) == expected:
            met += 1
        else:
            off[exchange.id] = (call.model, call.cost_nanousd, expected, call.notes)
    print(f"\n{met:,} labels met to the nano-dollar, {len(off)} missed, {len(WRONG_LABELS)} listed as wrong")
    assert not off
    assert met == 6_579
    assert len(WRONG_LABELS) <= 5


def test_every_label_of_usage_is_met_bucket_by_bucket(exchanges):
    met, off = 0, {}
    for exchange in exchanges:
        label = exchange.label.get("usage")
        if label is None or "iterations" in exchange.label:
            continue
        reading = get_provider(exchange.provider).read_usage(exchange.response)
        usage = reading.usage
        found = {
            "input_uncached": usage.uncached_input + usage.audio_input,  # the labels count audio in both
            "cache_read": usage.cache_read,
            "output": usage.output + usage.audio_output,
            "audio_in": usage.audio_input,
            "cache_write_5m": usage.cache_write_5m,
            "cache_write_1h": usage.cache_write_1h,
            "cache_write_30m": usage.cache_write_30m,
        }
        told = (reading.model, reading.complete, reading.response_id)
        expected = (exchange.label["model"], exchange.label["complete"], exchange.label["response_id"])
        if told != expected or any(found[name] != count for name, count in label.items() if name in found):
            off[exchange.id] = (told, expected, found, label)
        else:
            met += 1
    assert not off
    assert met == 6_595


def test_nothing_of_the_corpus_raises_and_every_outcome_gives_its_reason(priced):
    assert len(priced) == 7_180
    statuses = Counter(call.status for _, call in priced)
    print(f"\n{dict(statuses)}")
    for exchange, call in priced:
        assert (call.cost_nanousd is None) == (call.status == "unknown"), exchange.id
        if call.status != "exact":
            assert call.notes, exchange.id
        if call.cost_nanousd == 0 and not any(item.usage.total_tokens for item in call.items):
            assert call.notes, f"{exchange.id} costs nothing and does not say why"
    assert sum(item.cost_nanousd for _, call in priced for item in call.items) == sum(
        call.cost_nanousd or 0 for _, call in priced
    )


def test_errors_cost_nothing_and_report_it(priced):
    errors = [(exchange, call) for exchange, call in priced if exchange.status >= 400]
    assert len(errors) == 219
    for exchange, call in errors:
        if exchange.response and not isinstance(exchange.response, str):
            assert call.cost_usd == 0, exchange.id
            assert "error is not billed" in call.notes[-1]
        else:
            assert call.status == "unknown", "an empty or foreign body says nothing"


@pytest.mark.parametrize(
    ("feature", "holds"),
    [
        ("cache_write_unsplit", lambda call: call.items[0].usage.cache_write_5m > 0),
        ("iter_compaction", lambda call: {item.kind for item in call.items} == {"compaction", "message"}),
        ("iter_advisor_message", lambda call: "claude-opus-4-8" in {item.model for item in call.items}),
        ("stream_without_usage", lambda call: call.status == "unknown" and "include_usage" in call.notes[0]),
        ("error_in_200", lambda call: call.status == "unknown" and "overloaded" in call.notes[-1]),
        ("background_pending", lambda call: call.status == "unknown" and "retrieved" in call.notes[0]),
        ("tier_flex", lambda call: call.cost_usd == Decimal("0.002378125")),
        ("over_200k", lambda call: call.status == "estimated" and "loop" in call.notes[0]),
    ],
)
def test_special_cases_of_real_traffic(priced, feature, holds):
    trapped = [(exchange, call) for exchange, call in priced if feature in exchange.features]
    assert trapped
    assert [exchange.id for exchange, call in trapped if not holds(call)] == []


def test_every_model_that_answered_has_a_price_today_whether_it_is_retired_or_not(exchanges, catalogue):
    answered = {}
    for exchange in exchanges:
        model = get_provider(exchange.provider).read_usage(exchange.response).model
        if model is not None and exchange.status < 400:
            answered.setdefault((exchange.provider, model), exchange.id)
    assert len(answered) >= 50
    for provider, model in answered:
        assert catalogue.upper_bound_rates(provider, model).level(0).output > 0, model
