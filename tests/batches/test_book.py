"""The ledger's lines about batches: found by other processes, without a prompt, and left alone by pruning."""

from __future__ import annotations

import sqlite3

import pytest
from batch_bodies import chat_bodies, claude_bodies

from llm_cost_middleware.batches import BatchPendingError
from llm_cost_middleware.budget.ledger.upkeep import prune_journal
from llm_cost_middleware.budget.notes import LASTING
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.simulator import Answer, BatchPace

DAY_S = 86_400


def submitted(desk, pipeline, bodies=None):
    desk.sim.batch_pace = BatchPace(delay_s=3_600)
    with pytest.raises(BatchPendingError) as caught:
        pipeline.batch(bodies or [*claude_bodies(12), *chat_bodies(12)], client=desk.clients, timeout=0)
    return caught.value.batch_id


def test_another_process_shows_and_collects_a_batch_after_the_journal_was_pruned(desk, tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    first = desk.pipeline(ledger={"url": url})
    name = submitted(desk, first)
    for at in range(30):
        first.ledger.journal.append("decision", f"d{at}", desk.clock.now(), b"{}")
    first.close()
    second = desk.pipeline(ledger={"url": url})
    desk.clock.advance(20 * DAY_S)
    assert prune_journal(second.ledger.backend, before=desk.clock.now(), keep=1) > 0
    assert [(one.batch_id, one.state, one.requests) for one in second.batches()] == [(name, "sent", 12)] * 2
    collected = second.collect_batch(name, client=desk.clients)
    assert len(collected.responses) == 24
    assert [one.answered for one in second.batches()] == [12, 12]
    desk.agree(second)


def test_no_prompt_and_no_answer_is_stored(desk, tmp_path):
    path = tmp_path / "ledger.db"
    pipeline = desk.pipeline(ledger={"url": f"sqlite:///{path}"})
    secret = "a-very-private-word"
    bodies = claude_bodies(12, messages=[{"role": "user", "content": secret}])
    desk.sim.responder = lambda _: Answer(text=secret)
    name = submitted(desk, pipeline, bodies)
    desk.clock.advance(DAY_S)
    assert pipeline.collect_batch(name, client=desk.claude).responses[0].content[0].text == secret
    with sqlite3.connect(path) as db:
        assert secret not in "\n".join(db.iterdump())
    assert all(secret not in line.data.decode() for kind in LASTING for line in pipeline.ledger.journal.read(kind))


def test_a_batch_that_was_held_and_never_sent_is_given_back_once_nobody_can_be_sending_it(desk, monkeypatch):
    pipeline = desk.pipeline()

    def killed(_):
        raise SystemExit  # between the hold and the request, as seen from outside

    monkeypatch.setattr(type(desk.claude), "with_options", lambda self, **_: killed(self))
    with pytest.raises(SystemExit):
        pipeline.batch(claude_bodies(12), client=desk.claude)
    monkeypatch.undo()
    (one,) = pipeline.batches()
    assert one.state == "created"
    held = pipeline.ledger.balance("global").pending_nanousd
    assert held == one.held_nanousd > 0
    assert pipeline.collect_batch(one.batch_id, client=desk.claude).pending == 12
    assert pipeline.ledger.balance("global").pending_nanousd == held
    desk.clock.advance(901)
    collected = pipeline.collect_batch(one.batch_id, client=desk.claude)
    assert {error.reason for error in collected.errors.values()} == {"unsent"}
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    assert desk.created() == []


def test_an_unknown_batch_and_a_client_of_another_provider_are_refused(desk):
    pipeline = desk.pipeline()
    with pytest.raises(ConfigurationError, match="batches list"):
        pipeline.collect_batch("b0", client=desk.claude)
    name = submitted(desk, pipeline, claude_bodies(12))
    with pytest.raises(ConfigurationError, match="anthropic"):
        pipeline.collect_batch(name, client=desk.gpt)
