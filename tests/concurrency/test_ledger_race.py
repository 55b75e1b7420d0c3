"""The race at ledger level: however many at once, a budget lets through what it can pay, and nearly all of that."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.oracle import audit

BOUND = NanoUSD(1000)
fork = multiprocessing.get_context("fork")


def attempt(ledger):
    try:
        ledger.reserve(BOUND, ["user:a"])
    except BudgetExceededError:
        return 0
    return 1


def process(url, attempts):
    with Ledger.open(url) as ledger:
        return sum(attempt(ledger) for _ in range(attempts))


async def tasks(url, attempts):
    async def one(ledger):
        try:
            await ledger.reserve(BOUND, ["user:a"])
        except BudgetExceededError:
            return 0
        return 1

    async with AsyncLedger.open(url) as ledger:
        return sum(await asyncio.gather(*(one(ledger) for _ in range(attempts))))


def budgeted(url, calls):
    ledger = Ledger.open(url)
    ledger.set_budget(Budget("global", NanoUSD(calls * BOUND)))
    return ledger


def test_fifty_threads_get_five_through(shared_url):
    with budgeted(shared_url, 5) as ledger, ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(lambda _: attempt(ledger), range(50))) == 5
        audit(ledger._backend.read(None), list(ledger.rows()))


def test_fifty_tasks_get_five_through(shared_url):
    with budgeted(shared_url, 5) as ledger:
        assert asyncio.run(tasks(shared_url, 50)) == 5
        audit(ledger._backend.read(None), list(ledger.rows()))


def test_eight_processes_and_tasks_and_threads_together_get_five_through(shared_url):
    with budgeted(shared_url, 5) as ledger, ProcessPoolExecutor(8, mp_context=fork) as pool:
        started = [pool.submit(process, shared_url, 10) for _ in range(8)]
        sent = []
        threads = [threading.Thread(target=lambda: sent.append(attempt(ledger))) for _ in range(10)]
        for thread in threads:
            thread.start()
        through = asyncio.run(tasks(shared_url, 20))
        for thread in threads:
            thread.join()
        assert through + sum(sent) + sum(future.result() for future in started) == 5
        audit(ledger._backend.read(None), list(ledger.rows()))


def test_budgets_that_are_amended_while_writers_never_rest_count_all_that_is_booked(shared_url):
    stop, errors = threading.Event(), []

    def work(ledger, name):
        try:
            while not stop.is_set():
                ledger.settle(ledger.reserve(BOUND, [f"user:{name}"]).id, NanoUSD(900))
        except Exception as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    with Ledger.open(shared_url) as ledger, Ledger.open(shared_url) as other:
        busy = [threading.Thread(target=work, args=(ledger, name)) for name in range(4)]
        for thread in busy:
            thread.start()
        for number in range(9):
            other.set_budget(Budget("user:*", "5", ("day", "3600s", "month")[number % 3]))
            if number % 4 == 3:
                other.remove_budget("user:*", "day")
        stop.set()
        for thread in busy:
            thread.join()
        assert not errors
        assert ledger.balance("global").settled_nanousd
        audit(ledger._backend.read(None), list(ledger.rows()))


@pytest.mark.parametrize("url", ["memory://utilisation", None], ids=["memory", "shared"])
def test_a_contended_budget_is_used_to_its_last_part_and_never_passed(url, request):
    """Reservations of at most 0.1 % of the limit, actual costs at random, until refused."""
    url = url or request.getfixturevalue("shared_url_once")
    limit = 500 * BOUND

    def spend(seed):
        chance = random.Random(seed)
        with Ledger.open(url) as ledger:
            refusals = 0
            while refusals < 3:
                bound = chance.randrange(1, limit // 1000 + 1)
                try:
                    held = ledger.reserve(NanoUSD(bound), [f"user:{seed}"])
                except BudgetExceededError:
                    refusals += 1
                    continue
                ledger.settle(held.id, NanoUSD(chance.randrange(bound // 2, bound + 1)))

    with budgeted(url, 500) as ledger:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(spend, range(16)))
        spent = ledger.balance("global").settled_nanousd / limit
        print(f"\nutilisation of a contended budget: {spent:.4%}")
        assert 0.995 <= spent <= 1
        audit(ledger._backend.read(None), list(ledger.rows()))


@pytest.fixture
def shared_url_once(tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_work_keeps_both_sides_right(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = Ledger.open(url)
    ledger.set_budget(Budget("global", "1"))
    stop = threading.Event()

    def work():
        while not stop.is_set():
            ledger.settle(ledger.reserve(BOUND, ["user:parent"]).id, BOUND)

    busy = [threading.Thread(target=work) for _ in range(4)]
    for thread in busy:
        thread.start()
    children = [fork.Process(target=_child, args=(ledger,)) for _ in range(6)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=300)
    stop.set()
    for thread in busy:
        thread.join()
    assert [child.exitcode for child in children] == [0] * 6
    assert ledger.balance("user:child").settled_nanousd == 6 * 20 * BOUND
    audit(ledger._backend.read(None), list(ledger.rows()))
    ledger.close()


def _child(ledger):
    for _ in range(20):
        ledger.settle(ledger.reserve(BOUND, ["user:child"]).id, BOUND)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_while_rows_are_read_keeps_both_sides_right(tmp_path):
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db", durability="normal")
    for _ in range(1_200):
        ledger.book(BOUND)
    reading = ledger.rows()
    seen = [next(reading)]
    child = fork.Process(target=_child_that_reads, args=(ledger, reading))
    child.start()
    seen += [next(reading) for _ in range(600)]
    child.join(timeout=300)
    assert child.exitcode == 0
    seen += reading
    assert [row.seq for row in seen] == list(range(1, 1_201)), "of one moment: the child's row came later"
    assert ledger.balance("global").settled_nanousd == 1_201 * BOUND
    audit(ledger._backend.read(None), list(ledger.rows()))
    ledger.close()


def _child_that_reads(ledger, reading):
    reading.close()  # its parent reads on
    ledger.book(BOUND)
    assert sum(1 for _ in ledger.rows()) == 1_201
    ledger.close()
