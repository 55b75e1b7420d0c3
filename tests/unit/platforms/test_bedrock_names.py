"""Ids of Bedrock's models: what they stand for, where they are served, what the place costs."""

from decimal import Decimal

import pytest

from llm_cost_middleware.platform import Served, is_inside
from llm_cost_middleware.platforms.bedrock.names import factor, geography, parse


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
        ("anthropic.claude-opus-5", "1.1"),
        ("claude-opus-5", "1.1"),  # place unknown: the dearest that is sold
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
