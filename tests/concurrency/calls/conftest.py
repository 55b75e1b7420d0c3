"""Processes that make real calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import llm_cost_middleware


class Workers:
    """Forks of one process that has imported everything; see ``call_worker.py``."""

    def __init__(self):
        root = Path(llm_cost_middleware.__file__).parents[1]
        self._pids = []
        self._parent = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("call_worker.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip

    def begin(self, **job):
        """Start a job; returns its pid."""
        self._parent.stdin.write(json.dumps(job) + "\n")
        self._parent.stdin.flush()
        self._pids.append(int(self._parent.stdout.readline()))
        return self._pids[-1]

    def join(self, seconds, pids=None):
        """Wait until these (by default all) have ended."""
        until = time.monotonic() + seconds
        for pid in pids or self._pids:
            while Path(f"/proc/{pid}").exists():
                assert time.monotonic() < until, f"process {pid} did not end"
                time.sleep(0.01)
        if pids is None:
            self._pids.clear()

    def kill(self, pid):
        """``kill -9``."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def close(self):
        for pid in self._pids:
            self.kill(pid)
        self._parent.communicate()


@pytest.fixture(scope="session")
def workers():
    """Starts jobs in processes of their own."""
    made = Workers()
    yield made
    made.close()
