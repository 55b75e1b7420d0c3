"""Calls that overlap over HTTP, in this process or in processes that are really separate.

The provider holds each answer back until the moment on the simulated clock at which it begins, so that a call that
leaves before then finds no entry of it, and a process that sends one has not learned from it. Between two moments
everything that runs is waited for: the same traffic gives the same bill.

A worker is a process of its own, with a pipeline, a host and clients of its own; it shares the ledger and the clock
with the others, and is killed at its end: what it has not written down by then is lost.
"""

from __future__ import annotations

import asyncio
import heapq
import multiprocessing
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import hosts
from traffic import READABLE_S, Call

from llm_cost_middleware.simulator import Answer, SimClock, Simulator

Submit = Callable[[dict[str, Any]], Future[None]]
Sender = Callable[[int], Submit]
_PATIENCE_S = 120.0
_THREADS = 64
_FORKS = multiprocessing.get_context("forkserver")
_IMPORTED = [
    "overlap",
    "anthropic",
    "langchain_anthropic",
    "langchain.agents",
    "litellm",
    "llm_cost_middleware.integrations.anthropic",
    "llm_cost_middleware.integrations.langchain",
    "llm_cost_middleware.integrations.litellm",
]
"""What the process has imported that workers are forked from; it has done nothing else."""


class Gate:
    """Holds answers back until their moment."""

    def __init__(self) -> None:
        self.held: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = queue.Queue()

    async def sleep(self, seconds: float) -> None:
        """Wait until ``release`` is called, whatever the seconds."""
        loop = asyncio.get_running_loop()
        moment = loop.create_future()
        self.held.put((loop, moment))
        await moment


@contextmanager
def provider() -> Iterator[tuple[Simulator, SimClock, Gate]]:
    """A loopback provider that holds its answers back."""
    clock, gate = SimClock(), Gate()
    with Simulator(responder=shortest, clock=clock, latency_s=READABLE_S, sleep=gate.sleep) as sim:
        yield sim, clock, gate


def shortest(_: Any) -> Answer:
    """An answer of one token: LiteLLM and LangChain write none where the provider's count was missing."""
    return Answer(text="ok", output_tokens=1)


def send_all(calls: Sequence[Call], sender: Sender, clock: Any, gate: Gate) -> None:
    """Send every call at its time, and let every answer come at its own."""
    start, moments = clock.now(), []
    for number, call in enumerate(calls):
        while moments and moments[0][0] <= call.at:
            _answer(heapq.heappop(moments), start, clock)
        clock.set(start + call.at)
        done = sender(number)(call.body)
        heapq.heappush(moments, (call.at + READABLE_S, number, _held(gate, done), done))
    while moments:
        _answer(heapq.heappop(moments), start, clock)


def _held(gate: Gate, done: Future[None]) -> Any:
    for _ in range(int(_PATIENCE_S * 10)):
        with suppress(queue.Empty):
            return gate.held.get(timeout=0.1)
        if done.done():
            done.result()
            break
    raise RuntimeError("a call did not reach the provider")


def _answer(moment: Any, start: float, clock: Any) -> None:
    at, _, (loop, held), done = moment
    clock.set(start + at)
    loop.call_soon_threadsafe(held.set_result, None)
    done.result(_PATIENCE_S)


@contextmanager
def threads(send: hosts.Send) -> Iterator[Sender]:
    """One process, a thread for each call that is on its way."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield lambda _: lambda body: pool.submit(send, body)


class SharedClock:
    """The simulated clock, as every worker sees it."""

    def __init__(self, clock: SimClock) -> None:
        self.clock, self.value = clock, _FORKS.Value("d", clock.now(), lock=False)
        self.now = clock.now

    def set(self, at: float) -> None:
        """Jump, here and in the workers."""
        self.value.value = at
        self.clock.set(at)


class _Reading:
    """What a worker's pipeline takes for its clock."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def now(self) -> float:
        return self._value.value

    def advance(self, seconds: float) -> float:
        raise RuntimeError(f"a call waits for {seconds} s")


class _At:
    """Where a worker finds the provider."""

    def __init__(self, url: str) -> None:
        self.anthropic_url = url


def work(pipe: Any, value: Any, anthropic_url: str, ledger: str, host: str) -> None:
    """A worker: sends what comes through the pipe, each call in a thread, and dies without closing anything."""
    sim = _At(anthropic_url)
    governed = hosts.open_pipeline(sim, _Reading(value), ledger)
    lock = threading.Lock()
    with hosts.open_host(host, sim, governed) as send, ThreadPoolExecutor(_THREADS) as pool:

        def one(number: int, body: dict[str, Any]) -> None:
            try:
                send(body)
                failure = None
            except Exception as error:  # noqa: BLE001 - told to whoever asked
                failure = f"{type(error).__name__}: {error}"
            with lock:
                pipe.send((number, failure))

        while (asked := pipe.recv()) is not None:
            pool.submit(one, *asked)
        os._exit(0)


class Worker:
    """A process, as the one that feeds it sees it."""

    def __init__(self, *args: Any) -> None:
        self._pipe, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=work, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()
        self._open: dict[int, Future[None]] = {}
        self._asked = 0
        threading.Thread(target=self._read, daemon=True).start()

    def submit(self, body: dict[str, Any]) -> Future[None]:
        """Have it send a body."""
        self._asked += 1
        done = self._open[self._asked] = Future()
        self._pipe.send((self._asked, body))
        return done

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, failure = self._pipe.recv()
                done = self._open.pop(number)
                if failure is None:
                    done.set_result(None)
                else:
                    done.set_exception(RuntimeError(failure))

    @property
    def is_idle(self) -> bool:
        """Whether nothing that it sent is still unanswered."""
        return not self._open

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


@contextmanager
def processes(
    sim: Any, clock: SharedClock, url: str, workers: int, life: int | None, host: str = hosts.HOSTS[0]
) -> Iterator[Sender]:
    """Which process sends a call: in turn, or a new one for every so many; an old one is killed."""

    # The process that workers are forked from finds modules by the environment only.
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))
    _FORKS.set_forkserver_preload(_IMPORTED)

    def start() -> Worker:
        return Worker(clock.value, sim.anthropic_url, url, host)

    running, leaving = [start() for _ in range(workers)], []

    def sender(number: int) -> Submit:
        for old in [old for old in leaving if old.is_idle]:
            leaving.remove(old)
            old.kill()
        if life is not None and number and number % life == 0:
            leaving.append(running[0])
            running[0] = start()
        return running[number % workers].submit

    try:
        yield sender
    finally:
        for worker in (*running, *leaving):
            worker.kill()
