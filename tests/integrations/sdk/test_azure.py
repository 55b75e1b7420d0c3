"""The openai SDK's clients of Azure, wrapped: the ledger says what the deployment bills, wherever it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from importlib import import_module

import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.config.sent_names import ClientNames
from llm_cost_middleware.errors import (
    BudgetExceededError,
    ConfigurationError,
    NoEligibleModelError,
    PriceNotFoundError,
    UnsupportedRequestError,
)
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.simulator import Fault

ASKED = {"model": "eu--gpt-5-mini", "max_completion_tokens": 200, "messages": [{"role": "user", "content": "Hello"}]}
DEPLOYMENTS = {"eu--gpt-5-mini": {"model": "gpt-5-mini", "region": "swedencentral"}, "gpt-5-mini": "global/gpt-5-mini"}


@pytest.fixture
def make_pipeline():
    made = []

    def make(**sections):
        sections.setdefault("budgets", [{"scope": "provider:azure", "limit": "50"}])
        sections.setdefault("platforms", {"azure": {"deployments": DEPLOYMENTS}})
        sections.setdefault("retry", {"base_s": 0.01, "throttle_base_s": 0.01})
        made.append(CostPipeline(CostConfig(**sections)))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def client_of():
    made = []

    def make(sim, version="2024-10-21", **more):
        root = sim.openai_url.removesuffix("/v1")
        made.append(openai.AzureOpenAI(azure_endpoint=root, api_key="k", api_version=version, **more))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.mark.parametrize("deployment", list(DEPLOYMENTS))
def test_a_report_compares_with_the_list_of_the_place_that_answered(make_pipeline, client_of, sim, deployment):
    pipeline = make_pipeline()
    wrap_openai(client_of(sim), pipeline).chat.completions.create(**ASKED | {"model": deployment})
    check(pipeline, sim)
    (row,) = pipeline.report(by="provider").rows
    assert row.sums.list_picousd == row.sums.cost_nanousd * 1_000


def led_to(sim):
    """An HTTP client whose requests reach the simulator, whatever address they are for."""
    port = int(sim.openai_url.rpartition(":")[2].split("/")[0])
    httpx = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])

    class Here(httpx.HTTPTransport):
        def handle_request(self, request):
            request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=port)
            return super().handle_request(request)

    return httpx.Client(transport=Here())


def check(pipeline, sim):
    balance = pipeline.ledger.balance("provider:azure")
    assert balance.pending == 0
    assert {record.status for record in pipeline.records()} == {"exact"}
    assert balance.settled_nanousd == sim.bill.total_nanousd > 0


@pytest.mark.parametrize("deployment", list(DEPLOYMENTS))
def test_ledger_and_bill_agree_whole_streamed_and_raw(make_pipeline, client_of, sim, deployment):
    pipeline, asked = make_pipeline(), {**ASKED, "model": deployment}
    client = wrap_openai(client_of(sim), pipeline)
    client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert chunks[0].choices == []  # what the filter found in the prompt
    client.chat.completions.with_raw_response.create(**asked).parse()
    assert len(pipeline.records()) == 3
    check(pipeline, sim)


async def test_the_async_client_is_governed_too(make_pipeline, sim):
    pipeline = make_pipeline()
    root = sim.openai_url.removesuffix("/v1")
    async with openai.AsyncAzureOpenAI(azure_endpoint=root, api_key="k", api_version="2024-10-21") as client:
        await wrap_openai(client, pipeline).chat.completions.create(**ASKED)
    check(pipeline, sim)


def test_a_fixed_deployment_is_what_is_priced_whatever_a_call_names(make_pipeline, client_of, sim):
    pipeline = make_pipeline()
    client = wrap_openai(client_of(sim, azure_deployment="eu--gpt-5-mini"), pipeline)
    client.chat.completions.create(**{**ASKED, "model": "anything"})
    check(pipeline, sim)


def test_a_fixed_deployment_is_not_what_responses_go_to(make_pipeline, client_of, sim):
    """The SDK sends them to the resource, to the deployment that the call names (``openai/lib/azure.py``)."""
    pipeline = make_pipeline(budgets=[{"scope": "provider:azure", "limit": "0.01"}])
    client = wrap_openai(client_of(sim, azure_deployment="gpt-5-mini"), pipeline)
    with pytest.raises(BudgetExceededError):
        client.responses.create(model="gpt-5-pro", max_output_tokens=4000, input="Hello")
    assert pipeline.ledger.balance("provider:azure").settled_nanousd == 0


def test_a_client_that_is_wrapped_follows_the_deployments_of_a_reload(make_pipeline, client_of, sim):
    pipeline = make_pipeline(platforms={"azure": {"deployments": {"eu--gpt-5-mini": "global/gpt-5-nano"}}})
    client = wrap_openai(client_of(sim), pipeline)
    pipeline.reload(CostConfig(platforms={"azure": {"deployments": DEPLOYMENTS}}, budgets=pipeline.config.budgets))
    client.chat.completions.create(**ASKED)
    check(pipeline, sim)


def test_openais_own_client_at_an_address_of_azure_pays_what_azure_asks(make_pipeline, sim):
    """``https://RESOURCE.openai.azure.com/openai/v1/``, without versions: the model that is sent is the deployment."""
    pipeline = make_pipeline()
    with openai.OpenAI(
        base_url="https://ours.openai.azure.com/openai/v1/", api_key="k", http_client=led_to(sim)
    ) as client:
        governed = wrap_openai(client, pipeline)
        governed.chat.completions.create(**ASKED)
        list(governed.chat.completions.create(**ASKED, stream=True))
    check(pipeline, sim)


