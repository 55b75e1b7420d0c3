"""CPU and memory of a report beside a plain SQL GROUP BY: ``python tests/benchmarks/bench_reports.py``.

A ledger file of N calls (two rows each: a hold and its settlement) is written by SQL, 30 teams, 500 users, 6 models, 60
days. Each way runs in a process of its own; its peak memory is that process'.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llm_cost_middleware import CostConfig, CostPipeline, Ledger
from llm_cost_middleware.budget.backends.sqlite.memo_kinds import COUNTS, MemoKinds
from llm_cost_middleware.budget.rules.bookings import bookings
from llm_cost_middleware.budget.tallies import tally_of
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.metering.price import PricedCall
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

START_MS, DAY_MS = 1_790_000_000_000, 86_400_000
MODELS = [("openai", name) for name in ("gpt-5-mini", "gpt-5.1", "gpt-5")]
MODELS += [("anthropic", name) for name in ("claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-5")]
WAYS = ("sql total", "sql group", "team", "team,day", "model", "model, savings", "team,model,day, savings", "rows")


def fill(path: Path, calls: int) -> None:
    """Write the calls as a pipeline does: memos packed by a dictionary, each with its tally."""
    rng = random.Random(7)
    with Ledger.open(path) as ledger:
        packing, kinds = ledger.backend._packing, MemoKinds()
        for number in range(1_000):  # from which the dictionary is made
            packing.pack(_told(rng, number, *rng.choice(MODELS)))
    db = sqlite3.connect(path, isolation_level=None)
    (tenant,) = db.execute("SELECT id FROM tenant").fetchone()

    def rows():
        for number in range(calls):
            at = START_MS + number * 60 * DAY_MS // calls
            provider, model = rng.choice(MODELS)
            scopes = f"global team:t{rng.randrange(30)} user:u{rng.randrange(500)} provider:{provider} model:{model}"
            held, paid = 10_000_000, rng.randrange(10_000_000)
            hold = encode_memo(call_id=f"{number:032x}", attempt=1, target=ModelRef(provider, model))
            told = _told(rng, number, provider, model)
            yield (
                tenant, "reserve", f"{number:032x}.1", at, held, scopes, "reserved", at, 0, held,
                packing.pack(hold, learn=False), *kinds.columns(db, None),
            )  # fmt: skip
            yield (
                tenant, "settle", f"{number:032x}.1", at + 900, paid, scopes, "exact", at, paid, -held,
                packing.pack(told, learn=False), *kinds.columns(db, tally_of(told)),
            )  # fmt: skip

    db.execute("BEGIN")
    columns = "tenant, kind, id, at, amount, scopes, status, created, settled, pending, memo, memo_kind, " + ", ".join(
        COUNTS
    )
    db.executemany(f"INSERT INTO entry ({columns}) VALUES ({', '.join('?' * 17)})", rows())  # noqa: S608
    db.execute("COMMIT")


def _told(rng: random.Random, number: int, provider: str, model: str) -> bytes:
    usage = TokenUsage(rng.randrange(3000), rng.randrange(2000), output=rng.randrange(900))
    reading = UsageReport((BilledItem(usage),), complete=True, model=model, response_id=f"msg_{rng.getrandbits(96):x}")
    priced = PricedCall(None, (), None, "exact", (), "genai-prices 0.0.71")
    return encode_memo(
        call_id=f"{number:032x}", attempt=1, target=ModelRef(provider, model), priced=priced, reading=reading
    )


def run(way: str, path: Path) -> str:
    """Answer one question, and return its total in nano-dollars."""
    if way == "sql total":
        return str(sqlite3.connect(path).execute("SELECT sum(settled) FROM entry").fetchone()[0])
    if way == "sql group":
        query = "SELECT scopes, sum(settled), count(*) FROM entry WHERE kind = 'settle' GROUP BY scopes"
        return str(sum(amount for _, amount, _ in sqlite3.connect(path).execute(query)))
    if way == "rows":  # the same by a stream of rows, as on a storage without SQL
        with Ledger.open(path) as ledger:
            return str(sum(booking.amount for booking in bookings(lambda: ledger.backend.rows(None, None))))
    with CostPipeline(CostConfig(ledger=path)) as pipeline:
        by, _, rest = way.partition(", ")
        report = pipeline.report(by, savings=bool(rest))
        assert sum(row.cost_nanousd for row in report) == report.total.cost_nanousd
        return str(int(report.total.cost_nanousd))


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.way:
        began = time.process_time()
        total = run(given.way, given.file)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps([total, time.process_time() - began, peak]))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        fill(path, given.calls)
        print(f"{given.calls:,} calls, {path.stat().st_size / 1e6:,.0f} MB")
        seconds: dict[str, float] = {}
        totals = set()
        print(f"{'way':24} {'CPU s':>8} {'x group':>8} {'peak MB':>8}")
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--file", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            total, seconds[way], peak = json.loads(done.stdout.splitlines()[-1])
            totals.add(total)
            ratio = seconds[way] / seconds.get("sql group", seconds[way])
            print(f"{way:24} {seconds[way]:8.2f} {ratio:8.1f} {peak:8,}")
        assert len(totals) == 1, totals


if __name__ == "__main__":
    main()
