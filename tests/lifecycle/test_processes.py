"""The ways in which programs start, stop and sleep: what a ledger on a file makes of them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from random import Random
from urllib.request import urlopen

import pytest
from plain_call import BOTH, COST, answer, request
from ports import free_port

import llm_cost_middleware
from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit


def pipeline(url, **options):
    config = CostConfig(ledger={"url": url}, budgets=[{"scope": "global", "limit": 9, "window": "day"}])
    return CostPipeline(config, rng=Random(3), **options)


def calls(url, count):
    """The work of a process of its own."""
    with pipeline(url) as pipe:
        for _ in range(count):
            pipe.run(request(), lambda _: answer(), providers=BOTH)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_started_anew_share_one_ledger(tmp_path, method):
    url = f"sqlite:///{tmp_path}/l.db"
    context = multiprocessing.get_context(method)
    crew = [context.Process(target=calls, args=(url, 5)) for _ in range(2)]
    try:
        for process in crew:
            process.start()
        for process in crew:
            process.join(60)
            assert process.exitcode == 0
    finally:
        forkserver._forkserver._stop()  # it would wait for more work until this process ends
    with Ledger.open(url) as ledger:
        assert ledger.balance("global").settled_nanousd == 10 * COST
        audit(ledger.backend.read(None), list(ledger.rows()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_workers_that_are_forked_after_the_pipeline_was_opened_share_it(tmp_path):
    """As gunicorn does with preload_app: the parent has made calls before."""
    url = f"sqlite:///{tmp_path}/l.db"
    with pipeline(url) as pipe:
        pipe.run(request(), lambda _: answer(), providers=BOTH)
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                for _ in range(4):
                    pipe.run(request(), lambda _: answer(), providers=BOTH)
                os._exit(0)
            children.append(child)
        pipe.run(request(), lambda _: answer(), providers=BOTH)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
        assert pipe.ledger.balance("global").settled_nanousd == 14 * COST
        audit(pipe.ledger.backend.read(None), list(pipe.ledger.rows()))


def test_a_function_that_was_frozen_between_hold_and_answer_settles_late(tmp_path):
    """The platform stops the process for a day; its clock jumps, and another instance has swept meanwhile."""
    url, clock = f"sqlite:///{tmp_path}/l.db", FakeClock()
    with pipeline(url, clock=clock) as pipe, Ledger.open(url, clock=clock) as other:

        def thawed(_):
            clock.advance(86_400)
            assert other.sweep() == 1
            return answer()

        assert pipe.run(request(), thawed, providers=BOTH) == "fine"
        ledger = pipe.ledger
        assert [row.kind for row in ledger.rows()] == ["reserve", "expire", "settle"]
        assert (ledger.balance("global").settled_nanousd, ledger.balance("global").pending_nanousd) == (0, 0)
        assert sum(row.amount_nanousd for row in ledger.rows() if row.kind == "settle") == COST
        audit(ledger.backend.read(None), list(ledger.rows()))


SCRIPT = """
import os, signal, sys
sys.path[:0] = {tests!r}
from plain_call import BOTH, answer, request
from test_processes import pipeline
pipe = pipeline(sys.argv[1])
pipe.run(request(), lambda _: answer(), providers=BOTH)
pipe.run(request(), lambda _: os.kill(os.getpid(), signal.SIGTERM), providers=BOTH)
"""


def test_a_process_that_is_ended_by_sigterm_has_booked_every_answer(tmp_path):
    """Nothing waits to be flushed: an answer is booked before its caller gets it. What was under way stays held."""
    url = f"sqlite:///{tmp_path}/l.db"
    tests = Path(__file__).parents[1]
    script = SCRIPT.format(tests=[str(tests / "lifecycle"), str(tests / "support")])
    root = Path(llm_cost_middleware.__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", script, url], env={**os.environ, "PYTHONPATH": str(root)}, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGTERM
    with Ledger.open(url) as ledger:
        balance = ledger.balance("global")
        assert balance.settled_nanousd == COST
        assert balance.pending_nanousd > 0
        assert len(list(ledger.journal.read("settlement"))) == 1
        audit(ledger.backend.read(None), list(ledger.rows()))


class OtherLoop:
    """Runs a coroutine as a library other than asyncio would: no asyncio loop is running."""

    @staticmethod
    def run(coroutine):
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waits for a loop")


def test_under_another_librarys_event_loop_it_works_in_memory_and_says_so_on_a_file(tmp_path):
    async def send(_):
        return answer()

    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    with pipeline("memory://") as pipe:
        assert OtherLoop.run(pipe.arun(request(), send, providers=BOTH)) == "fine"
    with pipeline(f"sqlite:///{tmp_path}/l.db") as pipe:
        with pytest.raises(ConfigurationError, match="needs asyncio"):
            OtherLoop.run(pipe.arun(request(), send, providers=BOTH))
        assert pipe.ledger.balance("global").pending == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_workers_of_gunicorn_share_the_ledger_of_their_parent(tmp_path):
    """The real server, with ``--preload``: what its parent opened is used by every worker, and SIGTERM ends it well."""
    pytest.importorskip("gunicorn", reason="needs gunicorn; the extra proxy brings it")
    url, here = f"sqlite:///{tmp_path}/l.db", Path(__file__).parent
    path = [str(Path(llm_cost_middleware.__file__).parents[1]), str(here), str(here.parent / "support")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "LEDGER": url}
    port = free_port()
    options = ["--preload", "--workers", "3", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "10"]
    server = subprocess.Popen([sys.executable, "-m", "gunicorn", *options, "served_app:app"], env=environment)
    try:
        with ThreadPoolExecutor(12) as crew:
            pids = set(crew.map(lambda _: asked(f"http://127.0.0.1:{port}/"), range(60)))
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    assert len(pids) > 1, "one worker did it all"
    with Ledger.open(url) as ledger:
        assert ledger.balance("global").settled_nanousd == 61 * COST
        assert ledger.balance("global").pending == 0
        audit(ledger.backend.read(None), list(ledger.rows()))


def asked(url):
    for _ in range(400):
        try:
            with urlopen(url, timeout=30) as answered:  # noqa: S310 - this machine
                return answered.read()
        except OSError:  # it is not up yet
            time.sleep(0.05)
    raise AssertionError("it does not answer")


def test_under_trio_it_works_in_memory_and_says_so_on_a_file(tmp_path):
    trio = pytest.importorskip("trio", reason="needs trio; the extra test brings it")

    async def send(_):
        await trio.sleep(0)
        return answer()

    async def several(pipe):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: pipe.arun(request(), send, providers=BOTH))

    with pipeline("memory://") as pipe:
        trio.run(several, pipe)
        assert pipe.ledger.balance("global").settled_nanousd == 5 * COST
    with pipeline(f"sqlite:///{tmp_path}/l.db") as pipe:
        with pytest.raises(ConfigurationError, match="needs asyncio"):
            trio.run(lambda: pipe.arun(request(), send, providers=BOTH))

        async def in_threads():
            return await trio.to_thread.run_sync(lambda: pipe.run(request(), lambda _: answer(), providers=BOTH))

        assert trio.run(in_threads) == "fine", "as the error advises"
        assert pipe.ledger.balance("global").settled_nanousd == COST
        assert pipe.ledger.balance("global").pending == 0