HOMES = {"azure": "https://ours.openai.azure.com/openai/v1/", "openai": "https://api.openai.com/v1"}


@pytest.mark.parametrize("way", ["copy", "with_options"])
@pytest.mark.parametrize(("before", "after"), [("azure", "openai"), ("openai", "azure")])
def test_a_copy_at_another_house_is_governed_there(make_pipeline, sim, before, after, way):
    pipeline = make_pipeline(budgets=[{"scope": f"provider:{after}", "limit": "50"}])
    with openai.OpenAI(base_url=HOMES[before], api_key="k", http_client=led_to(sim)) as client:
        governed = getattr(wrap_openai(client, pipeline), way)(base_url=HOMES[after])
        governed.chat.completions.create(**ASKED | {"model": "gpt-5-mini"})
    assert [record.provider for record in pipeline.records()] == [after]
    assert pipeline.ledger.balance(f"provider:{after}").settled_nanousd == sim.bill.total_nanousd > 0


@pytest.mark.parametrize(("before", "after"), [("azure", "openai"), ("openai", "azure")])
def test_a_client_that_is_set_to_another_house_sends_nothing(make_pipeline, sim, before, after):
    pipeline = make_pipeline()
    with openai.OpenAI(base_url=HOMES[before], api_key="k", http_client=led_to(sim)) as client:
        governed = wrap_openai(client, pipeline)
        governed.base_url = HOMES[after]
        calls = [
            lambda: governed.chat.completions.create(**ASKED | {"model": "gpt-5-mini"}),
            lambda: governed.moderations.create(input="a"),
        ]
        for call in calls:
            with pytest.raises(UnsupportedRequestError, match="wrap it anew"):
                call()
        governed.base_url = HOMES[before].replace("ours", "others")
        governed.chat.completions.create(**ASKED | {"model": "gpt-5-mini"})
    assert len(pipeline.records()) == 1


def test_a_price_of_one_deployment_is_no_price_of_its_model(make_pipeline):
    priced = {"ours": {"model": "gpt-5-mini", "input_mtok": "0", "output_mtok": "0"}, "other": "gpt-5-mini"}
    with pytest.raises(ConfigurationError, match="provisioned"):
        make_pipeline(platforms={"azure": {"deployments": priced}})


def test_a_name_with_a_price_of_its_own_is_booked_at_it(make_pipeline, client_of, sim):
    price = {"azure/eu--gpt-5-mini": {"input_mtok": "100", "output_mtok": "100"}}
    pipeline = make_pipeline(platforms={"azure": {}}, prices=price)
    wrap_openai(client_of(sim), pipeline).chat.completions.create(**ASKED)
    usage = pipeline.records()[0].usage
    settled = pipeline.ledger.balance("provider:azure").settled_nanousd
    assert settled == (usage.input_tokens + usage.output_tokens) * 100_000


def test_a_deployment_without_a_model_is_refused_before_it_leaves(make_pipeline, client_of, sim):
    client = wrap_openai(client_of(sim), make_pipeline())
    named = r'\[platforms\.azure\.deployments\] "ours" = "MODEL".*\[prices\."azure/ours"\]'
    with pytest.raises(PriceNotFoundError, match=named):
        client.chat.completions.create(**{**ASKED, "model": "ours"})
    assert sim.bill.total_nanousd == 0


def test_a_version_that_reports_no_usage_of_streams_is_booked_at_its_hold(make_pipeline, client_of, sim):
    pipeline = make_pipeline()
    client = wrap_openai(client_of(sim, version="2024-06-01"), pipeline)
    list(client.chat.completions.create(**ASKED, stream=True))
    assert pipeline.records()[0].status != "exact"
    assert pipeline.ledger.balance("provider:azure").settled_nanousd >= sim.bill.total_nanousd > 0


def test_a_region_is_a_hard_rule_for_calls_that_name_their_model(make_pipeline, client_of, sim):
    pipeline = make_pipeline(routing={"policy": "off", "regions": ["eu"]})
    client = wrap_openai(client_of(sim), pipeline)
    client.chat.completions.create(**ASKED)
    with pytest.raises(NoEligibleModelError):
        client.chat.completions.create(**{**ASKED, "model": "gpt-5-mini"})


