"""Learned output caps through real clients: what is sent, what happens where one is hit, who gets none."""

from __future__ import annotations

import pytest

from llm_cost_middleware import CostConfig, CostPipeline, cost_context
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, Fault

MODEL = "gpt-5.1"
LONG, SHORT = 1_500, 40


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def answered(request):
    if "think" in request.last_user_text:
        return Answer(text="word " * 30)  # with the thinking of its effort
    tokens = LONG if "long" in request.last_user_text else SHORT
    return Answer(text="word " * 30, output_tokens=tokens)


@pytest.fixture
def make(sim, clients):
    made = []
    sim.responder = answered

    def opened(limit="100", **more):
        config = CostConfig(
            providers={"openai": {"base_url": sim.openai_url}}, budgets=[{"scope": "global", "limit": limit}],
            output={"learned_caps": "5%", "on_insufficient": ["raise"]}, **more,
        )  # fmt: skip
        pipeline = CostPipeline(config)
        made.append(pipeline)
        return pipeline, wrap_openai(clients["openai"], pipeline)

    yield opened
    for pipeline in made:
        assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
        assert pipeline.ledger.balance("global").pending_nanousd == 0
        pipeline.close()


def ask(client, text="short", site="notes", **more):
    with cost_context(site=site):
        return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], **more)


def caps(sim, count):
    return [exchange.body.get("max_completion_tokens") for exchange in sim.requests[-count:]]


def test_a_learned_cap_is_sent_and_an_answer_that_hits_it_is_asked_for_once_more(make, sim):
    pipeline, client = make()
    for _ in range(19):
        ask(client)
    usual = caps(sim, 1)[0]
    ask(client)
    learned = caps(sim, 1)[0]
    assert SHORT < learned < 300 < usual
    before = sim.request_count
    answer = ask(client, "long")
    assert caps(sim, sim.request_count - before) == [learned, usual]
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("stop", LONG)
    rows = [row for row in pipeline.ledger.rows() if row.kind == "settle"]
    assert len(rows) == 22  # each attempt was held and booked by itself


def test_who_sets_a_cap_streams_or_asks_at_another_site_has_none_learned(make, sim):
    _, client = make()
    for _ in range(20):
        ask(client)
    usual = caps(sim, 20)[0]
    ask(client, max_completion_tokens=2_000)
    list(ask(client, stream=True))
    ask(client, site="elsewhere")
    ask(client, n=2)
    assert caps(sim, 4) == [2_000, usual, usual, usual]
    assert ask(client, "long", max_completion_tokens=50).choices[0].finish_reason == "length"
    assert caps(sim, 1) == [50]


def test_where_the_second_attempt_is_refused_or_fails_the_caller_has_the_answer_that_he_paid_for(make, sim):
    _, client = make()
    for _ in range(20):
        ask(client)
    sim.script(Fault.status(400), match=lambda exchange: exchange.body.get("max_completion_tokens", 0) > 300)
    assert ask(client, "long").choices[0].finish_reason == "length"


def test_no_money_for_a_second_attempt(make, sim):
    _, client = make(limit="0.173")  # one usual hold is $0.164
    for _ in range(20):
        ask(client)
    assert ask(client, "long").choices[0].finish_reason == "length"


def test_thinking_counts_as_part_of_what_answers_need(make, sim):
    _, client = make()
    for _ in range(20):
        answer = ask(client, "think", reasoning_effort="high")
    assert answer.usage.completion_tokens_details.reasoning_tokens == 256
    assert ask(client, "think", reasoning_effort="high").choices[0].finish_reason == "stop"
    assert caps(sim, 1)[0] > answer.usage.completion_tokens > 256


def test_nothing_is_learned_where_nobody_asked_for_it(sim, clients):
    sim.responder = answered
    config = CostConfig(providers={"openai": {"base_url": sim.openai_url}})
    with CostPipeline(config) as pipeline:
        client = wrap_openai(clients["openai"], pipeline)
        for _ in range(25):
            ask(client)
    assert len(set(caps(sim, 25))) == 1
