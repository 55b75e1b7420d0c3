"""Groups of Bedrock in a ``CostAwareRouter``: the ledger says what AWS bills, at every endpoint and in mixed groups."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("boto3", reason="boto3 is of the extra aws")

from llm_cost_middleware.errors import NoEligibleModelError, UnsupportedRequestError

pytestmark = pytest.mark.litellm
HAIKU, GLOBAL = "us.anthropic.claude-haiku-4-5-20251001-v1:0", "global.anthropic.claude-haiku-4-5-20251001-v1:0"
MESSAGES = [{"role": "user", "content": "Hello there, how are you?"}]


@pytest.fixture
def entry(bedrock):
    """Make an entry of a ``model_list``."""
    return lambda name, model, **params: bedrock(name, model.removeprefix("bedrock/"), **params)


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
