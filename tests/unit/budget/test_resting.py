"""Runs that are over keep one short line each: no sum changes, and who is used again has spent what it had."""

from __future__ import annotations

import itertools
import random
import sqlite3
import time
from contextlib import closing

import pytest
from bystanders import working
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware import BudgetExceededError
from llm_cost_middleware.budget.ledger import Ledger, upkeep
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

DAY = 86_400
START = 1_780_000_000


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/l.db"
        return
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_url")
        return
    found = server_binaries()
    if not found:
        pytest.skip("no Redis at hand")
    with RedisServer(next(iter(found.values())), tmp_path) as server:
        yield server.url


@pytest.fixture
def clock():
    return FakeClock(START)


@pytest.fixture
def ledger(url, clock):
    with Ledger.open(url, clock=clock, durability="normal") as ledger:
        yield ledger


def spent(ledger, scope):
    return ledger.balance(scope).settled_nanousd


def run(ledger, number, amount=1_000, user="ann"):
    scopes = [f"run:{number}", f"thread:{number % 7}", f"user:{user}"]
    id_ = ledger.reserve(NanoUSD(5_000), scopes).id
    ledger.settle(id_, NanoUSD(amount))
    return id_


def rest(ledger, days=7):
    return upkeep.rest(ledger.backend, days * DAY)


def test_a_run_that_is_over_leaves_and_every_sum_stays(ledger, clock):
    ledger.set_budget(Budget("run:*", "0.00001"))
    ledger.set_budget(Budget("thread:*", "1", "day"))
    for number in range(40):
        run(ledger, number)
    clock.advance(8 * DAY)
    run(ledger, 100)
    before = {scope: spent(ledger, scope) for scope in ("global", "user:ann", "run:3", "run:100")}
    listed = ledger.balances()
    assert rest(ledger) == 40 + 6, "threads rest as well, but for the one that was just used"
    assert rest(ledger) == 0
    listed_now = {account.scope for account in ledger.backend.read(None).totals}
    assert {"global", "user:ann", "run:100", "thread:2"} <= listed_now
    assert not listed_now & {f"run:{number}" for number in range(40)}
    assert {scope: spent(ledger, scope) for scope in before} == before
    named = {one.scope for one in listed if not one.scope.startswith("thread:")}
    assert named <= {one.scope for one in ledger.balances()}


def test_a_run_that_is_used_again_goes_on_from_what_it_had_spent(ledger, clock):
    ledger.set_budget(Budget("run:*", NanoUSD(9_000).usd))
    run(ledger, 1, 4_500)
    clock.advance(30 * DAY)
    assert rest(ledger) == 2
    with pytest.raises(BudgetExceededError, match="run:1") as refused:
        ledger.reserve(NanoUSD(5_000), ["run:1"])
    assert refused.value.settled == NanoUSD(4_500).usd
    id_ = ledger.reserve(NanoUSD(4_500), ["run:1"]).id
    assert rest(ledger) == 0, "something is held in it"
    ledger.settle(id_, NanoUSD(4_000))
    clock.advance(30 * DAY)
    assert rest(ledger) == 1
    assert spent(ledger, "run:1") == 8_500
    audit(ledger.backend.read(("global", "run:1", "thread:1", "user:ann")), list(ledger.rows()))


def test_a_late_correction_finds_the_sum_that_it_corrects(ledger, clock):
    ledger.set_budget(Budget("run:*", "1"))
    id_ = run(ledger, 1, 5_000)
    clock.advance(30 * DAY)
    assert rest(ledger) == 2
    ledger.reconcile(id_, NanoUSD(3_000))
    assert spent(ledger, "run:1") == spent(ledger, "global") == 3_000
    clock.advance(30 * DAY)
    rest(ledger)
    assert spent(ledger, "run:1") == 3_000


def test_what_holds_money_or_has_a_slice_or_a_budget_of_its_own_stays(ledger, clock):
    ledger.set_budget(Budget("run:*", "1"))
    ledger.set_budget(Budget("run:own", "1"))
    ledger.reserve(NanoUSD(50), ["run:held"], ttl=400 * DAY)
    scope = "slice:a~1000~00ff"
    ledger.reserve(NanoUSD(1_000), ["run:parent"], id=scope, ttl=400 * DAY)
    ledger.settle(ledger.reserve(NanoUSD(1_000), ["run:parent", scope], ttl=400 * DAY).id, NanoUSD(1_000))
    ledger.settle(ledger.reserve(NanoUSD(5), ["run:own"]).id, NanoUSD(5))
    ledger.settle(ledger.reserve(NanoUSD(5), ["user:ann"]).id, NanoUSD(5))
    clock.advance(60 * DAY)
    assert rest(ledger) == 0
    ledger.void(scope)
    clock.advance(60 * DAY)
    assert rest(ledger) == 2, "the slice and its parent; the other still holds money"
    with pytest.raises(BudgetExceededError, match="slice has ended") as refused:
        ledger.reserve(NanoUSD(1), ["run:parent", scope])
    assert refused.value.settled == NanoUSD(1_000).usd


