"""Ids of Bedrock's models: what they stand for, where they are served, what the place costs."""

from decimal import Decimal

import pytest

from llm_cost_middleware.model_names import names_of
from llm_cost_middleware.platform import Served, find_platform, is_inside, names_of_target
from llm_cost_middleware.platforms.bedrock.names import factor, geography, parse, reached_from, region_of


@pytest.mark.parametrize(
    ("name", "model", "place"),
    [
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5-20251001", "us"),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929", "global"),
        ("eu.anthropic.claude-opus-4-6-v1", "claude-opus-4-6", "eu"),
        ("anthropic.claude-opus-4-8", "claude-opus-4-8", "regional"),
        ("us-gov.anthropic.claude-sonnet-5", "claude-sonnet-5", "us-gov"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet-20241022", "regional"),
        ("anthropic.claude-haiku-4-5@20251001", "claude-haiku-4-5-20251001", "regional"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001", ""),  # as answers say
        ("us/claude-opus-5", "claude-opus-5", "us"),
        ("eu-central-1/anthropic.claude-opus-5", "claude-opus-5", "eu-central-1"),
        ("us-east-1/us.anthropic.claude-opus-5", "claude-opus-5", "us"),
        ("provisioned/us.anthropic.claude-opus-5", "claude-opus-5", "provisioned"),
        ("arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-opus-5", "claude-opus-5", "eu-west-1"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/global.anthropic.claude-opus-5", "claude-opus-5", "global"),
        (
            "arn:aws-us-gov:bedrock:us-gov-west-1:1:inference-profile/us-gov.anthropic.claude-sonnet-5",
            "claude-sonnet-5", "us-gov",
        ),
    ],
)  # fmt: skip
def test_a_name_says_model_and_place(name, model, place):
    assert parse(name) == Served("anthropic", model, place)


@pytest.mark.parametrize(
    "name",
    [
        "", "amazon.nova-pro-v1:0", "meta.llama3-1-8b-instruct-v1:0", "us.openai.gpt-6-sol", "gpt-5-mini",
        "mars.anthropic.claude-opus-5", "nowhere/anthropic.claude-opus-5", "us.anthropic.",
        "US.ANTHROPIC.CLAUDE-OPUS-5",
        "arn:aws:bedrock:us-east-1:1:application-inference-profile/abc123",
        "arn:aws:bedrock:us-east-1:1:provisioned-model/abc123",
        "arn:aws:bedrock:us-east-1:1:inference-profile/claude-opus-5",
        "us.anthropic.claude-" + "x" * 300, "us.anthropic.claude-opus-5\n", "us.anthropic.claude-opus-5-v1:0:extra",
    ],
)  # fmt: skip
def test_other_makers_and_names_that_say_nothing_are_none(name):
    assert parse(name) is None


@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("global.anthropic.claude-opus-5", "1"),
        ("us.anthropic.claude-opus-5", "1.1"),
        ("anthropic.claude-opus-5", "1.2"),  # of a region that nobody names: GovCloud's is the dearest
        ("claude-opus-5", "1.2"),
        ("anthropic.claude-3-haiku-20240307-v1:0", "1.2"),
        ("us-gov-east-1/anthropic.claude-opus-5", "1.2"),
        ("eu-central-1/anthropic.claude-opus-5", "1.1"),
        ("us-gov.anthropic.claude-sonnet-5", "1.2"),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", "1"),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", "1"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "1.1"),
        ("eu.anthropic.claude-3-5-haiku-20241022-v1:0", "1"),
    ],
)
def test_all_but_global_profiles_cost_a_tenth_more_from_claude_4_5_on(name, times):
    assert factor(parse(name)) == Decimal(times)


@pytest.mark.parametrize(
    ("place", "there"),
    [
        ("us", "us"), ("eu-central-1", "eu"), ("us-east-1", "us"), ("ap-northeast-1", "jp"), ("ap-southeast-2", "au"),
        ("ap-southeast-1", "apac"), ("us-gov-west-1", "us-gov"), ("global", "global"), ("regional", ""),
        ("provisioned", ""), ("", ""), ("eu-west-2", "uk"), ("eu-central-2", "ch"), ("eu-west-1", "eu"),
    ],
)  # fmt: skip
def test_a_place_lies_in_a_geography(place, there):
    assert geography(place) == there


