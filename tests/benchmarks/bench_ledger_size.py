"""What a long ledger costs: processor time and memory of every command, and of a new budget, at a million rows.

``python tests/benchmarks/bench_ledger_size.py [--calls 500000] [--folder DIR] [--keep FILE]``. The file is written by
the statements of the package (half a million calls of 500 users, six models and forty call sites over thirty days: a
million rows of money and as many lines of the journal), then every command runs in a process of its own.
``PYTHONPATH`` decides whose code is measured; a file made by another version is brought forward first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from llm_cost_middleware.budget.backends.sqlite import backend as sql
from llm_cost_middleware.budget.backends.sqlite.group_commit import GroupCommitWriter
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.tallies import tally_of
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.metering.price import PricedCall
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

MODELS = [
    ModelRef("anthropic", name) for name in ("claude-haiku-4-5-20251001", "claude-sonnet-4-6", "claude-opus-4-5")
] + [ModelRef("openai", name) for name in ("gpt-5-mini", "gpt-5.1", "gpt-4o")]
DAYS, SITES, USERS = 30, 40, 500
COMMANDS = {
    "budgets": ["budgets"],
    "report": ["report"],
    "report, one day": ["report", "--since", "{day}"],
    "report, one user": ["report", "--scope", "user:7"],
    "decisions": ["decisions"],
    "decisions, one day": ["decisions", "--since", "{day}"],
    "cache": ["cache"],
    "ledger status": ["ledger", "status"],
    "ledger unconfirmed": ["ledger", "unconfirmed"],
    "replay": ["replay", "--policy", "{policy}"],
    "decisions --jsonl": ["decisions", "--jsonl"],
    "tune": ["tune"],
}


def decision(call, at, target, site):
    facts = {
        "v": 1, "id": call, "at": at, "target": list(target), "tier": 0, "tier_name": "small", "policy": "threshold",
        "policy_version": "threshold:f302ea81", "reason": "37 characters < 10,000 and 1 item < 30", "score": 0.03,
        "propensity": 1.0, "site": site, "requested": "smart",
        "features": {"text_length": 37, "item_count": 1, "total_chars": 37, "input_tokens": 12, "turns": 1},
        "candidates": [[*model, 0, 250000 + 7 * len(site), "", 0] for model in MODELS[:4]], "grams": [], "shape": [],
    }  # fmt: skip
    return json.dumps(facts, separators=(",", ":")).encode()


def memo(call, target, usage, rng):
    if usage is None:
        return encode_memo(call_id=call, attempt=1, target=target)
    items = (BilledItem(TokenUsage(uncached_input=usage[0], output=usage[1])),)
    return encode_memo(
        call_id=call, attempt=1, target=target,
        priced=PricedCall(None, (), None, "exact", (), "genai-prices 0.2.3, overlay f31173e1, own none"),
        reading=UsageReport(items=items, model=target.model, complete=True, response_id=f"msg_{rng.getrandbits(96):x}"),
    )  # fmt: skip


def fill(path, calls):
    """Write what the calls of a month leave."""
    rng = Random(11)
    with Ledger.open(f"sqlite:///{path}", durability="normal") as ledger:
        for scope in ("global", "user:*"):
            ledger.set_budget(Budget(scope, "9000000"))
        for number in range(40):  # so that there is a dictionary
            text = memo(f"warm{number}", MODELS[number % 6], (100, 5), rng)
            ledger.settle(ledger.reserve("0.01", memo=text).id, "0.001", memo=text)
        backend, start = ledger.backend, time.time() - DAYS * 86_400
        packing = getattr(backend, "_packing", None)
        pack = packing.pack if packing else bytes
        tenant = backend._tenant
        for first in range(0, calls, 5_000):
            rows, held, marks = [], [], []
            for number in range(first, min(first + 5_000, calls)):
                at = start + number * DAYS * 86_400 / calls
                ms, call = int(at * 1000), f"{0xABCDEF000000 + number % 8:x}-{number:x}"
                target, site = MODELS[min(rng.randrange(12), 5)], f"site-{rng.randrange(SITES)}"
                who = f"user:{rng.randrange(USERS)} team:{site[-1]}"
                scopes = f"global {who} provider:{target.provider} model:{target.model}"
                usage = rng.randrange(50, 5_000), rng.randrange(5, 800)
                cost, status = usage[0] * 1_000 + usage[1] * 5_000, "exact" if rng.random() < 0.99 else "estimated"
                name = f"{call}.1"
                rows.append(
                    (
                        tenant,
                        "reserve",
                        name,
                        ms,
                        9_000_000,
                        scopes,
                        "reserved",
                        ms,
                        0,
                        9_000_000,
                        memo(call, target, None, rng),
                    )
                )
                rows.append(
                    (
                        tenant,
                        "settle",
                        name,
                        ms + 800,
                        cost,
                        scopes,
                        status,
                        ms,
                        cost,
                        -9_000_000,
                        memo(call, target, usage, rng),
                    )
                )
                held.append(
                    (
                        tenant,
                        name,
                        scopes,
                        9_000_000,
                        ms,
                        ms + 900_000,
                        "settled",
                        cost,
                        "settle",
                        cost,
                        status,
                        ms + 800,
                    )
                )
                marks.append((tenant, "decision", call, at, pack(decision(call, at, target, site))))
                end = {"target": list(target), "cost_nanousd": cost, "output_tokens": usage[1]}
                marks.append((tenant, "settlement", call, at + 0.8, pack(json.dumps(end).encode())))

            packed = [pack(text) for *_, text in rows]  # outside the step: a new dictionary is a write of its own

            def step(db, rows=rows, held=held, marks=marks, packed=packed):
                kinds = backend._kinds
                full = [
                    (*row, memo, *kinds.columns(db, tally_of(text)))
                    for (*row, text), memo in zip(rows, packed, strict=True)
                ]
                db.executemany(sql._APPEND, full)
                db.executemany(
                    "INSERT INTO reservation (tenant, id, scopes, amount, created, expires, state, charged, verb,"
                    " actual, status, resolved) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", held,
                )  # fmt: skip
                db.executemany("INSERT INTO mark (tenant, kind, id, at, data) VALUES (?, ?, ?, ?, ?)", marks)

            backend._file.write(step)
        ledger.backend._file.write(_sums)


def _sums(db):
    """The lifetime sums that the verbs would have kept."""
    for scopes, settled in db.execute("SELECT scopes, sum(settled) FROM entry GROUP BY scopes").fetchall():
        for scope in scopes.split(" "):
            db.execute("INSERT OR IGNORE INTO account (tenant, scope, window) VALUES (1, ?, 'none')", (scope,))
            db.execute(
                "INSERT INTO cell SELECT id, 0, ?, 0 FROM account WHERE scope = ? AND window = 'none' ON CONFLICT"
                " (account, cell) DO UPDATE SET settled = settled + excluded.settled", (settled, scope),
            )  # fmt: skip


def measured(arguments):
    """Run a command in a process of its own: seconds of processor time, megabytes at most, lines printed."""
    environment = {**os.environ, "COLUMNS": "160"}
    process = subprocess.Popen(
        [sys.executable, __file__, "--command", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    output = process.stdout.read()
    errors = process.stderr.read()
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    if code:
        print(errors.decode()[-600:])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, len(output.splitlines())


def amend(path):
    """Time a new budget, and how long the writers wait for it."""
    longest, plain = [], GroupCommitWriter._transact

    def timed(self, batch):
        before = time.perf_counter()
        plain(self, batch)
        longest.append(time.perf_counter() - before)

    with Ledger.open(f"sqlite:///{path}", durability="normal") as ledger:
        ledger.reserve("0.01")
        GroupCommitWriter._transact = timed
        for scope, window in (("team:*", "month"), ("user:*", "day"), ("global", "86400s")):
            longest.clear()
            before, cpu = time.perf_counter(), time.process_time()
            ledger.set_budget(Budget(scope, "1000000", window))
            print(
                f"new budget {scope} a {window}: {time.process_time() - cpu:.2f} s of processor time, "
                f"{time.perf_counter() - before:.2f} s in all, {max(longest) * 1e3:.1f} ms under the lock at most"
            )
            ledger.remove_budget(scope, window)
        GroupCommitWriter._transact = plain


def main():
    if sys.argv[1:2] == ["--command"]:
        sys.argv[1:] = sys.argv[2:]
        app()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500_000)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--keep", default=None, help="the file: made if it is missing, and kept")
    parser.add_argument("--only", nargs="*", help="some of the commands")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        path = Path(options.keep or f"{place}/ledger.db")
        if not path.exists():
            before = time.perf_counter()
            fill(path, options.calls)
            print(f"{options.calls:,} calls written in {time.perf_counter() - before:.0f} s")
        print(f"{path.stat().st_size / 1e6:,.0f} MB")
        policy = Path(place, "policy.toml")
        policy.write_text('[routing]\npolicy = "threshold"\n')
        day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
        idle, floor, _ = measured(["--help"])
        print(f"(a command that does nothing: {idle:.2f} s, {floor:.0f} MB)")
        for name, words in COMMANDS.items():
            if options.only is None or name in options.only:
                words = [word.format(day=day, policy=policy) for word in words]  # noqa: PLW2901 - the same words
                cpu, memory, lines = measured([*words, "--ledger", f"sqlite:///{path}"])
                print(f"{name:20} {cpu:6.2f} s CPU {memory:6.0f} MB  {lines:>9,} lines", flush=True)
        if options.only is None or "amend" in options.only:
            amend(path)


if __name__ == "__main__":
    main()
