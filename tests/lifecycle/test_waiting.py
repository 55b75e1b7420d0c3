"""``max_wait_for_budget_s``: where pending money stands in the way a call waits, first come first served."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from llm_cost_middleware import BudgetExceededError, ConfigurationError, CostConfig, CostPipeline
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.lifecycle.waiting import WaitingCalls
from llm_cost_middleware.simulator import Answer

BODY = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello there"}], "max_completion_tokens": 200}
ONE = 0.000_42
"""A little more than one such call holds, in US dollars."""


class Told:
    def __init__(self):
        self.events = []

    def on_event(self, event):
        self.events.append(event)

    def waits(self):
        return [event for event in self.events if type(event).__name__ == "WaitingForBudget"]


def _pipeline(limit, wait, told=None, url="memory://", **output):
    output = {"on_insufficient": ["raise"], "max_wait_for_budget_s": wait, **output}
    return CostPipeline(
        CostConfig(budgets=[{"scope": "global", "limit": f"{limit:.9f}"}], output=output, ledger={"url": url}),
        observers=[told or Told()],
    )


async def _burst(client, count):
    return await asyncio.gather(*(client.chat.completions.create(**BODY) for _ in range(count)), return_exceptions=True)


def _fire(pipeline, async_caller, count):
    client = wrap_openai(async_caller.plain("openai"), pipeline)
    return async_caller.run(None, lambda: _burst(client, count))


def _refused(answers):
    assert all(isinstance(answer, BudgetExceededError) for answer in answers if isinstance(answer, Exception)), answers
    return sum(isinstance(answer, Exception) for answer in answers)


def test_without_waiting_a_burst_is_refused_what_a_sequence_gets(sim, async_caller):
    sim.latency_s = 0.1
    with _pipeline(1.5 * ONE, 0) as pipeline:
        assert _refused(_fire(pipeline, async_caller, 3)) == 2


@pytest.mark.parametrize("url", ["memory://", "sqlite"])
def test_tasks_wait_for_what_is_pending_and_the_rest_is_refused_when_the_money_is_spent(
    sim, async_caller, url, tmp_path
):
    """Answers fill their caps: money for five calls, held for three at a time by slow ones."""
    sim.latency_s, told = 0.1, Told()
    url = f"sqlite:///{tmp_path}/ledger.db" if url == "sqlite" else url
    with _pipeline(5.2 * ONE, 20, told, url) as pipeline:
        answers = _fire(pipeline, async_caller, 12)
        assert _refused(answers) == 7
        balance = pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd == sim.bill.total_nanousd <= balance.limit_nanousd


def test_undeclared_answers_wait_for_the_caps_that_others_hold(sim, async_caller):
    """Each holds far more than it uses: in a burst one is sent, and the others after it, in the order they came."""
    sim.latency_s, sim.responder = 0.05, (lambda _: Answer("brief", output_tokens=20))
    body = {name: value for name, value in BODY.items() if name != "max_completion_tokens"}
    told = Told()
    with _pipeline(0.01, 20, told) as pipeline:  # the default cap holds 0.016

        async def burst():
            client = wrap_openai(async_caller.plain("openai"), pipeline)
            return await asyncio.gather(*(client.chat.completions.create(**body) for _ in range(6)))

        with pytest.raises(BudgetExceededError):  # alone it does not fit, and nothing is pending
            async_caller.run(None, burst)
    with _pipeline(0.01, 20, told, on_insufficient=["cap_output", "raise"]) as pipeline:
        assert len(async_caller.run(None, burst)) == 6
    waits = told.waits()
    assert {event.scope for event in waits} == {"global"}
    assert [event.ahead for event in waits] == list(range(len(waits)))


def test_threads_get_their_money_in_the_order_they_came(sim, sync_clients):
    with _pipeline(4.5 * ONE, 200) as pipeline:
        hold = pipeline.ledger.reserve(f"{4.4 * ONE:.9f}")
        client = wrap_openai(sync_clients["openai"], pipeline)
        threads = []
        for number in range(4):
            said = {"llm_cost": {"tags": [f"n{number}"]}}
            threads.append(threading.Thread(target=client.chat.completions.create, kwargs={**BODY, "extra": said}))
            threads[-1].start()
            _until(lambda number=number: _length(pipeline) == number + 1)
        pipeline.ledger.void(hold.id)
        for thread in threads:
            thread.join(120)
        rows = [row.scopes for row in pipeline.ledger.rows() if row.kind == "reserve"][1:]
    tags = [scope for scopes in rows for scope in scopes if scope.startswith("tag:")]
    assert tags == ["tag:n0", "tag:n1", "tag:n2", "tag:n3"]


def _length(pipeline):
    return sum(len(line) for line in pipeline._stages.waiting._lines.values())


def _until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_nobody_overtakes_a_call_that_waits(sim, async_caller):
    """A small call that would fit joins the line behind a large one."""
    with _pipeline(10 * ONE, 30) as pipeline:
        hold = pipeline.ledger.reserve(f"{8 * ONE:.9f}")
        client = wrap_openai(async_caller.plain("openai"), pipeline)
        done = []

        async def call(name, cap):
            await client.chat.completions.create(**{**BODY, "max_completion_tokens": cap})
            done.append(name)

        async def both():
            large = asyncio.create_task(call("large", 1_600))
            while not pipeline._stages.waiting._lines:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            small = asyncio.create_task(call("small", 100))
            await asyncio.sleep(0.3)
            assert not done
            pipeline.ledger.void(hold.id)
            await asyncio.gather(large, small)

        async_caller.run(None, both)
    assert sorted(done) == ["large", "small"]


def test_waiting_ends_with_the_refusal_when_its_time_is_over(sim, async_caller):
    told = Told()
    with _pipeline(1.5 * ONE, 0.4, told) as pipeline:
        pipeline.ledger.reserve(f"{1.2 * ONE:.9f}")
        began = time.monotonic()
        assert _refused(_fire(pipeline, async_caller, 2)) == 2
        assert 0.35 < time.monotonic() - began < 10
        assert not pipeline._stages.waiting._lines
    assert len(told.waits()) == 2
    assert not sim.requests


def test_no_call_waits_for_money_that_is_spent_or_that_would_not_be_enough(sim, async_caller):
    told = Told()
    with _pipeline(1.5 * ONE, 60, told) as pipeline:
        pipeline.ledger.book(f"{1.2 * ONE:.9f}")
        assert _refused(_fire(pipeline, async_caller, 1)) == 1
    with _pipeline(0.5 * ONE, 60, told) as pipeline:
        pipeline.ledger.reserve(f"{0.1 * ONE:.9f}")
        assert _refused(_fire(pipeline, async_caller, 1)) == 1
    assert not told.waits()


def test_a_task_that_is_cancelled_leaves_the_line_and_holds_nothing(sim, async_caller):
    with _pipeline(1.5 * ONE, 60) as pipeline:
        hold = pipeline.ledger.reserve(f"{1.2 * ONE:.9f}")
        client = wrap_openai(async_caller.plain("openai"), pipeline)

        async def cancel_one():
            first, second = (asyncio.create_task(client.chat.completions.create(**BODY)) for _ in range(2))
            while _length(pipeline) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert _length(pipeline) == 1
            pipeline.ledger.void(hold.id)
            await second

        async_caller.run(None, cancel_one)
        assert not pipeline._stages.waiting._lines
        assert pipeline.ledger.balance("global").pending_nanousd == 0


def test_a_call_hears_of_money_that_another_process_gave_back(sim, async_caller, tmp_path):
    """Nobody tells it: it looks again. Another ledger on the same file stands for the other process."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    with _pipeline(1.5 * ONE, 20, url=url) as pipeline, Ledger.open(url) as other:
        hold = other.reserve(f"{1.2 * ONE:.9f}")
        threading.Timer(0.4, other.void, (hold.id,)).start()
        assert _refused(_fire(pipeline, async_caller, 1)) == 0


