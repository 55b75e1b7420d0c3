"""No recorded request cost more than its bound; how loose the bound is; and how often an estimate is wrong."""

from __future__ import annotations

from collections import defaultdict
from statistics import median, quantiles

import pytest

from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.metering import price_usage
from llm_cost_middleware.pricing.bound import bound
from llm_cost_middleware.pricing.token_calibration import TokenCalibration
from llm_cost_middleware.pricing.tokenizer import count_tokens
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef

pytestmark = pytest.mark.data


class Looseness:
    """Ratios of a bound to what was billed."""

    def __init__(self):
        self.ratios = defaultdict(list)

    def add(self, name, most, actual):
        if actual:
            self.ratios[name].append(most / actual)

    def show(self):
        print()
        for name, ratios in sorted(self.ratios.items()):
            p95 = quantiles(ratios, n=20)[-1]
            print(
                f"{name:32} n={len(ratios):5}  least {min(ratios):6.2f}  median {median(ratios):8.2f}  p95 {p95:9.2f}"
            )


def _quote(catalogue, exchange, request, **options):
    rates = catalogue.upper_bound_rates(exchange.provider, request.model, at=exchange.at, params=request.params)
    limits = catalogue.limits(exchange.provider, request.model)
    rules = get_provider(exchange.provider)
    return bound(request, rules, rates, max_tokens=request.max_tokens, limits=limits, **options)


@pytest.fixture(scope="module")
def billed(whole_calls, catalogue):
    """(exchange, request, reading, cost) of every whole call with a cost."""
    calls = []
    for exchange, request, reading in whole_calls:
        priced = price_usage(reading, get_provider(exchange.provider), catalogue, at=exchange.at)
        if priced.cost_nanousd is not None:
            calls.append((exchange, request, reading, priced.cost_nanousd))
    return calls


def test_no_whole_request_cost_more_than_its_bound(billed, catalogue):
    loose, broken, unsure = Looseness(), {}, set()
    for exchange, request, reading, cost in billed:
        most = _quote(catalogue, exchange, request)
        actual = reading.usage.input_tokens
        if most.amount_nanousd < cost or most.input_tokens < actual:
            broken[exchange.id] = (request.model, most, actual, cost)
        if not most.guaranteed:
            unsure.update(most.notes)
        capped = "capped" if request.max_tokens is not None else "no cap"
        loose.add(f"{exchange.provider} input", most.input_tokens, actual)
        loose.add(f"{exchange.provider} total, {capped}", most.amount_nanousd, cost)
    loose.show()
    assert not broken
    assert len(billed) > 5_500
    assert len(unsure) <= 2, "what is not guaranteed are context edits and pro reasoning"


def test_no_answer_was_longer_than_the_models_maximum(billed, catalogue):
    for exchange, request, reading, _ in billed:
        limits = catalogue.limits(exchange.provider, request.model)
        assert limits.max_output is not None, request.model
        assert reading.usage.output_tokens <= limits.max_output * request.choice_count, exchange.id


def test_the_exact_count_of_openai_is_never_below_the_bill(billed):
    loose, broken = Looseness(), {}
    for exchange, request, reading, _ in billed:
        if exchange.provider != "openai":
            continue
        counted = count_tokens(request, find_limits("openai", request.model).encoding)
        if counted is None:
            continue
        actual = reading.usage.input_tokens
        if counted < actual:
            broken[exchange.id] = (request.model, counted, actual)
        kind = "with tools" if request.tools or request.output_schema else "text"
        loose.add(f"counted, {kind}", counted, actual)
        if actual >= 1_000:
            loose.add(f"counted, {kind}, 1,000 and up", counted, actual)
    loose.show()
    assert not broken
    assert sum(map(len, loose.ratios.values())) > 3_000


def test_calibrated_estimates_miss_less_often_than_their_quantile(billed):
    calibration, loose = TokenCalibration(quantile=0.99), Looseness()
    estimated = missed = 0
    for exchange, request, reading, _ in sorted(billed, key=lambda call: call[0].at or 0):
        target, actual = ModelRef(exchange.provider, request.model), reading.usage.input_tokens
        if not actual:
            continue
        estimate = calibration.tokens(target, request)
        if estimate is not None:
            estimated += 1
            missed += estimate < actual
            loose.add(f"calibrated {exchange.provider} input", estimate, actual)
        calibration.learn(target, request, actual)
    loose.show()
    print(f"{missed} of {estimated:,} estimates missed: {missed / estimated:.2%}")
    assert estimated > 4_000
    assert missed / estimated < 0.01
