"""A call that is refused has the loose holds of its own process reduced, and then fits; nobody else pays for that."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.pricing.tokenizer import warm_up
from llm_cost_middleware.request import CallRequest, Message, ModelRef, Part
from llm_cost_middleware.simulator import CountingRules, Fault
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

LONG = "The shipment left the harbour on Tuesday and nobody has heard of it since. " * 300
COUNT = "/v1/messages/count_tokens"
CLAUDE = "claude-haiku-4-5-20251001"


def _request(text, max_tokens, user="a", model="gpt-5-mini"):
    messages = (Message("user", (Part("text", text),)),)
    request = CallRequest("openai", model, messages, endpoint="chat.completions", max_tokens=max_tokens)
    return request._replace(context=request.context._replace(scopes=(f"user:{user}",)))


def _most(request):
    """What a request holds by its bytes."""
    with CostPipeline(CostConfig(), clock=FakeClock()) as pipeline:
        flow = pipeline._flow
        call = flow.route(request._replace(model_pinned=True), None)
        return flow.stages.price.quote(call, ModelRef(request.provider, request.model), {}).amount_nanousd


def _pipeline(limit_nanousd, url="memory://", **more):
    assert warm_up("o200k_base")
    budgets = [{"scope": "global", "limit": f"{limit_nanousd / 10**9:.9f}"}, *more.pop("others", ())]
    config = {"ledger": {"url": url}, "output": {"on_insufficient": ["raise"]}, **more}
    return CostPipeline(CostConfig(budgets=budgets, **config), clock=FakeClock())


def _kinds(pipeline):
    return [row.kind for row in pipeline.ledger.rows()]


@pytest.fixture(params=["memory://", "sqlite"])
def storage(request, tmp_path):
    return f"sqlite:///{tmp_path}/ledger.db" if request.param == "sqlite" else request.param


HELD = _request(LONG, 50)
PER_TOKEN = 2_000


def _large(limit, loose):
    """A short call that leaves half of a loose hold free."""
    return _request("hello there", (limit - loose // 2) // PER_TOKEN - 100)


def test_a_refused_call_has_loose_holds_counted(storage):
    loose = _most(HELD)
    limit = 101 * loose
    with _pipeline(limit, storage) as pipeline:
        first = pipeline.authorize(HELD)
        assert pipeline.ledger.balance("global").pending_nanousd == loose, "money was ample"
        second = pipeline.authorize(_large(limit, loose))
        pending = pipeline.ledger.balance("global").pending_nanousd
        assert _kinds(pipeline) == ["reserve", "reduce", "reserve"]
        assert pending <= limit
        reading = UsageReport((BilledItem(TokenUsage(uncached_input=4_505, output=50)),), "gpt-5-mini", complete=True)
        first.settle(reading)
        second.settle(reading)
        assert pipeline.ledger.balance("global").pending_nanousd == 0


def test_as_many_are_reduced_as_are_needed(storage):
    loose = _most(HELD)
    limit = 103 * loose
    with _pipeline(limit, storage) as pipeline:
        held = [pipeline.authorize(HELD) for _ in range(3)]
        pipeline.authorize(_large(limit, 5 * loose))
        assert len(held) == 3
        assert _kinds(pipeline).count("reduce") == 1


def test_holds_of_other_budgets_are_left_alone(storage):
    loose = _most(HELD)
    limit = 101 * loose
    cap = {"scope": "user:b", "limit": f"{limit / 10**9:.9f}"}
    with _pipeline(10**12, storage, others=[cap]) as pipeline:
        held = pipeline.authorize(HELD)
        pipeline.authorize(_large(limit, loose)._replace(context=_request("", 1, "b").context))
        with pytest.raises(BudgetExceededError):
            pipeline.authorize(_large(limit, loose)._replace(context=_request("", 1, "b").context))
        assert "reduce" not in _kinds(pipeline)
        assert len(pipeline._flow._holds.loose("global")) == 1, held


def test_nothing_is_reduced_where_it_would_not_help_or_nobody_is_refused(storage):
    loose = _most(HELD)
    limit = 101 * loose
    with _pipeline(limit, storage) as pipeline:
        held = [pipeline.authorize(HELD) for _ in range(2)]
        with pytest.raises(BudgetExceededError):
            pipeline.authorize(_request("hello", (limit + loose) // PER_TOKEN))
        assert _kinds(pipeline) == ["reserve"] * len(held)


def test_what_cannot_be_confirmed_is_booked_at_what_was_held_last(storage):
    loose = _most(HELD)
    limit = 101 * loose
    with _pipeline(limit, storage) as pipeline:
        first = pipeline.authorize(HELD)
        pipeline.authorize(_large(limit, loose))
        (reduced,) = [row for row in pipeline.ledger.rows() if row.kind == "reduce"]
        first.fail(TimeoutError("no answer"))
        (settled,) = [row for row in pipeline.ledger.rows() if row.kind == "settle"]
        assert (settled.amount_nanousd, settled.status) == (reduced.amount_nanousd, "unconfirmed")
        assert not pipeline._flow._holds.loose("global")


def test_an_observer_reduces_nothing(storage):
    loose = _most(HELD)
    with _pipeline(101 * loose, storage, mode="observe") as pipeline:
        held = pipeline.authorize(HELD)
        pipeline.authorize(_large(101 * loose, loose))
        assert held.attempt.max_tokens == 50
        assert "reduce" not in _kinds(pipeline)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_leaves_the_holds_of_its_parent_alone():
    with _pipeline(10**12) as pipeline:
        held = pipeline.authorize(HELD)
        child = os.fork()
        if child == 0:
            os._exit(len(pipeline._flow._holds.loose("global")))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [one.id for one in pipeline._flow._holds.loose("global")] == [f"{held.attempt.call_id}.1"]


# --- Claude: streams, and counts of the provider ---------------------------------------------------------------------

MESSAGES = [{"role": "user", "content": LONG[:4_500]}]
HOLD = 9_200 * 1_250 + 64 * 5_000
"""A little more than such a call holds by its bytes, nano-dollars."""


def _leaves(limit):
    """The output cap of a call that leaves less than a byte bound, and more than the true input."""
    return (limit - HOLD // 2) // 5_000


def _ask(harness, **more):
    return harness.ask("anthropic", **more)


def test_a_running_stream_reduces_its_hold_once_somebody_was_refused(make_harness, sim):
    sim.counting = CountingRules()
    limit = 9 * HOLD
    harness = make_harness(
        budgets=[{"scope": "global", "limit": f"{limit / 10**9:.9f}"}], output={"on_insufficient": ["raise"]}
    )
    sim.script(Fault.status(404), times=99, match=lambda request: request.path == COUNT)

    class Leave:
        def sync(self, stream):
            events = iter(stream)
            next(events)
            with pytest.raises(BudgetExceededError):
                _ask(harness, max_tokens=_leaves(limit))
            next(events)
            _ask(harness, max_tokens=_leaves(limit))
            list(events)

        async def asynchronous(self, stream):
            events = aiter(stream)
            await anext(events)
            client = harness.caller.client("anthropic", harness.pipeline)
            body = harness.body("anthropic", max_tokens=_leaves(limit))
            with pytest.raises(BudgetExceededError):
                await client.messages.create(**body)
            await anext(events)
            await client.messages.create(**body)
            async for _ in events:
                pass

    harness.stream("anthropic", Leave(), messages=MESSAGES)
    rows = list(harness.pipeline.ledger.rows())
    assert [row.kind for row in rows].count("reduce") == 1
    reduced, held = (next(row for row in rows if row.kind == kind) for kind in ("reduce", "reserve"))
    assert reduced.id == held.id
    billed = next(row for row in rows if row.kind == "settle" and row.id == held.id)
    assert billed.amount_nanousd <= reduced.amount_nanousd < held.amount_nanousd / 2
    assert harness.balance.settled_nanousd == sim.bill.total_nanousd


def test_an_ordinary_stream_reduces_nothing(make_harness):
    harness = make_harness()

    class Leave:
        def sync(self, stream):
            list(stream)

        async def asynchronous(self, stream):
            async for _ in stream:
                pass

    harness.stream("anthropic", Leave(), messages=MESSAGES)
    assert [row.kind for row in harness.pipeline.ledger.rows()] == ["reserve", "settle"]


def test_open_holds_of_claude_are_counted_by_the_provider(sim, async_caller):
    sim.counting, sim.latency_s = CountingRules(), 0.3
    limit = 9 * HOLD
    config = CostConfig(
        budgets=[{"scope": "global", "limit": f"{limit / 10**9:.9f}"}], output={"on_insufficient": ["raise"]}
    )
    with CostPipeline(config) as pipeline:

        async def go():
            client = wrap_anthropic(async_caller.plain("anthropic"), pipeline)
            first = asyncio.create_task(client.messages.create(model=CLAUDE, max_tokens=64, messages=MESSAGES))
            until = time.monotonic() + 5
            while not list(pipeline.ledger.rows()) and time.monotonic() < until:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)
            hello = [{"role": "user", "content": "hello"}]
            await client.messages.create(model=CLAUDE, max_tokens=_leaves(limit), messages=hello)
            await first

        async_caller.run(None, go)
        assert _kinds(pipeline).count("reduce") == 1
        assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
