"""A process that works on a ledger until it is killed: reserve, send, settle. Started by the tests beside it.

It keeps two files of its own. ``bill`` is what a provider would charge: a line is appended when a call is sent,
whatever becomes of the process. ``acks`` is what the ledger has confirmed.

Usage: ledger_worker.py URL FOLDER SEED [STEP COUNT]:
with a step, it kills itself the COUNT-th time it gets there.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

from llm_cost_middleware.budget.backends.sqlite.backend import SQLiteBackend
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.money import NanoUSD


def main(url, folder, seed, step="", count="0"):
    chance, left = random.Random(int(seed)), [int(count)]

    def reached(place):
        if place == step:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def inside(self, *arguments, _write=SQLiteBackend._append_row):
        _write(self, *arguments)
        reached("inside a transaction")

    SQLiteBackend._append_row = inside  # killed between the statements of one transaction
    ledger = Ledger.open(url)
    with (
        (Path(folder) / f"bill-{seed}").open("a", buffering=1) as bill,
        (Path(folder) / f"acks-{seed}").open("a", buffering=1) as acks,
    ):
        for number in range(1_000_000):
            bound = chance.randrange(1, 1000)
            actual = chance.randrange(0, bound + 50)
            id_ = f"{seed}-{number}"
            reached("before the reserve")
            ledger.reserve(NanoUSD(bound), [f"user:{seed}"], id=id_)
            acks.write(f"reserve {id_} {bound}\n")
            reached("reserved")
            if chance.random() < 0.1:
                ledger.void(id_)
                acks.write(f"void {id_} 0\n")
                reached("voided")
                continue
            bill.write(f"{id_} {actual}\n")
            reached("sent")
            ledger.settle(id_, NanoUSD(actual))
            reached("settled, not acknowledged")
            acks.write(f"settle {id_} {actual}\n")
            reached("settled")


if __name__ == "__main__":
    main(*sys.argv[1:])
