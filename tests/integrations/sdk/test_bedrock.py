"""The anthropic SDK's clients of Bedrock, wrapped: the ledger says what AWS bills, whatever goes wrong."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal
from urllib.parse import unquote

import anthropic
import httpx2
import pytest

pytest.importorskip("boto3", reason="boto3 is of the extra aws")

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, PriceNotFoundError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Fault, auto, fill
from llm_cost_middleware.simulator.bedrock import signing

HAIKU, GLOBAL = "us.anthropic.claude-haiku-4-5-20251001-v1:0", "global.anthropic.claude-haiku-4-5-20251001-v1:0"
ASKED = {"model": HAIKU, "max_tokens": 200, "messages": [{"role": "user", "content": "Hello there, how are you?"}]}
TOOL = {
    "name": "look", "description": "Looks",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}  # fmt: skip
KEYS = {"aws_region": "us-east-1", "aws_access_key": signing.ACCESS_KEY, "aws_secret_key": signing.SECRET_KEY}


@pytest.fixture
def make_pipeline():
    made = []

    def make(**sections):
        sections.setdefault("budgets", [{"scope": "global", "limit": "50"}])
        made.append(CostPipeline(CostConfig(**sections)))
        return made[-1]

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def claude(sim):
    sim.responder = auto
    with anthropic.AnthropicBedrock(base_url=sim.bedrock_url, **KEYS) as client:
        yield client


def check(pipeline, sim, *, exact=True):
    balance = pipeline.ledger.balance("global")
    assert balance.pending == 0
    if exact:
        assert {record.status for record in pipeline.records()} <= {"exact"}
        assert balance.settled_nanousd == sim.bill.total_nanousd
    assert balance.settled_nanousd >= sim.bill.total_nanousd


@pytest.mark.parametrize("model", [HAIKU, GLOBAL, "anthropic.claude-sonnet-5", "us.anthropic.claude-opus-4-6-v1"])
def test_ledger_and_bill_agree_whole_streamed_raw_and_with_tools(make_pipeline, sim, claude, model):
    pipeline, asked = make_pipeline(), {**ASKED, "model": model}
    governed = wrap_anthropic(claude, pipeline)
    answer = governed.messages.create(**asked)
    assert not answer.model.startswith(("us.", "global."))  # answers carry the provider's own name
    with governed.messages.stream(**asked) as stream:
        stream.until_done()
    for _ in governed.messages.create(**asked, stream=True):
        pass
    governed.messages.with_raw_response.create(**asked).parse()
    called = governed.messages.create(**asked, tools=[TOOL])
    assert called.content[0].type == "tool_use"
    with governed.beta.messages.stream(**asked, tools=[TOOL]) as stream:
        assert stream.get_final_message().content[0].input
    placed = model if "." in model.partition("anthropic")[0] else f"us-east-1/{model}"  # a plain id is its client's
    assert [record.model for record in pipeline.records()] == [placed] * 6
    assert {record.provider for record in pipeline.records()} == {"bedrock"}
    check(pipeline, sim)


def test_the_async_client_is_governed_too(make_pipeline, sim):
    pipeline = make_pipeline()

    async def run():
        async with anthropic.AsyncAnthropicBedrock(base_url=sim.bedrock_url, **KEYS) as client:
            governed = wrap_anthropic(client, pipeline)
            await governed.messages.create(**ASKED)
            async with governed.messages.stream(**ASKED) as stream:
                await stream.until_done()

    asyncio.run(run())
    assert len(pipeline.records()) == 2
    check(pipeline, sim)


@pytest.mark.parametrize("kind", [anthropic.AnthropicBedrockMantle, anthropic.AnthropicBedrock])
def test_a_bearer_token_and_mantle_are_governed_at_the_price_of_their_place(make_pipeline, sim, kind):
    pipeline = make_pipeline()
    mantle = kind is anthropic.AnthropicBedrockMantle
    url = f"{sim.bedrock_url}/anthropic" if mantle else sim.bedrock_url
    with kind(base_url=url, aws_region="us-east-1", api_key=signing.BEARER_TOKEN) as client:
        governed = wrap_anthropic(client, pipeline)
        asked = {**ASKED, "model": "anthropic.claude-sonnet-5"}
        governed.messages.create(**asked)
        with governed.messages.stream(**asked) as stream:
            stream.until_done()
    assert [line.geo for line in sim.bill.lines] == ["regional"] * 2
    assert {record.model for record in pipeline.records()} == {"us-east-1/anthropic.claude-sonnet-5"}
    check(pipeline, sim)


def test_cache_marks_are_planned_written_read_and_booked(make_pipeline, sim, claude):
    pipeline = make_pipeline(cache={"mode": "system"})
    governed = wrap_anthropic(claude, pipeline)
    for _ in range(3):
        governed.messages.create(**ASKED, system="You know all bridges. " * 2_000)
    assert sum(record.usage.cache_read for record in pipeline.records()) > 10_000
    check(pipeline, sim)


def test_a_refusal_sends_nothing(make_pipeline, sim, claude):
    governed = wrap_anthropic(claude, make_pipeline(budgets=[{"scope": "provider:bedrock", "limit": "0.000001"}]))
    with pytest.raises(BudgetExceededError):
        governed.messages.create(**ASKED)
    assert sim.request_count == 0


@pytest.mark.parametrize(
    "model",
    ["amazon.nova-pro-v1:0", "us.anthropic.claude-nothing", "arn:aws:bedrock:us-east-1:1:provisioned-model/x", ""],
)
def test_a_model_without_a_price_is_refused_before_it_leaves(make_pipeline, sim, claude, model):
    with pytest.raises((PriceNotFoundError, ValueError)) as refused:
        wrap_anthropic(claude, make_pipeline()).messages.create(**{**ASKED, "model": model})
    named = f'[platforms.bedrock.deployments] "{model}" = "MODEL"'
    assert (named in str(refused.value)) == model.startswith("arn:")
    assert sim.request_count == 0


def test_an_arn_is_called_by_its_name_and_booked_as_its_model(make_pipeline, sim, claude):
    arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    sim.bedrock.arns[arn] = GLOBAL
    pipeline = make_pipeline(platforms={"bedrock": {"deployments": {arn: GLOBAL}}})
    governed = wrap_anthropic(claude, pipeline)
    governed.messages.create(**{**ASKED, "model": arn})
    governed.messages.create(**ASKED)  # an id of Bedrock's needs no deployment
    assert [record.model for record in pipeline.records()] == [GLOBAL, HAIKU]
    check(pipeline, sim)


@pytest.mark.parametrize("name", ["ThrottlingException", "ServiceUnavailableException", "ModelErrorException"])
def test_what_a_retry_may_help_is_sent_again_by_us_alone(make_pipeline, sim, claude, name):
    pipeline = make_pipeline(retry={"max_attempts": 3, "max_delay_s": 0.01})
    governed = wrap_anthropic(claude, pipeline)
    sim.script(Fault.aws(name), times=2)
    governed.messages.create(**ASKED)
    sim.script(Fault.aws(name), times=3)
    with pytest.raises(anthropic.APIStatusError):
        governed.messages.create(**ASKED)
    assert sim.request_count == 6
    check(pipeline, sim)


@pytest.mark.parametrize("name", ["ValidationException", "ServiceQuotaExceededException", "AccessDeniedException"])
def test_what_no_retry_helps_is_sent_once_and_costs_nothing(make_pipeline, sim, claude, name):
    pipeline = make_pipeline(retry={"max_attempts": 3})
    sim.script(Fault.aws(name))
    with pytest.raises(anthropic.APIStatusError):
        wrap_anthropic(claude, pipeline).messages.create(**ASKED)
    assert sim.request_count == 1
    assert pipeline.ledger.balance("global").settled == 0


FAULTS = {
    "exception": Fault.error_event(after=3, error_type="throttlingException"),
    "model error": Fault.error_event(after=1, error_type="modelStreamErrorException"),
    "reset": Fault.cut(after=3),
    "ended early": Fault.cut(after=3, clean=True),
    "no usage": Fault.no_usage(),
    "bare delta": Fault.bare_delta(),
    "reset before": Fault.reset(billed=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("stream", [True, False])
def test_whatever_breaks_is_booked_at_no_less_than_its_bill(make_pipeline, sim, claude, fault, stream):
    pipeline = make_pipeline(retry={"max_attempts": 1})
    governed = wrap_anthropic(claude, pipeline)
    sim.responder = fill
    sim.script(fault)
    with suppress(anthropic.AnthropicError, Exception):
        if stream:
            with governed.messages.stream(**ASKED) as events:
                events.until_done()
        else:
            governed.messages.create(**ASKED)
    check(pipeline, sim, exact=False)


def test_a_stream_that_is_left_is_closed_and_booked(make_pipeline, sim, claude):
    pipeline = make_pipeline()
    with wrap_anthropic(claude, pipeline).messages.create(**ASKED, stream=True) as events:
        next(iter(events))
    check(pipeline, sim, exact=False)


@pytest.mark.parametrize("stream", [False, True])
def test_the_race_admits_exactly_what_fits(make_pipeline, sim, claude, stream):
    sim.responder, settings = fill, {"output": {"on_insufficient": ["raise"]}, "cache": {"mode": "off"}}
    probe = make_pipeline(**settings)
    wrap_anthropic(claude, probe).messages.create(**ASKED)
    bound = int(probe.records()[0].reserved_nanousd)
    sim.reset()
    limit = f"{bound * 5 / 10**9:.9f}"
    pipeline = make_pipeline(**settings, budgets=[{"scope": "global", "limit": limit}])
    sim.latency_s = 0.3
    governed = wrap_anthropic(claude, pipeline)

    def one(_):
        try:
            if not stream:
                return governed.messages.create(**ASKED)
            with governed.messages.stream(**ASKED) as events:
                return events.get_final_message()
        except BudgetExceededError as error:
            return error

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(20)))
    assert sum(isinstance(answer, BudgetExceededError) for answer in answers) == 15
    assert sim.request_count == 5
    check(pipeline, sim)


def test_a_routed_name_goes_to_the_cheaper_place(make_pipeline, sim, claude, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    pipeline = make_pipeline(tiers=[{"name": "only", "models": [f"bedrock/{HAIKU}", f"bedrock/{GLOBAL}"]}])
    wrap_anthropic(claude, pipeline).messages.create(**{**ASKED, "model": "smart"})
    assert pipeline.records()[0].model == GLOBAL
    check(pipeline, sim)


_SAID = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929", "content": [],
    "stop_reason": "end_turn", "usage": {"input_tokens": 1000, "output_tokens": 1000},
}  # fmt: skip


@pytest.mark.parametrize(
    ("region", "model", "deployments", "times"),
    [
        ("us-gov-west-1", "anthropic.claude-sonnet-4-5-20250929-v1:0", {}, "1.2"),
        ("us-gov-east-1", "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", {}, "1.2"),
        ("us-gov-west-1", "ours", {"ours": "us-gov-west-1/anthropic.claude-sonnet-4-5-20250929-v1:0"}, "1.2"),
        ("us-gov-west-1", "ours", {"ours": "us-gov/anthropic.claude-sonnet-4-5-20250929-v1:0"}, "1.2"),
        ("us-gov-west-1", "ours", {"ours": "anthropic.claude-sonnet-4-5-20250929-v1:0"}, "1.2"),
        ("us-east-1", "anthropic.claude-sonnet-4-5-20250929-v1:0", {}, "1.1"),
        ("us-east-1", "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", {}, "1.2"),
    ],
)
def test_the_region_of_a_client_of_govcloud_is_the_place_of_a_plain_id(
    make_pipeline, region, model, deployments, times
):
    sent = []

    def answer(request):
        sent.append(unquote(request.url.path))
        return httpx2.Response(200, json=_SAID)

    pipeline = make_pipeline(platforms={"bedrock": {"deployments": deployments}})
    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    with anthropic.AnthropicBedrock(**{**KEYS, "aws_region": region}, http_client=transport) as client:
        wrap_anthropic(client, pipeline).messages.create(**{**ASKED, "model": model, "max_tokens": 1000})
    assert sent == [f"/model/{model}/invoke"]
    assert [record.status for record in pipeline.records()] == ["exact"]
    # 1,000 tokens in at 3 $ a million and as many out at 15 $
    assert pipeline.ledger.balance("global").settled_nanousd == int(18_000_000 * Decimal(times))


def test_a_price_that_is_stated_for_a_plain_id_holds_in_govcloud_too(make_pipeline):
    plain, sent = "anthropic.claude-sonnet-4-5-20250929-v1:0", []

    def answer(request):
        sent.append(request)
        return httpx2.Response(200, json=_SAID)

    pipeline = make_pipeline(prices={f"bedrock/{plain}": {"input_mtok": "30", "output_mtok": "150"}})
    transport = httpx2.Client(transport=httpx2.MockTransport(answer))
    with anthropic.AnthropicBedrock(**{**KEYS, "aws_region": "us-gov-west-1"}, http_client=transport) as client:
        wrap_anthropic(client, pipeline).messages.create(**{**ASKED, "model": plain})
    assert len(sent) == 1
    assert pipeline.ledger.balance("global").settled_nanousd == 180_000_000


@pytest.mark.parametrize(
    ("region", "model", "geo", "regions"),
    [
        ("us-gov-west-1", "anthropic.claude-sonnet-5", "govcloud", ["us-gov"]),
        ("us-gov-west-1", "us-gov.anthropic.claude-sonnet-5", "govcloud", ["us-gov"]),
        ("eu-west-1", "anthropic.claude-sonnet-5", "regional", ["eu"]),
        ("eu-west-1", "anthropic.claude-sonnet-5", "regional", ["us"]),
        ("eu-west-2", "anthropic.claude-sonnet-5", "regional", ["eu"]),
        ("eu-west-1", GLOBAL, "", ["eu"]),
    ],
)
def test_a_plain_id_is_judged_billed_and_booked_where_its_client_sends_it(
    make_pipeline, sim, region, model, geo, regions
):
    sim.responder = auto
    inside = {"us-gov-west-1": "us-gov", "eu-west-1": "eu"}.get(region) == regions[0] and model != GLOBAL
    pipeline = make_pipeline(routing={"regions": regions})
    with anthropic.AnthropicBedrock(base_url=sim.bedrock_url, **{**KEYS, "aws_region": region}) as client:
        governed = wrap_anthropic(client, pipeline)
        if not inside:
            with pytest.raises(NoEligibleModelError, match=f"not served in {regions[0]}"):
                governed.messages.create(**{**ASKED, "model": model})
        else:
            governed.messages.create(**{**ASKED, "model": model})
    assert [line.geo for line in sim.bill.lines] == [geo] * inside
    check(pipeline, sim)


def test_a_region_that_is_set_after_wrapping_is_held_booked_and_judged(make_pipeline, sim, claude):
    pipeline = make_pipeline(routing={"regions": ["us", "us-gov"]})
    governed, plain = wrap_anthropic(claude, pipeline), {**ASKED, "model": "anthropic.claude-sonnet-5"}
    governed.messages.create(**plain)
    governed.aws_region = "us-gov-east-1"
    governed.messages.create(**plain)
    governed.aws_region = "eu-west-1"
    with pytest.raises(NoEligibleModelError):
        governed.messages.create(**plain)
    places = [record.model.partition("/")[0] for record in pipeline.records()]
    assert places == ["us-east-1", "us-gov-east-1"]
    check(pipeline, sim)


def test_a_budget_of_a_plain_id_holds_in_every_region(make_pipeline, sim, claude):
    pipeline = make_pipeline(budgets=[{"scope": "model:anthropic.claude-sonnet-5", "limit": "0.000001"}])
    with pytest.raises(BudgetExceededError):
        wrap_anthropic(claude, pipeline).messages.create(**{**ASKED, "model": "anthropic.claude-sonnet-5"})
    assert sim.request_count == 0


def test_a_routed_target_of_another_region_cannot_be_reached(make_pipeline, sim, claude):
    target = "bedrock/eu-west-1/anthropic.claude-sonnet-5"
    pipeline = make_pipeline(tiers=[{"name": "only", "models": [target]}], routing={"regions": ["eu"]})
    with pytest.raises(NoEligibleModelError, match="cannot be reached"):
        wrap_anthropic(claude, pipeline).messages.create(**{**ASKED, "model": "smart"})
    assert sim.request_count == 0
