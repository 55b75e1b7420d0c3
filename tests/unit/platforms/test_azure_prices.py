"""OpenAI's prices at Azure are those of LiteLLM's map and of genai-prices' ``azure``, or differ for a stated reason."""

from __future__ import annotations

import json
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

import pytest

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.platform import served_model
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.genai import GenaiPrices
from llm_cost_middleware.simulator.azure import factor_at
from llm_cost_middleware.simulator.bill import TIMES

PRICES = Catalogue()
LITELLMS = {
    "input_cost_per_token": "uncached_input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
}
ROUNDED = Decimal("0.02")
# names, buckets, the side taken, and why
DIFFERENCES = (
    (
        ("azure/us-gov/text-embedding-3-*",), ("uncached_input",), "ours, the dearer",
        "LiteLLM has a quarter more there for embeddings, three eighths for every other model",
    ),
    (
        ("azure/gpt-4-turbo*",), ("uncached_input", "output"), "OpenAI's list",
        "LiteLLM has the price of a region where no place is named; older than global deployments, retired",
    ),
    (
        ("azure/gpt-5.4-pro*", "azure/gpt-5.5-pro*"), ("cache_read",), "OpenAI's list, the dearer",
        "OpenAI gives its pro models no discount for cached input; LiteLLM gives them the tenth of the others",
    ),
    (
        ("azure/us/*", "azure/eu/*", "azure/us-gov/*"), ("uncached_input", "cache_read"), "ours, exact",
        "LiteLLM rounds what a zone costs to the nano-dollar: see that it is no more than that",
    ),
)  # fmt: skip
WITHOUT_PRICE = {
    "azure/ada": "retired",
    "azure/chat-latest": "a name that means another model every few weeks",
    "azure/command-r-plus": "not OpenAI's", "azure/mistral-large-*": "not OpenAI's",
    "azure/container": "a price by the session",
    "azure/gpt-4-turbo-vision-preview": "retired",
    "azure/model-router": "a fee beside the model that answers, which is named in the answer",
}  # fmt: skip
CURRENT = ("gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5.1", "gpt-5.4", "gpt-5.4-mini", "gpt-5.5", "gpt-5.6-sol",
           "gpt-5.6-luna", "gpt-6-sol", "gpt-6-luna", "gpt-6-astra", "gpt-6.1-sol")  # fmt: skip


@pytest.fixture(scope="module")
def litellms():
    """LiteLLM's rows of Azure that are priced by the token, by name."""
    spec = find_spec("litellm")
    if spec is None:
        pytest.skip("litellm is not installed: there is nothing to compare with")
    text = Path(spec.origin).with_name("model_prices_and_context_window_backup.json").read_text(encoding="utf-8")
    modes = ("chat", "responses", "embedding")
    rows = json.loads(text, parse_float=Decimal)
    return {name: row for name, row in rows.items() if name.startswith("azure/") and row.get("mode") in modes}


def at_place(name):
    place, _, model = name.removeprefix("azure/").rpartition("/")
    return f"{ {'': 'global', 'global-standard': 'global'}.get(place, place) }/{model}"


def test_litellms_map_has_the_same_prices_at_every_place(litellms):
    same, wrong, met = 0, [], set()
    for name, row in litellms.items():
        try:
            level = PRICES.rates("azure", at_place(name)).levels[0]
        except PriceNotFoundError:
            assert any(fnmatchcase(name, glob) for glob in WITHOUT_PRICE), f"{name} has no price here"
            continue
        for key, bucket in LITELLMS.items():
            if row.get(key) is None:
                continue
            theirs, ours = Decimal(row[key]) * 10**12, getattr(level, bucket)
            if ours == theirs:
                same += 1
                continue
            found = next((d for d in DIFFERENCES if bucket in d[1] and any(fnmatchcase(name, g) for g in d[0])), None)
            rounded = found is DIFFERENCES[-1] and abs(theirs - ours) > ROUNDED * ours
            if found is None or rounded or ("dearer" in found[2] and ours < theirs):
                wrong.append((name, bucket, ours, theirs))
            else:
                met.add(found[0])
    assert wrong == []
    assert met == {globs for globs, *_ in DIFFERENCES}, "no difference was met: take its row out of the list"
    assert same > 500


def test_litellm_knows_the_zones_of_the_current_generation(litellms):
    """What is asserted above is not that nothing was compared."""
    for model in CURRENT:
        assert {f"azure/{place}{model}" for place in ("", "us/", "eu/")} <= litellms.keys()


def test_genai_prices_has_the_same_global_prices_but_for_embeddings():
    """Of those LiteLLM has a tenth more at every place: the dearer side is taken."""
    compared, differs = 0, set()
    source = GenaiPrices()
    for model in source.names("azure"):
        try:
            ours = PRICES.rates("azure", f"global/{model}").levels[0]
        except PriceNotFoundError:
            continue  # not OpenAI's, or retired
        for name, bucket in (("input_mtok", "uncached_input"), ("output_mtok", "output")):
            if isinstance(theirs := source.find("azure", model).periods[-1].card.get(name), Decimal):
                compared += 1
                if theirs * 10**6 != getattr(ours, bucket):
                    differs.add(model)
                    assert getattr(ours, bucket) == theirs * 10**6 * Decimal("1.1")
    assert compared > 10
    assert differs == {"text-embedding-3-large", "text-embedding-3-small"}


@pytest.mark.parametrize("model", [*CURRENT, "o3-mini", "text-embedding-3-small"])
def test_the_simulator_bills_the_same_by_a_table_of_its_own(model):
    places = ("global", "us", "eu", "apac", "us-gov", "eastus2", "swedencentral", "japaneast", "brazilsouth",
              "usgovvirginia")  # fmt: skip
    base = PRICES.rates("openai", model).levels[0].uncached_input
    for place in places:
        times, over = TIMES.get(factor_at(place, model), (1, 1))
        here = PRICES.rates("azure", f"{place}/{model}").levels[0].uncached_input
        assert here * over == base * times, place


def test_a_place_that_nobody_names_costs_the_most():
    for model in (*CURRENT, "o3-mini", "text-embedding-3-small"):
        most = max(
            PRICES.rates("azure", f"{place}/{model}").levels[0].output
            for place in ("global", "us", "eu", "apac", "us-gov")
            if place != "us-gov" or model in {"gpt-5.1", "o3-mini", "text-embedding-3-small"}  # what is served there
        )
        unknown = PRICES.rates("azure", model)
        assert unknown.levels[0].output == most
        assert unknown.notes
        assert served_model("azure", model).place == ""
