"""Slices of a pipeline: what a block may spend of what is left, whoever calls in it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from plain_call import BOTH, COST, answer, request

from llm_cost_middleware import BudgetExceededError, CostPipeline, cost_context
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.context import current_context as current
from llm_cost_middleware.context import export
from llm_cost_middleware.errors import ConfigurationError, InvalidAmountError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/l.db"


def opened(url, limit="0.01", **sections):
    sections.setdefault("output", {"on_insufficient": ["raise"]})
    return CostPipeline({"ledger": {"url": url}, "budgets": [{"scope": "run:*", "limit": limit}], **sections})


def ask(pipe, count=1):
    """How many of some calls were sent."""
    sent = 0
    for _ in range(count):
        try:
            pipe.run(request()._replace(max_tokens=100, context=current()), lambda _: answer(), providers=BOTH)
        except BudgetExceededError:
            continue
        sent += 1
    return sent


def test_a_block_spends_from_its_slice_and_gives_back_the_rest(url):
    with opened(url) as pipe, cost_context(run="r", user="u"):
        with pipe.slice("0.004", name="researcher") as part:
            assert ask(pipe, 3) == 3
            assert (part.spent, part.limit) == (NanoUSD(3 * COST).usd, NanoUSD(4_000_000).usd)
            assert part.left == part.limit - part.spent
            assert int(pipe.ledger.balance("run:r").pending_nanousd) == 4_000_000 - 3 * COST
        assert ask(pipe) == 1
        balance = pipe.ledger.balance("run:r")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (4 * COST, 0)
        assert {scope.partition(":")[0] for row in pipe.ledger.rows() for scope in row.scopes} >= {
            "slice",
            "run",
            "user",
        }


def test_children_that_run_at_once_never_sum_above_their_parent(url):
    """Threads, each with a slice of its own, and calls of the parent beside them."""

    def child(pipe):
        try:
            with pipe.slice("0.003", name="child"):
                return ask(pipe, 40)
        except BudgetExceededError:
            return 0

    with opened(url, "0.01") as pipe, cost_context(run="r"), ThreadPoolExecutor(8) as pool:
        work = [pool.submit(copy_context().run, child, pipe) for _ in range(6)]
        work += [pool.submit(copy_context().run, ask, pipe, 20) for _ in range(2)]
        sent = sum(one.result() for one in work)
        balance = pipe.ledger.balance("run:r")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (sent * COST, 0)
        assert balance.settled_nanousd <= 10_000_000
        assert sent >= 60


async def test_a_slice_on_an_event_loop_and_in_its_tasks(url):
    async def one(pipe):
        async def send(_):
            await asyncio.sleep(0)
            return answer()

        await pipe.arun(request()._replace(max_tokens=100, context=current()), send, providers=BOTH)

    async with opened(url) as pipe:
        with cost_context(run="r"):
            async with pipe.slice("0.004") as part, pipe.slice("0.002") as inner:
                done = await asyncio.gather(*(one(pipe) for _ in range(10)), return_exceptions=True)
                assert {type(one) for one in done} <= {type(None), BudgetExceededError}
                assert 0 < inner.spent == part.spent <= inner.limit
            assert pipe.ledger.balance("run:r").pending == 0


@pytest.mark.parametrize("rest_s", [0, 0.002, 0.05])
async def test_a_task_that_is_cancelled_while_its_slice_is_set_aside_gives_it_back(tmp_path, rest_s):
    """Before the thread began, while it is at it, and when it is done but the task was not woken yet."""

    async def child(pipe):
        async with pipe.slice("0.004"):
            await asyncio.Event().wait()

    async with opened(f"sqlite:///{tmp_path}/l.db") as pipe:
        with cost_context(run="r"), ThreadPoolExecutor(4) as threads:
            asyncio.get_running_loop().set_default_executor(threads)
            for _ in range(3):
                task = asyncio.create_task(child(pipe))
                await asyncio.sleep(0)
                time.sleep(rest_s)  # noqa: ASYNC251 - the loop must not run meanwhile
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
        assert pipe.ledger.balance("run:r").pending == 0


def test_a_slice_that_is_too_large_is_refused_and_says_what_would_fit(url):
    with opened(url) as pipe, cost_context(run="r"):
        with pytest.raises(BudgetExceededError, match="would fit") as refused, pipe.slice("0.02"):
            pass
        assert refused.value.scope == "run:r"
        with pipe.slice("0.006"):
            with pytest.raises(BudgetExceededError, match="slice:slice"), pipe.slice("0.007"):
                pass
            with pipe.slice("0.006"):
                pass
        for wrong in ("-1", "much", float("nan")):
            with pytest.raises(InvalidAmountError):
                pipe.slice(wrong)


def test_what_still_runs_when_its_slice_has_ended_is_refused(url):
    with opened(url) as pipe, cost_context(run="r"):
        with pipe.slice("0.004"):
            text = export()
        with cost_context.restore(text):
            assert ask(pipe) == 0
            with pytest.raises(BudgetExceededError, match="the slice has ended"):
                pipe.run(request()._replace(context=current()), lambda _: answer(), providers=BOTH)
        assert ask(pipe) == 1


def test_another_pipeline_spends_from_the_same_slice(tmp_path):
    url = f"sqlite:///{tmp_path}/l.db"
    with opened(url) as pipe, opened(url) as other, cost_context(run="r"), pipe.slice("0.002"):
        text = export()

        def elsewhere():
            with cost_context.restore(text):
                return ask(other, 30)

        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(elsewhere).result()
        assert 10 < sent < 16
        assert ask(pipe) == 0


def test_an_idle_slice_returns_its_rest_and_a_call_keeps_it(url):
    clock = FakeClock()
    ledger = Ledger.open(url, clock=clock)
    with opened(url) as _, CostPipeline({"budgets": [{"scope": "run:*", "limit": "0.01"}]}, ledger=ledger) as pipe:
        with cost_context(run="r"), pipe.slice("0.004", ttl="10m"):
            clock.advance(500)
            assert ask(pipe) == 1
            clock.advance(500)
            assert ask(pipe) == 1
            clock.advance(5_000)
            ledger.sweep()
            assert ledger.balance("run:r").pending == 0
            assert ask(pipe) == 0
        assert ledger.balance("run:r").settled_nanousd == 2 * COST
    ledger.close()


def test_a_call_is_capped_to_what_its_slice_has(url):
    caps = []

    def send(attempt):
        caps.append(attempt.max_tokens)
        return answer()

    with opened(url, "0.006", output={"on_insufficient": ["cap_output", "raise"]}) as pipe, cost_context(run="r"):
        with pipe.slice("0.005"):
            pipe.run(request()._replace(max_tokens=100_000, context=current()), send, providers=BOTH)
        assert pipe.ledger.balance("run:r").settled_nanousd == COST
    assert 1_500 < caps[0] < 2_500  # 2 dollars a million


def test_observing_refuses_no_slice(url):
    with opened(url, "0.000001", mode="observe") as pipe, cost_context(run="r"):
        with pipe.slice("0.004") as part:
            assert ask(pipe) == 1
            assert part.scope == ""
        assert pipe.ledger.balance("run:r").settled_nanousd == COST


def test_a_slice_is_entered_once():
    with opened("memory://") as pipe:
        part = pipe.slice("0.001")
        with part, pytest.raises(ConfigurationError, match="entered"), part:
            pass


@pytest.mark.parametrize(("limit", "name", "key"), [("0", "a", "limit"), ("1", " ", "name"), ("1", "", "name")])
def test_a_slice_of_nothing_or_without_a_name_is_refused(limit, name, key):
    with CostPipeline({"budgets": [{"scope": "global", "limit": "9"}]}) as pipe:
        with pytest.raises(ConfigurationError) as refused:
            pipe.slice(limit, name=name)
        assert refused.value.key == key
