"""Two versions of the package as living processes on one ledger: the older one refuses, and corrupts nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.reports import Query, make_report
from llm_cost_middleware.testing.oracle import audit

WORKER = Path(__file__).with_name("version_worker.py")
HERE = Path(__file__).parents[2]
OLD = "d2b2d34"
BEFORE = "09bde64"
"""The last one whose schema of SQLite is version 11, and of PostgreSQL version 1."""


class Process:
    """A process with a package of its own, told what to do line by line."""

    def __init__(self, package: Path, url: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(package)}
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER), url],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.opened = self._said()

    def _said(self) -> str:
        return self._process.stdout.readline().strip()

    def __call__(self, step: str) -> str:
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        return self._said()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)


def package_of(commit, folder):
    """Take the package of a commit from the history; return its folder."""
    words = ["git", "-C", str(HERE), "archive", commit, "llm_cost_middleware"]
    found = subprocess.run(words, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"this copy of the sources has no history: {commit} cannot be taken from it")
    with tarfile.open(fileobj=BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module", params=[BEFORE, OLD])
def older(request, tmp_path_factory):
    """The folder of an older package: the one before the last change of the schema, and one of long ago."""
    return package_of(request.param, tmp_path_factory.mktemp("older"))


def test_on_one_file(older, tmp_path):
    url = f"sqlite:///{tmp_path}/l.db"
    with Process(older, url) as old:
        assert old.opened == "open"
        assert old("hold one") == old("hold two") == old("settle one") == "done"
        with Ledger.open(url) as ledger:  # brought forward under it
            ledger.set_budget(Budget("global", "5"))
            ledger.settle(ledger.reserve("0.5", ["user:a"], id="new").id, "0.125")
            assert "a newer version of llm_cost_middleware uses this ledger" in old("hold three")
            assert old("settle two") == "done", "what it holds it settles"
            assert old("balance").startswith("0.625")
            with Process(older, url) as late:
                assert re.search(r"newer version|LedgerVersionError", late.opened), late.opened
            rows = list(ledger.rows())
            audit(ledger.backend.read(None), rows)
            assert [row.id for row in rows if row.kind == "settle"] == ["one", "new", "two"]
            assert [row.scopes for row in rows] == [("global", "user:a")] * 6, "whoever wrote them"
            erased = ledger.erase("user:a")
            assert erased.rows == 6, "in rows of either version"
            assert {row.scopes for row in ledger.rows()} == {("global", erased.alias)}
            assert ledger.balance(erased.alias).settled_nanousd == 625_000_000
            (row,) = make_report(ledger, Query.read("user", now=lambda: 0)).rows
            assert (row.keys, row.cost_nanousd) == ((erased.alias.removeprefix("user:"),), 625_000_000)
            audit(ledger.backend.read(None), list(ledger.rows()))


def test_on_one_server(older, tmp_path):
    if not (found := server_binaries()):
        pytest.skip("no Redis at hand")
    if (older / "llm_cost_middleware/budget/backends/redis/lua/open.lua").exists():
        pytest.skip("on Redis the version before is one of long ago")
    with RedisServer(next(iter(found.values())), tmp_path) as server, Process(older, server.url) as old:
        assert old.opened == "open"
        assert old("hold one") == old("hold two") == old("settle one") == "done"
        with Ledger.open(server.url) as ledger:
            ledger.settle(ledger.reserve("0.5", ["user:a"], id="new").id, "0.125")
            assert re.search(r"BudgetExceededError: .*global", refusal := old("hold three")), refusal
            assert old("settle two") == "done", "what it holds it settles"
            with Process(older, server.url) as late:
                assert re.search(r"newer version|LedgerVersionError", late.opened), late.opened
            assert "BudgetExceededError" in old("hold four"), "nor when another has tried to start"
            assert ledger.balance("global").settled_nanousd == 625_000_000
            rows = list(ledger.rows())
            audit(ledger.backend.read(None), rows)
            assert [row.id for row in rows if row.kind == "settle"] == ["one", "new", "two"]


def test_on_one_database(postgres_url, tmp_path):
    older = package_of(BEFORE, tmp_path)
    with Process(older, postgres_url) as old:
        assert old.opened == "open"
        assert old("hold one") == old("hold two") == old("hold four") == old("settle one") == "done"
        with Ledger.open(postgres_url) as ledger, Ledger.open(postgres_url) as other:  # brought forward under it
            ledger.set_budget(Budget("global", "5"))
            ledger.settle(ledger.reserve("0.5", ["user:a"], id="new").id, "0.125")
            assert "a newer version of llm_cost_middleware uses this ledger" in old("hold three")
            assert old("settle two") == "done", "what it holds it settles"
            assert not other.settle("four", "0.5").repeated, "and others settle it as well"
            assert old("balance").startswith("1.125")
            with Process(older, postgres_url) as late:
                assert "LedgerVersionError" in late.opened
            rows = list(ledger.rows())
            audit(ledger.backend.read(None), rows)
            assert [row.id for row in rows if row.kind == "settle"] == ["one", "new", "two", "four"]
            assert make_report(ledger, Query.read("user", now=lambda: 0)).total.cost_nanousd == 1_125_000_000
