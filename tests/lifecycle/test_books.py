"""Scopes, thresholds, the journal, and a ledger that does not answer."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import threading

import pytest

from llm_cost_middleware import BudgetExceededError, cost_context
from llm_cost_middleware.budget.backends.sqlite import group_commit
from llm_cost_middleware.budget.backends.sqlite.journal import SQLiteJournal
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.errors import LedgerUnavailableError
from llm_cost_middleware.routing.decision_log import DecisionLog
from llm_cost_middleware.simulator import Fault


def _said(**said):
    return {"extra_body": {"llm_cost": said}}


# --- scopes ----------------------------------------------------------------------------------------------------------


def test_a_call_is_booked_in_every_scope_it_belongs_to(house):
    house.ask("openai", **_said(user="42", team="a", tags=["night"], site="faq"))
    cost = house.sim.bill.total_nanousd
    booked = {standing.scope: standing.balance.settled_nanousd for standing in house.pipeline.ledger.balances()}
    assert booked == dict.fromkeys(
        ("global", "user:42", "team:a", "tag:night", "site:faq", "provider:openai", "model:gpt-5-mini"), cost
    )
    house.check()


def test_one_scope_without_room_refuses_all_and_is_named(houses):
    house = houses(
        budgets=[{"scope": "global", "limit": "100"}, {"scope": "team:a", "limit": "0.0000001"}],
        output={"on_insufficient": ["raise"]},
    )
    with pytest.raises(BudgetExceededError) as caught:
        house.ask("openai", **_said(user="42", team="a"))
    assert caught.value.scope == "team:a"
    booked = house.pipeline.ledger.balances()
    assert all(standing.balance.settled_nanousd == standing.balance.pending_nanousd == 0 for standing in booked)
    house.ask("openai", **_said(user="42", team="b"))
    house.check()


def test_a_template_gives_each_name_a_budget_of_its_own(houses):
    house = houses(budgets=[{"scope": "user:*", "limit": "0.0005"}], output={"on_insufficient": ["raise"]})
    spent = {"alice": 0, "bob": 0}
    for name in spent:
        with cost_context(user=name), pytest.raises(BudgetExceededError) as caught:
            for _ in range(10):
                house.ask("openai")
                spent[name] += 1
        assert caught.value.scope == f"user:{name}"
    assert spent["alice"] == spent["bob"] > 0
    house.check()


def test_a_model_may_have_a_budget(houses):
    house = houses(budgets=[{"scope": "model:gpt-5-mini", "limit": "0.0000001"}], output={"on_insufficient": ["raise"]})
    with pytest.raises(BudgetExceededError, match="gpt-5-mini"):
        house.ask("openai")
    house.ask("anthropic")
    house.check()


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_a_soft_threshold_is_told_once_a_window(houses):
    house = houses(budgets=[{"scope": "global", "limit": "0.001", "window": "day", "warn_at": 0.3}])
    for _ in range(5):
        house.ask("openai")
    (crossed,) = house.told("ThresholdCrossed")
    assert (crossed.scope, crossed.window) == ("global", "day")
    house.clock.advance(86_400)
    for _ in range(5):
        house.ask("openai")
    assert len(house.told("ThresholdCrossed")) == 2


def test_a_stop_at_a_cap_that_nobody_asked_for_is_told_and_one_that_was_asked_for_is_not(houses):
    house = houses(output={"default_max_tokens": 40})
    house.call(max_tokens=None, providers=["openai"])
    (capped,) = house.told("OutputCapReached")
    assert (capped.model, capped.max_tokens) == ("openai/gpt-5-mini", 40)
    house.call(max_tokens=40, providers=["openai"])
    assert len(house.told("OutputCapReached")) == 1
    house.check()


# --- the journal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite-sync", "sqlite-async"])
def test_decisions_outcomes_and_settlements_are_joined_by_their_call(houses):
    house = houses(retry={"fallback": False})
    house.sim.script(Fault.reset(billed=True))
    answer = house.call(max_tokens=64)
    house.pipeline.feedback(answer.call_id, 0.9)
    (logged,) = DecisionLog(house.pipeline.ledger.journal).read()
    assert logged.decision == answer.decision == house.pipeline.decisions()[0]
    assert logged.quality == 0.9
    assert logged.settlement.cost_nanousd == house.balance.settled_nanousd  # both attempts
    assert logged.settlement.output_tokens == 64
    house.check()


def test_decisions_are_remembered_without_a_journal_too(house):
    answer = house.call(max_tokens=64)
    assert house.pipeline.decisions() == (answer.decision,)


def test_a_refused_call_leaves_its_decision(houses):
    house = houses(budgets=[{"scope": "global", "limit": "0.0000001"}])
    with pytest.raises(BudgetExceededError):
        house.call(max_tokens=64)
    (decision,) = house.pipeline.decisions()
    assert decision.call_id == "call1"


@pytest.mark.parametrize("kind", ["sqlite-async"])
def test_nothing_that_blocks_runs_on_the_event_loop(houses, monkeypatch):
    """Neither money nor journal, nor what a dropped stream left behind."""
    threads = {"verb": set(), "mark": set()}
    write, append = LedgerFile.write, SQLiteJournal.append

    def spied_write(self, step):
        threads["verb"].add(threading.get_ident())
        return write(self, step)

    def spied_append(self, *args):
        threads["mark"].add(threading.get_ident())
        return append(self, *args)

    house = houses()

    async def calls():
        monkeypatch.setattr(LedgerFile, "write", spied_write)
        monkeypatch.setattr(SQLiteJournal, "append", spied_append)
        client = house.face.client("openai", house.pipeline)
        create = client.chat.completions.create
        await create(**house.body("openai"))
        stream = await create(stream=True, **house.body("openai"))
        await anext(stream)
        del stream
        house.sim.script(Fault.status(500))
        async for _ in await create(stream=True, **house.body("openai")):
            pass
        with pytest.raises(BudgetExceededError):
            await create(**house.body("openai"), **_said(max_cost="0.0000001"))
        monkeypatch.undo()
        return threading.get_ident()

    loop_thread = house.face.run(None, calls)
    assert threads["verb"]
    assert threads["mark"]
    assert loop_thread not in threads["verb"] | threads["mark"]
    assert house.resolutions == ("exact", "estimated", "void", "exact")
    house.check()


@pytest.mark.parametrize("kind", ["sqlite-sync", "sqlite-async"])
def test_a_journal_that_fails_costs_nobody_an_answer(houses, monkeypatch, caplog):
    def full(*_):
        raise LedgerUnavailableError("sqlite", "disk full")

    monkeypatch.setattr(SQLiteJournal, "append", full)
    house = houses()
    assert house.ask("openai").choices
    assert "was not logged" in caplog.text
    house.check()


# --- a ledger that does not answer -----------------------------------------------------------------------------------


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """Somebody else holds the file's turn and does not give it back. Only meanwhile are callers impatient."""

    class Lock:
        def __enter__(self):
            monkeypatch.setattr(group_commit, "PATIENCE_S", 0.2)
            self._file = (tmp_path / "ledger.db-queue").open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)

        def __exit__(self, *_):
            monkeypatch.undo()
            self._file.close()

    return Lock()


