"""What a reserve and its settle cost on every storage, beside what its server can do without us, in one run.

``python tests/benchmarks/bench_storages.py [memory sqlite redis postgres] [--folder DIR] [--seconds S] [--json FILE]``

A pair is a reserve and a settle with a memo, over three scopes. *Hot*: every process spends from the same budget.
*Spread*: each process has a budget of its own, and no two share one. *Call*: one call of a pipeline, with what it notes
in the journal. Ratios travel between machines, absolute figures do not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import NamedTuple

import psycopg
import redis

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backends.sqlite import ledger_file
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))  # run as a script, not by pytest
from plain_call import BOTH, answer, request
from postgres_servers import PostgresServer
from redis_servers import RedisServer, server_binaries

BOUND, ACTUAL = NanoUSD(1000), NanoUSD(700)
READING = UsageReport(items=(BilledItem(TokenUsage(uncached_input=900, output=80)),), model="gpt-5-mini", complete=True)
COLUMNS = ("pairs/s", "client us", "server us", "commits", "fsyncs", "scripts", "bytes", "WAL bytes")
fork = multiprocessing.get_context("fork")
_HZ = os.sysconf("SC_CLK_TCK")


class Figures(NamedTuple):
    """What a storage has used up so far; ``None`` where it has no such thing."""

    server_cpu_s: float | None = None
    commits: int | None = None
    fsyncs: int | None = None
    scripts: int | None = None
    size: int | None = None
    wal: int | None = None


class Storage:
    """A storage that is measured; a context manager.

    Args:
        folder: Where it keeps its files: the disk that is measured.
    """

    url = "memory://bench"
    crowds = (1,)
    """How many processes: memory is one process' own."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def used(self):
        return Figures()

    def raw(self):
        """What it can do without us: by name, what makes a pair in a process of its own."""
        return {}


class Memory(Storage):
    pass


class SQLite(Storage):
    crowds = (1, 8)

    def __init__(self, folder):
        super().__init__(folder)
        self.url = f"sqlite:///{folder}/ledger.db"
        self._commits = fork.Value("q", 0)
        plain = self._plain = ledger_file.connect

        def connect(path, **options):
            made, writes = plain(path, **options), [False]

            def saw(statement):
                if statement.startswith("BEGIN"):
                    writes[0] = "IMMEDIATE" in statement
                elif statement.startswith("COMMIT") and writes[0]:
                    with self._commits.get_lock():
                        self._commits.value += 1

            made.set_trace_callback(saw)
            return made

        ledger_file.connect = connect

    def __exit__(self, *_):
        ledger_file.connect = self._plain

    def used(self):
        files = self.folder.glob("ledger.db*")
        commits = self._commits.value
        return Figures(
            None, commits, commits, None, sum(file.stat().st_size for file in files if "wal" not in file.name)
        )

    def raw(self):
        def appends():
            file = (self.folder / f"probe-{os.getpid()}").open("wb", buffering=0)

            def pair():
                for _ in range(2):
                    file.write(bytes(8192))
                    os.fdatasync(file.fileno())

            return pair

        return {"two appends, each synced": appends}


