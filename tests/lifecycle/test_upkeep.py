"""The ledger is looked after while calls go on: a call starts it, and waits for none of it."""

from __future__ import annotations

import threading
from random import Random

import pytest
import redis
from plain_call import BOTH, COST, answer, request
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware import ConfigurationError, CostConfig, CostPipeline
from llm_cost_middleware.advice.calls import CallLog
from llm_cost_middleware.lifecycle import upkeep
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

DAY = 86_400


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def url(request, tmp_path):
    if request.param != "redis":
        yield request.getfixturevalue("postgres_url") if request.param == "postgres" else f"sqlite:///{tmp_path}/l.db"
        return
    found = server_binaries()
    if not found:
        pytest.skip("no Redis at hand")
    with RedisServer(next(iter(found.values())), tmp_path) as server:
        yield server.url


@pytest.fixture
def make(url):
    clock = FakeClock(1_780_000_000)

    def make(**ledger):
        config = CostConfig(ledger={"url": url, **ledger}, budgets=[{"scope": "global", "limit": 9}])
        return CostPipeline(config, clock=clock, rng=Random(3)), clock

    return make


def call(pipeline):
    return pipeline.run(request(), lambda _: answer(), providers=BOTH)


def looked_after(pipeline, clock, seconds):
    """Some time later a call comes; what it started is waited for here."""
    clock.advance(seconds)
    call(pipeline)
    pipeline._runtimes.orphans.upkeep.close()


def lines(pipeline):
    return sum(1 for _ in pipeline.ledger.journal.read("odd"))


def test_advice_reads_every_call_by_itself_on_every_storage(make):
    pipeline, clock = make()
    with pipeline:
        for _ in range(4):
            call(pipeline)
            clock.advance(1)
        log = CallLog.read(pipeline.ledger)
        assert (log.calls, log.unread, log.summed) == (4, 0, 0)
        assert log.cost_nanousd == pipeline.ledger.balance("global").settled_nanousd
        middle = pipeline.clock.now() - 2
        assert CallLog.read(pipeline.ledger, middle).calls == CallLog.read(pipeline.ledger, None, middle).calls == 2


def test_the_journal_is_pruned_by_count_and_by_age_in_small_steps(make, monkeypatch):
    monkeypatch.setattr(upkeep, "STEP", 400)
    pipeline, clock = make(journal_lines=1_000, journal_days=8)
    with pipeline:
        journal = pipeline.ledger.journal
        for number in range(2_000):
            journal.append("odd", f"c{number}", clock.now(), b"x")
        looked_after(pipeline, clock, 200)
        assert lines(pipeline) == 2_000, "a short life needs none"
        looked_after(pipeline, clock, 200)
        assert lines(pipeline) == 1_600
        looked_after(pipeline, clock, 2)
        assert lines(pipeline) == 1_600, "the next step is due in a moment"
        looked_after(pipeline, clock, 6)
        looked_after(pipeline, clock, 6)
        left = lines(pipeline)
        assert left <= 1_000
        for _ in range(5):
            looked_after(pipeline, clock, 6)
        assert lines(pipeline) == left, "what is due again in an hour"
        clock.advance(9 * DAY)
        journal.append("odd", "new", clock.now(), b"x")
        for _ in range(4):
            looked_after(pipeline, clock, 10)
        assert [line.id for line in journal.read("odd")] == ["new"]
        audit(pipeline.ledger.backend.read(None), list(pipeline.ledger.rows()))


def test_old_rows_are_archived_and_no_report_changes(make, tmp_path):
    pipeline, clock = make(archive_after_days=30)
    with pipeline:
        for _ in range(6):
            call(pipeline)
        clock.advance(100 * DAY)
        before = pipeline.report("model", over="day").spend()
        balance = pipeline.ledger.balance("global")
        looked_after(pipeline, clock, 400)
        kinds = [row.kind for row in pipeline.ledger.rows()]
        assert sorted(kinds) == ["carried", "reserve", "settle"]
        assert {
            name: cost for name, cost in pipeline.report("model", over="day").spend().items() if name in before
        } == (before)
        assert pipeline.ledger.balance("global").settled_nanousd == balance.settled_nanousd + COST
        assert len(list(tmp_path.glob("*-archive-????.jsonl"))) == (pipeline.ledger.url.startswith("sqlite"))
        for _ in range(3):
            looked_after(pipeline, clock, 3_700)
        assert [row.kind for row in pipeline.ledger.rows()].count("carried") == 1


def test_archives_go_to_a_folder_that_is_named(make, tmp_path):
    (tmp_path / "old").mkdir()
    pipeline, clock = make(archive_after_days=30, archive_to=str(tmp_path / "old"))
    with pipeline:
        call(pipeline)
        clock.advance(100 * DAY)
        looked_after(pipeline, clock, 400)
    assert len(list((tmp_path / "old").glob("llm-cost-archive-??????????.jsonl"))) == 1


def test_a_call_waits_for_none_of_it_and_a_storage_that_is_away_costs_none(make, monkeypatch):
    pipeline, clock = make(journal_lines=1_000)
    begun, go_on, before = threading.Event(), threading.Event(), set(threading.enumerate())

    def slow(*_, **__):
        begun.set()
        go_on.wait(20)
        raise redis.ConnectionError("away")

    monkeypatch.setattr(upkeep, "prune_journal", slow)
    with pipeline:
        clock.advance(400)
        try:
            assert call(pipeline) == "fine"
            assert begun.wait(20), "and it was under way"
            for _ in range(3):
                clock.advance(4_000)
                call(pipeline)
            assert [thread.name for thread in set(threading.enumerate()) - before].count("llm-cost-upkeep") == 1
        finally:
            go_on.set()
        pipeline._runtimes.orphans.upkeep.close()
        assert pipeline.ledger.balance("global").settled_nanousd >= 4 * COST


@pytest.mark.parametrize(
    "wrong", [{"journal_days": 3}, {"journal_lines": 10}, {"archive_after_days": -1}, {"journal_days": float("inf")}]
)
def test_what_would_take_what_is_needed_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="at least"):
        CostConfig(ledger=wrong)