sqlite = pytest.mark.parametrize("kind", ["sqlite-sync", "sqlite-async"])


@sqlite
def test_without_a_ledger_nothing_is_sent(house, locked):
    house.ask("openai")
    with locked, pytest.raises(LedgerUnavailableError):
        house.ask("openai")
    assert len(house.sim.requests) == 1
    house.ask("openai")
    house.check()


@sqlite
@pytest.mark.parametrize("config", [{"ledger": {"on_unavailable": "allow"}}, {"mode": "observe"}])
def test_where_it_is_allowed_calls_go_on_without_a_ledger(houses, locked, config, caplog):
    house = houses(**config)
    with locked:
        assert house.ask("openai").choices
    assert "sent without a reservation" in caplog.text
    assert len(house.sim.requests) == 1
    assert house.pipeline.records()[0].cost_nanousd == house.sim.bill.total_nanousd
    house.ask("openai")
    assert house.balance.pending_nanousd == 0


@sqlite
def test_a_ledger_that_goes_away_during_the_call_costs_nobody_the_answer(houses, locked, caplog):
    """The reservation expires and is charged."""
    house = houses(ledger={"hold_ttl_s": 100})
    entered = []

    def lock(request):
        from llm_cost_middleware.simulator import fill

        entered.append(locked.__enter__())
        return fill(request)

    house.ask("anthropic")
    before = house.balance.settled_nanousd
    house.sim.responder = lock
    assert house.ask("openai").choices
    locked.__exit__()
    assert "settle failed" in caplog.text
    house.clock.advance(101)
    assert house.pipeline.ledger.sweep() == 1
    record = house.pipeline.records()[-1]
    assert house.balance.settled_nanousd - before == record.reserved_nanousd > record.cost_nanousd
    assert house.balance.pending_nanousd == 0


def test_asynchronous_calls_of_many_loops_share_one_ledger(houses, kind):
    """A pipeline outlives its loops."""
    house = houses()
    if not kind.endswith("async"):
        pytest.skip("loops are the asynchronous face's")
    import openai

    from llm_cost_middleware.integrations.openai import wrap_openai

    async def once():
        async with openai.AsyncOpenAI(base_url=house.sim.openai_url, api_key="k") as client:
            await wrap_openai(client, house.pipeline).chat.completions.create(**house.body("openai"))

    for _ in range(3):
        asyncio.run(once())
    assert house.resolutions == ("exact",) * 3
    house.check()


def test_an_observer_that_fails_is_logged_and_harms_nobody(houses, caplog):
    house = houses()

    class Broken:
        def on_event(self, event):
            raise RuntimeError("no")

    house.pipeline._stages.record.observers += (Broken(),)
    with caplog.at_level(logging.ERROR):
        house.ask("openai")
    assert "observer" in caplog.text
    house.check()
