"""Shadow calls: a second model answers for the log alone, within the budgets, and nothing else changes."""

from __future__ import annotations

import asyncio
import json

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.routing.decision_log import DecisionLog, QualitySource
from llm_cost_middleware.simulator import Answer, Fault

HI = [{"role": "user", "content": "Which of them?"}]
TIERS = [{"name": "small", "models": ["openai/gpt-5-mini"]}, {"name": "large", "models": ["openai/gpt-5.1"]}]


@pytest.fixture
def make(sim, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    made = []

    def pipeline(shadow=1.0, **more):
        config = CostConfig(
            tiers=TIERS,
            routing={"shadow": shadow, "policy": "threshold", **more.pop("routing", {})},
            ledger={"url": f"sqlite:///{tmp_path / 'ledger.db'}"},
            providers={"openai": {"base_url": sim.openai_url}},
            **more,
        )
        made.append(CostPipeline(config))
        return made[-1]

    yield pipeline
    for each in made:
        each.close()


def saying(small, large):
    return lambda request: Answer(text=small if "mini" in request.model else large)


def asked_of(sim):
    return [exchange.body["model"] for exchange in sim.requests]


def send(pipeline, clients):
    answer = wrap_openai(clients["openai"], pipeline).chat.completions.create(model="smart", messages=HI)
    return answer.choices[0].message.content


@pytest.mark.parametrize(("large", "same"), [("B", 1.0), ("A", 0.0)])
def test_the_caller_gets_his_own_answer_and_the_log_whether_the_other_says_the_same(make, clients, sim, large, same):
    pipeline = make()
    sim.responder = saying("b.", large)
    assert send(pipeline, clients) == "b."
    assert asked_of(sim) == ["gpt-5-mini", "gpt-5.1"]
    [logged] = DecisionLog(pipeline.ledger.journal).read()
    other, agreed = logged.shadow
    assert (str(other.target), agreed) == ("openai/gpt-5.1", same)
    assert logged.quality is None  # nothing failed, and nobody praised it
    assert QualitySource.SHADOW.read(logged) == same
    assert logged.settlement.target.model == "gpt-5-mini"
    small, both = sim.bill.lines[0].cost_nanousd, sim.bill.total_nanousd
    assert logged.settlement.cost_nanousd == small
    assert pipeline.ledger.balance("global").settled_nanousd == both
    assert pipeline.ledger.balance("purpose:shadow").settled_nanousd == both - small
    assert len(pipeline.decisions()) == 1


def test_it_is_off_by_default_and_a_share_of_calls_else(make, clients, sim):
    sim.responder = saying("a", "b")
    off = make(shadow=0.0)
    for _ in range(5):
        send(off, clients)
    assert sim.request_count == 5
    some = make(shadow=0.5)
    for _ in range(30):
        send(some, clients)
    assert 5 + 30 + 4 <= sim.request_count <= 5 + 30 + 26


def test_a_call_that_goes_up_anyway_is_compared_with_the_tier_below(make, clients, sim):
    sim.responder = saying("a", "b")
    pipeline = make(routing={"floor": "large", "explore": 0.0})
    send(pipeline, clients)
    assert asked_of(sim) == ["gpt-5.1"]  # below the floor nothing may take it
    send(make(routing={"text_threshold": 3}), clients)
    assert asked_of(sim)[1:] == ["gpt-5.1", "gpt-5-mini"]


def test_a_budget_on_shadows_stops_them_and_no_call(make, clients, sim):
    sim.responder = saying("a", "b")
    pipeline = make(budgets=[{"scope": "purpose:shadow", "limit": "0.000001"}])
    for _ in range(3):
        assert send(pipeline, clients) == "a"
    assert asked_of(sim) == ["gpt-5-mini"] * 3


def test_a_shadow_that_fails_costs_no_retry_and_no_answer(make, clients, sim):
    pipeline = make()
    sim.responder = saying("a", "b")
    sim.script(Fault.status(503), match=lambda exchange: "mini" not in exchange.body["model"])
    assert send(pipeline, clients) == "a"
    assert asked_of(sim) == ["gpt-5-mini", "gpt-5.1"]
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    assert DecisionLog(pipeline.ledger.journal).read().__next__().shadow is None


def test_streams_pinned_models_and_observers_have_none(make, clients, sim):
    sim.responder = saying("a", "b")
    client = wrap_openai(clients["openai"], make())
    for _ in client.chat.completions.create(model="smart", messages=HI, stream=True):
        pass
    client.chat.completions.create(model="gpt-5-mini", messages=HI)
    send(make(mode="observe"), clients)
    assert sim.request_count == 3


def test_asynchronous_calls_are_compared_alike(make, sim):
    openai = pytest.importorskip("openai")
    pipeline = make()
    sim.responder = saying("a", "a")

    async def once():
        async with openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k", max_retries=0) as client:
            return await wrap_openai(client, pipeline).chat.completions.create(model="smart", messages=HI)

    asyncio.run(once())
    assert asked_of(sim) == ["gpt-5-mini", "gpt-5.1"]
    [logged] = DecisionLog(pipeline.ledger.journal).read()
    assert logged.agreed == 1.0


def test_tune_learns_from_calls_that_both_answered(make, clients, sim):
    pytest.importorskip("sklearn")
    from llm_cost_middleware.request import ModelRef
    from llm_cost_middleware.routing.learning.labels import labels_from_log

    pipeline = make()
    sim.responder = lambda request: Answer(
        text="7" if "mini" not in request.model or "list" in json.dumps(request.body) else "8"
    )
    client = wrap_openai(clients["openai"], pipeline)
    for number in range(20):
        text = f"{'prove' if number % 2 else 'list'} {number}"
        client.chat.completions.create(model="smart", messages=[{"role": "user", "content": text}])
    log = list(DecisionLog(pipeline.ledger.journal).read())
    pair = ModelRef("openai", "gpt-5-mini"), ModelRef("openai", "gpt-5.1")
    found = labels_from_log(log, *pair, QualitySource.SHADOW)
    assert [(label.weak, label.strong) for label in found.labels] == [(1.0 - n % 2, 1.0) for n in range(20)]
    assert all(label.ngrams for label in found.labels)
