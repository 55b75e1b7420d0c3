"""An archive is restored to a ledger of its own, and says there what it said before."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger_histories import DAY, START, live, told

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.ledger.upkeep import restore
from llm_cost_middleware.errors import ConfigurationError, LedgerError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit


def restored(archive, to):
    with Ledger.open(to) as ledger:
        restore(archive, ledger.backend, empty=next(ledger.rows(), None) is None)
        audit(ledger.backend.read(None), list(ledger.rows()))
        return told(ledger), list(ledger.rows()), [line.id for line in ledger.journal.read("decision")]


@pytest.mark.parametrize("seed", range(3))
def test_what_was_archived_says_what_it_said(tmp_path, seed):
    clock = FakeClock(START)
    with Ledger.open(tmp_path / "l.db", clock=clock, durability="normal") as ledger:
        ledger.journal.append("decision", "c1", clock.now(), b"\xff")
        live(ledger, clock, seed, 40, 90)
        clock.advance(100 * DAY)
        before = list(ledger.rows())
        path = ledger.archive(clock.now(), MemoSummary()).path
        after = list(ledger.rows())
        ledger.erase("user:0")
    sums, rows, lines = restored(path, tmp_path / "again.db")
    facts = [row._replace(seq=0) for row in before if row not in set(after)]
    assert [row._replace(seq=0) for row in rows] == facts
    assert lines == ["c1"]
    carried = [row for row in after if row.kind == "carried"]
    assert sum(row.amount_nanousd for row in carried) == sum(total[2] for total in sums.values())
    with Ledger.open(tmp_path / "again.db") as again:
        done = next(row for row in reversed(rows) if row.kind == "settle")
        assert again.settle(done.id, done.amount_nanousd).repeated
        assert again.balance("global").pending_nanousd == NanoUSD(0)


def test_only_to_a_ledger_that_is_empty_and_only_what_is_whole(tmp_path):
    clock = FakeClock(START)
    with Ledger.open(tmp_path / "l.db", clock=clock) as ledger:
        ledger.book("1")
        clock.advance(10)
        path = ledger.archive(clock.now(), MemoSummary()).path
        with pytest.raises(ConfigurationError, match="new file"):
            restore(path, ledger.backend, empty=False)
    with Ledger.open("memory://") as memory, pytest.raises(ConfigurationError, match="SQLite"):
        restore(path, memory.backend, empty=True)
    Path(tmp_path / "cut.jsonl").write_text("\n".join(path.read_text().splitlines()[:-1]))
    with Ledger.open(tmp_path / "x.db") as empty, pytest.raises(LedgerError, match="not whole"):
        restore(tmp_path / "cut.jsonl", empty.backend, empty=True)
