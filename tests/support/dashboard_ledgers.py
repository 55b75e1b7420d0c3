"""Ledgers that the page is looked at with, written through the ledger's own verbs on a clock of their own."""

from __future__ import annotations

import random
from pathlib import Path

from llm_cost_middleware import Ledger
from llm_cost_middleware.budget.model import Budget, make_scope
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.metering.refused import REFUSAL, refusal_line
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import EvaluatedCandidate, RoutingDecision
from llm_cost_middleware.routing.features import Features
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

MODELS = (
    ("anthropic", "claude-haiku-4-5"), ("anthropic", "claude-sonnet-4-6"), ("anthropic", "claude-opus-4-5"),
    ("openai", "gpt-5-mini"), ("openai", "gpt-5.1"), ("openai", "gpt-5"), ("openai", "gpt-5-nano"),
    ("openai", "gpt-4o"), ("openai", "gpt-4o-mini"), ("openai", "gpt-4.1"), ("openai", "o4-mini"),
    ("anthropic", "claude-sonnet-4-5"),
)  # fmt: skip
WEIGHTS = (30, 22, 9, 18, 8, 6, 5, 3, 3, 2, 2, 4)
TEAMS = tuple(
    f"{area}-{part}" for area in ("search", "ads", "support", "legal", "growth", "data")
    for part in ("core", "apps", "ml", "ops", "emea")
)  # fmt: skip
SITES = ("chat.answer", "search.rerank", "mail.draft", "ticket.triage", "code.review", "doc.summary")
HOSTILE = (
    "<script>window.pwned=1</script>", '"><img src=x onerror=window.pwned=1>', "</script><svg onload=window.pwned=1>",
    "javascript:window.pwned=1", "<!--<script>", "{{constructor.constructor('window.pwned=1')()}}", "__proto__",
    "constructor", "' onfocus=window.pwned=1 autofocus='", '=HYPERLINK("http://evil.test")', "a&b=c#d?e=%3Cb%3E",
    "*", "[a-z]", "a,b=c", "\u202egnp.exe", "x" * 190, "\U0001f9ff\u0645\u0631\u062d\u0628\u0627", "line\nbreak\ttab",
    "http://evil.test/a.js", "<base href=http://evil.test>", "<meta http-equiv=refresh content=0;url=http://evil.test>",
)  # fmt: skip
DAY_S = 86_400


def write_call(ledger, clock, number, rng, scopes, target, *, end="exact", why="the cheapest good enough", asked=""):
    """Reserve and settle a call, with its decision."""
    ref = ModelRef(*target)
    usage = TokenUsage(
        uncached_input=rng.randrange(200, 6_000), cache_read=rng.choice((0, 0, 4_000, 12_000)),
        cache_write_5m=rng.choice((0, 0, 0, 3_000)), output=rng.randrange(50, 1_500),
    )  # fmt: skip
    call = f"call-{number:06}"
    reading = UsageReport(items=(BilledItem(usage),), model=ref.model, complete=True)
    memo = encode_memo(call_id=call, attempt=1, target=ref, reading=reading, tier="small", asked=asked)
    scale = 8 if "opus" in ref.model or ref.model in {"gpt-5", "o4-mini"} else 1
    paid = NanoUSD(round(rng.lognormvariate(15.2, 1.0)) * scale)
    features = Features(rng.randrange(100, 9_000), 1, 9_000, 2_500, 1, 3, 0, 0)
    candidates = (EvaluatedCandidate(ref, 0, paid), EvaluatedCandidate(ModelRef("openai", "gpt-5"), 1, None, "dearer"))
    site = next((scope.partition(":")[2] for scope in scopes if scope.startswith("site:")), "")
    decision = RoutingDecision(
        call, clock.now(), ref, 0, "small", "threshold", "1", why, None, 1.0, site, asked, features, candidates
    )
    if ledger.journal is not None:
        ledger.journal.append("decision", call, clock.now(), decision.to_json().encode())
    ledger.reserve(NanoUSD(paid * 2), scopes, id=f"{call}.1", memo=memo, ttl=100)
    clock.advance(rng.choice((0.7, 1.4, 2.8, 6.5)) if rng.random() > 0.01 else 75)
    if end == "void":
        ledger.void(f"{call}.1")
    elif end != "open":
        ledger.settle(f"{call}.1", paid, memo=memo, status=end)


def write_refusal(ledger, clock, number, scopes, scope, target):
    """Note a call that had no money left."""
    line = refusal_line(
        call_id=f"refused-{number}", target=ModelRef(*target), scopes=("global", *scopes), scope=scope,
        wanted=NanoUSD(4_200_000), tier="small",
    )  # fmt: skip
    ledger.journal.append(REFUSAL, f"refused-{number}", clock.now(), line)


