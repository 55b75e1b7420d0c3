"""``process_many`` grown up: side by side, gone on with after a crash, quoted and billed, and as batches."""

from __future__ import annotations

import itertools
import json
import os
import stat
import threading

import anthropic
import openai
import pytest

from llm_cost_middleware import BudgetExceededError, CostPipeline, CostTracker, Result, aprocess_many, process_many
from llm_cost_middleware.batches import BatchPendingError
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.simulator import Answer, BatchPace, Fault, fill
from llm_cost_middleware.testing import FakeClock

TEXTS = [f"question {at}" for at in range(12)]
HOUR_S = 3_600


class SharedClock(FakeClock):
    """Time passes for the provider too."""

    def __init__(self, sim):
        super().__init__(sim.clock.now())
        self.sim = sim

    def advance(self, seconds):
        super().advance(seconds)
        self.sim.clock.advance(seconds)


@pytest.fixture
def made(sim):
    """Makes pipelines, and closes them."""
    sim.responder = lambda request: Answer(text=request.last_user_text)
    pipelines = []

    def make(**config):
        config.setdefault("budgets", [{"scope": "global", "limit": "5"}])
        config.setdefault("output", {"default_max_tokens": 50})
        pipelines.append(pipeline := CostPipeline(config, clock=SharedClock(sim)))
        return pipeline

    yield make
    for pipeline in pipelines:
        pipeline.close()


def agree(pipeline, sim):
    balance = pipeline.ledger.balance("global")
    assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd, 0)


