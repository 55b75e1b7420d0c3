"""Embeddings: governed like every other call, with a bound that is their input and nothing else."""

from __future__ import annotations

import asyncio
import concurrent.futures

import openai
import pytest
from openai_counts import counting_simulator

from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import BudgetExceededError, LLMCostError, PriceNotFoundError, UnsupportedRequestError
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Fault

MODELS = ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002")
INPUTS = {
    "a text": "How much is an answer?",
    "a long text": "the cost of a call, held before it leaves. " * 400,
    "unicode": "Wie viel kostet das? いくらですか 🙂" * 20,
    "texts": ["one", "two words", "x" * 3_000],
    "tokens": [15339, 1917, 0],
    "lists of tokens": [[15339, 1917], [1], list(range(2_000))],
}


@pytest.fixture
def sim():
    with counting_simulator() as simulator:
        yield simulator


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS)
def test_an_embedding_is_held_above_its_bill_and_booked_at_it(harness, clients, model, given):
    client = harness.wrap(clients)["openai"]
    answer = client.embeddings.create(model=model, input=given)
    assert answer.usage.prompt_tokens == harness.sim.bill.lines[-1].tokens.input
    assert isinstance(answer.data[0].embedding, list)
    harness.agree()
    record = harness.pipeline.records()[-1]
    assert record.model == model
    assert (record.input_tokens, record.output_tokens) == (answer.usage.prompt_tokens, 0)
    (held,) = [row.amount_nanousd for row in harness.pipeline.ledger.rows() if row.kind == "reserve"]
    assert held >= harness.settled


def test_embeddings_of_the_routed_name_are_refused_with_the_reason(harness, clients):
    client = harness.wrap(clients)["openai"]
    with pytest.raises(UnsupportedRequestError, match="another model's vectors mean something else"):
        client.embeddings.create(model="smart", input="hi")
    assert harness.sim.request_count == 0


@pytest.mark.parametrize("kind", ["texts", "tokens", "lists of tokens"])
def test_an_embedding_that_does_not_fit_is_not_held_at_less_than_its_bill(harness, clients, kind):
    """Tokens need no vocabulary: counted again before a refusal, they stay what they are."""
    given = INPUTS[kind]
    harness.wrap(clients)["openai"].embeddings.create(model=MODELS[0], input=given)
    limit = harness.settled - 1
    with CostPipeline({"budgets": [{"scope": "global", "limit": NanoUSD(limit).usd}]}) as pipeline:
        client = wrap_openai(clients["openai"], pipeline)
        with pytest.raises(BudgetExceededError):
            client.embeddings.create(model=MODELS[0], input=given)
        assert pipeline.ledger.balance("global").settled_nanousd == 0


def test_the_request_is_what_its_caller_wrote(harness, clients):
    client, plain = harness.wrap(clients)["openai"], clients["openai"]
    for options in ({}, {"dimensions": 8}, {"encoding_format": "float"}, {"user": "u1"}):
        client.embeddings.create(model=MODELS[0], input=["a", "b"], **options)
        plain.embeddings.create(model=MODELS[0], input=["a", "b"], **options)
        governed, alone = (request.body for request in list(harness.sim.requests)[-2:])
        assert governed == alone


def test_every_way_to_an_embedding_is_governed(harness, clients):
    client = harness.wrap(clients)["openai"]
    ask = {"model": MODELS[0], "input": "hello"}
    raw = client.embeddings.with_raw_response.create(**ask)
    assert raw.parse().usage.prompt_tokens == 1
    with client.embeddings.with_streaming_response.create(**ask) as streamed:
        assert streamed.parse().usage.prompt_tokens == 1
    client.with_options(timeout=20).embeddings.create(**ask)
    client.embeddings.create(**ask, extra={"llm_cost": {"user": "42"}})

    async def later():
        async with openai.AsyncOpenAI(base_url=harness.sim.openai_url, api_key="k") as other:
            return await wrap_openai(other, harness.pipeline).embeddings.create(**ask)

    asyncio.run(later())
    harness.agree()
    assert len(harness.pipeline.records()) == 5
    assert harness.pipeline.ledger.balance("user:42").settled_nanousd == harness.sim.bill.lines[0].cost_nanousd


def test_as_many_are_sent_as_fit_and_never_more(make_harness, clients):
    harness = make_harness(budgets=[{"scope": "user:*", "limit": "0.00002"}])
    client = harness.wrap(clients)["openai"]

    def one(_):
        with cost_context(user="7"):
            try:
                return client.embeddings.create(model=MODELS[0], input="word " * 200)
            except BudgetExceededError:
                return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(24)))
    served = sum(answer is not None for answer in answers)
    assert 0 < served < 24
    assert served == harness.sim.request_count
    balance = harness.pipeline.ledger.balance("user:7")
    assert balance.pending_nanousd == 0
    assert balance.settled_nanousd == harness.sim.bill.total_nanousd <= NanoUSD(20_000)


def test_a_name_that_is_routed_embeds_nothing(harness, clients):
    client = harness.wrap(clients)["openai"]
    with pytest.raises((PriceNotFoundError, openai.OpenAIError)):
        client.embeddings.create(model="smart", input="x")
    assert harness.sim.request_count == 0


@pytest.mark.parametrize(
    "given", ["", [], [""], "word " * 9_000, ["a"] * 2_049, ["word " * 4_000] * 80, [[]], [1.5], None],
    ids=["empty", "none", "an empty one", "too long", "too many", "too much", "no tokens", "odd", "null"],
)  # fmt: skip
def test_what_the_provider_refuses_is_refused_by_it_and_costs_nothing(harness, clients, given):
    client = harness.wrap(clients)["openai"]
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=MODELS[1], input=given)
    assert harness.settled == harness.sim.bill.total_nanousd == 0


def test_a_failure_is_retried_at_the_same_model_alone(harness, clients):
    client = harness.wrap(clients)["openai"]
    harness.sim.script(Fault.status(503), times=2)
    client.embeddings.create(model=MODELS[0], input="hello")
    assert {request.body["model"] for request in harness.sim.requests} == {MODELS[0]}
    harness.agree()


def test_an_attempt_whose_answer_was_lost_is_booked_at_its_hold(harness, clients):
    client = harness.wrap(clients)["openai"].with_options(max_retries=0)
    harness.sim.script(Fault.reset(billed=True))
    with pytest.raises((openai.APIConnectionError, LLMCostError)):
        client.embeddings.create(model=MODELS[0], input="hello")
    harness.cover()
