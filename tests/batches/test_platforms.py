"""Batches of clients of a platform: read, held, sent and booked as that platform says, in both lanes."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest

from llm_cost_middleware.batches import BatchPendingError
from llm_cost_middleware.config.gateways import service_of
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.patterns import aprocess, process, process_many
from llm_cost_middleware.platform import CLIENTS
from llm_cost_middleware.simulator import BatchPace
from llm_cost_middleware.simulator.bedrock import signing
from llm_cost_middleware.tracker import CostTracker

DEPLOYMENTS = {
    "eu--gpt-5-nano": {"model": "gpt-5-nano", "type": "DataZoneStandard", "region": "swedencentral"},
    "eu--gpt-5-mini": {"model": "gpt-5-mini", "type": "DataZoneBatch", "region": "swedencentral"},
    "provisioned--gpt-5-mini": {
        "model": "gpt-5-mini", "type": "ProvisionedManaged", "input_mtok": "0", "output_mtok": "0",
    },
}  # fmt: skip
AZURE = {"azure": {"deployments": DEPLOYMENTS}}


def ask(model, **more):
    messages = [{"role": "user", "content": "Sum up."}]
    return {"model": model, "max_completion_tokens": 50, "messages": messages, **more}


@pytest.fixture(params=["AzureOpenAI", "AsyncAzureOpenAI", "OpenAI"])
def azure(request, desk):
    root = desk.sim.openai_url.removesuffix("/v1")
    if request.param == "OpenAI":  # set to the address of a resource; what is sent is handed to the simulator
        client = openai.OpenAI(base_url="https://ours.openai.azure.com/openai/v1/", api_key="k", max_retries=0)
        real = client._client.send

        def send(sent, **options):
            sent.url = type(sent.url)(str(sent.url).replace("https://ours.openai.azure.com", root))
            sent.headers["host"] = sent.url.netloc.decode()
            return real(sent, **options)

        client._client.send = send
    else:
        make = getattr(openai, request.param)
        client = make(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview", max_retries=0)
    yield client
    if request.param != "AsyncAzureOpenAI":
        client.close()


def answers(pipeline, requests, client, **options):
    if isinstance(client, openai.AsyncOpenAI):
        return asyncio.run(pipeline.abatch(requests, client=client, **options))
    return pipeline.batch(requests, client=client, **options)


def test_an_ordinary_call_of_a_batch_is_its_platforms_and_takes_no_lane_that_it_does_not_sell(desk, azure):
    """Flex is on none of its price lists: `pipeline.batch` held and booked these as OpenAI's, at half the list."""
    pipeline = desk.pipeline(platforms=AZURE, routing={"regions": ["eu"]})
    found = answers(pipeline, [ask("eu--gpt-5-nano")] * 3, azure, patience="24h")
    assert [record.model for record in found.records] == ["eu/gpt-5-nano"] * 3
    assert {record.provider for record in found.records} == {"azure"}
    assert found.lanes == {"standard": 3}
    assert "service_tier" not in [key for one in desk.sim.requests for key in one.body or ()]
    assert pipeline.ledger.balance("provider:azure").settled_nanousd == desk.sim.bill.total_nanousd
    desk.agree(pipeline)


def test_its_budgets_and_regions_hold(desk, azure):
    pipeline = desk.pipeline(platforms=AZURE, budgets=[{"scope": "provider:azure", "limit": "0.000005"}])
    (refused,) = answers(pipeline, [ask("eu--gpt-5-nano")], azure, patience="24h")
    assert isinstance(refused, BudgetExceededError)
    elsewhere = desk.pipeline(platforms=AZURE, routing={"regions": ["us"]})
    (refused,) = answers(elsewhere, [ask("eu--gpt-5-nano")], azure)
    assert isinstance(refused, Exception)
    assert desk.sim.request_count == 0


def test_a_deployment_for_batches_gets_a_batch_held_and_booked_at_its_place(desk, azure):
    pipeline, held = desk.pipeline(platforms=AZURE, routing={"regions": ["eu"]}), []
    desk.sim.batch_pace = BatchPace(delay_s=3_600)

    def look(*_):
        held.append(pipeline.ledger.balance("provider:azure").pending_nanousd)

    found = answers(pipeline, [ask("eu--gpt-5-mini")] * 40, azure, patience="24h", progress=look)
    assert found.lanes == {"batch": 40}
    assert {(record.provider, record.model) for record in found.records} == {("azure", "eu/gpt-5-mini")}
    assert len(desk.created()) == 1
    assert {line.tier for line in desk.sim.bill.lines} == {"batch"}
    balance = pipeline.ledger.balance("provider:azure")
    assert max(held) >= balance.settled_nanousd == desk.sim.bill.total_nanousd
    desk.agree(pipeline)


