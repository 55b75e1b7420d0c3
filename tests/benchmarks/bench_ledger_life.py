"""What a call costs a SQLite ledger: commits, flushes to the disk, bytes kept and time, beside raw SQLite in one run.

``python tests/benchmarks/bench_ledger_life.py [--calls 1000] [--folder DIR]``. Whole calls go through a pipeline
(routed, two budgets, three scopes; with and without a prompt that is long enough to cache); nothing is sent. Commits
are counted by SQLite's own trace, flushes by ``strace`` where there is one, bytes by the pages of the closed file.
"Raw" is two transactions of one row each. ``PYTHONPATH`` decides whose code is measured.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from secrets import token_hex

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backends.sqlite import ledger_file
from llm_cost_middleware.context import read_context
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

TIERS = [
    {"name": "small", "models": ["anthropic/claude-haiku-4-5-20251001", "openai/gpt-5-mini"]},
    {"name": "large", "models": ["anthropic/claude-sonnet-4-6", "openai/gpt-5.1"]},
]
BUDGETS = [{"scope": "global", "limit": "1000000"}, {"scope": "user:*", "limit": "100000", "window": "month"}]
LONG = "You are a careful clerk of a small shop. " * 600


class Commits:
    """Counts the commits of every connection that is opened."""

    def __init__(self):
        self.write = self.read = 0
        plain = ledger_file.connect

        def connect(path, **options):
            connection = plain(path, **options)
            connection.set_trace_callback(self._saw)
            return connection

        ledger_file.connect = connect
        self._writing = threading.local()

    def _saw(self, statement):
        if statement.startswith("BEGIN"):
            self._writing.on = "IMMEDIATE" in statement
        elif statement.startswith("COMMIT"):
            if self._writing.on:
                self.write += 1
            else:
                self.read += 1


def request(number, system):
    messages = [Message("user", (Part("text", f"question {number}: how many boxes are left?"),))]
    if system:
        messages.insert(0, Message("system", (Part("text", system),)))
    context = read_context({"user": f"u{number % 50}", "team": "shop"})
    return CallRequest("anthropic", "smart", tuple(messages), max_tokens=200, context=context)


def answer(attempt):
    usage = TokenUsage(uncached_input=120, output=50)
    return CallResult(
        "an answer",
        UsageReport(
            items=(BilledItem(usage),), model=attempt.target.model, complete=True, finish_reason="stop",
            response_id=f"msg_{token_hex(12)}",
        ),
    )  # fmt: skip


def pipeline(url):
    return CostPipeline(CostConfig.read({"ledger": {"url": url}, "budgets": BUDGETS, "tiers": TIERS}))


def crew(pipe, callers, calls, system):
    both = frozenset({"anthropic", "openai"})

    def work(place):
        for number in range(place, calls, callers):
            pipe.run(request(number, system), answer, providers=both)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(callers)]
    before = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - before


def kept(path):
    """Bytes in pages that hold something, by table."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    tables = dict(db.execute("SELECT name, sum(payload) FROM dbstat GROUP BY name"))
    used = db.execute("SELECT sum(pgsize - unused) FROM dbstat").fetchone()[0]
    size = path.stat().st_size
    db.close()
    return size, used, tables


def raw(path, calls):
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
    before = time.perf_counter()
    for _ in range(2 * calls):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO t (b) VALUES (?)", (b"x" * 100,))
        db.execute("COMMIT")
    took = time.perf_counter() - before
    db.close()
    return took


def flushes(what, calls, callers, folder):
    """Flushes to the disk, counted in a process of their own."""
    if shutil.which("strace") is None:
        return None
    with tempfile.NamedTemporaryFile("r", dir=folder) as report:
        command = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", report.name, sys.executable, __file__]
        options = ["--only", what, "--calls", str(calls), "--callers", str(callers)]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        return sum("sync(" in line for line in report)


def one(what, calls, callers, folder):
    """Run whole calls; print nothing where ``strace`` counts."""
    commits = Commits()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "ledger.db"
        with pipeline(f"sqlite:///{path}") as pipe:
            system = LONG if what == "cached" else ""
            crew(pipe, 1, 5, system)  # warm: accounts, plans
            before = commits.write
            took = crew(pipe, callers, calls, system)
            made = commits.write - before
        return made, took, kept(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--only", default=None)
    parser.add_argument("--folder", default=None, help="where the files lie: the disk that is measured")
    options = parser.parse_args()
    if options.only:
        one(options.only, options.calls, options.callers, options.folder)
        return
    calls = options.calls
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        bare = raw(Path(place) / "raw.db", calls)
        print(f"raw SQLite, 2 transactions a call: {bare / calls * 1e6:,.0f} us a call")
    with CostPipeline(CostConfig.read({"budgets": BUDGETS, "tiers": TIERS})) as pipe:
        crew(pipe, 1, 5, "")
        memory = crew(pipe, 1, calls, "")
        print(f"whole call on a memory ledger: {memory / calls * 1e6:,.0f} us")
    for what, callers in (("plain", 1), ("plain", 8), ("cached", 1), ("cached", 8)):
        made, took, (size, used, tables) = one(what, calls, callers, options.folder)
        none = flushes(what, 0, callers, options.folder)
        synced = flushes(what, calls, callers, options.folder)
        print(
            f"{what:6} {callers} callers: {made / calls:.2f} commits, "
            f"{'?' if synced is None else f'{(synced - none) / calls:.2f}'} flushes, {took / calls * 1e6:,.0f} us, "
            f"{size / calls:,.0f} B of file, {used / calls:,.0f} B used a call"
        )
        parts = ", ".join(
            f"{name} {count / calls:.0f}" for name, count in sorted(tables.items(), key=lambda p: -p[1])[:7]
        )
        print(f"       payload a call: {parts}")


if __name__ == "__main__":
    main()
