"""Reserve + settle pairs a second on every storage, beside the raw storage in the same run.

``python tests/benchmarks/bench_ledger.py [memory] [sqlite] [redis] [--folder DIR]``: three scopes, each with a budget.
"Raw" is the same work without our code: a bare lock and three counters; the same statements on a bare connection; the
same script from bare redis-py. Ratios travel between machines, absolute figures do not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sqlite3
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from statistics import median

import redis

from llm_cost_middleware.budget.backends.redis.client import load_script
from llm_cost_middleware.budget.backends.sqlite import backend as sql
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.money import NanoUSD

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))  # run as a script, not by pytest
from redis_servers import RedisServer, server_binaries

SCOPES = ("user:1", "team:a")
BOUND, ACTUAL = NanoUSD(1000), NanoUSD(700)
SECONDS = 3.0
fork = multiprocessing.get_context("fork")


def opened(url):
    ledger = Ledger.open(url)
    for scope in ("global", *SCOPES):
        ledger.set_budget(Budget(scope, "1000000"))
    return ledger


def pairs(ledger):
    def pair(_number):
        ledger.settle(ledger.reserve(BOUND, SCOPES).id, ACTUAL)

    return pair


def timed(pair, seconds=SECONDS, start=0.0):
    """Run until the time is over: pairs, and each one's duration."""
    while time.time() < start:
        time.sleep(0.001)
    took, until = [], time.perf_counter() + seconds
    number = 0
    before = time.perf_counter()
    while before < until:
        pair(number)
        number += 1
        after = time.perf_counter()
        took.append(after - before)
        before = after
    return took


