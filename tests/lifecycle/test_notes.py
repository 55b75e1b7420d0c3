"""What is written down beside money rides in the transaction that books it: two commits a call, and nothing lost."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from random import Random

import psycopg
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.backends.postgres import PostgresBackend
from llm_cost_middleware.budget.backends.sqlite import SQLiteBackend, ledger_file
from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger
from llm_cost_middleware.budget.notes import Notes, SharedChange
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.routing.decision_log import DecisionLog
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BOTH = frozenset({"anthropic", "openai"})


@pytest.fixture
def commits(monkeypatch):
    """The write transactions of every connection: whether each was flushed."""
    made, plain = [], ledger_file.connect

    def connect(path, **options):
        connection, state = plain(path, **options), {"flush": options["full"]}

        def saw(statement):
            if statement.startswith("PRAGMA synchronous"):
                state["flush"] = "FULL" in statement
            elif statement.startswith("BEGIN"):
                state["writes"] = "IMMEDIATE" in statement
            elif statement.startswith("COMMIT") and state["writes"]:
                made.append(state["flush"])

        connection.set_trace_callback(saw)
        return connection

    monkeypatch.setattr(ledger_file, "connect", connect)
    return made


@pytest.fixture
def make(tmp_path):
    def make(url=f"sqlite:///{tmp_path}/l.db", **config):
        config = {"budgets": [{"scope": "global", "limit": "100"}], **config, "ledger": {"url": url}}
        return CostPipeline(CostConfig(**config), clock=FakeClock(), rng=Random(3))

    return make


def request(text="hello"):
    return CallRequest("openai", "smart", (Message("user", (Part("text", text),)),), endpoint="chat.completions")


def answer(*, finish="stop", text="fine"):
    usage = UsageReport(
        items=(BilledItem(TokenUsage(uncached_input=120, output=50)),), complete=True, finish_reason=finish
    )  # fmt: skip
    return CallResult(text, usage, text)


def told(pipeline):
    """What the log says of every call, without its times."""
    return [
        (
            entry.decision.target,
            sorted(outcome.name for outcome in entry.outcomes),
            entry.settlement and (entry.settlement.target, entry.settlement.cost_nanousd),
        )
        for entry in DecisionLog(pipeline.ledger.journal).read()
    ]


def test_a_call_takes_two_commits_both_flushed(make, commits):
    with make() as pipeline:
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
        commits.clear()
        pipeline.run(request(), lambda _: answer(finish="length"), providers=BOTH)
        assert commits == [True, True]
        assert [outcomes for _, outcomes, _ in told(pipeline)] == [[], ["truncated"]]


def test_lines_outside_a_call_are_not_flushed_and_money_after_them_is(make, commits):
    with make() as pipeline:
        ids = []
        pipeline.run(request(), lambda attempt: ids.append(attempt.call_id) or answer(), providers=BOTH)
        commits.clear()
        pipeline.feedback(ids[0], 1.0)
        pipeline.ledger.shared_state.change(["k"], lambda _: [b"v"], 1.0)
        pipeline.ledger.book("1")
        assert commits == [False, False, True]


def test_eight_callers_share_their_commits(make, commits):
    with make() as pipeline:
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
        commits.clear()

        def work():
            for _ in range(25):
                pipeline.run(request(), lambda _: answer(), providers=BOTH)

        crew = [threading.Thread(target=work) for _ in range(8)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        assert len(commits) <= 1.1 * 200
        assert len(told(pipeline)) == 201


@pytest.mark.parametrize("kind", ["answered", "truncated", "failed", "retried", "escalated", "refused", "voided twice"])
def test_every_call_leaves_the_lines_that_a_journal_on_its_own_gets(make, tmp_path, monkeypatch, kind):
    """The same calls over the same storage, once with the ability to take notes and once without."""
    _compare(make, [f"sqlite:///{tmp_path}/{takes}.db" for takes in (True, False)], SQLiteBackend, monkeypatch, kind)


@pytest.mark.parametrize("kind", ["answered", "failed", "escalated"])
def test_on_postgres_it_leaves_them_too(make, postgres_url, monkeypatch, kind):
    _compare(make, [postgres_url, postgres_url], PostgresBackend, monkeypatch, kind)


def test_a_call_on_postgres_takes_two_transactions(make, postgres_url):
    with make(postgres_url) as pipeline, psycopg.connect(postgres_url, autocommit=True) as db:
        pipeline.run(request(), lambda _: answer(), providers=BOTH)
        (before,) = db.execute("SELECT txid_current()").fetchone()
        pipeline.run(request(), lambda _: answer(finish="length"), providers=BOTH)
        (after,) = db.execute("SELECT txid_current()").fetchone()
        # a number each, one for the savepoint of the notes, and that of the question
        assert after - before - 1 <= 3
        assert [outcomes for _, outcomes, _ in told(pipeline)] == [[], ["truncated"]]


def test_an_event_loop_on_postgres_writes_notes_too(postgres_url):
    async def go():
        async with AsyncLedger.open(postgres_url) as ledger:
            assert ledger.takes_notes
            notes = Notes([JournalEntry("decision", "c", 1.0, b"x")], SharedChange(("k",), lambda _: [b"v"], 1.0))
            held = await ledger.reserve("1", ["run:a"], id="a")
            await ledger.settle(held.id, "0.5", notes=notes)
            assert notes.written

    asyncio.run(go())
    with Ledger.open(postgres_url) as ledger:
        assert [line.data for line in ledger.journal.read("decision")] == [b"x"]
        assert ledger.shared_state.read(["k"]) == [b"v"]


@pytest.mark.parametrize("odd", ["a\0b", "a\ud800"])
def test_notes_that_postgres_cannot_keep_cost_no_resolution(postgres_url, odd):
    with Ledger.open(postgres_url) as ledger:
        for number, notes in enumerate(
            [Notes([JournalEntry("decision", odd, 1.0, b"x")]), Notes([], SharedChange((odd,), lambda _: [b"v"], 1.0))]
        ):
            ledger.settle(ledger.reserve("1", id=f"{number}").id, "0.5", notes=notes)
            assert not notes.written
        assert ledger.balance("global").settled_nanousd == 10**9


def test_a_lost_reply_on_postgres_writes_no_line_twice(postgres_url, monkeypatch):
    with Ledger.open(postgres_url) as ledger:
        protocol = ledger.backend.protocol
        statements = protocol.statements

        def twice(flow):
            steps, answer = statements(flow), None
            while True:
                try:
                    query = steps.send(answer)
                except StopIteration as end:
                    return end.value
                answer = yield query
                if "llm_cost.resolve(" in query.text:
                    answer = yield query

        monkeypatch.setattr(protocol, "statements", twice)
        notes = Notes([JournalEntry("decision", "c", 1.0, b"x")])
        ledger.settle(ledger.reserve("1", id="a").id, "0.5", notes=notes)
        assert notes.written
        assert len(list(ledger.journal.read("decision"))) == 1


def _compare(make, urls, backend, monkeypatch, kind):
    logs = []
    for takes, url in zip((True, False), urls, strict=True):
        if not takes:
            monkeypatch.delattr(backend, "takes_notes")
        limit = "0.000001" if kind == "refused" else "100"
        before = len(logs[0]) if logs and urls[0] == urls[1] else 0
        with make(url, budgets=[{"scope": "global", "limit": limit}]) as pipeline:
            assert pipeline._stages.decisions.rides is takes
            _play(pipeline, kind)
            logs.append(told(pipeline)[before:])
    assert logs[0] == logs[1]
    assert logs[0]


def _play(pipeline, kind):
    answers = {
        "answered": [answer()],
        "truncated": [answer(finish="length")],
        "failed": [ValueError("no")],
        "retried": [ConnectionError(), answer()],
        "escalated": [answer(text="bad"), answer(text="good")],
        "refused": [],
        "voided twice": [ConnectionRefusedError(), ConnectionRefusedError(), ConnectionRefusedError()],
    }[kind]
    left = iter(answers)

    def send(_):
        given = next(left)
        if isinstance(given, BaseException):
            raise given
        return given

    accept = (lambda result: result.text != "bad") if kind == "escalated" else None
    try:
        pipeline.run(request(), send, providers=BOTH, accept=accept)
    except Exception:  # noqa: BLE001 - what the log says of it is what is compared
        assert kind in {"failed", "refused", "voided twice"}


def test_lines_that_met_a_closed_storage_are_written_with_nothing_else(make, monkeypatch):
    """A settle that fails takes no line with it: they are written at the end of the call."""
    with make() as pipeline:
        file = pipeline.ledger.backend._file
        plain, broken = file.write, []

        def write(step, *, durable=True):
            if durable and broken:
                raise sqlite3.OperationalError("away")
            return plain(step, durable=durable)

        monkeypatch.setattr(file, "write", write)
        pipeline.run(request(), lambda _: broken.append(1) or answer(), providers=BOTH)
        broken.clear()
        assert len(told(pipeline)) == 1


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else f"sqlite:///{tmp_path}/l.db"


def test_notes_never_cost_a_resolution(url):
    def fails(_):
        raise ValueError("not mine")

    with Ledger.open(url) as ledger:
        assert ledger.takes_notes
        notes = Notes([JournalEntry("decision", "c", 1.0, b"x")], SharedChange(("k",), fails, 1.0))
        ledger.settle(ledger.reserve("1", id="a").id, "0.5", notes=notes)
        assert not notes.written  # so that they can be written by themselves
        assert not list(ledger.journal.read("decision"))
        assert ledger.balance("global").settled_nanousd == 5 * 10**8
        notes = Notes([JournalEntry("decision", "c", 1.0, b"x")], SharedChange(("k",), lambda _: [b"v"], 1.0))
        ledger.settle(ledger.reserve("1", id="b").id, "0.5", notes=notes)
        assert notes.written
        assert ledger.shared_state.read(["k"]) == [b"v"]
        again = Notes([JournalEntry("decision", "c", 1.0, b"y")])
        assert ledger.settle("b", "0.5", notes=again).repeated  # an earlier go has written them
        assert [line.data for line in ledger.journal.read("decision")] == [b"x"]


def test_a_storage_without_the_ability_is_given_none():
    assert not Ledger.open("memory://").takes_notes
    assert not AsyncLedger.open("memory://").takes_notes
