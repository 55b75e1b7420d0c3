"""A report over the recorded exchanges: every dimension adds up to what was booked, from SQL and from rows alike."""

from __future__ import annotations

import pytest

from llm_cost_middleware import Ledger
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.metering.price import price_usage
from llm_cost_middleware.money import ZERO
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.reports import DIMENSIONS, OVER, Query, make_report
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.testing import FakeClock

pytestmark = pytest.mark.data
SAMPLE = 12
START = 1_790_000_000.0


def booked(exchanges, catalogue, soak):
    """Each exchange that has a price, as the pipeline would book it; of each dozen one, or all of them."""
    for exchange in exchanges if soak else exchanges[::SAMPLE]:
        rules = get_provider(exchange.provider)
        try:
            reading = rules.read_usage(exchange.response)
        except ValueError:
            continue
        priced = price_usage(reading, rules, catalogue, at=exchange.at)
        if priced.cost_nanousd is None or not reading.items:
            continue
        model = reading.model or "unnamed"
        memo = encode_memo(
            call_id=exchange.id, attempt=1, target=ModelRef(exchange.provider, model), priced=priced, reading=reading
        )
        yield exchange, priced, memo, reading.usage


def test_every_dimension_adds_up_to_the_recorded_bill(exchanges, catalogue, soak, tmp_path):
    clocks = FakeClock(START), FakeClock(START)
    with (
        Ledger.open(tmp_path / "recorded.db", clock=clocks[0], durability="normal") as file,
        Ledger.open("memory://", clock=clocks[1]) as memory,
    ):
        bill, calls, tokens = ZERO, 0, [0, 0]
        for exchange, priced, memo, usage in booked(exchanges, catalogue, soak):
            scopes = [f"team:{exchange.endpoint.replace('/', '-')}", *(f"tag:{name}" for name in exchange.features)]
            status = "exact" if priced.status == "exact" else "estimated"
            for ledger, clock in zip((file, memory), clocks, strict=True):
                ledger.book(priced.cost_nanousd, scopes, id=exchange.id, memo=memo, status=status)
                clock.advance(3_600)
            bill, calls = bill + priced.cost_nanousd, calls + 1
            tokens = [tokens[0] + usage.input_tokens, tokens[1] + usage.output_tokens]
        assert calls >= (6_000 if soak else 500)
        for by in (name for name in DIMENSIONS if name not in OVER):
            answers = []
            for ledger in (file, memory):
                query = Query.read(by, over="month", now=clocks[0].now)
                report = make_report(ledger, query, catalogue=catalogue)
                total = report.total.measures()
                assert sum(row.cost_nanousd for row in report) - report.shared.cost_nanousd == bill
                assert report.total.cost_nanousd == bill
                assert [total["calls"], total["input_tokens"], total["output_tokens"]] == [calls, *tokens]
                answers.append({row.keys: row.measures() for row in report})
            assert answers[0] == answers[1]
