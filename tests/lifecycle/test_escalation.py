"""Answers that a check rejects go up a tier; cascades ask cheap models first."""

import json
import threading
import time

import pytest

from llm_cost_middleware import CostConfig, CostPipeline, CostTracker, process
from llm_cost_middleware.retry.quota import SUCCESS_REFUND
from llm_cost_middleware.simulator import Answer, Fault

HAIKU, SONNET = "claude-haiku-4-5-20251001", "claude-sonnet-4-6"


def _by_model(answers):
    return lambda request: Answer(text=next(text for name, text in answers.items() if name in request.model))


def _pipeline(**config):
    return CostPipeline(CostConfig(**config))


def test_an_answer_that_is_rejected_is_asked_again_a_tier_up_and_both_are_booked(sim, clients):
    sim.responder = _by_model({"haiku": "perhaps", "sonnet": "42"})
    pipeline = _pipeline()
    result, tracker = process(
        "what is it?", pipeline, CostTracker(None), client=clients["anthropic"], accept=lambda text: text.isdigit()
    )
    assert result.text == "42"
    assert [record.model for record in tracker] == [HAIKU, SONNET]
    assert tracker.total_cost.scaleb(9) == sim.bill.total_nanousd
    assert pipeline.ledger.balance("global").pending == 0


def test_a_retry_is_refunded_once_however_often_its_call_is_escalated(sim, clients):
    sim.responder = _by_model({"haiku": "perhaps", "sonnet": "42"})
    pipeline = _pipeline(retry={"base_s": 0.001})
    process("?", pipeline, CostTracker(None), client=clients["anthropic"], accept=lambda text: text == "42")
    [state] = pipeline._stages.health._states.values()
    quota = state._quotas["anthropic"]
    quota.tokens = 100
    sent = len(sim.requests)
    sim.script(Fault.status(503))
    process("?", pipeline, CostTracker(None), client=clients["anthropic"], accept=lambda text: text.isdigit())
    assert len(sim.requests) - sent == 3  # the failure, the retry, and the stronger model
    assert quota.tokens == 100 + SUCCESS_REFUND


def test_an_answer_that_does_not_parse_is_rejected(sim, clients):
    sim.responder = _by_model({"haiku": "not json", "sonnet": '{"a": 1}'})
    result, tracker = process(
        "json please", _pipeline(), CostTracker(None), client=clients["anthropic"],
        parse_result=lambda response: json.loads(response.content[0].text), accept=lambda value: "a" in value,
    )  # fmt: skip
    assert result.value == {"a": 1}
    assert len(tracker) == 2


def test_an_accepted_answer_stands(sim, clients):
    _, tracker = process("hello", _pipeline(), CostTracker(None), client=clients["anthropic"], accept=lambda _: True)
    assert len(tracker) == len(sim.requests) == 1


def test_at_the_top_a_rejected_answer_stands(sim, clients):
    result, tracker = process(
        "x" * 12_000, _pipeline(), CostTracker(None), client=clients["anthropic"], accept=lambda _: False
    )
    assert result.record.model == SONNET
    assert len(tracker) == 1


def test_where_the_budget_does_not_allow_it_the_first_answer_stands(sim, clients):
    sim.responder = _by_model({"haiku": "perhaps", "sonnet": "42"})
    pipeline = _pipeline(
        budgets=[{"scope": "model:" + SONNET, "limit": "0.0001"}],
        output={"default_max_tokens": 1_000, "on_insufficient": ["raise"]},
    )
    result, tracker = process(
        "what?", pipeline, CostTracker(None), client=clients["anthropic"], accept=lambda text: text.isdigit()
    )
    assert result.text == "perhaps"
    assert len(tracker) == 1


@pytest.mark.parametrize(("second", "asked"), [("Paris.", 2), ("Lyon", 3)])
def test_a_cascade_by_agreement_asks_two_cheap_models_and_the_strong_one_only_where_they_disagree(
    sim, clients, second, asked
):
    sim.responder = lambda request: Answer(text="Paris" if "haiku" in request.model else second)
    pipeline = _pipeline(
        tiers=[
            {"name": "small", "models": [f"anthropic/{HAIKU}", "anthropic/claude-sonnet-5"]},
            {"name": "large", "models": ["anthropic/claude-opus-4-6"]},
        ],
        routing={"policy": "cascade", "accept": "agreement"},
    )
    _, tracker = process("capital of France?", pipeline, CostTracker(None), client=clients["anthropic"])
    assert len(tracker) == asked
    assert tracker.total_cost.scaleb(9) == sim.bill.total_nanousd


def test_rules_may_look_at_what_is_left_of_the_budget(sim, clients):
    pipeline = _pipeline(
        budgets=[{"scope": "user:poor", "limit": "0.10"}, {"scope": "user:rich", "limit": "100"}],
        routing={"policy": "rules", "rules": [{"when": {"budget_left": "< 0.5"}, "tier": "small"}, {"tier": "large"}]},
        output={"default_max_tokens": 100},
    )
    from llm_cost_middleware import cost_context

    with cost_context(user="rich"):
        result, _ = process("hello", pipeline, CostTracker(None), client=clients["anthropic"])
        assert result.record.model == SONNET
    pipeline.ledger.book("0.08", ["user:poor"])
    with cost_context(user="poor"):
        result, _ = process("hello", pipeline, CostTracker(None), client=clients["anthropic"])
        assert result.record.model == HAIKU


def test_with_warm_first_the_others_wait_and_read(sim, clients):
    sim.latency_s = 0.3
    pipeline = _pipeline(cache={"mode": "system", "warm_first": True})
    system = "the same rules for everybody. " * 1_500

    def ask(number):
        process(f"question {number}", pipeline, CostTracker(None), client=clients["anthropic"], system_prompt=system)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    threads[0].start()
    while not sim.request_count:  # the first is on its way, and with it the prefix
        time.sleep(0.005)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    usages = [record.usage for record in pipeline.records()]
    assert sum(usage.cache_write > 0 for usage in usages) == 1
    assert sum(usage.cache_read > 0 for usage in usages) == 3
