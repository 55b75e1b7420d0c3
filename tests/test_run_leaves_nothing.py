"""A test run that is ended by a signal leaves no process behind: no server, no worker, no fork."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from redis_servers import server_binaries

TESTS = Path(__file__).resolve().parent
HOLD_OPEN = TESTS / "concurrency/calls/hold_open.py"
KINDS = ("llm_cost_middleware.simulator", "call_worker.py", "ledger_worker.py", "hold_open.py")
PATIENCE_S = 240

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def process_tree(root):
    """The command lines of everything below a process, each by what tells a process from a later one of its pid."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            identity, parent, _ = _stat(int(folder.name))
            parents[identity] = parent
            commands[identity] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    found, wave = {}, {root}
    while wave:
        children = {one for one, parent in parents.items() if parent in wave and one not in found}
        found |= {one: commands[one] for one in children}
        wave = {pid for pid, _ in children}
    return found


def alive(identity):
    with suppress(OSError):
        now, _, state = _stat(identity[0])
        return now == identity and state != "Z"
    return False


def _stat(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (pid, fields[19]), int(fields[1]), fields[0]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_nothing_outlives_a_run_that_is_ended(sent, tmp_path):
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/run", HOLD_OPEN]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(
        command, cwd=TESTS.parent, stdout=log, stderr=log, env=os.environ | {"HELD_OPEN": str(ready)}
    ) as run:  # fmt: skip
        try:
            until = time.monotonic() + PATIENCE_S
            while not ready.exists():
                assert run.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until, process_tree(run.pid)
                time.sleep(0.05)
            there = process_tree(run.pid)
            os.kill(run.pid, sent)
            assert run.wait(30) == -sent
        finally:
            run.kill()
    servers = [Path(binary).name for binary in server_binaries().values()]
    proxy = ["--num_workers"] if Path(sys.executable).with_name("litellm").exists() else []
    for kind in (*KINDS, *servers, *proxy):
        assert any(kind in line for line in there.values()), f"no {kind} was there: nothing was tried"
    until = time.monotonic() + 10
    while left := {one: line for one, line in there.items() if alive(one)}:
        assert time.monotonic() < until, left
        time.sleep(0.05)
