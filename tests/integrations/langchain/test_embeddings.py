"""``guard`` of an embedding model: the same class and vectors, held and booked; others are told to be ungoverned."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_openai import OpenAIEmbeddings

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import BudgetExceededError, UnsupportedRequestError
from llm_cost_middleware.events import Retried
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.sdk_clients.single_attempt import client_of
from llm_cost_middleware.simulator import Fault

TEXTS = ["what is held", "is what is booked", "word " * 200]


@pytest.fixture
def plain(sim):
    return OpenAIEmbeddings(
        model="text-embedding-3-small", base_url=sim.openai_url, api_key="k", check_embedding_ctx_length=False
    )


def pipeline(**config):
    return CostPipeline(CostConfig(**{"budgets": [{"scope": "user:*", "limit": "1"}], **config}))


async def later(guarded):
    async with client_of(guarded.async_client.plain):
        return await guarded.aembed_query(TEXTS[0])


def test_vectors_are_the_same_and_every_request_is_booked(sim, plain):
    ledger = pipeline()
    guarded = guard(plain, ledger)
    assert type(guarded) is type(plain)
    with cost_context(user="7"):
        vectors = guarded.embed_documents(TEXTS)
        assert asyncio.run(later(guarded)) == vectors[0]
    assert ledger.ledger.balance("user:7").settled_nanousd == sim.bill.total_nanousd > 0
    assert vectors == plain.embed_documents(TEXTS)  # the user's own model stays as it was
    assert ledger.ledger.balance("user:7").settled_nanousd < sim.bill.total_nanousd


def test_what_does_not_fit_is_not_sent(sim, plain):
    guarded = guard(plain, pipeline(budgets=[{"scope": "global", "limit": "0.0000001"}]))
    with pytest.raises(BudgetExceededError):
        guarded.embed_documents(TEXTS)
    assert sim.request_count == 0


def test_a_request_is_repeated_once_each_by_us(sim, plain):
    ledger = pipeline(retry={"base_s": 0.01})
    sim.script(Fault.status(500), times=10)
    with pytest.raises(Exception, match=r"500|nternal"):
        guard(plain.model_copy(update={"max_retries": 2}), ledger).embed_query("x")
    assert sim.request_count == ledger.config.retry.max_attempts


def test_texts_that_are_changed_while_a_retry_waits_are_sent_as_they_were(sim, plain):
    texts = [*TEXTS]

    def change(event):
        if isinstance(event, Retried):
            texts[0] = "word " * 1_000

    config = CostConfig(budgets=[{"scope": "global", "limit": "1"}], retry={"base_s": 0.01})
    guarded = guard(plain, CostPipeline(config, observers=[change]))
    sim.script(Fault.status(500))
    guarded.client.create(model=plain.model, input=texts)
    assert [request.body["input"] for request in sim.requests] == [TEXTS, TEXTS]


def test_guarded_twice_it_is_booked_once(sim, plain):
    ledger = pipeline()
    guard(guard(plain, ledger), ledger).embed_query("hello")
    assert sum(record.cost_nanousd for record in ledger.records()) == sim.bill.total_nanousd
    assert len(ledger.records()) == 1


def test_others_are_not_governed_and_said_to_be(caplog):
    model = DeterministicFakeEmbedding(size=3)
    assert guard(model, pipeline()) is model
    assert type(model).__name__ in caplog.text
    with pytest.raises(UnsupportedRequestError, match=type(model).__name__):
        guard(model, pipeline(on_ungoverned="deny"))
