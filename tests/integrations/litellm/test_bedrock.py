"""Groups of Bedrock in a ``CostAwareRouter``: the ledger says what AWS bills, at every endpoint and in mixed groups."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

pytest.importorskip("boto3", reason="boto3 is of the extra aws")

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError, UnsupportedRequestError
from llm_cost_middleware.simulator import Fault, auto, fill
from llm_cost_middleware.simulator.bedrock import signing

pytestmark = pytest.mark.litellm
HAIKU, GLOBAL = "us.anthropic.claude-haiku-4-5-20251001-v1:0", "global.anthropic.claude-haiku-4-5-20251001-v1:0"
MESSAGES = [{"role": "user", "content": "Hello there, how are you?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "look", "description": "Looks",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    },
}  # fmt: skip


@pytest.fixture
def entry(sim):
    """Make an entry of a ``model_list``."""

    def make(name, model, **params):
        keys = {
            "aws_bedrock_runtime_endpoint": sim.bedrock_url, "aws_region_name": "us-east-1",
            "aws_access_key_id": signing.ACCESS_KEY, "aws_secret_access_key": signing.SECRET_KEY,
        }  # fmt: skip
        return {"model_name": name, "litellm_params": {"model": model, **keys, **params}}

    return make


@pytest.mark.parametrize("way", ["", "converse/", "invoke/"])
def test_chats_whole_and_streamed_with_tools_and_cache(make_harness, entry, sim, way):
    sim.responder = auto
    harness = make_harness(cache={"mode": "system"})
    router = harness.router([entry("claude", f"bedrock/{way}{HAIKU}")])
    system = {"role": "system", "content": "You know all bridges. " * 2_000}
    for _ in range(2):
        router.completion("claude", [system, *MESSAGES], max_tokens=100)
    for _ in router.completion("claude", [system, *MESSAGES], max_tokens=100, stream=True):
        pass
    called = router.completion("claude", MESSAGES, max_tokens=100, tools=[TOOL])
    assert called.choices[0].message.tool_calls[0].function.name == "look"
    asyncio.run(router.acompletion("claude", MESSAGES, max_tokens=100))
    assert {record.model for record in harness.pipeline.records()} == {HAIKU}
    assert sum(record.usage.cache_read for record in harness.pipeline.records()) > 20_000
    harness.agree()


def test_responses_and_messages(make_harness, entry, sim):
    sim.responder = auto
    harness = make_harness()
    router = harness.router([entry("claude", f"bedrock/{GLOBAL}")])

    async def run():
        await router.aresponses(input="Hello there", model="claude", max_output_tokens=100)
        async for _ in await router.aresponses(input="Hello there", model="claude", max_output_tokens=100, stream=True):
            pass
        await router.aanthropic_messages(model="claude", messages=MESSAGES, max_tokens=100)
        async for _ in await router.aanthropic_messages(model="claude", messages=MESSAGES, max_tokens=100, stream=True):
            pass

    asyncio.run(run())
    assert len(harness.pipeline.records()) == 4
    harness.agree()


def test_a_cap_as_converse_spells_it_is_refused_and_nothing_is_sent(make_harness, entry, sim):
    harness = make_harness()
    router = harness.router([
        entry("claude", f"bedrock/{HAIKU}"), entry("capped", f"bedrock/{HAIKU}", maxTokens=3000),
    ])  # fmt: skip
    with pytest.raises(UnsupportedRequestError, match="max_tokens"):
        router.completion("claude", MESSAGES, max_tokens=50, maxTokens=3000)
    with pytest.raises(UnsupportedRequestError, match="max_tokens"):
        router.completion("capped", MESSAGES, max_tokens=50)
    assert sim.request_count == 0


def test_a_group_of_two_places_is_held_at_the_dearer_and_booked_at_its_own(make_harness, entry, sim):
    harness = make_harness()
    router = harness.router([entry("claude", f"bedrock/{HAIKU}"), entry("claude", f"bedrock/{GLOBAL}")])
    for _ in range(8):
        router.completion("claude", MESSAGES, max_tokens=100)
    assert len({line.geo for line in sim.bill.lines}) == 2
    harness.agree()


def test_a_throttled_request_is_sent_again_by_us_and_no_more_than_configured(make_harness, entry, sim):
    import litellm

    harness = make_harness(retry={"max_attempts": 3})
    router = harness.router([entry("claude", f"bedrock/{HAIKU}")])
    sim.script(Fault.aws("ThrottlingException"), times=2)
    router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 3
    sim.script(Fault.aws("ValidationException"))
    with pytest.raises(litellm.BadRequestError):
        router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 4
    harness.agree()


@pytest.mark.parametrize("fault", [Fault.error_event(after=3, error_type="throttlingException"), Fault.cut(after=3)])
def test_a_broken_stream_is_booked_at_no_less_than_its_bill(make_harness, entry, sim, fault):
    sim.responder = fill
    harness = make_harness(retry={"max_attempts": 1})
    router = harness.router([entry("claude", f"bedrock/{HAIKU}")])
    sim.script(fault)
    with pytest.raises(Exception):  # noqa: B017 - LiteLLM's choice
        for _ in router.completion("claude", MESSAGES, max_tokens=100, stream=True):
            pass
    harness.cover()


def test_a_refusal_sends_nothing(make_harness, entry, sim):
    harness = make_harness(budgets=[{"scope": "provider:bedrock", "limit": "0.000001"}])
    with pytest.raises(BudgetExceededError):
        harness.router([entry("claude", f"bedrock/{HAIKU}")]).completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 0


def test_routing_across_home_and_bedrock_takes_the_cheapest_and_fails_over(make_harness, entry, sim):
    home = "anthropic/claude-haiku-4-5-20251001"
    tiers = [{"name": "only", "models": [f"bedrock/{HAIKU}", home]}]
    harness = make_harness(tiers=tiers, retry={"max_attempts": 2})
    router = harness.router([entry("there", f"bedrock/{HAIKU}"), harness.deployment("here", home)])
    router.completion("smart", MESSAGES, max_tokens=100)
    assert [record.provider for record in harness.pipeline.records()] == ["anthropic"]  # a tenth cheaper
    sim.script(Fault.overloaded(), times=4, match=lambda exchange: not exchange.served_by)
    router.completion("smart", MESSAGES, max_tokens=100)
    assert harness.pipeline.records()[-1].provider == "bedrock"
    harness.agree()


def test_a_model_id_is_what_is_called_and_held(make_harness, entry, sim):
    harness = make_harness(on_ungoverned="deny")
    dearer, model = "us.anthropic.claude-opus-5", f"bedrock/{GLOBAL}"
    router = harness.router([entry("claude", model, model_id=dearer), entry("plain", model)])
    router.completion("claude", MESSAGES, max_tokens=100)
    assert harness.pipeline.records()[0].model == dearer
    with pytest.raises(UnsupportedRequestError):
        router.completion("plain", MESSAGES, max_tokens=100, model_id=dearer)
    assert sim.request_count == 1
    harness.agree()


SONNET = "anthropic.claude-sonnet-5"


@pytest.mark.parametrize("way", ["", "converse/", "invoke/", "us-east-1/"])
def test_a_deployment_is_held_and_booked_where_its_region_is(make_harness, entry, sim, way):
    harness = make_harness(budgets=[{"scope": "global", "limit": "9"}, {"scope": f"model:{SONNET}", "limit": "9"}])
    router = harness.router([entry("claude", f"bedrock/{way}{SONNET}", aws_region_name="us-gov-west-1")])
    router.completion("claude", MESSAGES, max_tokens=100)
    for _ in router.completion("claude", MESSAGES, max_tokens=100, stream=True):
        pass
    assert [line.geo for line in sim.bill.lines] == ["govcloud"] * 2
    assert {record.model for record in harness.pipeline.records()} == {f"us-gov-west-1/{SONNET}"}
    assert harness.pipeline.ledger.balance(f"model:{SONNET}").settled_nanousd == sim.bill.total_nanousd
    harness.agree()


def test_a_region_that_only_variables_say_is_read_there_and_held_at_the_dearest_where_nobody_says_it(
    make_harness, entry, sim, monkeypatch
):
    for variable in ("AWS_REGION_NAME", "AWS_REGION"):
        monkeypatch.delenv(variable, raising=False)
    harness = make_harness()
    router = harness.router([entry("claude", f"bedrock/{SONNET}", aws_region_name=None)])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-gov-west-1")  # LiteLLM asks boto3
    router.completion("claude", MESSAGES, max_tokens=100)
    assert [line.geo for line in sim.bill.lines] == ["govcloud"]
    (record,) = harness.pipeline.records()
    assert (record.model, record.status) == (SONNET, "estimated")
    assert harness.settled == sim.bill.total_nanousd
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    other = harness.router([entry("claude", f"bedrock/{SONNET}", aws_region_name=None)])
    other.completion("claude", MESSAGES, max_tokens=100)
    assert harness.pipeline.records()[1].model == f"us-east-1/{SONNET}"
    assert harness.settled == sim.bill.total_nanousd


@pytest.mark.parametrize(
    "more",
    [
        {"aws_region_name": "us-gov-west-1"}, {"region_name": "us-gov-west-1"}, {"vertex_location": "us"},
        {"api_base": "http://127.0.0.1:9"}, {"litellm_credential_name": "x"}, {"custom_llm_provider": "anthropic"},
    ],
)  # fmt: skip
def test_a_call_that_names_another_place_than_its_deployment_is_refused_and_nothing_is_sent(
    make_harness, entry, sim, more
):
    harness = make_harness()
    router = harness.router([entry("claude", f"bedrock/{SONNET}"), harness.deployment("here", "openai/gpt-5-mini")])
    with pytest.raises(UnsupportedRequestError, match=next(iter(more))):
        router.completion("claude", MESSAGES, max_tokens=100, **more)
    adding = harness.router([entry("claude", f"bedrock/{SONNET}")], default_litellm_params=more)
    with pytest.raises(UnsupportedRequestError, match=next(iter(more))):
        adding.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 0


@pytest.mark.parametrize(("region", "inside"), [("eu-west-1", True), ("us-east-1", False), ("eu-west-2", False)])
def test_the_rule_of_regions_heeds_the_region_of_a_deployment(make_harness, entry, sim, region, inside):
    harness = make_harness(routing={"regions": ["eu"]})
    router = harness.router([entry("claude", f"bedrock/eu-west-1/{SONNET}", aws_region_name=region)])
    if inside:
        router.completion("claude", MESSAGES, max_tokens=100)
    else:
        with pytest.raises(NoEligibleModelError, match="not served in eu"):
            router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == inside
    harness.agree()


def test_the_region_of_a_shared_credential_is_heeded(make_harness, entry, sim, monkeypatch):
    import litellm
    from litellm.types.utils import CredentialItem

    values = {"aws_region_name": "us-gov-west-1"}
    credential = CredentialItem(credential_name="gov", credential_info={}, credential_values=values)
    monkeypatch.setattr(litellm, "credential_list", [credential])
    made = entry("claude", f"bedrock/{SONNET}", litellm_credential_name="gov")
    del made["litellm_params"]["aws_region_name"]
    harness = make_harness()
    harness.router([made]).completion("claude", MESSAGES, max_tokens=100)
    assert [line.geo for line in sim.bill.lines] == ["govcloud"]
    harness.agree()


def test_a_reload_of_the_platforms_holds_for_the_groups_that_there_are(make_harness, entry, sim):
    arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc"
    sim.bedrock.arns[arn] = "us.anthropic.claude-opus-5"
    harness = make_harness(platforms={"bedrock": {"deployments": {arn: HAIKU}}}, on_ungoverned="deny")
    router = harness.router([entry("claude", f"bedrock/converse/{arn}")])
    config = harness.pipeline.config
    for named in ("us.anthropic.claude-opus-5", GLOBAL, "us.anthropic.claude-opus-5"):
        harness.pipeline.reload(replace(config, platforms={"bedrock": {"deployments": {arn: named}}}))
        router.completion("claude", MESSAGES, max_tokens=100)
        assert harness.pipeline.records()[-1].model == named
    harness.pipeline.reload(replace(config, platforms={}))
    with pytest.raises(UnsupportedRequestError):
        router.completion("claude", MESSAGES, max_tokens=100)
    assert sim.request_count == 3
