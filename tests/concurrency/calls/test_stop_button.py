"""Pause, raise and a changed file reach four processes of two hosts each within two seconds, while they call.

The provider's own list of requests says what was sent, and when.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware import Ledger
from llm_cost_middleware.simulator import Simulator, fill

WORKER = Path(__file__).with_name("stop_button_worker.py")
PROCESSES, HOSTS, LIMIT_S, PATIENCE_S = 4, 2, 2.0, 90


class Fleet:
    def __init__(self, folder, url):
        self.folder, self.url, self.answered = folder, url, []
        self.sim = Simulator(responder=self.answer).start()
        self.told = folder / "told"
        self.told.mkdir()
        self.path = folder / "llm-cost.toml"
        self.write("1000")
        self.ledger = Ledger.open(url)
        command = [sys.executable, str(WORKER), str(self.path), self.sim.openai_url, str(self.told)]
        self.processes = [subprocess.Popen(command, start_new_session=True) for _ in range(PROCESSES)]

    def answer(self, *request):
        self.answered.append(time.time())  # the simulator's own clock stands still
        return fill(*request)

    def write(self, limit):
        new = self.path.with_suffix(".new")
        new.write_text(f"""[ledger]
url = "{self.url}"
durability = "normal"
[[budgets]]
scope = "global"
limit = "{limit}"
""")
        new.replace(self.path)

    def last(self):
        """The last line of each host of each process."""
        files = list(self.told.iterdir())
        return [lines[-1] if (lines := file.read_text().splitlines()) else "" for file in files]

    def wait_for(self, what, since):
        """Until every one has told it after a moment; returns the latest first time that a line of it was told."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert all(process.poll() is None for process in self.processes)
            last = self.last()
            fresh = [line for line in last if what in line and float(line.split(" ")[0]) > since]
            if len(fresh) == PROCESSES * HOSTS:
                return
            time.sleep(0.02)
        raise AssertionError((what, self.last()))

    def sent_after(self, moment):
        return [at - moment for at in tuple(self.answered) if at > moment]

    def stops(self, decide, why):
        """A decision stops every one of them, and nothing is sent after."""
        at = time.time()
        decide()
        self.wait_for(why, at)
        late = self.sent_after(at + LIMIT_S)
        assert not late, f"sent {max(late):.1f} s after the limit"
        return max(self.sent_after(at), default=0.0)

    def goes_on(self, decide):
        at = time.time()
        decide()
        self.wait_for(" sent", at)
        assert len(self.sent_after(at)) >= PROCESSES * HOSTS, "it would be seen"

    def close(self):
        for process in self.processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        self.ledger.close()
        self.sim.stop()


@pytest.fixture(params=["sqlite", "redis"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
        return
    if not request.config.getoption("--soak"):
        pytest.skip("long form; run with --soak")
    binary = next(iter(server_binaries().values()), None)
    if binary is None:
        pytest.skip("no Redis at hand")
    with RedisServer(binary, tmp_path) as server:
        yield server.url


def test_every_decision_reaches_every_process_within_two_seconds(url, tmp_path):
    with closing(Fleet(tmp_path, url)) as fleet:
        ledger = fleet.ledger
        fleet.wait_for(" sent", 0)
        took = {"pause": fleet.stops(lambda: ledger.pause("team:search", reason="incident 7"), "incident 7")}
        fleet.goes_on(lambda: ledger.resume("team:search"))
        took["a lower budget"] = fleet.stops(lambda: ledger.set_budget("team:search", "0.000001"), "BudgetExceeded")
        fleet.goes_on(lambda: ledger.raise_budget("team:search", 100, until="1h"))
        took["a changed file"] = fleet.stops(lambda: fleet.write("0.000001"), "BudgetExceeded")
        fleet.goes_on(lambda: fleet.write("1000"))
        print({what: f"{seconds:.2f} s" for what, seconds in took.items()}, len(fleet.answered), "requests")
