"""Several processes' desks over one storage, in one thread: never over the limit, and every cost booked once."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend, _SharedState
from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend
from llm_cost_middleware.budget.leases.backend import leased_over
from llm_cost_middleware.budget.leases.journal import LeaseJournal
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules.leases import LeasePolicy
from llm_cost_middleware.budget.spool_place import SpoolPlace
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

POLICY = LeasePolicy()
HOLD, LIMIT = 1_000, 3_000_000
TTL = 900_000


class Fleet:
    """Processes of one storage; ``kill`` drops one with what is in its memory."""

    def __init__(self, seed, tmp_path, storage):
        self.random, self.clock, self.path = Random(seed), FakeClock(), tmp_path
        self.place = SpoolPlace(tmp_path / "spool", "default", same_disk=True)
        self.open_storage = lambda: storage(self.clock)
        self.storage = self.open_storage()
        self.storage.set_budget(Budget("global", NanoUSD(LIMIT), "day"))
        self.storage.set_budget(Budget("user:*", NanoUSD(LIMIT // 2), "none"))
        self.members = [self.made() for _ in range(4)]
        self.open, self.paid, self.unknown, self.refused, self.admitted = [], 0, {}, 0, 0
        self.number = 0

    def made(self):
        journal = LeaseJournal(self.place, os.urandom(6).hex())
        return leased_over(self.open_storage(), self.clock, self.clock.monotonic, POLICY, journal)

    def check(self):
        for account in self.storage.read(None).totals:
            budget = self.storage.read(()).budget_index.for_scope(account.scope).get(account.window)
            if budget is not None:
                assert account.settled + account.pending <= budget.limit_nanousd, account

    def call(self):
        self.number += 1
        member, id_ = self.random.choice(self.members), f"call-{self.number}"
        scopes = "global", f"user:{self.random.choice('aab')}", "team:x"
        try:
            member.reserve(id_, HOLD, scopes, TTL, b"memo", fresh=False)
        except BudgetExceededError:
            self.refused += 1
            return
        self.open.append((member, id_))

    def end(self):
        if not self.open:
            return
        member, id_ = self.open.pop(self.random.randrange(len(self.open)))
        if self.random.random() < 0.1:
            member.resolve("void", id_, 0, status="void")
            return
        cost = self.random.randrange(HOLD // 5)
        member.resolve("settle", id_, cost, status="exact", memo=b"paid")
        self.paid += cost

    def kill(self):
        victim = self.members.pop(self.random.randrange(len(self.members)))
        gone = [id_ for member, id_ in self.open if member is victim]
        self.open = [one for one in self.open if one[0] is not victim]
        self.unknown |= dict.fromkeys(gone, HOLD)
        self.admitted += victim.desk.admitted
        os.close(victim.desk.journal._file)  # what the system does with the lock of a process that is gone
        victim.desk.journal = None
        victim.desk.closed = True
        self.members.append(self.made())

    def run(self, steps):
        for _ in range(steps):
            for _ in range(self.random.randrange(40)):
                self.call() if self.random.random() < 0.55 else self.end()
            self.clock.advance(self.random.choice([0.1, 0.3, 1.0]))
            for member in self.members:
                if self.random.random() < 0.7:
                    member.shipping.tick()
                    self.check()
            if self.random.random() < 0.05:
                self.kill()
            self.check()

    def finish(self):
        while self.open:
            self.end()
        self.clock.advance(20.0)
        for member in self.members:
            member.shipping.tick()
        for member in self.members:
            self.admitted += member.desk.admitted
            member.close()


def memory(tmp_path):
    state = _SharedState()
    return lambda clock: MemoryBackend(clock, state)


def sqlite(tmp_path):
    return lambda clock: SQLiteBackend.open(f"sqlite:///{tmp_path / 'ledger.db'}", clock, "default", full=False)


@pytest.mark.parametrize("storage", [memory, sqlite])
def test_processes_come_and_go_and_every_cost_is_booked_once(storage, tmp_path, pytestconfig):
    """Kills included: what is open then is pending at the storage, and nothing else is."""
    seeds = range(300 if pytestconfig.getoption("--soak") else 6 if storage is memory else 2)
    admitted = 0
    for seed in seeds:
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        fleet = Fleet(seed, folder, storage(folder))
        fleet.run(60)
        fleet.finish()
        admitted += fleet.admitted
        told = {account.scope: account for account in fleet.storage.read(None).totals if account.window == "none"}
        pending = sum(fleet.unknown.values())
        assert (told["global"].settled, told["global"].pending) == (fleet.paid, pending), f"seed {seed}"
        assert (told["team:x"].settled, told["team:x"].pending) == (fleet.paid, pending), f"seed {seed}"
        assert not list(Path(folder, "spool-leases").iterdir()), "a journal was left"
        fleet.storage.close()
    assert admitted > 100 * len(seeds), "hardly anything was admitted from a block"


def test_a_paused_scope_costs_others_neither_their_blocks_nor_what_they_hand_back(tmp_path):
    fleet = Fleet(0, tmp_path, memory(tmp_path))
    for member in fleet.members[1:]:
        member.close()
    member = fleet.members[0]

    def calls(user, times):
        for _ in range(times):
            fleet.number += 1
            member.reserve(f"call-{fleet.number}", HOLD, ("global", f"user:{user}"), TTL, b"", fresh=False)
            member.resolve("settle", f"call-{fleet.number}", HOLD // 2, status="exact")
        fleet.clock.advance(1.0)

    for _ in range(3):
        calls("a", 40)
        member.shipping.tick()
    calls("a", 200)  # its block wants to grow
    Ledger(fleet.storage, clock=fleet.clock).pause("user:a")
    for _ in range(3):
        calls("b", 20)
        member.shipping.tick()
    assert "user:b" in member.desk.blocks
    fleet.clock.advance(POLICY.idle_s + 1)
    member.shipping.tick()
    assert not any(account.pending for account in fleet.storage.read(None).totals)
    member.close()
