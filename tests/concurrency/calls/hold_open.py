"""Not collected by its name: a run with every kind of process that the tests start, which waits to be ended.

``tests/test_run_leaves_nothing.py`` starts it and ends it by a signal.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from redis_servers import RedisServer, server_binaries

from llm_cost_middleware.simulator.process import SimulatorProcess

CONCURRENCY = Path(__file__).resolve().parents[1]
PROXY = Path(sys.executable).with_name("litellm")


def test_hold_everything_open(workers, tmp_path):
    held = []
    with ExitStack() as servers:
        simulator = servers.enter_context(SimulatorProcess(("--latency", "3600")))
        for name, binary in server_binaries().items():
            (tmp_path / name).mkdir()
            servers.enter_context(RedisServer(binary, tmp_path / name))
        workers.begin(
            job="until_killed", out=str(tmp_path / "out"), url="memory://held", simulator=simulator.url, seed=1, calls=9
        )
        fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
        fork.start()
        ledger = [sys.executable, str(CONCURRENCY / "ledger_worker.py"), f"sqlite:///{tmp_path}/ledger.db"]
        held.append(subprocess.Popen([*ledger, str(tmp_path), "1"]))
        if PROXY.exists():
            (tmp_path / "config.yaml").write_text("model_list: []\n")
            proxy = [str(PROXY), "--config", str(tmp_path / "config.yaml"), "--port", "0", "--host", "127.0.0.1"]
            log = (tmp_path / "proxy.log").open("w")
            # as the tests of the proxy do it: two workers, in a session of their own
            held.append(
                subprocess.Popen([*proxy, "--num_workers", "2"], stdout=log, stderr=log, start_new_session=True)
            )
            children = Path(f"/proc/{held[-1].pid}/task/{held[-1].pid}/children")
            while len(children.read_text().split()) < 2:
                assert held[-1].poll() is None, Path(log.name).read_text()[-2000:]
                time.sleep(0.1)
        Path(os.environ["HELD_OPEN"]).write_text("all are there")
        time.sleep(3600)
