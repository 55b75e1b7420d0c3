"""Claude's prices at Bedrock are those of genai-prices' ``aws`` and of LiteLLM's map, or differ for a stated reason."""

from __future__ import annotations

import json
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import pytest

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.platforms.bedrock.names import parse
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.genai import _by_name

PRICES = Catalogue()
PICO = 10**6  # pico-dollars a token in a dollar a million tokens
LITELLMS = {
    "input_cost_per_token": "uncached_input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
}
GENAIS = {
    "input_mtok": "uncached_input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
}
# names, the side taken, and why
DIFFERENCES = (
    (
        "litellm", ("anthropic.claude-*", "bedrock_mantle/anthropic.claude-*"), "genai-prices",
        """LiteLLM has the global price for a call that stays in its region; genai-prices, and Anthropic's page on
        Bedrock, make regional endpoints a tenth dearer from Claude 4.5 on, which is also the safe side""",
    ),
    (
        "litellm", ("anthropic.claude-3-7-sonnet-20240620-v1:0",), "genai-prices",
        "there is no such model: 3.7 is of 2025-02-19, at 3 and 15 dollars",
    ),
    (
        "genai", ("us-gov.anthropic.claude-*",), "LiteLLM",
        """genai-prices puts GovCloud among the regions at a tenth more; LiteLLM has a fifth more for each model there,
        which is the safe side""",
    ),
)  # fmt: skip
WITHOUT_PRICE = {
    "anthropic.claude-instant-v1": "retired",
    "*.claude-mythos-preview": "an invitation-only preview; no list price at home",
    "anthropic.claude-mythos-preview": "as above",
    "*-month-commitment/*": "provisioned throughput: a price by the hour, which a configuration states",
    "*/anthropic.claude-instant-v1": "retired",
    "*anthropic.claude-v*": "retired",
    "bedrock/invoke/*": "a spelling of LiteLLM's alone",
}


def differs(source: str, name: str) -> bool:
    return any(source == of and any(fnmatchcase(name, glob) for glob in globs) for of, globs, *_ in DIFFERENCES)


def in_a_region(name: str) -> str:
    """A plain id as one that is called in the United States; without a region it has the price of the dearest."""
    return f"us-east-1/{name}" if name.startswith("anthropic.") else name


def test_a_plain_id_costs_most_where_nobody_says_its_region():
    most = PRICES.rates("bedrock", "anthropic.claude-opus-5")
    assert most.notes
    assert most.levels == PRICES.rates("bedrock", "us-gov-west-1/anthropic.claude-opus-5").levels


@pytest.fixture(scope="module")
def litellms():
    """LiteLLM's rows of Claude at Bedrock, by name."""
    spec = find_spec("litellm")
    if spec is None:
        pytest.skip("litellm is not installed: there is nothing to compare with")
    text = Path(spec.origin).with_name("model_prices_and_context_window_backup.json").read_text(encoding="utf-8")
    return {
        name: row
        for name, row in json.loads(text).items()
        if str(row.get("litellm_provider")).startswith("bedrock") and "anthropic.claude" in name
    }


def test_litellms_map_has_the_same_prices(litellms):
    same, wrong, met = 0, [], set()
    for name, row in litellms.items():
        bare = name.removeprefix("bedrock/").removeprefix("bedrock_mantle/")
        try:
            level = PRICES.rates("bedrock", in_a_region(bare)).levels[0]
        except PriceNotFoundError:
            glob = next((glob for glob in WITHOUT_PRICE if fnmatchcase(name, glob)), None)
            assert glob, f"{name} has no price here, for no stated reason"
            continue
        for key, bucket in LITELLMS.items():
            if key not in row:
                continue
            if getattr(level, bucket) == Decimal(repr(row[key])) * 10**12:
                same += 1
            elif differs("litellm", name):
                met.add(name)
            else:
                wrong.append((name, bucket, getattr(level, bucket) / PICO, row[key]))
    assert wrong == []
    assert met, "no difference was met: take its row out of the list"
    assert same > 600


def test_genai_prices_has_the_same_prices():
    same, wrong, met = 0, [], set()
    for listed in PRICES._source._providers["aws"].models:  # the names it matches hold parts of ids: asked below
        _, _, model = listed.id.partition(".anthropic.")
        for place in ("global", "us", "eu", "us-gov", "") if model else ():
            name = f"{place}.anthropic.{model}".removeprefix(".")
            found = PRICES._source._providers["aws"].find_model(name)
            if found is None or found.id != listed.id:
                continue
            level = PRICES.rates("bedrock", in_a_region(name)).levels[0]
            newest = _by_name(found.prices[-1].prices if isinstance(found.prices, list) else found.prices)
            for key, bucket in GENAIS.items():
                theirs = newest.get(key)
                if theirs is None:
                    continue
                theirs = getattr(theirs, "base", theirs) * PICO
                if getattr(level, bucket) == theirs:
                    same += 1
                elif differs("genai", name):
                    met.add(name)
                else:
                    wrong.append((name, bucket, getattr(level, bucket) / PICO, theirs / PICO))
    assert wrong == []
    assert met, "no difference was met: take its row out of the list"
    assert same > 200


def test_each_difference_says_which_side_was_taken_and_why():
    for source, names, side, why in DIFFERENCES:
        assert source in ("litellm", "genai")
        assert names
        assert side in ("genai-prices", "LiteLLM")
        assert why.strip()


@pytest.mark.parametrize("name", ["us.anthropic.claude-haiku-4-5-20251001-v1:0", "global.anthropic.claude-opus-5"])
def test_limits_and_cache_rules_are_the_models_own(name):
    assert find_limits("bedrock", name) == find_limits("anthropic", parse(name).model)
