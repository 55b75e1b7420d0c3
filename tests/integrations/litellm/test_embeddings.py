"""Embeddings through a ``CostAwareRouter``: each request that leaves has a reservation, and is booked at its bill."""

from __future__ import annotations

import asyncio
import concurrent.futures

import openai
import pytest
from openai_counts import counting_simulator

from llm_cost_middleware.errors import BudgetExceededError, UnsupportedRequestError
from llm_cost_middleware.simulator import Fault

pytestmark = pytest.mark.litellm
PLATFORMS = {
    "azure": {
        "deployments": {
            "eu--text-embedding-3-large": {"model": "text-embedding-3-large", "region": "swedencentral"},
            "text-embedding-3-small": "global/text-embedding-3-small",
        }
    }
}
MODELS = ("openai/text-embedding-3-small", "azure/eu--text-embedding-3-large", "azure/text-embedding-3-small")
TEXTS = ["Hello there, how are you?", "fine"]


@pytest.fixture
def sim():
    with counting_simulator() as simulator:
        yield simulator


@pytest.fixture
def harness(make_harness):
    return make_harness(platforms=PLATFORMS)


@pytest.fixture
def entry(sim):
    def make(model, name="e", **params):
        azure = {"api_base": sim.openai_url.removesuffix("/v1"), "api_version": "2024-10-21"}
        where = azure if model.startswith("azure/") else {"api_base": sim.openai_url}
        return {"model_name": name, "litellm_params": {"model": model, "api_key": "k", **where, **params}}

    return make


def ask(router, asynchronous, **arguments):
    arguments = {"model": "e", "input": TEXTS, **arguments}
    return asyncio.run(router.aembedding(**arguments)) if asynchronous else router.embedding(**arguments)


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@both
@pytest.mark.parametrize("model", MODELS)
def test_the_ledger_says_what_is_billed(harness, entry, model, asynchronous):
    answer = ask(harness.router([entry(model)]), asynchronous)
    assert len(answer.data) == len(TEXTS)
    (record,) = harness.pipeline.records()
    assert record.provider == model.partition("/")[0]
    assert (record.input_tokens, record.output_tokens) == (answer.usage.prompt_tokens, 0)
    harness.agree()
    (held,) = [row.amount_nanousd for row in harness.pipeline.ledger.rows() if row.kind == "reserve"]
    assert held >= harness.settled


@both
@pytest.mark.parametrize("model", MODELS[:2])
@pytest.mark.parametrize("fault", [Fault.status(500), Fault.status(429), Fault.reset()], ids=["500", "429", "reset"])
@pytest.mark.parametrize("said", [{}, {"max_retries": 4}], ids=["unsaid", "five tries"])
def test_as_many_are_sent_as_are_held(make_harness, entry, model, fault, said, asynchronous):
    """LiteLLM's function for OpenAI's embeddings reads ``max_retries or 2``: each would be sent up to three times."""
    harness = make_harness(platforms=PLATFORMS, retry={"max_attempts": 2})
    harness.sim.script(fault, times=9)
    with pytest.raises(Exception, match=r"."):
        ask(harness.router([entry(model, **said)]), asynchronous, num_retries=1, **said)
    held = [row for row in harness.pipeline.ledger.rows() if row.kind == "reserve"]
    assert harness.sim.request_count == len(held) == 2
    assert harness.settled >= harness.sim.bill.total_nanousd == 0


@both
def test_a_lost_answer_that_was_billed_is_covered(make_harness, entry, asynchronous):
    harness = make_harness(retry={"max_attempts": 1})
    harness.sim.script(Fault.reset(billed=True))
    with pytest.raises(Exception, match=r"."):
        ask(harness.router([entry(MODELS[0])]), asynchronous)
    assert harness.sim.request_count == 1
    assert harness.sim.bill.total_nanousd > 0
    harness.cover()


