"""Histories of a ledger with everything in them that may happen to a call, and what they add up to."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from row_totals import of_rows

from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.reports import Query, make_report
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

DAY = 86_400
START = datetime(2026, 1, 15, 9, 30, tzinfo=UTC).timestamp()
MODELS = [ModelRef("anthropic", "claude-haiku-4-5-20251001"), ModelRef("openai", "gpt-5-mini")]


def memo(target, tokens=None):
    reading = None
    if tokens is not None:
        reading = UsageReport(items=(BilledItem(TokenUsage(uncached_input=tokens, output=tokens + 1)),), complete=True)
    return encode_memo(call_id="c", attempt=1, target=target, reading=reading)


def live(ledger, clock, seed, days, calls):
    """A history with everything in it that may happen to a call."""
    chance = random.Random(seed)
    for _ in range(calls):
        clock.advance(chance.random() * 2 * days * DAY / calls)
        target, scopes = chance.choice(MODELS), [f"user:{chance.randrange(3)}"]
        bound = chance.randrange(1, 10**6)
        actual, tokens = NanoUSD(chance.randrange(0, bound + 100)), chance.randrange(1000)
        fate = chance.randrange(12)
        if fate == 0:
            ledger.book(actual, scopes, memo=memo(target, tokens))
            continue
        id_ = ledger.reserve(NanoUSD(bound), scopes, memo=memo(target), ttl=60).id
        clock.advance(chance.random() * 30)
        if fate == 1:
            ledger.void(id_, memo=memo(target))
        elif fate == 2:  # stays unconfirmed
            ledger.settle(id_, actual, memo=memo(target, tokens), status="estimated")
        elif fate == 3:
            ledger.settle(id_, actual, memo=memo(target, tokens), status="unconfirmed")
            ledger.reconcile(id_, NanoUSD(bound))
        elif fate == 4:  # lapses, and stays so
            clock.advance(100)
            ledger.sweep()
        elif fate == 5:
            clock.advance(100)
            ledger.sweep()
            ledger.settle(id_, actual, memo=memo(target, tokens))
        else:
            ledger.settle(id_, actual, memo=memo(target, tokens))
    ledger.reserve("0.01", ["user:0"], id="open", ttl=10**6)


def told(ledger, since=None, scope=None):
    return {
        name: (total.calls, total.usage, total.cost_nanousd, dict(sorted(total.statuses.items())))
        for name, total in of_rows(ledger.rows(since, scope)).items()
    }


def reports(ledger, spans):
    """What a ledger reports of some spans of time by every dimension."""
    return {
        (since, until, by): {
            row.keys: (row.cost_nanousd, row.sums.calls, row.sums.tokens)
            for row in make_report(ledger, Query.read(by, since=since, until=until, now=lambda: START))
        }
        for since, until in spans
        for by in ("model", "provider", "user", "status", "tier", "tag")
    }
