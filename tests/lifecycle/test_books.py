"""Scopes, thresholds, the journal, and a ledger that does not answer."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import threading

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import BudgetExceededError, cost_context
from llm_cost_middleware.budget.backends.sqlite import group_commit
from llm_cost_middleware.budget.backends.sqlite.journal import SQLiteJournal
from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.errors import LedgerUnavailableError
from llm_cost_middleware.metering.refused import REFUSAL, read_refusal
from llm_cost_middleware.routing.decision_log import DecisionLog
from llm_cost_middleware.simulator import Fault


def _said(**said):
    return {"extra_body": {"llm_cost": said}}


# --- scopes ----------------------------------------------------------------------------------------------------------


def test_a_call_is_booked_in_every_scope_it_belongs_to(harness):
    harness.ask("openai", **_said(user="42", team="a", tags=["night"], site="faq"))
    cost = harness.sim.bill.total_nanousd
    booked = {standing.scope: standing.balance.settled_nanousd for standing in harness.pipeline.ledger.balances()}
    assert booked == dict.fromkeys(
        ("global", "user:42", "team:a", "tag:night", "site:faq", "provider:openai", "model:gpt-5-mini"), cost
    )
    harness.check()


def test_one_scope_without_room_refuses_all_and_is_named(make_harness):
    harness = make_harness(
        budgets=[{"scope": "global", "limit": "100"}, {"scope": "team:a", "limit": "0.0000001"}],
        output={"on_insufficient": ["raise"]},
    )
    with pytest.raises(BudgetExceededError) as caught:
        harness.ask("openai", **_said(user="42", team="a"))
    assert caught.value.scope == "team:a"
    booked = harness.pipeline.ledger.balances()
    assert all(standing.balance.settled_nanousd == standing.balance.pending_nanousd == 0 for standing in booked)
    harness.ask("openai", **_said(user="42", team="b"))
    harness.check()


def test_a_template_gives_each_name_a_budget_of_its_own(make_harness):
    harness = make_harness(budgets=[{"scope": "user:*", "limit": "0.0005"}], output={"on_insufficient": ["raise"]})
    spent = {"alice": 0, "bob": 0}
    for name in spent:
        with cost_context(user=name), pytest.raises(BudgetExceededError) as caught:
            for _ in range(10):
                harness.ask("openai")
                spent[name] += 1
        assert caught.value.scope == f"user:{name}"
    assert spent["alice"] == spent["bob"] > 0
    harness.check()


def test_a_model_may_have_a_budget(make_harness):
    harness = make_harness(
        budgets=[{"scope": "model:gpt-5-mini", "limit": "0.0000001"}], output={"on_insufficient": ["raise"]}
    )
    with pytest.raises(BudgetExceededError, match="gpt-5-mini"):
        harness.ask("openai")
    harness.ask("anthropic")
    harness.check()


# --- thresholds ------------------------------------------------------------------------------------------------------


def test_a_soft_threshold_is_reported_once_per_window(make_harness):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.001", "window": "day", "warn_at": 0.3}])
    for _ in range(5):
        harness.ask("openai")
    (crossed,) = harness.reported("ThresholdCrossed")
    assert (crossed.scope, crossed.window) == ("global", "day")
    first = next(event for event in harness.reported("Settled") if event.call_id == crossed.call_id)
    until = [event.amount_nanousd for event in harness.reported("Settled") if event.at <= first.at]
    assert crossed.spent_nanousd in {sum(until[:number]) for number in range(1, len(until) + 1)}
    assert (crossed.threshold_nanousd, crossed.limit_nanousd) == (300_000, 1_000_000)
    assert crossed.spent_nanousd >= crossed.threshold_nanousd
    assert crossed.percent == round(crossed.spent_nanousd / 1000) / 10
    assert crossed.resets_at % 86_400 == 0
    assert 0 < crossed.resets_at - crossed.at <= 86_400
    harness.clock.advance(86_400)
    for _ in range(5):
        harness.ask("openai")
    assert len(harness.reported("ThresholdCrossed")) == 2


def test_a_stop_at_an_injected_cap_is_reported_and_at_the_callers_own_is_not(make_harness):
    harness = make_harness(output={"default_max_tokens": 40})
    harness.call(max_tokens=None, providers=["openai"])
    (capped,) = harness.reported("OutputCapReached")
    assert (capped.model, capped.max_tokens) == ("openai/gpt-5-mini", 40)
    harness.call(max_tokens=40, providers=["openai"])
    assert len(harness.reported("OutputCapReached")) == 1
    harness.check()


# --- the journal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite-sync", "sqlite-async"])
def test_decisions_outcomes_and_settlements_are_joined_by_their_call(make_harness):
    harness = make_harness(retry={"fallback": False})
    harness.sim.script(Fault.reset(billed=True))
    answer = harness.call(max_tokens=64)
    harness.pipeline.feedback(answer.call_id, 0.9)
    (logged,) = DecisionLog(harness.pipeline.ledger.journal).read()
    assert logged.decision == answer.decision == harness.pipeline.decisions()[0]
    assert logged.quality == 0.9
    assert logged.settlement.cost_nanousd == harness.balance.settled_nanousd  # both attempts
    assert logged.settlement.output_tokens == 64
    harness.check()


@pytest.mark.parametrize("kind", ["sqlite-sync", "sqlite-async"])
def test_a_refusal_is_noted_with_what_would_have_let_it_pass(make_harness):
    harness = make_harness(budgets=[{"scope": "team:a", "limit": "0.0005"}], output={"on_insufficient": ["raise"]})
    harness.pipeline.ledger.reserve("0.0001", ["team:a"], id="held")
    with pytest.raises(BudgetExceededError) as refused:
        harness.ask("openai", **_said(team="a"), max_completion_tokens=5_000)
    (line,) = harness.pipeline.ledger.journal.read(REFUSAL)
    noted = read_refusal(line.data)
    assert (noted.scope, noted.fits) == ("team:a", refused.value.max_tokens)
    assert 0 < noted.fits < 5_000
    assert noted.pending_nanousd == 100_000
    told = CliRunner().invoke(app, ["decisions", line.id, "--ledger", harness.pipeline.config.ledger.url])
    assert "refused: $" in told.output
    assert "did not fit team:a; not sent" in told.output
    harness.pipeline.ledger.void("held")


def test_decisions_are_remembered_without_a_journal_too(harness):
    answer = harness.call(max_tokens=64)
    assert harness.pipeline.decisions() == (answer.decision,)


def test_a_refused_call_leaves_its_decision(make_harness):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.0000001"}])
    with pytest.raises(BudgetExceededError):
        harness.call(max_tokens=64)
    (decision,) = harness.pipeline.decisions()
    assert decision.call_id == "call1"


@pytest.mark.parametrize("kind", ["sqlite-async"])
def test_nothing_that_blocks_runs_on_the_event_loop(make_harness, monkeypatch):
    """Neither money nor journal, nor what a dropped stream left behind."""
    threads = {"verb": set(), "mark": set()}
    write, append = LedgerFile.write, SQLiteJournal.append

    def spied_write(self, step):
        threads["verb"].add(threading.get_ident())
        return write(self, step)

    def spied_append(self, *args):
        threads["mark"].add(threading.get_ident())
        return append(self, *args)

    harness = make_harness()

    async def calls():
        monkeypatch.setattr(LedgerFile, "write", spied_write)
        monkeypatch.setattr(SQLiteJournal, "append", spied_append)
        client = harness.caller.client("openai", harness.pipeline)
        create = client.chat.completions.create
        await create(**harness.body("openai"))
        stream = await create(stream=True, **harness.body("openai"))
        await anext(stream)
        del stream
        harness.sim.script(Fault.status(500))
        async for _ in await create(stream=True, **harness.body("openai")):
            pass
        with pytest.raises(BudgetExceededError):
            await create(**harness.body("openai"), **_said(max_cost="0.0000001"))
        monkeypatch.undo()
        return threading.get_ident()

    loop_thread = harness.caller.run(None, calls)
    assert threads["verb"]
    assert threads["mark"]
    assert loop_thread not in threads["verb"] | threads["mark"]
    assert harness.resolutions == ("exact", "estimated", "void", "exact")
    harness.check()


@pytest.mark.parametrize("kind", ["sqlite-sync", "sqlite-async"])
def test_a_journal_that_fails_loses_no_answer(make_harness, monkeypatch, caplog):
    def full(*_):
        raise LedgerUnavailableError("sqlite", "disk full")

    monkeypatch.setattr(SQLiteJournal, "append", full)
    monkeypatch.setattr(SQLiteJournal, "write", full)
    harness = make_harness()
    assert harness.ask("openai").choices
    assert "was not logged" in caplog.text
    harness.check()


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
def test_without_a_ledger_nothing_is_sent(harness, locked):
    harness.ask("openai")
    with locked, pytest.raises(LedgerUnavailableError):
        harness.ask("openai")
    assert len(harness.sim.requests) == 1
    harness.ask("openai")
    harness.check()


@sqlite
@pytest.mark.parametrize("config", [{"ledger": {"on_unavailable": "allow"}}, {"mode": "observe"}])
def test_where_it_is_allowed_calls_go_on_without_a_ledger(make_harness, locked, config, caplog):
    harness = make_harness(**config)
    with locked:
        assert harness.ask("openai").choices
    assert "sent without a reservation" in caplog.text
    assert len(harness.sim.requests) == 1
    assert harness.pipeline.records()[0].cost_nanousd == harness.sim.bill.total_nanousd
    harness.ask("openai")
    assert harness.balance.pending_nanousd == 0


@sqlite
def test_a_ledger_that_fails_during_the_call_loses_no_answer(make_harness, locked, caplog):
    """It is booked when the ledger can be written again, at its cost."""
    harness = make_harness(ledger={"hold_ttl_s": 100})
    entered = []

    def lock(request):
        from llm_cost_middleware.simulator import fill

        entered.append(locked.__enter__())
        return fill(request)

    harness.ask("anthropic")
    before = harness.balance.settled_nanousd
    harness.sim.responder = lock
    assert harness.ask("openai").choices
    locked.__exit__()
    assert "settle failed" in caplog.text
    harness.clock.advance(101)
    assert harness.pipeline.ledger.sweep() == 0
    record = harness.pipeline.records()[-1]
    assert harness.balance.settled_nanousd - before == record.cost_nanousd < record.reserved_nanousd
    assert harness.balance.pending_nanousd == 0


def test_asynchronous_calls_of_many_loops_share_one_ledger(make_harness, kind):
    """A pipeline outlives its loops."""
    harness = make_harness()
    if not kind.endswith("async"):
        pytest.skip("loops are the asynchronous caller's")
    import openai

    from llm_cost_middleware.integrations.openai import wrap_openai

    async def once():
        async with openai.AsyncOpenAI(base_url=harness.sim.openai_url, api_key="k") as client:
            await wrap_openai(client, harness.pipeline).chat.completions.create(**harness.body("openai"))

    for _ in range(3):
        asyncio.run(once())
    assert harness.resolutions == ("exact",) * 3
    harness.check()


def test_an_observer_that_fails_is_logged_and_changes_nothing(make_harness, caplog):
    harness = make_harness()

    class Broken:
        def on_event(self, event):
            raise RuntimeError("no")

    harness.pipeline._stages.record.observers += (Broken(),)
    with caplog.at_level(logging.ERROR):
        harness.ask("openai")
    assert "observer" in caplog.text
    harness.check()
