"""A process that archives a ledger and kills itself on the way. Started by the tests beside it.

Usage: archive_worker.py URL BEFORE STEP: it dies at the STEP-th of the moments at which something has just been, or is
about to be, made durable, or stands half done inside a transaction; with 0 it lives and prints how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from llm_cost_middleware.budget import archive_file
from llm_cost_middleware.budget.backends.sqlite import archive
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.metering import MemoSummary


def main(url, before, step):
    passed = 0

    def reached():
        nonlocal passed
        passed += 1
        if passed == int(step):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner, name):
        real = getattr(owner, name)

        def marked(*args, **kwargs):
            reached()
            done = real(*args, **kwargs)
            reached()
            return done

        setattr(owner, name, marked)

    around(LedgerFile, "write")
    around(archive.Archive, "_carry")
    around(archive.Packing, "pack")  # between the statements of one transaction
    around(archive_file, "_flush")
    around(archive_file, "_line")
    around(os, "fsync")
    around(Path, "replace")
    archive.BLOCK = 10
    with Ledger.open(url) as ledger:
        ledger.archive(float(before), MemoSummary())
    print(passed)


if __name__ == "__main__":
    main(*sys.argv[1:])
