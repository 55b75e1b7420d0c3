"""``batch`` of guarded models whose inputs can wait a day: batches of the provider, messages of LangChain's own."""

from __future__ import annotations

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage

from llm_cost_middleware.batches import BatchItemError, BatchPendingError
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.simulator import Answer, BatchPace
from llm_cost_middleware.testing import FakeClock

TEXTS = [f"question {at}" for at in range(12)]
WAITS = {"metadata": {"llm_cost": {"patience": "24h", "team": "night"}}}
HOUR_S = 3_600


class SharedClock(FakeClock):
    """Time passes for the provider too."""

    def __init__(self, sim):
        super().__init__(sim.clock.now())
        self.sim = sim

    def advance(self, seconds):
        super().advance(seconds)
        self.sim.clock.advance(seconds)


class Heard(BaseCallbackHandler):
    """Counts what a trace would show."""

    def __init__(self):
        self.started, self.ended = 0, []

    def on_chat_model_start(self, *_, **__):
        self.started += 1

    def on_llm_end(self, response, **_):
        self.ended.append(response.generations[0][0].message.usage_metadata["output_tokens"])


@pytest.fixture
def patient(make_harness, sim):
    from llm_cost_middleware.pipeline import CostPipeline

    sim.responder = lambda request: Answer(text=request.last_user_text)
    sim.batch_pace = BatchPace(delay_s=HOUR_S)
    made = []

    def make(model, *, pinned=True, **sections):
        harness = make_harness(**sections)
        harness.pipeline.close()
        harness = harness._replace(pipeline=CostPipeline(harness.pipeline.config, clock=SharedClock(sim)))
        made.append(harness.pipeline)
        return harness, guard(model, harness.pipeline, pinned=pinned)

    yield make
    for pipeline in made:
        pipeline.close()


def agree(harness):
    balance = harness.pipeline.ledger.balance("global")
    assert (balance.settled_nanousd, balance.pending_nanousd) == (harness.sim.bill.total_nanousd, 0)
    assert balance.settled_nanousd > 0


def models(claude, gpt):
    return {
        "messages": claude(max_tokens=50),
        "chat.completions": gpt(max_completion_tokens=50),
        "responses": gpt(max_completion_tokens=50, use_responses_api=True),
    }


@pytest.mark.parametrize("endpoint", ["messages", "chat.completions", "responses"])
async def test_inputs_that_can_wait_come_back_as_messages_in_order(patient, claude, gpt, endpoint):
    harness, model = patient(models(claude, gpt)[endpoint])
    heard = Heard()
    answers = model.batch(TEXTS, {**WAITS, "callbacks": [heard]})
    assert {type(answer) for answer in answers} == {AIMessage}
    assert [answer.text for answer in answers] == TEXTS
    assert (heard.started, heard.ended) == (12, [answer.usage_metadata["output_tokens"] for answer in answers])
    assert {line.tier for line in harness.sim.bill.lines} == {"batch"}
    assert harness.pipeline.ledger.balance("team:night").settled_nanousd == harness.sim.bill.total_nanousd
    agree(harness)
    again = await model.abatch(TEXTS, WAITS)
    assert [answer.text for answer in again] == TEXTS
    assert len(harness.pipeline.batches()) == 2
    agree(harness)


def test_tools_and_chains_around_the_model_keep_working(patient, claude):
    harness, model = patient(claude(max_tokens=50))

    def lookup(word: str) -> str:
        """Look a word up."""
        return word

    chain = model.bind_tools([lookup]) | (lambda message: message.text.upper())
    assert chain.batch(TEXTS, WAITS) == [text.upper() for text in TEXTS]
    assert {line.tier for line in harness.sim.bill.lines} == {"batch"}
    agree(harness)


def test_a_routed_model_is_routed_in_its_batch_too(patient, claude):
    harness, model = patient(claude(model="claude-sonnet-4-6", max_tokens=50), pinned=False)
    assert [answer.text for answer in model.batch(TEXTS, WAITS)] == TEXTS
    assert {(line.tier, line.model[:12]) for line in harness.sim.bill.lines} == {("batch", "claude-haiku")}
    agree(harness)


@pytest.mark.parametrize("config", [None, {"metadata": {"llm_cost": {"patience": "1h"}}}])
def test_less_patience_makes_ordinary_calls(patient, claude, config):
    harness, model = patient(claude(max_tokens=50))
    assert [answer.text for answer in model.batch(TEXTS, config)] == TEXTS
    assert harness.pipeline.batches() == ()
    agree(harness)


def test_few_inputs_and_what_is_not_for_batches_make_ordinary_calls(patient, claude, gpt):
    harness, model = patient(claude(max_tokens=50))
    assert [answer.text for answer in model.batch(TEXTS[:3], WAITS)] == TEXTS[:3]
    headers = {"extra_headers": {"anthropic-beta": "context-1m-2025-08-07"}}
    assert len(model.batch(TEXTS, WAITS, **headers)) == 12
    assert harness.pipeline.batches() == ()
    agree(harness)


def test_what_is_not_answered_in_time_names_its_batch(patient, claude):
    harness, model = patient(claude(max_tokens=50))
    with pytest.raises(BatchPendingError) as caught:
        model.batch(TEXTS, WAITS, batch_timeout=60)
    harness.pipeline.clock.advance(HOUR_S)
    collected = harness.pipeline.collect_batch(caught.value.batch_id, client=model._client)
    assert len(collected.responses) == 12
    agree(harness)


def test_refusals_are_raised_or_returned_in_their_places(patient, claude):
    harness, model = patient(claude(max_tokens=50), budgets=[{"scope": "global", "limit": "0.0018"}])
    with pytest.raises(BudgetExceededError):
        model.batch(TEXTS, WAITS)
    assert harness.sim.request_count == 0
    answers = model.batch(TEXTS, WAITS, return_exceptions=True)
    refused = [isinstance(answer, BudgetExceededError) for answer in answers]
    assert 0 < refused.count(True) < 12
    agree(harness)


def test_an_input_that_fails_is_an_error_and_the_others_reach_the_caller(patient, claude):
    harness, model = patient(claude(max_tokens=50))
    wrong = [*TEXTS, [("user", "x"), ("assistant", [{"type": "thinking", "thinking": "x", "signature": ""}])]]
    try:
        answers = model.batch(wrong, WAITS)
    except BatchItemError as error:
        answers = error.answers
    assert [answer.text for answer in answers[:12]] == TEXTS
    agree(harness)


class Breaks(BaseCallbackHandler):
    """What an application hears an answer with, and what ends in an error."""

    raise_error = True

    def on_llm_end(self, response, **_):
        raise RuntimeError("of the application")


async def test_a_callback_that_raises_costs_its_own_answer_alone(patient, claude):
    """The others are paid for."""
    harness, model = patient(claude(max_tokens=50))
    configs = [{**WAITS, "callbacks": [Breaks()]} if at == 3 else WAITS for at in range(12)]
    answers = model.batch(TEXTS, configs, return_exceptions=True)
    assert [answer.text for answer in answers if isinstance(answer, AIMessage)] == TEXTS[:3] + TEXTS[4:]
    with pytest.raises(RuntimeError, match="of the application") as caught:
        await model.abatch(TEXTS, configs)
    assert [type(answer) for answer in caught.value.answers].count(AIMessage) == 11
    agree(harness)