def test_an_observer_never_waits(sim, async_caller):
    config = CostConfig(
        mode="observe", budgets=[{"scope": "global", "limit": "0.0001"}], output={"max_wait_for_budget_s": 60}
    )
    told = Told()
    with CostPipeline(config, observers=[told]) as pipeline:
        pipeline.ledger.reserve("0.0001")
        assert _refused(_fire(pipeline, async_caller, 1)) == 0
    assert not told.waits()


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "soon"])
def test_the_time_to_wait_is_a_number_of_seconds(wrong):
    with pytest.raises(ConfigurationError, match="max_wait_for_budget_s"):
        CostConfig(output={"max_wait_for_budget_s": wrong})


def test_a_ticket_that_leaves_wakes_the_next():
    waiting = WaitingCalls()
    first, second = waiting.join("global"), waiting.join("global")
    assert (waiting.ahead_of(first), waiting.ahead_of(second)) == (0, 1)
    assert waiting.line_of(("user:1", "global")) == "global"
    waiting.leave(first)
    assert second.wait(5)
    waiting.leave(first)
    waiting.leave(second)
    assert waiting.line_of(("global",)) is None


# --- what a refusal says ----------------------------------------------------------------------------------------------


def test_a_refusal_says_what_would_fit_and_when_money_may_return(sim, async_caller):
    with _pipeline(2 * ONE, 0) as pipeline:
        _fire(pipeline, async_caller, 1)  # so that it is known how long a call takes
        pipeline.ledger.reserve(f"{0.6 * ONE:.9f}")
        (refusal,) = _fire(pipeline, async_caller, 1)
    assert isinstance(refusal, BudgetExceededError)
    assert 0 < refusal.max_tokens < 200
    assert refusal.pending_for_s > 0
    told = str(refusal)
    assert f"(max_tokens={refusal.max_tokens})" in told
    assert "reserved by calls in flight, which lately took" in told
    assert all(len(figure.split(".")[1].rstrip(",")) <= 7 for figure in told.split() if figure.startswith("$"))


