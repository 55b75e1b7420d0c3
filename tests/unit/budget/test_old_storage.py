"""Storages written before the end of a hold was called expiry (SQLite schema 3, Redis schema 1) still open.

The files in ``data`` are dumps of ledgers that the former code wrote.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import redis
from msgspec.structs import replace
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.errors import LedgerVersionError
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.testing import FakeClock

DATA = Path(__file__).parent / "data"
SQLITE_AT, REDIS_AT = 1_768_564_923.0, 1_768_478_461.0  # when the former code wrote last
KINDS = ["reserve", "reserve", "reserve", "reserve", "settle", "expire", "expire", "settle", "book"]


def check(ledger):
    """Every reservation is in the state it was left in, and takes what it would have taken."""
    assert [row.kind for row in ledger.rows() if row.kind != "carried"] == KINDS
    assert ledger.balance("user:a").pending == ledger.reserve("0.50", ["user:a"], id="open").amount
    assert ledger.reserve("0.50", ["user:a"], id="charged").state == "expired"
    assert ledger.settle("late", "0.10").repeated
    late = ledger.settle("charged", "0.30")  # the answer comes after the expiry that the former code wrote
    assert (late.late, late.repeated) == (True, False)
    assert ledger.settle("charged", "0.30") == replace(late, repeated=True)
    assert ledger.settle("open", "0.50").late is False
    assert ledger.balance("user:a").settled * 100 == 130  # 0.30 + 0.10 + 0.40 + 0.50
    assert ledger.balance("user:b").settled * 100 == 25


def test_a_sqlite_ledger_of_schema_3_opens(tmp_path):
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((DATA / "ledger_schema_3.sql").read_text())
    clock = FakeClock(SQLITE_AT)
    with Ledger.open(f"sqlite:///{path}", clock=clock) as ledger:
        check(ledger)
        assert ledger.settle("old", "0.75").late, "its rows are in an archive"
        assert [entry.id for entry in ledger.journal.read("decision")] == ["call-1"]
        clock.advance(86_400)
        moved = ledger.archive(clock.now(), MemoSummary(), tmp_path / "second.jsonl")
        assert (moved.rows, moved.skipped) == (9 + 2 - 2, 1)  # `corrected` is an estimate, and stays with its two rows
        assert ledger.balance("global").settled * 100 == 130 + 25 + 75
    assert "lapse" in {row.kind for row in archive_file.read(tmp_path / "second.jsonl")}, "rows are never rewritten"


def test_an_archive_of_schema_3_reads():
    rows = list(archive_file.read(DATA / "archive_schema_3.jsonl"))
    assert [(row.id, row.settled) for row in rows] == [("old", 0), ("old", 10**9), ("old", -25 * 10**7)]


@pytest.mark.parametrize("name", sorted(server_binaries()))
def test_a_redis_ledger_of_schema_1_opens(tmp_path, name):
    with RedisServer(server_binaries()[name], tmp_path) as server:
        with closing(redis.Redis.from_url(server.url)) as client:
            for kind, key, value in json.loads((DATA / "redis_schema_1.json").read_text()):
                match kind:
                    case "hash":
                        client.hset(key, mapping=value)
                    case "set":
                        client.sadd(key, *value)
                    case "zset":
                        client.zadd(key, dict(value))
                    case "string":
                        client.set(key, value)
                    case "stream":
                        for id_, fields in value:
                            client.xadd(key, fields, id=id_)
            with Ledger.open(server.url, clock=FakeClock(REDIS_AT)) as ledger:
                check(ledger)
            assert client.hget("{llm-cost:default}:budgets", "schema") == b"5", "older versions are kept out"
            client.hset("{llm-cost:default}:budgets", "schema", 6)
        with pytest.raises(LedgerVersionError):
            Ledger.open(server.url)