@both
def test_what_does_not_fit_is_not_sent(make_harness, entry, asynchronous):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.00000001"}])
    with pytest.raises(BudgetExceededError):
        ask(harness.router([entry(MODELS[0])]), asynchronous)
    assert harness.sim.request_count == 0


def test_as_many_are_sent_as_fit(make_harness, entry):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.00002"}])
    router = harness.router([entry(MODELS[0])])

    def one(_):
        try:
            return router.embedding("e", "word " * 200)
        except BudgetExceededError:
            return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        served = sum(answer is not None for answer in pool.map(one, range(24)))
    assert 0 < served == harness.sim.request_count < 24
    assert harness.settled == harness.sim.bill.total_nanousd <= 20_000


@both
def test_a_client_of_ones_own_sends_once_and_stays_as_it_is(make_harness, entry, asynchronous):
    harness = make_harness(retry={"max_attempts": 1})
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    client = kind(base_url=harness.sim.openai_url, api_key="k", max_retries=7)
    harness.sim.script(Fault.status(500), times=9)
    with pytest.raises(Exception, match=r"."):
        ask(harness.router([entry(MODELS[0])]), asynchronous, client=client)
    assert harness.sim.request_count == 1
    assert client.max_retries == 7


@pytest.mark.parametrize(
    "hidden", [{"input": "word " * 300}, {"model": "text-embedding-3-large"}], ids=["input", "model"]
)
def test_extra_body_hides_nothing(harness, entry, hidden):
    """LiteLLM lays it over the body."""
    router = harness.router([entry(MODELS[0])])
    try:
        ask(router, False, input="x", extra_body=hidden)
    except Exception:  # noqa: BLE001 - refused is right as well
        assert harness.sim.request_count == 0
    harness.agree() if harness.sim.request_count else None
    for row in harness.pipeline.ledger.rows():
        assert row.kind != "reserve" or row.amount_nanousd >= harness.sim.bill.total_nanousd


@both
def test_a_fallback_of_the_owner_is_held_at_its_own_price(harness, entry, asynchronous):
    models = [entry(MODELS[0]), entry("openai/text-embedding-3-large", name="large")]
    router = harness.router(models, fallbacks=[{"e": ["large"]}], num_retries=0)
    harness.sim.script(Fault.status(500))
    answer = ask(router, asynchronous)
    assert answer.model == "text-embedding-3-large"
    assert harness.sim.request_count == 2
    harness.agree()


@both
def test_an_answer_that_litellm_makes_up_costs_nothing(harness, entry, asynchronous):
    ask(harness.router([entry(MODELS[0])]), asynchronous, mock_response=[0.1, 0.2])
    assert harness.sim.request_count == 0
    assert harness.settled == 0


def test_what_litellms_cache_knows_is_not_booked_again(harness, entry, monkeypatch):
    import litellm

    monkeypatch.setattr(litellm, "cache", litellm.Cache(type="local"))
    router = harness.router([entry(MODELS[0])])

    async def several():
        for given in (["one", "two and three"], ["one", "two and three"], ["one", "something else", "two and three"]):
            answer = await router.aembedding(model="e", input=given, caching=True)
            assert len(answer.data) == len(given)
            await asyncio.sleep(0.05)  # LiteLLM writes its cache after the answer

    asyncio.run(several())
    assert harness.sim.request_count == 2
    harness.agree()


def test_the_routed_name_embeds_nothing(harness, entry):
    with pytest.raises(Exception, match="smart"):
        ask(harness.router([entry(MODELS[0])]), False, model="smart")
    assert harness.sim.request_count == 0


@pytest.mark.parametrize("elsewhere", [{"azure": True}, {"custom_llm_provider": "cohere"}], ids=["azure", "another"])
def test_a_call_cannot_send_it_to_another_provider(harness, entry, elsewhere):
    with pytest.raises(UnsupportedRequestError, match="provider"):
        ask(harness.router([entry(MODELS[0])]), False, **elsewhere)
    assert harness.sim.request_count == 0
    ask(harness.router([entry(MODELS[0])]), False, custom_llm_provider="openai")
    harness.agree()