def test_no_window_loses_what_it_still_counts(ledger, clock):
    ledger.set_budget(Budget("run:*", NanoUSD(9_000).usd, "month"))
    clock.advance(6 * DAY)  # the third of a month
    run(ledger, 1, 5_000)
    clock.advance(10 * DAY)
    assert rest(ledger) == 0, "its month counts it, or the next may"
    with pytest.raises(BudgetExceededError):
        ledger.reserve(NanoUSD(4_500), ["run:1"])
    clock.advance(65 * DAY)
    assert rest(ledger) == 2
    ledger.set_budget(Budget("run:*", NanoUSD(9_000).usd, "25920000s"))
    assert ledger.balance("run:1", "25920000s").settled_nanousd == 5_000, "a longer one finds its rows"


def test_an_archive_carries_the_sums_without_the_names_of_runs(ledger, clock, tmp_path):
    ledger.set_budget(Budget("run:*", "1"))
    for number in range(300):
        run(ledger, number)
    clock.advance(100 * DAY)
    before = spent(ledger, "global"), spent(ledger, "user:ann"), spent(ledger, "run:7"), spent(ledger, "thread:2")
    moved = ledger.archive(clock.now(), MemoSummary(), tmp_path / "a.jsonl")
    assert moved.rows == 600
    assert moved.carried <= 21, "one of each thread in a day, for each step of a hundred"
    rest(ledger)
    found = spent(ledger, "global"), spent(ledger, "user:ann"), spent(ledger, "run:7"), spent(ledger, "thread:2")
    assert found == before
    assert sum(row.amount_nanousd for row in ledger.rows()) == before[0]


@pytest.mark.parametrize("seed", range(3))
def test_a_ledger_that_rests_answers_as_one_that_never_does(url, tmp_path, seed):
    chance, clock = random.Random(seed), FakeClock(START)
    with (
        Ledger.open(url, clock=clock, durability="normal") as resting,
        Ledger.open("memory://", clock=clock) as other,
    ):
        both = resting, other
        for one in both:
            one.set_budget(Budget("run:*", NanoUSD(9_000).usd))
            one.set_budget(Budget("thread:*", NanoUSD(30_000).usd, "day"))
        done, rested = [], 0
        for number in range(120):
            scopes = [f"run:{chance.randrange(9)}", f"thread:{chance.randrange(3)}", f"user:{chance.randrange(2)}"]
            amount, actual, id_ = NanoUSD(chance.randrange(3_000)), NanoUSD(chance.randrange(3_000)), f"c{number}"
            told = []
            for one in both:
                try:
                    one.reserve(amount, scopes, id=id_, ttl=900)
                    told.append(tuple(one.settle(id_, actual).warnings))
                except BudgetExceededError as error:
                    told.append((error.scope, error.settled, error.pending))
            assert told[0] == told[1]
            if not told[0]:
                done.append(id_)
            clock.advance(chance.choice([10, DAY, 9 * DAY]))
            if done and chance.random() < 0.2:
                late = done.pop()
                for one in both:
                    one.reconcile(late, NanoUSD(7))
            if chance.random() < 0.3:
                rested += rest(resting)
            asked = [*(f"run:{one}" for one in range(9)), *(f"thread:{one}" for one in range(3)), "user:0", "global"]
            assert [one.settled_nanousd for one in map(resting.balance, asked)] == [
                one.settled_nanousd for one in map(other.balance, asked)
            ]
        assert rested > 10


def test_calls_go_on_while_runs_are_laid_to_rest(ledger, clock):
    ledger.set_budget(Budget("run:*", "1"))
    ledger.set_budget(Budget("thread:*", "1", "day"))
    paid, turns = [0] * 6, [itertools.cycle((first, first + 2, first + 4)) for first in (0, 1)]

    def work(first):
        number = next(turns[first])
        run(ledger, number, 60)
        paid[number] += 60

    with working(work) as failures:
        until = time.monotonic() + 60
        for _ in range(8):
            before = sum(paid)
            while sum(paid) < before + 20 * 60 and time.monotonic() < until and not failures:
                time.sleep(0.002)
            clock.advance(8 * DAY)
            rest(ledger)
    assert [spent(ledger, f"run:{number}") for number in range(6)] == paid
    clock.advance(60 * DAY)
    assert rest(ledger)
    assert [spent(ledger, f"run:{number}") for number in range(6)] == paid
    assert spent(ledger, "global") == sum(paid)


def test_another_process_books_where_the_account_is_now(tmp_path, clock):
    """Two objects of one file, as two processes have: numbers of accounts that one knows must not outlive them."""
    url = f"sqlite:///{tmp_path}/l.db"
    with Ledger.open(url, clock=clock) as one, Ledger.open(url, clock=clock, durability="normal") as two:
        one.set_budget(Budget("run:*", "1"))
        late = run(one, 1, 5_000)
        run(two, 2, 1)
        clock.advance(30 * DAY)
        assert rest(two) == 4
        run(two, 3, 100)  # its account may have the number of one that left
        one.reconcile(late, NanoUSD(4_000))
        run(one, 1, 10)
        assert [spent(two, f"run:{number}") for number in (1, 2, 3)] == [4_010, 1, 100]
    with closing(sqlite3.connect(tmp_path / "l.db")) as db:
        (lost,) = db.execute("SELECT count(*) FROM cell WHERE account NOT IN (SELECT id FROM account)").fetchone()
        assert lost == 0