def test_a_batch_of_a_platform_is_collected_by_whoever_has_a_client_of_it(desk):
    root = desk.sim.openai_url.removesuffix("/v1")
    pipeline = desk.pipeline(platforms=AZURE)
    desk.sim.batch_pace = BatchPace(delay_s=3_600)
    with openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview") as client:
        with pytest.raises(BatchPendingError) as pending:
            pipeline.batch([ask("eu--gpt-5-mini")] * 40, client=client, patience="24h", timeout=0)
        desk.clock.advance(90_000)
        with pytest.raises(ConfigurationError, match="is of azure"):
            pipeline.collect_batch(pending.value.batch_id, client=desk.gpt)
        collected = pipeline.collect_batch(pending.value.batch_id, client=wrap_openai(client, pipeline))
    assert len(collected.responses) == 40
    assert collected.cost_nanousd == desk.sim.bill.total_nanousd
    desk.agree(pipeline)


def test_clients_of_a_provider_and_a_platform_side_by_side_each_get_their_own(desk):
    root = desk.sim.openai_url.removesuffix("/v1")
    pipeline = desk.pipeline(platforms=AZURE)
    with openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview") as azure:
        asked = [ask("eu--gpt-5-nano"), ask("gpt-5-nano"), ask("gpt-5.1")]
        found = pipeline.batch(asked, client=[desk.gpt, azure])
    assert [(one.provider, one.model.rpartition("/")[0]) for one in found.records] == [
        ("azure", "eu"), ("openai", ""), ("openai", ""),
    ]  # fmt: skip
    desk.agree(pipeline)


def test_the_patterns_read_a_client_as_its_platform_says(desk):
    root = desk.sim.openai_url.removesuffix("/v1")
    pipeline = desk.pipeline(platforms=AZURE, tiers=[{"name": "low", "models": ["azure/eu/gpt-5-nano"]}])
    tracker = CostTracker("1")
    with openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview") as client:
        result, _ = process("Hello", pipeline, tracker, client=client)
        many = process_many(["Hello", "You"], pipeline, tracker, client=client, patience="24h")
    assert (result.record.provider, result.record.model) == ("azure", "eu/gpt-5-nano")
    assert {one.record.model for _, one in many.done} == {"eu/gpt-5-nano"}
    client = openai.AsyncAzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview")
    result, _ = asyncio.run(aprocess("Hello", pipeline, tracker, client=client))
    assert result.record.provider == "azure"
    desk.agree(pipeline)


HAIKU = "claude-haiku-4-5"


def bedrock_of(sim, kind):
    pytest.importorskip("botocore", reason="AnthropicBedrock cannot sign without it")
    keys = {"aws_access_key": signing.ACCESS_KEY, "aws_secret_key": signing.SECRET_KEY}
    return kind(base_url=sim.bedrock_url, aws_region="eu-west-1", **keys), f"eu.anthropic.{HAIKU}-20251001-v1:0"


def vertex_of(sim, kind):
    client = kind(base_url=sim.vertex_url, region="europe-west1", project_id="acme", access_token="ya29.t")
    return client, f"{HAIKU}@20251001"


@pytest.mark.parametrize(("make", "kind"), [
    (bedrock_of, anthropic.AnthropicBedrock), (bedrock_of, anthropic.AsyncAnthropicBedrock),
    (vertex_of, anthropic.AnthropicVertex), (vertex_of, anthropic.AsyncAnthropicVertex),
])  # fmt: skip
def test_a_platform_that_makes_no_batches_answers_by_ordinary_calls_of_its_own(desk, make, kind):
    client, model = make(desk.sim, kind)
    pipeline = desk.pipeline(routing={"regions": ["eu"]})
    body = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "Sum up."}]}
    work = {"client": client, "patience": "24h"}
    if kind.__name__.startswith("Async"):
        found = asyncio.run(pipeline.abatch([body] * 40, **work))
    else:
        found = pipeline.batch([body] * 40, **work)
    assert found.lanes == {"standard": 40}
    (service,) = {record.provider for record in found.records}
    assert service == CLIENTS["anthropic"][kind.__name__]
    assert {line.geo for line in desk.sim.bill.lines} == {"regional"}
    assert pipeline.ledger.balance(f"provider:{service}").settled_nanousd == desk.sim.bill.total_nanousd
    desk.agree(pipeline)


def test_azure_sells_no_flex(desk):
    root = desk.sim.openai_url.removesuffix("/v1")
    with openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version="2025-04-01-preview") as client:
        for tier in ("flex", "scale"):
            with pytest.raises(openai.BadRequestError, match="Supported values"):
                client.chat.completions.create(**ask("gpt-5-nano", service_tier=tier))
    assert desk.sim.bill.total_nanousd == 0


def test_every_client_class_of_the_sdks_is_known_or_refused(desk):
    """Each is a provider's own or a platform's; one whose prices nobody here knows makes no batch."""
    pipeline = desk.pipeline()
    for sdk in (openai, anthropic):
        bases = sdk._base_client.SyncAPIClient, sdk._base_client.AsyncAPIClient
        exported = {name: value for name, value in list(vars(sdk).items()) if isinstance(value, type)}
        classes = {kind.__name__: kind for kind in exported.values() if issubclass(kind, bases)}
        assert classes.keys() & CLIENTS[sdk.__name__].keys()
        for name, kind in classes.items():
            client = object.__new__(kind)
            service = service_of(client)
            assert service == CLIENTS[sdk.__name__].get(name, "")
            if not service:
                with pytest.raises(ConfigurationError, match="client"):
                    pipeline.batch([], client=client)
    assert service_of(object()) is None