def test_calls_run_side_by_side_and_quote_and_actual_stand_side_by_side(sim, clients, made):
    together = threading.Barrier(4, timeout=20)

    def answer(request):
        return Answer(text=request.last_user_text)

    seen = []
    sim.latency_s = 0.01
    sim.responder = answer
    pipeline = made()
    batch = process_many(
        TEXTS, pipeline, CostTracker(None), client=clients["anthropic"], concurrency=4,
        parse_result=lambda response: (seen.append(str(threading.get_ident())), together.wait())[0],
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert [result.text for _, result in batch.done] == TEXTS
    assert len({name for name in seen if isinstance(name, str)}) == 4
    assert (12, 12) in seen
    assert batch.actual_nanousd == sim.bill.total_nanousd
    assert batch.quote.bound >= batch.actual == batch.tracker.total_cost > 0
    agree(pipeline, sim)


def test_an_answer_that_no_journal_can_take_reaches_its_caller(sim, clients, made, tmp_path, monkeypatch):
    """On a full disk; the journal stays readable, and what it lacks is asked for again."""
    file, whole, answers = tmp_path / "work.jsonl", os.write, itertools.count()

    def write(descriptor, text):
        short = b'"place"' in text and next(answers) == 1
        return whole(descriptor, text[:50] if short else text)

    options = {"client": clients["openai"], "journal": file}
    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        batch = process_many(TEXTS[:4], made(), CostTracker(None), **options)
    assert [result.text for _, result in batch.done] == TEXTS[:4]
    assert batch.actual_nanousd == batch.tracker.total_cost * 10**9 == sim.bill.total_nanousd
    assert [json.loads(line).get("place") for line in file.read_text().splitlines()] == [None, 0, 2, 3]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_journal_goes_on_where_it_was_interrupted(sim, clients, made, tmp_path, concurrency):
    file, pipeline = tmp_path / "work.jsonl", made()

    def interrupt(done, _):
        if done == 5:
            raise KeyboardInterrupt

    options = {"client": clients["openai"], "system_prompt": "Answer.", "journal": file}
    if concurrency == 1:
        with pytest.raises(KeyboardInterrupt) as caught:
            process_many(TEXTS, pipeline, CostTracker(None), progress=interrupt, **options)
        assert [result.text for _, result in caught.value.batch.done] == TEXTS[:5]
    else:
        sim.script(Fault.status(400), match=lambda one: "question 7" in json.dumps(one.body))
        with pytest.raises(openai.BadRequestError) as error:
            process_many(TEXTS, pipeline, CostTracker(None), concurrency=concurrency, **options)
        assert 4 <= len(error.value.batch.done) < 12
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "question" not in "\n".join(json.loads(line).get("item", "") for line in file.read_text().splitlines())
    with file.open("ab") as torn:
        torn.write(b'{"place": 11, "it\xc3')  # a crash in the middle of a line, and of a character
    before = sim.request_count
    batch = process_many(TEXTS, pipeline, CostTracker(None), **options)
    assert [result.text for _, result in batch.done] == TEXTS
    assert {type(result) for _, result in batch.done} == {Result}
    assert {type(result.response) for _, result in batch.done} == {openai.types.chat.ChatCompletion}
    assert sim.request_count - before < 12
    assert batch.actual_nanousd == sim.bill.total_nanousd == batch.tracker.total_cost.scaleb(9)
    again = process_many(TEXTS, pipeline, batch.tracker, **options)
    assert again.tracker.total_cost == batch.tracker.total_cost  # none is counted twice
    assert len(sim.bill.lines) == 12
    agree(pipeline, sim)


@pytest.mark.parametrize("change", ["texts", "prompt", "foreign", "type"])
def test_a_journal_of_something_else_is_refused_and_left_as_it_is(sim, clients, made, tmp_path, change):
    file, pipeline = tmp_path / "work.jsonl", made()
    process_many(TEXTS[:2], pipeline, CostTracker(None), client=clients["openai"], journal=file)
    if change == "foreign":
        file.write_text("my own notes\n")
    content, sent = file.read_bytes(), sim.request_count
    texts = ["other", *TEXTS[1:2]] if change == "texts" else TEXTS[:2]
    prompt = "Other." if change == "prompt" else ""
    with pytest.raises(ConfigurationError, match="journal"):
        process_many(
            texts, pipeline, CostTracker(None), client=clients["openai"], system_prompt=prompt,
            journal=7 if change == "type" else file,
        )  # fmt: skip
    assert (file.read_bytes(), sim.request_count) == (content, sent)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_texts_that_can_wait_go_as_a_batch_at_half_price(sim, clients, made, provider):
    sim.batch_pace = BatchPace(delay_s=HOUR_S)
    pipeline = made()
    batch = process_many(TEXTS, pipeline, CostTracker("1"), client=clients[provider], patience="24h")
    assert [result.value for _, result in batch.done] == TEXTS
    kinds = {"anthropic": anthropic.types.Message, "openai": openai.types.chat.ChatCompletion}
    assert {type(result.response) for _, result in batch.done} == {kinds[provider]}
    assert {(result.decision.lane, result.record.status) for _, result in batch.done} == {("batch", "exact")}
    assert {line.tier for line in sim.bill.lines} == {"batch"}
    assert batch.actual_nanousd == sim.bill.total_nanousd == batch.tracker.total_cost.scaleb(9)
    assert batch.actual <= batch.quote.bound
    assert batch.batch_id == pipeline.batches()[0].batch_id
    agree(pipeline, sim)


async def test_texts_of_an_asynchronous_client_go_as_a_batch_too(sim, async_clients, made, tmp_path):
    sim.batch_pace = BatchPace(delay_s=HOUR_S, stuck=0.5)
    pipeline = made()
    options = {"client": async_clients["anthropic"], "patience": "24h", "journal": tmp_path / "work.jsonl"}
    batch = await aprocess_many(TEXTS, pipeline, CostTracker(None), **options)
    assert [result.text for _, result in batch.done] == TEXTS
    assert {result.decision.lane for _, result in batch.done} == {"batch", ""}
    agree(pipeline, sim)
    again = await aprocess_many(TEXTS, pipeline, CostTracker(None), **options)
    assert [result.text for _, result in again.done] == TEXTS
    assert len(sim.bill.lines) == 12


def test_a_batch_that_outlasts_its_timeout_is_gone_on_with_by_its_journal(sim, clients, made, tmp_path):
    sim.batch_pace = BatchPace(delay_s=4 * HOUR_S)
    pipeline, options = made(), {"client": clients["anthropic"], "patience": "24h", "journal": tmp_path / "work.jsonl"}
    with pytest.raises(BatchPendingError) as caught:
        process_many(TEXTS, pipeline, CostTracker(None), timeout="1h", **options)
    assert caught.value.batch.done == ()
    with pytest.raises(BatchPendingError) as again:
        process_many(TEXTS, pipeline, CostTracker(None), timeout="1h", **options)
    assert again.value.batch_id == caught.value.batch_id
    batch = process_many(TEXTS, pipeline, CostTracker(None), **options)
    assert [result.text for _, result in batch.done] == TEXTS
    assert {result.decision.lane for _, result in batch.done} == {"batch"}
    assert batch.actual_nanousd == sim.bill.total_nanousd
    assert len(pipeline.batches()) == 1
    agree(pipeline, sim)


def test_a_budget_that_ends_in_the_middle_of_a_batch_leaves_the_rest(sim, clients, made):
    sim.responder = fill
    pipeline = made(budgets=[{"scope": "global", "limit": "0.004"}], output={"default_max_tokens": 100})
    texts = [f"question {at}" for at in range(40)]
    batch = process_many(texts, pipeline, CostTracker(None), client=clients["anthropic"], patience="1d", anyway=True)
    assert isinstance(batch.exhausted, BudgetExceededError)
    assert 0 < len(batch.done) < 40
    assert [item for _, item in batch.remaining] == texts[len(batch.done) :]
    agree(pipeline, sim)


def test_errors_of_items_are_kept_beside_what_is_answered(sim, clients, made):
    pipeline = made()
    sim.script(Fault.status(400), times=1, match=lambda one: "question 3" in json.dumps(one.body))
    batch = process_many(
        TEXTS, pipeline, CostTracker(None), client=clients["anthropic"], on_error="collect", concurrency=3
    )
    assert [(index, type(error)) for index, error in batch.failed] == [(3, anthropic.BadRequestError)]
    assert batch.remaining == ((3, "question 3"),)
    agree(pipeline, sim)


def test_the_limit_of_the_tracker_holds_for_batches_too(sim, clients, made):
    sim.responder = fill
    pipeline = made(budgets=[{"scope": "global", "limit": "5"}], output={"default_max_tokens": 100})
    texts = [f"question {at}" for at in range(40)]
    batch = process_many(texts, pipeline, CostTracker("0.004"), client=clients["anthropic"], patience="1d", anyway=True)
    assert isinstance(batch.exhausted, BudgetExceededError)
    assert 0 < len(batch.done) < 40
    assert batch.tracker.total_cost <= batch.tracker.budget_limit
    agree(pipeline, sim)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("items[1]", {"items": ["a", 2]}),
        ("concurrency", {"concurrency": "four"}),
        ("concurrency", {"concurrency": 0}),
        ("parse_result", {"parse_result": "json"}),
        ("system_prompt", {"system_prompt": 5}),
        ("journal", {"journal": "no/such/folder/work.jsonl"}),
        ("journal", {"journal": "."}),
        ("journal", {"journal": "ledger.db"}),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_cannot_be_used_is_said_before_anything_is_sent(
    sim, clients, async_clients, made, tmp_path, monkeypatch, key, wrong, is_async
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ledger.db").write_bytes(b"SQLite format 3\x00\xf1\xff")
    options = {"items": TEXTS, "config": made(), "tracker": CostTracker(None)} | wrong
    with pytest.raises(ConfigurationError) as caught:
        if is_async:
            await aprocess_many(**options, client=async_clients["openai"])
        else:
            process_many(**options, client=clients["openai"])
    assert (caught.value.key, sim.request_count) == (key, 0)
