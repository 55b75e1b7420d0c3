"""What Azure bills later: batches of its deployments, and responses in the background."""

from __future__ import annotations

import json

import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.errors import BudgetExceededError, PriceNotFoundError
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = {"model": "eu--gpt-5-mini", "max_completion_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
OURS = {"model": "gpt-5-mini", "type": "ProvisionedManaged"}
DEPLOYMENTS = {
    "eu--gpt-5-mini": {"model": "gpt-5-mini", "type": "DataZoneBatch", "region": "swedencentral"},
    "provisioned--gpt-5-mini": {**OURS, "input_mtok": "0", "output_mtok": "0"},
    "gpt-5-nano": {"model": "gpt-5-nano", "type": "GlobalBatch"},
}


@pytest.fixture
def make(sim):
    opened = []

    def made(limit="5"):
        pipeline = CostPipeline(CostConfig(
            budgets=[{"scope": "provider:azure", "limit": limit}], platforms={"azure": {"deployments": DEPLOYMENTS}},
        ))  # fmt: skip
        root = sim.openai_url.removesuffix("/v1")
        plain = openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview")
        opened.extend([plain, pipeline])
        return wrap_openai(plain, pipeline), pipeline

    yield made
    for one in opened:
        one.close()


def begin(client, **more):
    lines = [{"custom_id": str(n), "method": "POST", "url": "/chat/completions", "body": ASK | more} for n in range(3)]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("asked.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/chat/completions", completion_window="24h")


def test_a_batch_is_held_and_settled_by_what_its_deployment_stands_for(make, sim):
    """Its results name the model alone: the deployment is what is remembered of the batch, by any process."""
    client, pipeline = make()
    batch = begin(client)
    held = pipeline.ledger.balance("provider:azure").pending_nanousd
    sim.clock.advance(90_000)
    done = client.batches.retrieve(batch.id)
    assert client.files.content(done.output_file_id).text
    balance = pipeline.ledger.balance("provider:azure")
    assert balance.pending == 0
    assert held >= balance.settled_nanousd == sim.bill.total_nanousd > 0
    assert [record.model for record in pipeline.records()] == ["eu/gpt-5-mini-2025-08-07"]
    assert {line.tier for line in sim.bill.lines} == {"batch"}


@pytest.mark.parametrize("price", ["0", "0.01"])
def test_a_batch_of_a_provisioned_deployment_is_booked_at_its_own_price_by_any_process(sim, tmp_path, price):
    """Held at 0 and booked at the dearest list price, it passed the limit."""
    own = {"provisioned--gpt-5-mini": {**OURS, "input_mtok": price, "output_mtok": price}}
    root, opened = sim.openai_url.removesuffix("/v1"), []

    def door():
        pipeline = CostPipeline(CostConfig(
            budgets=[{"scope": "provider:azure", "limit": "0.000005"}], platforms={"azure": {"deployments": own}},
            ledger={"url": f"sqlite:///{tmp_path}/ledger.db"},
        ))  # fmt: skip
        plain = openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview")
        opened.extend([plain, pipeline])
        return wrap_openai(plain, pipeline), pipeline

    client, pipeline = door()
    batch = begin(client, model="provisioned--gpt-5-mini")
    held = pipeline.ledger.balance("provider:azure").pending_nanousd
    sim.clock.advance(90_000)
    client, pipeline = door()
    done = client.batches.retrieve(batch.id)
    assert client.files.content(done.output_file_id).text
    balance = pipeline.ledger.balance("provider:azure")
    assert balance.pending == 0
    assert held >= balance.settled_nanousd
    assert (balance.settled_nanousd > 0) == (price != "0")
    assert [record.model for record in pipeline.records()] == ["provisioned/gpt-5-mini"]
    for one in opened:
        one.close()


def test_a_batch_that_does_not_fit_or_has_no_price_is_not_made(make):
    client, _ = make(limit="0.000001")
    with pytest.raises(BudgetExceededError):
        begin(client)
    with pytest.raises(PriceNotFoundError, match=r'\[platforms\.azure\.deployments\] "ours"'):
        begin(client, model="ours")


def test_a_response_in_the_background_is_settled_when_it_is_fetched(make, sim):
    client, pipeline = make()
    asked = client.responses.create(model=ASK["model"], input="Hello", max_output_tokens=50, background=True)
    assert pipeline.ledger.balance("provider:azure").pending > 0
    for _ in range(2):
        client.responses.retrieve(asked.id)
    balance = pipeline.ledger.balance("provider:azure")
    assert (balance.pending, balance.settled_nanousd) == (0, sim.bill.total_nanousd)
    assert balance.settled_nanousd > 0


def test_responses_whole_streamed_and_parsed(make, sim):
    client, pipeline = make()
    asked = {"model": ASK["model"], "input": "Hello", "max_output_tokens": 50}
    client.responses.create(**asked)
    assert list(client.responses.create(**asked, stream=True))
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text
    balance = pipeline.ledger.balance("provider:azure")
    assert (balance.pending, balance.settled_nanousd) == (0, sim.bill.total_nanousd)
    assert len(pipeline.records()) == 3
