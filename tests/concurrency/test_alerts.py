"""Four processes tell an alert once, under one id, also where the receiver was down and some of them were killed."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from alert_receiver import Receiver
from redis_servers import RedisServer, server_binaries

from llm_cost_middleware import Ledger
from llm_cost_middleware.alerts.record import AlertRecord

WORKER = Path(__file__).parent.parent / "support" / "alert_worker.py"
PATIENCE_S = 60


def _until(what, why):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return found


def _prove(url):
    with Receiver() as receiver:
        command = [sys.executable, str(WORKER), url, receiver.url]
        workers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        try:
            for worker in workers:
                assert worker.stdout.readline() == "ready\n"
            with closing(Ledger.open(url)) as ledger:

                def raised():
                    record = AlertRecord(ledger, time.time)
                    record.catch_up()
                    return record.history() if len(record.history()) == 2 else None

                found = _until(raised, "not raised while nobody can be told")
                assert [told for _, told, _ in found] == [0, 0]
                for worker in workers[:2]:
                    worker.kill()
                receiver.up()
                _until(lambda: len(set(receiver.ids)) == 2, "not told when the receiver is back")
                told = _until(
                    lambda: [all_ for all_ in [raised()] if all_ and all(one[1] for one in all_)], "not noted"
                )
                assert {alert.id for alert, *_ in told[0]} == set(receiver.ids) == {alert.id for alert, *_ in found}
                time.sleep(1)  # several looks of those that live
                assert sorted(receiver.ids) == sorted(set(receiver.ids))
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()


def test_four_processes_make_one_id_and_a_receiver_that_was_down_gets_it(tmp_path):
    _prove(f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(server_binaries()))
def test_on_redis_too(tmp_path, name):
    with RedisServer(server_binaries()[name], tmp_path) as server:
        _prove(server.url)
