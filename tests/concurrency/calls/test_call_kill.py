"""``kill -9`` at every step of a real call, four processes on one file: no money is missing, none is counted twice."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.metering import decode_memo
from llm_cost_middleware.simulator import SimulatorProcess
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

STEPS = ("routed", "reserved", "leaving", "arrived", "streaming", "settling", "settled", "journalling")


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(200 if metafunc.config.getoption("--soak", default=False) else 4))


@pytest.fixture(scope="module")
def provider_process():
    with SimulatorProcess(("--responder", "fill", "--no-bodies", "--latency", "0.005")) as process:
        yield process


def test_after_kill_9_in_a_call_the_ledger_still_covers_the_bill(tmp_path, provider_process, workers, seed):
    chance, sim = random.Random(seed), provider_process
    sim.reset()
    url = f"sqlite:///{tmp_path}/ledger.db"

    def begin(number, **more):
        return workers.begin(
            job="until_killed", out=f"{tmp_path}/out-{number}", url=url, simulator=sim.url,
            seed=100 * seed + number, calls=10_000, **more,
        )  # fmt: skip

    # two workers kill themselves at a step of a call, two are killed from outside, anywhere
    suicides = [
        begin(number, step=STEPS[(2 * seed + number) % len(STEPS)], count=chance.randrange(1, 12)) for number in (0, 1)
    ]
    victims = [begin(number) for number in (2, 3)]
    workers.join(300, suicides)
    assert not list(tmp_path.glob("out-*"))  # each came to its step, and no further
    time.sleep(chance.random() * 0.3)
    for victim in victims:
        workers.kill(victim)
    workers.join(60)
    time.sleep(0.1)  # what had left is billed although nobody waits for it
    # after the restart somebody goes on with the same file
    workers.begin(job="until_killed", out=f"{tmp_path}/out-9", url=url, simulator=sim.url, seed=seed, calls=3)
    workers.join(300)
    assert (tmp_path / "out-9").read_text() == "done"

    with Ledger.open(url, clock=FakeClock(time.time() + 100_000)) as ledger:
        open_before = ledger.balance("global").pending_nanousd
        expired = ledger.sweep()
        balance, rows = ledger.balance("global"), list(ledger.rows())
        audit(ledger.backend.read(None), rows)
    bill = {line.request_id: line for line in sim.lines}

    assert balance.pending_nanousd == 0
    assert (open_before > 0) == (expired > 0)
    assert expired <= 4  # each process that was killed was in one call
    booked = [row for row in rows if row.kind != "reserve" and row.status != "void"]
    assert balance.settled_nanousd == sum(row.amount_nanousd for row in booked)
    assert max(Counter(row.id for row in booked).values()) == 1  # none twice

    exact = {}
    for row in booked:
        if row.status == "exact":
            name = decode_memo(row.memo).response_id
            assert name not in exact
            exact[name] = row.amount_nanousd
    assert set(exact) <= set(bill)
    assert all(amount == bill[name].cost_nanousd for name, amount in exact.items())
    # what was billed and has no exact row is covered by what was charged for the calls that were cut off
    assert any(line.geo and line.provider == "openai" for line in bill.values())  # Azure was among those that answered
    unmatched = [line.cost_nanousd for name, line in bill.items() if name not in exact]
    cut_off = [row.amount_nanousd for row in booked if row.status != "exact"]
    assert len(unmatched) <= len(cut_off) == expired
    assert sum(unmatched) <= sum(cut_off)
    assert balance.settled_nanousd >= sim.total_nanousd
