"""Ends what a test run started, once the run itself has ended: by itself, by SIGTERM, or by ``kill -9``.

A process of its own, started by ``conftest.py`` with the pid of the run, the run's mark and its temporary folder. The
mark stands in the environment of everything that the run starts, however deep: it is found by that alone, whichever
session or process group it went to. Redis writes its title over its environment: it is found by the folder it works in.
Linux only: it reads ``/proc``.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "PYTEST_RUN_MARK"  # not LLM_COST_...: the package reads those as its configuration
_ROUNDS, _PAUSE_S = 100, 0.05


def belonging(mark: str, folder: str) -> set[int]:
    """The processes that were started with this mark, or work inside this folder; without this one."""
    wanted, found = f"{VARIABLE}={mark}".encode(), set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or belongs to another user
            if (process / "cwd").readlink().is_relative_to(folder) or wanted in (
                process / "environ"
            ).read_bytes().split(b"\0"):
                found.add(int(process.name))
    return found - {os.getpid()}


def reap(mark: str, folder: str) -> None:
    """Kill them, and what they start while they are killed."""
    for _ in range(_ROUNDS):
        there = belonging(mark, folder)
        if not there:
            return
        for pid in there:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    with suppress(ProcessLookupError):  # it may have ended before this began
        run = os.pidfd_open(int(sys.argv[1]))
        select.select([run], [], [])
    reap(sys.argv[2], sys.argv[3])
