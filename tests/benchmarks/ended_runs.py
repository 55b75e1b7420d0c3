"""What ended runs take in storage, before and after they come to rest and are archived.

``python tests/benchmarks/ended_runs.py [--runs 100000] [--redis URL] [--out FILE]``. A run is one settled call, under
``run:*`` budgets without a window and of a day; amounts differ. Every balance but those of runs is compared before and
after, and a sample of the runs' own.
"""

# ruff: noqa: E402 - run by its path: where it imports from is said first

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [folder for folder in (str(HERE.parents[1]),) if folder not in sys.path]

from llm_cost_middleware import Budget
from llm_cost_middleware.budget.ledger import Ledger, upkeep
from llm_cost_middleware.metering import MemoSummary
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

DAY = 86_400


def fill(ledger: Ledger, clock: FakeClock, runs: int) -> None:
    """Book one call of each run, over thirty days."""
    for window in ("none", "day"):
        ledger.set_budget(Budget("run:*", "1", window))
    for number in range(runs):
        name = f"run:{number:032x}"
        scopes = [name, f"agent:{number % 20}", f"user:{number % 50}"]
        ledger.settle(ledger.reserve(NanoUSD(9_000), scopes).id, NanoUSD(number % 8_000))
        clock.advance(30 * DAY / runs)


def others(ledger: Ledger) -> dict[str, int]:
    """Balances of what is no run."""
    scopes = ["global", *(f"agent:{one}" for one in range(20)), *(f"user:{one}" for one in range(50))]
    return {scope: ledger.balance(scope).settled_nanousd for scope in scopes}


def sample(ledger: Ledger, runs: int) -> list[int]:
    """What some runs spent."""
    return [ledger.balance(f"run:{number:032x}", "none").settled_nanousd for number in range(0, runs, runs // 200)]


def of_file(path: Path) -> str:
    """Bytes that accounts and rows take in a SQLite file."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = db.execute("PRAGMA page_size").fetchone()[0]
        used = (
            db.execute("PRAGMA page_count").fetchone()[0] - db.execute("PRAGMA freelist_count").fetchone()[0]
        ) * page
        counts = {
            name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - fixed names
            for name in ("account", "cell", "at_rest", "entry_row")
        }
    return f"{used / 1e6:8.1f} MB in use; " + ", ".join(f"{count:,} {name}" for name, count in counts.items())


def of_server(url: str) -> str:
    """Bytes that a Redis server uses."""
    import redis

    client = redis.Redis.from_url(url)
    used = client.info("memory")["used_memory"]
    return f"{used / 1e6:8.1f} MB used; {client.dbsize():,} keys"


def measure(url: str, told: object, runs: int) -> list[str]:
    """Fill a ledger, let its runs rest, archive it."""
    clock, lines = FakeClock(1_780_000_000), []
    with Ledger.open(url, clock=clock, durability="normal") as ledger:
        fill(ledger, clock, runs)
        clock.advance(100 * DAY)
        sums, own = others(ledger), sample(ledger, runs)
        lines.append(f"  {runs:,} ended runs    {told()}")
        rested = upkeep.rest(ledger.backend, 7 * DAY)
        lines.append(f"  {rested:,} at rest      {told()}")
        moved = ledger.archive(clock.now(), MemoSummary(), keep=False)
        lines.append(f"  {moved.rows:,} rows archived, {moved.carried:,} carry their sums  {told()}")
        same = others(ledger) == sums and sample(ledger, runs) == own
        lines.append(f"  balances of all other scopes, and of 200 runs, equal before and after: {same}")
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--redis", default="")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ledger.db")
        lines = ["SQLite", *measure(f"sqlite:///{path}", lambda: of_file(path), options.runs)]
    if options.redis:
        lines += ["Redis", *measure(options.redis, lambda: of_server(options.redis), options.runs)]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