class Redis(Storage):
    crowds = (1, 8)

    def __enter__(self):
        binary = next(iter(server_binaries().values()))
        self._server = RedisServer(binary, self.folder)
        self._server.start()
        self.url = self._server.url
        self._client = redis.Redis.from_url(self.url)
        return self

    def __exit__(self, *_):
        self._client.close()
        self._server.kill()

    def used(self):
        cpu, memory = self._client.info("cpu"), self._client.info("memory")
        ran = self._client.info("commandstats")
        scripts = sum(ran.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
        return Figures(cpu["used_cpu_user"] + cpu["used_cpu_sys"], None, None, scripts, memory["used_memory"])

    def raw(self):
        def pings():
            client = redis.Redis.from_url(self.url)
            return lambda: (client.ping(), client.ping())

        def scripts():
            client = redis.Redis.from_url(self.url)
            empty = client.script_load("return 1")
            return lambda: [client.evalsha(empty, 0) for _ in range(2)]

        return {"two PING": pings, "two empty scripts": scripts}


class Postgres(Storage):
    crowds = (1, 8)

    def __enter__(self):
        self._server = PostgresServer(("track_wal_io_timing", "off"), ("stats_fetch_consistency", "none"))
        self._server.start()
        self.url = self._server.url
        return self

    def __exit__(self, *_):
        self._server.remove()

    def used(self):
        with psycopg.connect(self.url, autocommit=True) as db:
            time.sleep(0.2)  # others flush their statistics when they end
            (commits,) = db.execute(
                "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = 'postgres'"
            ).fetchone()
            fsyncs, wal = db.execute(
                "SELECT (SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'), pg_current_wal_lsn() - '0/0'::pg_lsn"
            ).fetchone()
            (size,) = db.execute("SELECT pg_database_size('postgres')").fetchone()
        return Figures(tree_cpu_s(self._server._process.pid), int(commits), int(fsyncs), None, int(size), int(wal))

    def raw(self):
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute("CREATE TABLE IF NOT EXISTS raw (id bigint PRIMARY KEY, n bigint) WITH (fillfactor = 50)")
            db.execute("INSERT INTO raw SELECT n, 0 FROM generate_series(0, 100000) AS g (n) ON CONFLICT DO NOTHING")

        def of(query):
            def make():
                db = psycopg.connect(self.url, autocommit=True, prepare_threshold=None)
                text = query.replace("MINE", str(os.getpid() % 100_000))
                return lambda: [db.execute(text) for _ in range(2)]

            return make

        update = "UPDATE raw SET n = n + 1 WHERE id = "
        return {
            "two SELECT 1": of("SELECT 1"),
            "two updates of one row": of(f"{update} 0"),
            "two updates of a row each": of(f"{update} MINE"),
        }


def tree_cpu_s(pid):
    """Seconds of processor time of a process, of those it waited for, and of those it still has."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used = sum(map(int, fields[11:15])) / _HZ
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in children:
        with suppress(OSError):  # it ended meanwhile: its parent counts it from now on
            used += tree_cpu_s(child)
    return used


def raw_rate(make, crowd, seconds):
    """Pairs a second of some processes."""
    results, start = fork.Queue(), time.time() + 0.5

    def run():
        pair, done = make(), 0
        pair()
        while time.time() < start:
            time.sleep(0.001)
        begun = time.perf_counter()
        while (took := time.perf_counter() - begun) < seconds:
            pair()
            done += 1
        results.put(done / took)

    crew = [fork.Process(target=run) for _ in range(crowd)]
    for process in crew:
        process.start()
    rates = [results.get() for _ in crew]
    for process in crew:
        process.join()
    return sum(rates)


def opened(url, mode):
    """Open a ledger in a mode: ``""``, or another that a storage is measured in."""
    return Ledger.open(url, lease="auto" if mode else "off")


MODES = ("", "leased")
WARM_S = 5.0
"""Time that blocks get to follow, before anything is counted."""


def work(url, mode, scopes, seconds, results, start, ready):
    try:
        with opened(url, mode) as ledger:
            numbers, target = count(), ModelRef("openai", "gpt-5-mini")

            def pair():
                told = encode_memo(call_id=f"c{next(numbers)}", attempt=1, target=target, reading=READING)
                ledger.settle(ledger.reserve(BOUND, scopes).id, ACTUAL, memo=told)

            pair()
            while time.time() < start:
                pair() if mode else time.sleep(0.001)  # the blocks of a process follow what it spends
            if mode:
                ledger.backend.shipping.flush()  # what is not counted is not shipped among what is
            if ready is not None:
                ready.wait()
                ready.wait()  # until it is known what was used before
            before = resource.getrusage(resource.RUSAGE_SELF)
            begun, done = time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                pair()
                done += 1
        # With what is shipped at the end.
        took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        results.put((done, took, cpu, ""))
    except Exception as error:  # noqa: BLE001 - a failure is a result here
        if ready is not None:
            ready.abort()
        results.put((0, seconds, 0.0, repr(error)))


def measure(storage, mode, load, crowd, seconds):
    """Figures of one storage under one load; each a pair but for the rate."""
    shared = load == "hot"
    with opened(storage.url, mode) as ledger:
        ledger.set_budget(Budget("team:a" if shared else "user:*", "1000000"))
    results, start = fork.Queue(), time.time() + (WARM_S if mode else 1.0)
    scopes = [(f"user:{load}{number}", "team:a" if shared else f"team:{number}") for number in range(crowd)]
    before = storage.used()
    if crowd == 1 and storage.crowds == (1,):
        work(storage.url, mode, scopes[0], seconds, results, 0, None)
        found = [results.get()]
    else:
        ready = fork.Barrier(crowd + 1)
        crew = [
            fork.Process(target=work, args=(storage.url, mode, one, seconds, results, start, ready)) for one in scopes
        ]
        for process in crew:
            process.start()
        with suppress(threading.BrokenBarrierError):  # whoever failed says so in its result
            ready.wait()
            before = storage.used()
            ready.wait()
        found = [results.get() for _ in crew]
        for process in crew:
            process.join()
    after = storage.used()
    for *_, error in found:
        if error:
            print(f"  failed: {error}")
    done = sum(one[0] for one in found)
    whole = max(done, 1)
    each = [None if a is None else (a - b) / whole for a, b in zip(after, before, strict=True)]
    rate = sum(one[0] / one[1] for one in found)
    client = sum(one[2] for one in found) / max(done, 1) * 1e6
    return {"pairs/s": rate, "client us": client, "server us": each[0] and each[0] * 1e6} | dict(
        zip(COLUMNS[3:], each[1:], strict=True)
    )


def measure_call(storage, calls=300):
    """Figures of a call of a pipeline, with what it notes beside the money."""
    config = CostConfig(ledger={"url": storage.url}, budgets=[{"scope": "global", "limit": "1000"}])
    made = []
    for number in (30, calls):  # the first few make the tables, and what they know by heart
        with CostPipeline(config, clock=FakeClock(time.time()), rng=Random(3)) as pipeline:
            before, begun, cpu = storage.used(), time.perf_counter(), time.process_time()
            for _ in range(number):
                pipeline.run(request(), lambda _: answer(), providers=BOTH)
            made = [before, time.perf_counter() - begun, time.process_time() - cpu]
    (before, took, cpu), after = made, storage.used()
    each = [None if a is None else (a - b) / calls for a, b in zip(after, before, strict=True)]
    return {"pairs/s": calls / took, "client us": cpu / calls * 1e6, "server us": each[0] and each[0] * 1e6} | dict(
        zip(COLUMNS[3:], each[1:], strict=True)
    )


def line(name, figures):
    texts = []
    for column in COLUMNS:
        value = figures.get(column)
        texts.append(f"{'-' if value is None else f'{value:,.2f}' if value < 20 else f'{value:,.0f}':>10}")
    print(f"{name:<44}{''.join(texts)}", flush=True)


def ratios(told, name, crowds):
    """What leases gain, in one run: by the clock, and by processor, which other programs disturb less."""
    print(f"\n{name}, leased beside unleased, times as many pairs:")
    print(" " * 44 + "".join(f"{column:>10}" for column in ("a second", "both CPU", "server")))
    for load in ("hot", "spread"):
        for crowd in crowds:
            plain, leased = told[f"{name}, {load}, {crowd}"], told[f"{name}, leased, {load}, {crowd}"]
            spent = [(one["client us"] + (one["server us"] or 0), one["server us"]) for one in (plain, leased)]
            shown = [leased["pairs/s"] / max(plain["pairs/s"], 1e-9), spent[0][0] / spent[1][0]]
            shown += [spent[0][1] / spent[1][1]] if spent[1][1] else []
            print(f"{name}, {load}, {crowd}".ljust(44) + "".join(f"{value:>10.1f}" for value in shown), flush=True)


STORAGES = {"memory": Memory, "sqlite": SQLite, "redis": Redis, "postgres": Postgres}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=list(STORAGES))
    parser.add_argument("--folder", default=None)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; a pair each:")
    print(" " * 44 + "".join(f"{column:>10}" for column in COLUMNS))
    told = {}
    for name in options.what or STORAGES:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder))
            storage = stack.enter_context(STORAGES[name](folder))
            for what, make in storage.raw().items():
                for crowd in storage.crowds:
                    told[f"{name}, raw: {what}, {crowd}"] = {"pairs/s": raw_rate(make, crowd, options.seconds / 2)}
                    line(f"{name}, raw: {what}, {crowd}", told[f"{name}, raw: {what}, {crowd}"])
            for mode in MODES if name != "memory" else MODES[:1]:
                for load in ("hot", "spread"):
                    for crowd in storage.crowds:
                        title = f"{name}{mode and ', '}{mode}, {load}, {crowd}"
                        told[title] = measure(storage, mode, load, crowd, options.seconds)
                        line(title, told[title])
            if name != "memory":
                ratios(told, name, storage.crowds)
            told[f"{name}, call"] = measure_call(storage)
            line(f"{name}, call", told[f"{name}, call"])
    if options.json:
        Path(options.json).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