def test_provisioned_capacity_costs_what_its_line_states(make_pipeline, client_of, sim):
    """Nothing, where the hour is paid; the call is held, sent and recorded all the same."""
    name = "provisioned--gpt-5-mini"
    line = {"model": "gpt-5-mini", "type": "ProvisionedManaged", "region": "swedencentral"}
    for price, cost in (("0", 0), ("1", 1_000)):
        stated = {**line, "input_mtok": price, "output_mtok": price}
        pipeline = make_pipeline(platforms={"azure": {"deployments": {name: stated}}})
        answer = wrap_openai(client_of(sim), pipeline).chat.completions.create(**{**ASKED, "model": name})
        (record,) = pipeline.records()
        assert (record.model, record.status) == ("provisioned/gpt-5-mini", "exact")
        balance = pipeline.ledger.balance("provider:azure")
        assert (balance.pending, balance.settled_nanousd) == (0, answer.usage.total_tokens * cost)
    assert sim.bill.total_nanousd == 0
    pipeline = make_pipeline(platforms={"azure": {"deployments": {name: line}}})
    with pytest.raises(PriceNotFoundError):
        wrap_openai(client_of(sim), pipeline).chat.completions.create(**{**ASKED, "model": name})


def test_a_full_deployment_is_asked_again(make_pipeline, client_of, sim):
    pipeline = make_pipeline()
    sim.script(Fault.status(429, headers={"retry-after-ms": "5"}))
    wrap_openai(client_of(sim), pipeline).chat.completions.create(**ASKED)
    check(pipeline, sim)


@pytest.mark.parametrize("fault", ["content_filter", "Timeout"])
def test_an_error_that_azure_bills_is_booked_at_its_hold(make_pipeline, client_of, sim, fault):
    """learn.microsoft.com, "Plan to manage costs": an error behind which the service has worked is charged."""
    pipeline = make_pipeline()
    sim.script(Fault.azure(fault), times=9)
    with pytest.raises(openai.APIStatusError):
        wrap_openai(client_of(sim, max_retries=0), pipeline).chat.completions.create(**ASKED)
    balance = pipeline.ledger.balance("provider:azure")
    assert balance.pending == 0
    assert balance.settled_nanousd >= sim.bill.total_nanousd > 0
    assert [record.status for record in pipeline.records()] == ["unconfirmed"]


def test_many_at_once_never_pass_the_budget(make_pipeline, client_of, sim):
    pipeline = make_pipeline(budgets=[{"scope": "provider:azure", "limit": "0.003"}])
    client = wrap_openai(client_of(sim), pipeline)

    def ask(_):
        with suppress(BudgetExceededError):
            client.chat.completions.create(**ASKED)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(40)))
    assert 0 < sim.bill.total_nanousd <= 3_000_000


def test_places_cost_what_their_price_lists_say():
    """Data zones a tenth more; since GPT-6 a fifth more outside the United States (LiteLLM's map, azure/eu/...)."""
    prices = Catalogue()
    for name, model, times in (("global/gpt-5-mini", "gpt-5-mini", "1"), ("eu/gpt-5-mini", "gpt-5-mini", "1.1"),
                               ("us/gpt-6-sol", "gpt-6-sol", "1.1"), ("eu/gpt-6-sol", "gpt-6-sol", "1.2"),
                               ("global/gpt-35-turbo", "gpt-3.5-turbo", "1")):  # fmt: skip
        here, there = prices.rates("azure", name).levels[0], prices.rates("openai", model).levels[0]
        assert (here.uncached_input, here.output) == tuple(
            int(price * Decimal(times)) for price in (there.uncached_input, there.output)
        )
    assert prices.rates("azure", "gpt-5-mini").notes  # its place is not known: an estimate, at the dearest


def test_a_place_that_azure_does_not_have_is_named():
    with pytest.raises(ConfigurationError, match="mars"):
        CostConfig(platforms={"azure": {"place": "mars"}})


@pytest.mark.parametrize(
    ("deployments", "place", "booked"),
    [
        ({"ours": "gpt-5.1"}, "global", "us-gov/gpt-5.1"),  # which there is none of in Azure Government
        ({"ours": "gpt-5.1"}, "", "us-gov/gpt-5.1"),
        ({"ours": "eu/gpt-5.1"}, "", "us-gov/gpt-5.1"),
        ({"ours": "usgovvirginia/gpt-5.1"}, "global", "usgovvirginia/gpt-5.1"),
        ({"ours": "provisioned/gpt-5.1"}, "", "provisioned/gpt-5.1"),
    ],
)
def test_a_client_of_azure_government_is_priced_there_whatever_is_configured(deployments, place, booked):
    config = CostConfig(platforms={"azure": {"deployments": deployments, "place": place}})
    with openai.AzureOpenAI(
        azure_endpoint="https://a.openai.azure.us", api_key="k", api_version="2024-10-21"
    ) as client:
        names = ClientNames("azure", client).at(config, "chat.completions")
    read = names.read(CallRequest(provider="openai", model="ours", endpoint="chat.completions", messages=[]), "")
    assert (read.provider, read.model) == ("azure", booked)
    assert names.written(ModelRef("azure", booked), "ours") == "ours"
