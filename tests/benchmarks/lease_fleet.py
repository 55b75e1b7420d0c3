"""A fleet with leases, simulated: 1,000 processes, 100,000 calls a second, one global and 10,000 user budgets.

Each process is the package's own desk and shipping over the storage in memory, with a clock that is moved by hand; only
the storage is not Redis. What Redis would need for the steps is measured first, on a real server, in the same run:
``python tests/benchmarks/lease_fleet.py`` prints a table and writes ``results/lease_fleet.json``.

Users are served by any process (``spread``), or each by one (``sticky``). The global budget ends during the run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend, _SharedState
from llm_cost_middleware.budget.leases.backend import leased_over
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules.leases import LeasePolicy, Parcel, ParcelEntry, ParcelHold
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

COST, HOLD, STEP_S, STEPS_OPEN = 1_000, 10_000, 0.1, 5
STEADY_S, DAY_S = 8, 86_400
"""From when on the blocks follow; seconds of spending that a budget of a day allows."""
RESULTS = Path(__file__).with_name("results") / "lease_fleet.json"


class Counted:
    """The storage, and how often each verb came."""

    blocks, slices = True, True

    def __init__(self, storage, seen):
        self.storage, self.seen = storage, seen

    def reserve(self, *args, **kwargs):
        self.seen["reserve"] += 1
        return self.storage.reserve(*args, **kwargs)

    def resolve(self, *args, **kwargs):
        self.seen["resolve"] += 1
        return self.storage.resolve(*args, **kwargs)

    def read(self, scopes):
        self.seen["read"] += 1
        return self.storage.read(scopes)

    def ship(self, parcel):
        self.seen["ship"] += 1
        self.seen["shipped"] += len(parcel.entries)
        return self.storage.ship(parcel)

    def extend(self, *args):
        return self.storage.extend(*args)

    def close(self):
        pass


class Quiet(_SharedState):
    """Without rows: a million of them are kept by nobody here."""

    def __init__(self):
        super().__init__()
        self.rows = deque(maxlen=1)


def measured_costs():
    """Microseconds of a real server's processor for each step."""
    from llm_cost_middleware.budget.backends.redis import RedisBackend

    with RedisServer(next(iter(server_binaries().values())), Path(tempfile.mkdtemp())) as server:
        backend = RedisBackend(server.url, None, "default")
        backend.set_budget(Budget("global", NanoUSD(10**15), "day"))
        backend.set_budget(Budget("user:*", NanoUSD(10**15), "none"))
        scopes, client, found = ("global", "user:a"), backend._client, {}

        def busy(name, count, step):
            before = client.info("cpu")
            for number in range(count):
                step(number)
            after = client.info("cpu")
            spent = sum(after[key] - before[key] for key in ("used_cpu_user", "used_cpu_sys"))
            found[name] = spent / count * 1e6

        busy(
            "reserve", 2000, lambda number: backend.reserve(f"a{number}", HOLD, scopes, 900_000, b"m" * 200, fresh=True)
        )
        busy(
            "resolve",
            2000,
            lambda number: backend.resolve("settle", f"a{number}", COST, status="exact", memo=b"m" * 200),
        )
        busy("read", 2000, lambda _: backend.read(scopes))
        backend.reserve("lease:x", 10**9, ("global",), 60_000, b"", fresh=True)
        now = backend.now_ms()
        holds = (ParcelHold("lease:x", 10**9, 60_000),)

        def parcel(number, calls):
            facts = scopes, COST, now, now, "exact", b"m" * 200
            entries = [ParcelEntry("book", f"{calls}-{number}-{call}", *facts) for call in range(calls)]
            backend.ship(Parcel(tuple(entries), holds))

        busy("ship", 500, lambda number: parcel(number, 1))
        busy("of 100", 50, lambda number: parcel(number, 100))
        found["shipped"] = (found.pop("of 100") - found["ship"]) / 99
        found["ship"] -= found["shipped"]
        backend.close()
        return found


