"""Embeddings of Azure in the SDK: governed like OpenAI's own, under the name and at the place of their deployment."""

from __future__ import annotations

import openai
import pytest
from openai_counts import counting_simulator

from llm_cost_middleware.errors import BudgetExceededError, PriceNotFoundError
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Fault

SMALL, LARGE = "text-embedding-3-small", "eu--text-embedding-3-large"
PLATFORMS = {"azure": {"deployments": {
    LARGE: {"model": "text-embedding-3-large", "region": "swedencentral"}, SMALL: f"global/{SMALL}",
}}}  # fmt: skip
TEXTS = ["hello there", "you"]


@pytest.fixture
def sim():
    with counting_simulator() as simulator:
        yield simulator


@pytest.fixture
def make(sim):
    opened = []

    def made(limit="1", **client):
        pipeline = CostPipeline({
            "budgets": [{"scope": "provider:azure", "limit": limit}], "platforms": PLATFORMS,
            "retry": {"base_s": 0.01, "throttle_base_s": 0.01},
        })  # fmt: skip
        root = sim.openai_url.removesuffix("/v1")
        plain = openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2024-10-21", **client)
        opened.extend([plain, pipeline])
        return wrap_openai(plain, pipeline), pipeline

    yield made
    for one in opened:
        one.close()


@pytest.mark.parametrize("deployment", [SMALL, LARGE])
def test_the_ledger_says_what_the_deployment_bills(make, sim, deployment):
    client, pipeline = make()
    ask = {"model": deployment, "input": [[1, 2, 3], [4]]}  # of tokens: the hold needs no vocabulary
    sim.script(Fault.status(429))
    client.embeddings.create(**ask)
    client.embeddings.with_raw_response.create(**ask).parse()
    client.with_options(timeout=9).embeddings.create(**ask)
    assert sim.request_count == 4
    assert {record.status for record in pipeline.records()} == {"exact"}
    balance = pipeline.ledger.balance("provider:azure")
    assert (balance.pending, balance.settled_nanousd) == (0, sim.bill.total_nanousd)
    holds = [row.amount_nanousd for row in pipeline.ledger.rows() if row.kind == "reserve"]
    assert min(holds) >= sim.bill.lines[0].cost_nanousd > 0


def test_a_fixed_deployment_is_what_is_priced(make, sim):
    client, pipeline = make(azure_deployment=LARGE)
    client.embeddings.create(model=SMALL, input=TEXTS)
    assert pipeline.ledger.balance("provider:azure").settled_nanousd == sim.bill.total_nanousd
    assert pipeline.records()[-1].model.endswith("text-embedding-3-large")


async def test_the_async_client_too(make, sim):
    _, pipeline = make()
    root = sim.openai_url.removesuffix("/v1")
    async with openai.AsyncAzureOpenAI(azure_endpoint=root, api_key="k", api_version="2024-10-21") as plain:
        await wrap_openai(plain, pipeline).embeddings.create(model=LARGE, input=[[1, 2, 3], [4]])
    assert pipeline.ledger.balance("provider:azure").settled_nanousd == sim.bill.total_nanousd > 0


def test_what_does_not_fit_or_has_no_name_is_not_sent(make, sim):
    client, _ = make(limit="0.00000001")
    with pytest.raises(BudgetExceededError):
        client.embeddings.create(model=SMALL, input=TEXTS)
    with pytest.raises((PriceNotFoundError, openai.OpenAIError)):
        client.embeddings.create(model="my-own-deployment", input=TEXTS)
    assert sim.request_count == 0
