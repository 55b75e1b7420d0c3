"""Two versions of the package as living processes on one ledger: the older one refuses, and corrupts nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from redis_servers import RedisServer, server_binaries

import llm_cost_middleware
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.reports import Query, make_report
from llm_cost_middleware.testing.oracle import audit

WORKER = Path(__file__).with_name("version_worker.py")
HERE = Path(llm_cost_middleware.__file__).parent
OLD = "d2b2d34"
OLD_POSTGRES = "09bde64"
"""The last one whose schema of PostgreSQL is version 1."""


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
    words = ["git", "-C", str(HERE.parent), "archive", commit, "llm_cost_middleware"]
    found = subprocess.run(words, capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"this copy of the sources has no history: {commit} cannot be taken from it")
    with tarfile.open(fileobj=BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module", params=["the version before", OLD])
def older(request, tmp_path_factory):
    """The folder of an older package: the one before the last change of the schema, and one of long ago."""
    folder = tmp_path_factory.mktemp("older")
    if request.param == OLD:
        return package_of(OLD, folder)
    shutil.copytree(HERE, folder / "llm_cost_middleware", ignore=shutil.ignore_patterns("__pycache__"))
    sqlite = folder / "llm_cost_middleware/budget/backends/sqlite"
    schema = (sqlite / "schema.sql").read_text()
    (sqlite / "schema.sql").write_text(schema[: schema.rindex("-- version 11")])
    code = (sqlite / "backend.py").read_text()
    before = re.sub(r", writer\)|, 11\)", ")", code)
    assert before.count("writer") == code.count("writer") - 1
    (sqlite / "backend.py").write_text(before)
    return folder


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
    older = package_of(OLD_POSTGRES, tmp_path)
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
