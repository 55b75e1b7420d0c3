"""A process that admits calls from blocks of a budget until it is killed or the budget is spent.

It keeps two files: ``bill``, a line appended when a call is sent, and ``acks``, what the ledger has confirmed.

Usage: lease_worker.py URL FOLDER SEED REFUSALS: it ends after so many refusals in a row.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from llm_cost_middleware.budget.leases import lease_from
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.rules.leases import LeasePolicy
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD

QUICK = LeasePolicy(interval_s=0.1, horizon_s=0.4, idle_s=0.5)


def leased(url, policy=QUICK):
    """Open a ledger whose process ships often."""
    return Ledger(lease_from(Ledger.open(url).backend, None, time.monotonic, policy=policy), url=url)


def main(url, folder, seed, refusals):
    chance, refused, admitted = random.Random(int(seed)), 0, 0
    ledger = leased(url)
    with (
        (Path(folder) / f"bill-{seed}").open("a", buffering=1) as bill,
        (Path(folder) / f"acks-{seed}").open("a", buffering=1) as acks,
    ):
        for number in range(1_000_000):
            id_, actual = f"{seed}-{number}", chance.randrange(0, 200)
            try:
                ledger.reserve(NanoUSD(1000), [f"user:{chance.choice('ab')}"], id=id_)
            except BudgetExceededError:
                refused += 1
                if refused >= int(refusals):
                    break
                time.sleep(0.1)
                continue
            refused = 0
            if chance.random() < 0.1:
                ledger.void(id_)
                continue
            bill.write(f"{id_} {actual}\n")
            ledger.settle(id_, NanoUSD(actual))
            acks.write(f"{id_} {actual}\n")
    admitted = ledger.backend.desk.admitted
    ledger.close()
    (Path(folder) / f"done-{seed}").write_text(f"{admitted} {number}")


if __name__ == "__main__":
    main(*sys.argv[1:])