def fill(path: Path | str, now: float, *, days: float, calls: int, teams=TEAMS, models=MODELS, seed=11) -> None:
    """Write the calls of some days that end at ``now``."""
    rng, clock = random.Random(seed), FakeClock(now - days * DAY_S)
    moments = sorted(rng.random() * days * DAY_S for _ in range(calls))
    with Ledger.open(path, clock=clock, durability="normal") as ledger:
        ledger.set_budget(Budget("global", 400, "month"))
        ledger.set_budget(Budget("team:search-core", 20, "month"))
        ledger.set_budget(Budget("team:ads-core", 3, "day"))
        ledger.set_budget(Budget("user:u3", 40, "none"))
        began = clock.now()
        for number, moment in enumerate(moments):
            clock.advance(max(0.0, began + moment - clock.now()))
            target = rng.choices(models, WEIGHTS[: len(models)])[0]
            team = teams[min(int(rng.expovariate(0.18)), len(teams) - 1)]
            site = rng.choice(SITES)
            scopes = [f"team:{team}", f"user:u{min(int(rng.expovariate(0.05)), 199)}", f"site:{site}"]
            scopes += [f"tag:{rng.choice(('etl', 'live', 'night'))}"] * (rng.random() < 0.4)
            end = rng.choices(("exact", "estimated", "unconfirmed", "void", "unpriced"), (94, 3, 1, 1, 1))[0]
            asked = "claude-opus-4-5" if rng.random() < 0.3 else ""
            write_call(ledger, clock, number, rng, scopes, target, end=end, asked=asked)
            if rng.random() < 0.01:
                write_refusal(ledger, clock, number, scopes, f"team:{team}", target)
        clock.advance(max(0.0, now - clock.now()))


def empty(path: Path, now: float) -> None:
    """A ledger in which nothing was booked."""
    with Ledger.open(path, clock=FakeClock(now)):
        pass


def day(path: Path, now: float) -> None:
    """A ledger of one day."""
    fill(path, now, days=0.9, calls=250, teams=TEAMS[:4], models=MODELS[:4])


def month(path: Path, now: float) -> None:
    """A ledger of thirty days, thirty teams and twelve models."""
    fill(path, now, days=30, calls=4_000)


def hostile(path: Path, now: float) -> None:
    """A ledger whose every name is an attack, in every dimension, budget, reason and id."""
    rng, clock = random.Random(3), FakeClock(now - 2 * DAY_S)
    with Ledger.open(path, clock=clock, durability="normal") as ledger:
        for number, name in enumerate(HOSTILE):
            clock.advance(3_600)
            scopes = [make_scope(kind, name) for kind in ("team", "user", "site", "tag", "key", "end_user", "project")]
            write_call(ledger, clock, number, rng, scopes, ("openai", name), why=name, asked=name)
            ledger.reserve(NanoUSD(10**6), scopes, id=name)
            ledger.settle(name, NanoUSD(10**6), status="unconfirmed")
            write_refusal(ledger, clock, number, scopes, scopes[0], (name, name))
            ledger.set_budget(Budget(scopes[0], "0.5", "month"))
        ledger.pause("user:eve", reason=HOSTILE[0])
        clock.advance(max(0.0, now - clock.now()))


def strained(path: Path, now: float) -> None:
    """A ledger whose budgets stand at every mark: spent, held, near, over, going over, carried over, zero, paused."""
    clock = FakeClock(now - 3_600)
    with Ledger.open(path, clock=clock, durability="normal") as ledger:
        for name, limit, spent, held in (
            ("over", "1", "1.2", "0"), ("full", "1", "1", "0"), ("near", "1", "0.85", "0"), ("held", "1", "0.2", "0.5"),
            ("none", "0", "0", "0"), ("fresh", "5", "0", "0"), ("held-whole", "1", "0.5", "0.5"),
        ):  # fmt: skip
            if spent != "0":
                ledger.book(spent, [f"team:{name}"])
            ledger.set_budget(Budget(f"team:{name}", limit, "month"))
            if held != "0":
                ledger.reserve(held, [f"team:{name}"], ttl=100_000)
        ledger.set_budget(Budget("global", "4", "day"))
        ledger.set_budget(Budget("user:*", "2", "7d"))
        ledger.book("0.4", ["user:ann"])
        ledger.pause("team:over", reason="spent its month")
        clock.advance(3_600)