@pytest.mark.parametrize(
    ("target", "regions", "inside"),
    [
        (("bedrock", "eu-west-2/anthropic.claude-opus-5"), ("eu",), False),
        (("bedrock", "eu-central-2/anthropic.claude-opus-5"), ("eu",), False),
        (("bedrock", "eu-central-1/anthropic.claude-opus-5"), ("eu",), True),
        (("bedrock", "claude-opus-5"), ("global",), False),  # nobody knows where
        (("bedrock", "global.anthropic.claude-opus-5"), ("global",), True),
        (("azure", "gpt-5-mini"), ("global",), False),
        (("azure", "global/gpt-5-mini"), ("global",), True),
        (("vertex_ai", "claude-opus-5"), ("global",), False),
        (("anthropic", "claude-opus-5"), ("global",), True),
        (("anthropic", "claude-opus-5"), ("eu",), False),
    ],
)  # fmt: skip
def test_a_region_lets_nothing_through_of_which_nobody_knows_where_it_is(target, regions, inside):
    assert is_inside(*target, regions) is inside


@pytest.mark.parametrize(
    ("url", "region", "found"),
    [
        ("https://bedrock-runtime.us-gov-west-1.amazonaws.com", "us-east-1", "us-gov-west-1"),  # that is who answers
        ("https://bedrock-runtime-fips.us-gov-east-1.amazonaws.com/x", None, "us-gov-east-1"),
        ("https://vpce-1-a.bedrock-runtime.eu-west-1.vpce.amazonaws.com", "us-east-1", "eu-west-1"),
        ("https://bedrock-mantle.eu-central-1.api.aws/anthropic", "us-east-1", "eu-central-1"),
        ("http://127.0.0.1:1/eu-west-1", "US-East-1", "us-east-1"),
        ("https://eu-west-1.example.com", "us-east-1", "us-east-1"),
        ("", "mars", ""), ("", None, ""), (None, "", ""), ("http://[", "us-east-1", "us-east-1"),
    ],
)  # fmt: skip
def test_an_address_says_where_calls_go_before_what_a_client_is_set_to(url, region, found):
    assert region_of(url, region) == found


def test_a_client_reaches_its_own_region_and_no_other():
    assert reached_from("") == ()
    assert "us-gov" in reached_from("us-gov-west-1")
    assert not {"global", "us", "regional", ""} & {*reached_from("us-gov-west-1")}
    assert {"eu-west-1", "global", "eu", "regional", "provisioned"} <= {*reached_from("eu-west-1")}
    assert not {"us-gov", "eu-west-2"} & {*reached_from("eu-west-1")}


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("eu-west-1/anthropic.claude-opus-5", ("eu-west-1/anthropic.claude-opus-5", "anthropic.claude-opus-5")),
        ("provisioned/anthropic.claude-opus-5", ("provisioned/anthropic.claude-opus-5",)),
        ("us/anthropic.claude-opus-5", ("us/anthropic.claude-opus-5",)),
        ("us-east-1/us.anthropic.claude-opus-5", ("us-east-1/us.anthropic.claude-opus-5",)),
        ("anthropic.claude-opus-5", ("anthropic.claude-opus-5",)),
    ],
)
def test_what_was_stated_for_a_plain_id_is_meant_in_every_region(name, names):
    assert names_of_target("bedrock", name) == names
    assert set(names) <= set(names_of("bedrock", name))
    assert names_of_target("openai", name) == (name,)


@pytest.mark.parametrize(
    ("params", "named", "place"),
    [
        ({"aws_region_name": "us-gov-west-1"}, "regional", "us-gov-west-1"),
        ({"region_name": "us-gov-west-1"}, "regional", "us-gov-west-1"),
        ({"aws_region_name": "us-gov-west-1"}, "us-east-1", "us-gov-west-1"),  # LiteLLM heeds it before the name's
        ({}, "us-east-1", "us-east-1"),
        ({}, "regional", "regional"),
        ({}, "", ""),
        ({"aws_region_name": "us-gov-west-1"}, "global", "global"),  # AWS refuses it
        ({"aws_region_name": "us-gov-west-1"}, "provisioned", "provisioned"),
        ({"api_base": "https://bedrock-runtime.us-gov-west-1.amazonaws.com"}, "regional", "us-gov-west-1"),
        (
            {"aws_bedrock_runtime_endpoint": "https://bedrock-runtime.eu-west-1.amazonaws.com",
             "aws_region_name": "us-east-1"}, "regional", "eu-west-1",
        ),
    ],
)  # fmt: skip
def test_litellm_sends_a_deployment_where_its_parameters_say(params, named, place, monkeypatch):
    for variable in ("AWS_REGION_NAME", "AWS_REGION", "AWS_BEDROCK_RUNTIME_ENDPOINT", "BEDROCK_MANTLE_REGION"):
        monkeypatch.delenv(variable, raising=False)
    where = find_platform("bedrock").litellm_place
    assert where(params, named) == place
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert where({}, "regional") == "ap-south-1"
    monkeypatch.setenv("BEDROCK_MANTLE_REGION", "us-east-1")  # heeded by one of two ways: nobody knows
    assert where({}, "regional") == "regional"