def test_the_cap_that_a_refusal_names_fits(sim, async_caller):
    with _pipeline(2 * ONE, 0) as pipeline:
        pipeline.ledger.reserve(f"{1.4 * ONE:.9f}")
        (refusal,) = _fire(pipeline, async_caller, 1)
        client = wrap_openai(async_caller.plain("openai"), pipeline)
        body = {**BODY, "max_completion_tokens": refusal.max_tokens}
        async_caller.run(None, lambda: client.chat.completions.create(**body))


def test_a_call_waits_for_money_that_was_taken_after_it_was_refused(sim, async_caller, tmp_path, monkeypatch):
    """It was refused while nothing was pending, and somebody else's cap takes all that is left before its own does."""
    from llm_cost_middleware.budget.ledger import AsyncLedger

    with _pipeline(
        0.01, 30, url=f"sqlite:///{tmp_path}/ledger.db", on_insufficient=["cap_output", "raise"]
    ) as pipeline:
        available, taken = AsyncLedger.available, []

        async def slower(self, scopes=()):
            if not taken:
                taken.append(pipeline._runtimes.ledger.reserve("0.0099"))
                threading.Timer(0.5, pipeline._runtimes.ledger.void, (taken[0].id,)).start()
            return await available(self, scopes)

        monkeypatch.setattr(AsyncLedger, "available", slower)
        body = {name: value for name, value in BODY.items() if name != "max_completion_tokens"}
        client = wrap_openai(async_caller.plain("openai"), pipeline)
        async_caller.run(None, lambda: client.chat.completions.create(**body))
        assert taken
    assert sim.request_count == 1
