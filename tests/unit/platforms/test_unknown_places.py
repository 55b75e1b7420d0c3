"""What nobody knows the place of is held at the dearest place that its model is served at."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_cost_middleware.platform import PLATFORMS, Served, find_platform
from llm_cost_middleware.pricing.catalogue import Catalogue

PRICES = Catalogue()
PLACES = {
    "azure": ("global", "us", "eu", "apac", "uk", "swedencentral", "eastus2"),
    "bedrock": ("global", "us", "eu", "us-east-1", "eu-west-1", "us-gov", "us-gov-west-1", "us-gov-east-1"),
    "vertex_ai": ("global", "us", "eu", "us-east5", "europe-west1", "asia-east1"),
}


@pytest.mark.parametrize("name", list(PLATFORMS))
def test_no_place_costs_more_than_one_that_is_not_known(name):
    platform = find_platform(name)
    models = [f"gpt-{one}" for one in ("4o", "4.1-mini", "5-mini", "5.1", "6-sol")] if name == "azure" else [
        "claude-3-haiku-20240307", "claude-sonnet-4-20250514", "claude-haiku-4-5-20251001", "claude-opus-5",
    ]  # fmt: skip
    for model in models:
        unknown = platform.factor(Served(platform.provider, model))
        assert all(unknown >= platform.factor(Served(platform.provider, model, place)) for place in PLACES[name])


def test_what_azure_government_serves_may_be_there_where_nobody_says_its_place():
    spec = find_spec("litellm")
    if spec is None:
        pytest.skip("litellm is not installed: its map says what is served there")
    rows = json.loads(Path(spec.origin).with_name("model_prices_and_context_window_backup.json").read_text("utf-8"))
    there = [name.removeprefix("azure/us-gov/") for name in rows if name.startswith("azure/us-gov/")]
    assert there
    for model in there:
        unknown, most = PRICES.rates("azure", model), PRICES.rates("azure", f"us-gov/{model}")
        assert unknown.levels == most.levels
        assert unknown.notes


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://acme.openai.azure.us/openai/", "us-gov"), ("https://ACME.OPENAI.AZURE.US:443/", "us-gov"),
        ("https://acme.openai.azure.com/", ""), ("https://azure.us.example.com/", ""),
        ("http://127.0.0.1/x.azure.us/", ""), ("", ""), (None, ""),
    ],
)  # fmt: skip
def test_the_address_of_a_client_says_that_it_is_of_azure_government(url, place):
    platform = find_platform("azure")
    assert platform.place_of(SimpleNamespace(base_url=url)) == place
    assert platform.litellm_place({"api_base": url}, "") == place
    assert platform.litellm_place({"api_base": url}, "eu") == "eu"
    assert "usgovvirginia" in platform.reached_from("us-gov")
    assert "eu" not in platform.reached_from("us-gov")
