"""Configurations, changes by hand, raises and expiries in every order, in processes with different files.

No budget is ever laxer than the newest decision about it, and none is stricter. The oracle keeps the newest decisions
and knows nothing of the register; what holds is found by trying: the ledgers must admit a call of just the limit, and
none above it.
"""

import shutil
import tempfile
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis_servers import server_binaries

from llm_cost_middleware import Budget, BudgetExceededError, ConfigurationError, Ledger
from llm_cost_middleware.errors import ScopePausedError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock

KEYS = [("team:a", "none"), ("team:b", "day"), ("team:*", "none"), ("global", "month")]
PROCESSES = st.integers(0, 2)
PAUSED = ["global", "team:a", "team:*"]
LIMITS = st.integers(1, 40)
FILES = st.dictionaries(st.sampled_from(KEYS), LIMITS, max_size=4)
PATIENCE = {"max_examples": 60, "stateful_step_count": 20, "deadline": None, "suppress_health_check": list(HealthCheck)}


def spelt(scope, loud):
    kind, colon, name = scope.partition(":")
    return f"{kind}{colon}{name.upper()}" if loud else scope


class BudgetLives(RuleBasedStateMachine):
    """Three processes on one ledger, and every file that was ever written."""

    def __init__(self):
        super().__init__()
        self.clock, self.numbers = FakeClock(), count()
        url, self.dispose = type(self).make()
        self.ledgers = [Ledger.open(url, clock=self.clock, tenant="lives", durability="normal") for _ in range(3)]
        self.ledgers[0].learn_names("service", {"team": "case"})  # calls are team:a, however a decision spells it
        self.files = []
        # what the oracle knows: the newest decision a key, the lines of the newest file, what is paused
        self.decided, self.configured, self.lines, self.newest, self.paused = {}, set(), {}, -1, {}

    @rule(lines=FILES)
    def write_file(self, lines):
        self.files.append(lines)

    @rule(process=PROCESSES, data=st.data())
    def start(self, process, data):
        """A process starts with any file that there ever was."""
        if not self.files:
            return
        version = data.draw(st.integers(0, len(self.files) - 1))
        lines = self.files[version]
        budgets = [Budget(scope, NanoUSD(limit), window) for (scope, window), limit in lines.items()]
        self.ledgers[process].configure_budgets(budgets, version=version)
        if version <= self.newest:
            return
        for key in {*lines, *self.lines}:
            if key in lines and lines[key] != self.lines.get(key):
                self.decided[key] = lines[key], None
                self.configured.add(key)
            elif key not in lines and key in self.configured:
                self.decided.pop(key, None)
        self.lines, self.newest = lines, version

    @rule(process=PROCESSES, key=st.sampled_from(KEYS), limit=LIMITS, loud=st.booleans())
    def set_by_hand(self, process, key, limit, loud):
        self.ledgers[process].set_budget(Budget(spelt(key[0], loud), NanoUSD(limit), key[1]))
        self.decided[key] = limit, None
        self.configured.discard(key)

    @rule(process=PROCESSES, key=st.sampled_from(KEYS), loud=st.booleans())
    def remove_by_hand(self, process, key, loud):
        self.ledgers[process].remove_budget(spelt(key[0], loud), key[1])
        if self.decided.pop(key, None):
            self.configured.discard(key)

    @rule(process=PROCESSES, key=st.sampled_from(KEYS), limit=LIMITS, lasts=st.sampled_from([30.0, 90_000.0]))
    def raise_until(self, process, key, limit, lasts):
        stands = self.decided.get(key)
        with suppress(ConfigurationError):
            self.ledgers[process].raise_budget(key[0], NanoUSD(limit), key[1], until=self.clock.now() + lasts)
            assert stands is not None, "there is nothing to raise"
            assert limit > stands[0], "that is no raise"
            self.decided[key] = stands[0], (limit, self.clock.now() + lasts)

    @rule(process=PROCESSES, scope=st.sampled_from(PAUSED), lasts=st.sampled_from([None, 30.0]), loud=st.booleans())
    def pause(self, process, scope, lasts, loud):
        until = None if lasts is None else self.clock.now() + lasts
        self.ledgers[process].pause(spelt(scope, loud), until=until)
        self.paused[scope] = until

    @rule(process=PROCESSES, scope=st.sampled_from(PAUSED), loud=st.booleans())
    def resume(self, process, scope, loud):
        self.ledgers[process].resume(spelt(scope, loud))
        self.paused.pop(scope, None)

    @rule(seconds=st.sampled_from([1.0, 29.0, 40_000.0, 90_000.0]))
    def wait(self, seconds):
        self.clock.advance(seconds)

    def limit(self, key):
        if key not in self.decided:
            return None
        base, raised = self.decided[key]
        return raised[0] if raised is not None and self.clock.now() < raised[1] else base

    @invariant()
    def what_holds_is_the_newest_decision(self):
        ledger = self.ledgers[next(self.numbers) % 3]
        now = self.clock.now()
        for scope in ("team:a", "team:b", "team:c"):
            own = {window: self.limit((scope, window)) for window in ("none", "day")}
            template = self.limit(("team:*", "none"))
            bounds = [own["none"] if own["none"] is not None else template, own["day"], self.limit(("global", "month"))]
            least = min((bound for bound in bounds if bound is not None), default=None)
            stopped = any(
                name in self.paused and (self.paused[name] is None or now < self.paused[name])
                for name in ("global", scope, "team:*")
            )
            if stopped:
                for ask in (lambda: ledger.reserve(NanoUSD(1), [scope]), lambda: ledger.check_paused([scope])):  # noqa: B023 - at once
                    with pytest.raises(ScopePausedError):
                        ask()
                continue
            ledger.check_paused([scope])
            if least is not None:
                with pytest.raises(BudgetExceededError):
                    ledger.reserve(NanoUSD(least + 1), [scope])
            ledger.void(ledger.reserve(NanoUSD(1000 if least is None else least), [scope]).id)

    def teardown(self):
        for ledger in self.ledgers:
            ledger.close()
        self.dispose()


def on_memory():
    return "memory://lives", lambda: None


def on_sqlite():
    folder = Path(tempfile.mkdtemp(prefix="llm-cost-"))
    return f"sqlite:///{folder}/ledger.db", lambda: shutil.rmtree(folder)


@pytest.mark.parametrize("make", [on_memory, on_sqlite])
def test_the_newest_decision_holds(make):
    machine = type("Lives", (BudgetLives,), {"make": staticmethod(make)})
    run_state_machine_as_test(machine, settings=settings(**PATIENCE))


@pytest.mark.parametrize("name", sorted(server_binaries()))
def test_the_newest_decision_holds_on_redis(redis_servers, name):
    server = redis_servers[name]
    client = redis.Redis.from_url(server.url)
    machine = type("Lives", (BudgetLives,), {"make": staticmethod(lambda: (server.url, client.flushall))})
    run_state_machine_as_test(machine, settings=settings(**{**PATIENCE, "max_examples": 30}))
    client.close()