def summary(name, crews, seconds=SECONDS):
    """Print a line; pairs a second."""
    everything = sorted(duration for took in crews for duration in took)
    rate = len(everything) / seconds
    fair = min(map(len, crews)) / max(map(len, crews))
    p50, p99 = everything[len(everything) // 2], everything[int(len(everything) * 0.99)]
    print(
        f"{name:<44} {rate:>9,.0f} pairs/s   p50 {p50 * 1e6:>8,.0f} us   p99 {p99 * 1e6:>8,.0f} us"
        f"   longest {everything[-1] * 1e3:>7.1f} ms   slowest/fastest {fair:.2f}"
    )
    return rate


def threads(crowd, make_pair, seconds=SECONDS):
    crews = [None] * crowd

    def work(place):
        crews[place] = timed(make_pair(), seconds)

    started = [threading.Thread(target=work, args=(place,)) for place in range(crowd)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return crews


def processes(crowd, make_pair, seconds=SECONDS):
    results, start = fork.Queue(), time.time() + 1.0

    def work():
        try:
            results.put((timed(make_pair(), seconds, start), ""))
        except Exception as error:  # noqa: BLE001 - a failure is a result here
            results.put(([0.0], repr(error)))

    started = [fork.Process(target=work) for _ in range(crowd)]
    for process in started:
        process.start()
    crews = [results.get() for _ in started]
    for process in started:
        process.join()
    failures = [error for _, error in crews if error]
    if failures:
        print(f"  {len(failures)} of {crowd} failed: {failures[0]}")
    return [took for took, _ in crews]


def ratio(what, ours, raw):
    print(f"  {what}: {ours / raw:.2f}")


# --- memory --------------------------------------------------------------------------------------------------------


def bare_lock():
    lock, held, sums = threading.Lock(), {}, [[0, 0] for _ in range(3)]

    def pair(number):
        with lock:
            if all(settled + pending + 1000 <= 10**15 for settled, pending in sums):
                for cell in sums:
                    cell[1] += 1000
                held[number] = 1000
        with lock:
            amount = held.pop(number, 0)
            for cell in sums:
                cell[1] -= amount
                cell[0] += 700

    return pair


def memory():
    with opened("memory://bench-cpu") as ledger:
        pair, before = pairs(ledger), time.thread_time()
        for number in range(100_000):
            pair(number)
        print(f"memory, ledger: {100_000 / (time.thread_time() - before):,.0f} pairs per second of processor time")
    for crowd in (1, 64):
        shared = bare_lock()
        raw = summary(f"memory, bare lock and counters, {crowd} threads", threads(crowd, lambda pair=shared: pair))
        with opened(f"memory://bench-{crowd}") as ledger:
            ours = summary(f"memory, ledger, {crowd} threads", threads(crowd, lambda it=ledger: pairs(it)))
        ratio("ledger / bare lock", ours, raw)


# --- SQLite --------------------------------------------------------------------------------------------------------


def raw_statements(path, timeout=5.0):
    """The statements of a pair, in their order, on a connection of its own."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=timeout)
    db.execute("PRAGMA synchronous = FULL")
    accounts = [row[0] for row in db.execute("SELECT id FROM account WHERE window = 'none'")]
    joined, mine, numbers = "global user:1 team:a", os.urandom(6).hex(), count()

    def pair(_number):
        id_, now = f"{mine}-{next(numbers):x}", int(time.time() * 1000)
        db.execute("BEGIN IMMEDIATE")
        db.execute(sql._VERSION, (1,)).fetchone()
        for account in accounts:
            db.execute(sql._SUMS, (account, 0)).fetchone()
        db.execute(sql._RESERVE, (1, id_, joined, 1000, now, now + 900_000))
        for account in accounts:
            db.execute(sql._ADD, (account, 0, 0, 1000))
        db.execute(sql._APPEND, (1, "reserve", id_, now, 1000, joined, "reserved", now, 0, 1000, b""))
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        db.execute(sql._RESERVATION, (1, id_)).fetchone()
        db.execute(sql._VERSION, (1,)).fetchone()
        for account in accounts:
            db.execute(sql._ADD, (account, 0, 700, -1000))
        db.execute(sql._APPEND, (1, "settle", id_, now, 700, joined, "exact", now, 700, -1000, b""))
        for account in accounts:
            db.execute(sql._SUMS, (account, 0)).fetchone()
        db.execute(sql._RESOLVE, ("settled", 700, "settle", 700, "exact", 0, now, 0, "", 1, id_))
        db.execute("COMMIT")

    return pair


def syncs(folder):
    """What the disk can do: appends of a page, each synced."""
    with (Path(folder) / "sync-probe").open("wb", buffering=0) as file:
        took = timed(lambda _: (file.write(bytes(8192)), os.fdatasync(file.fileno())), 0.7)
    return len(took) / 0.7


def sqlite(folder):
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "ledger.db"
        ledger = opened(f"sqlite:///{path}")
        pairs(ledger)(0)  # the accounts exist
        disk = syncs(place)
        print(f"the disk: {disk:,.0f} fdatasync/s")
        bare, pair, slices = raw_statements(path), pairs(ledger), {"raw": [], "ours": []}
        for _ in range(9):  # alternating in small slices, because a shared disk drifts
            slices["raw"].append(len(timed(bare, 0.4)) / 0.4)
            slices["ours"].append(len(timed(pair, 0.4)) / 0.4)
        raw, ours = median(slices["raw"]), median(slices["ours"])
        print(f"sqlite, 1 worker: raw statements {raw:,.0f} pairs/s, ledger {ours:,.0f} pairs/s (medians of 9)")
        ratio("ledger / raw statements, 1 worker", ours, raw)
        ratio("pairs per fdatasync, 1 worker", ours, disk)
        for crowd in (8, 32):
            grouped = summary(f"sqlite, ledger, {crowd} threads", threads(crowd, lambda: pairs(ledger)))
            ratio(f"group commit: {crowd} threads / 1", grouped, ours)
        print(f"the disk: {syncs(place):,.0f} fdatasync/s")
        stock = summary("sqlite, raw statements, 8 processes", processes(8, lambda: raw_statements(path)))
        crews = processes(8, lambda: pairs(ledger))
        fair = summary("sqlite, ledger, 8 processes", crews)
        ratio("ledger / raw statements, 8 processes", fair, stock)
        commit = 1 / syncs(place)
        print(f"  longest wait: {max(map(max, crews)) / commit:,.0f} commits of {commit * 1e6:,.0f} us")
        ledger.close()


# --- Redis ---------------------------------------------------------------------------------------------------------


def raw_scripts(url):
    """The two scripts of a pair with their arguments made before, from bare redis-py."""
    client = redis.Redis.from_url(url)
    scripts = {name: client.script_load(load_script(name)[0]) for name in ("reserve", "resolve")}
    tag, mine, numbers = "{llm-cost:default}", os.urandom(6).hex(), count()
    version = client.hget(f"{tag}:budgets", "version")
    fixed = [f"{tag}:{name}" for name in ("budgets", "seq", "rows", "open", "accounts")]
    names = [f"{scope} none" for scope in ("global", *SCOPES)]
    accounts = [f"{tag}:a:{name}" for name in names]
    limits = [part for name in names for part in (name, 0, 0, 10**15)]
    joined = "global user:1 team:a"

    def pair(_number):
        id_ = f"{mine}-{next(numbers):x}"
        keys = [*fixed, f"{tag}:r:{id_}", *accounts]
        before = "", version, -(2**53), 2**53, id_, 1000, 900_000, joined, b"", 1
        _, now = client.evalsha(scripts["reserve"], len(keys), *keys, *before, *limits)
        seen = "", version, id_, "pending", 0, 0
        change = "settle", 700, "exact", b"", "settled", 700, 700, -1000, joined, now, -(2**53), 2**53, ""
        client.evalsha(scripts["resolve"], len(keys), *keys, *seen, *change, *limits)

    return pair


def on_redis(folder):
    for name, binary in server_binaries().items():
        with tempfile.TemporaryDirectory(dir=folder) as place, RedisServer(binary, Path(place)) as server:
            one_redis(name, server.url)


def one_redis(name, url):
    with opened(url) as ledger:
        makers = {"bare redis-py": lambda: raw_scripts(url), "ledger": lambda: pairs(Ledger.open(url))}
        raw, bare = [], raw_scripts(url)
        ours, pair = [], pairs(ledger)
        for _ in range(9):  # alternating in small slices, because a shared machine drifts
            raw.append(len(timed(bare, 0.4)) / 0.4)
            ours.append(len(timed(pair, 0.4)) / 0.4)
        print(f"redis ({name}), 1 worker: bare redis-py {median(raw):,.0f} pairs/s, ledger {median(ours):,.0f} (of 9)")
        ratio("ledger / bare redis-py, 1 worker", median(ours), median(raw))
        rates = {who: [] for who in makers}
        for _ in range(3):
            for who, make in makers.items():
                rates[who].append(summary(f"redis ({name}), {who}, 8 processes", processes(8, make, 1.5), 1.5))
        ratio(
            "ledger / bare redis-py, 8 processes, medians of 3", median(rates["ledger"]), median(rates["bare redis-py"])
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help="memory, sqlite, redis; all of them when none is named")
    parser.add_argument("--folder", default=None, help="where the files lie: the disk that is measured")
    options = parser.parse_args()
    for name, bench in (
        ("memory", memory),
        ("sqlite", lambda: sqlite(options.folder)),
        ("redis", lambda: on_redis(options.folder)),
    ):
        if not options.what or name in options.what:
            bench()


if __name__ == "__main__":
    main()