def simulate(processes, rate, users, seconds, limit, *, leases, sticky, policy):
    """Run a fleet; return what the storage had to do, by phase, and what became of the calls."""
    random, clock, state = Random(1), FakeClock(), Quiet()
    truth = MemoryBackend(clock, state)
    truth.set_budget(Budget("global", NanoUSD(limit), "day"))
    truth.set_budget(Budget("user:*", NanoUSD(max(limit // 100, 10**9)), "none"))
    seen = Counter()
    storage = Counted(truth, seen)
    fleet = [leased_over(storage, clock, clock.monotonic, policy) if leases else storage for _ in range(processes)]
    for member in fleet:
        if leases:
            member.desk.hurry = lambda: None  # no thread: time is moved by hand
    names = [("global", f"user:{number}") for number in range(users)]
    under_way = deque([[] for _ in range(STEPS_OPEN)])
    per_step, total = round(rate * STEP_S), 0
    spent = held = number = 0
    outcome, phases, worst = Counter(), {}, 0
    free_at_first = None
    last = Counter()
    for step in range(round(seconds / STEP_S)):
        phase = (
            "first 8 s"
            if step * STEP_S < STEADY_S
            else "plenty"
            if spent + held < limit * 0.5
            else "near the end"
            if not outcome["refused"]
            else "spent"
        )
        done = []
        for _ in range(per_step):
            user = random.randrange(users)
            member = fleet[user % processes if sticky else random.randrange(processes)]
            number += 1
            total += 1
            try:
                member.reserve(f"c{number}", HOLD, names[user], 900_000, b"", fresh=True)
            except BudgetExceededError:
                outcome["refused"] += 1
                outcome["refused, though it fitted"] += spent + held + HOLD <= limit
                if free_at_first is None:
                    free_at_first = limit - spent - held
                continue
            outcome["admitted"] += 1
            held += HOLD
            done.append((member, f"c{number}"))
        under_way.append(done)
        for member, id_ in under_way.popleft():
            member.resolve("settle", id_, COST, status="exact")
            held, spent = held - HOLD, spent + COST
        clock.advance(STEP_S)
        if leases:  # each once a second, not all at once
            for place, member in enumerate(fleet):
                if (step + place) % (2 if member.desk.tight else 10) == 0:
                    member.shipping.tick()
        sums = truth.read(("global",)).totals[0]
        worst = max(worst, sums.settled + sums.pending - limit)
        counted = phases.setdefault(phase, Counter())
        counted.update({key: seen[key] - last[key] for key in seen})
        counted["calls"] += per_step
        counted["s"] += STEP_S
        last = Counter(seen)
    while any(under_way):
        for member, id_ in under_way.popleft():
            member.resolve("settle", id_, COST, status="exact")
            spent += COST
    if leases:
        for member in fleet:
            member.shipping.drain()
    sums = next(one for one in truth.read(("global",)).totals if one.window == "day")
    assert (sums.settled, sums.pending) == (spent, 0), "a cost is missing or booked twice"
    return {
        "phases": {name: dict(phase) for name, phase in phases.items()},
        "outcome": dict(outcome),
        "overshoot_nanousd": max(worst, spent - limit, 0),
        "free_at_the_first_refusal": None if free_at_first is None else free_at_first / limit,
        "left_at_the_end": (limit - spent) / limit,
    }


KINDS = {"leased, sticky": (True, True), "leased, spread": (True, False), "unleased": (False, False)}
SCENARIOS = {
    "a day's budget": {"part": 1, "ends_after_s": DAY_S, "seconds": (12, 2, 2)},
    "the end of a budget, a twentieth of the fleet": {"part": 20, "ends_after_s": 20, "seconds": (22, 22, 22)},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, default=1, help="simulate only such a part of the fleet")
    parser.add_argument("--dry", action="store_true", help="write no results")
    told = parser.parse_args()
    costs = measured_costs()
    found = {"costs_us": costs, "policy": LeasePolicy()._asdict(), "scenarios": {}}
    print("server's processor, us:", {name: round(cost, 1) for name, cost in costs.items()})
    for scenario, facts in SCENARIOS.items():
        part = max(facts["part"], told.part)
        processes, rate, users = 1000 // part, 100_000 // part, 10_000 // part
        limit = rate * facts["ends_after_s"] * COST
        runs = found["scenarios"][scenario] = {"processes": processes, "calls a second": rate, "users": users}
        for (name, (leases, sticky)), seconds in zip(KINDS.items(), facts["seconds"], strict=True):
            began = time.perf_counter()
            size = processes, rate, users, seconds, limit
            run = runs[name] = simulate(*size, leases=leases, sticky=sticky, policy=LeasePolicy())
            print(f"\n{scenario}: {name} ({time.perf_counter() - began:.0f} s)")
            for phase, counted in run["phases"].items():
                steps = sum(counted.get(verb, 0) for verb in ("reserve", "resolve", "read", "ship"))
                load = sum(counted.get(verb, 0) * costs[verb] for verb in costs) / 1e6 / counted["s"]
                counted["steps_a_call"], counted["cores"] = steps / counted["calls"], load
                print(f"  {phase:>12}: {steps / counted['calls']:.4f} steps a call, {load:.2f} cores of the server")
            print("  ", run["outcome"], {key: value for key, value in run.items() if key not in {"phases", "outcome"}})
    if not told.dry:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
