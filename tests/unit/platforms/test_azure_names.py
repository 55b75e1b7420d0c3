"""Where a deployment of Azure is served, by what its line in the configuration says."""

from __future__ import annotations

import pytest

from llm_cost_middleware import CostConfig
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.platforms.azure.deployed import TYPES

SWEDEN = {"region": "swedencentral"}


def place_of(entry, **section):
    config = CostConfig(platforms={"azure": {"deployments": {"d": {"model": "gpt-5-mini", **entry}}, **section}})
    return config.platforms["azure"].target("d").model.rpartition("/")[0]


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"type": "GlobalStandard"}, "global"),
        ({"type": "GlobalStandard", **SWEDEN}, "global"),  # where its resource is
        ({"type": "Global-Standard", "place": "global", **SWEDEN}, "global"),
        ({"type": "global standard"}, "global"),
        ({"type": "GlobalBatch", **SWEDEN}, "global"),
        ({"type": "DeveloperTier"}, "global"),
        ({"type": "DataZoneStandard", **SWEDEN}, "eu"),
        ({"type": "DataZoneStandard", "place": "us"}, "us"),
        ({"type": "DataZoneStandard", "place": "eu", **SWEDEN}, "eu"),
        ({"type": "DataZoneBatch", "region": "eastus2"}, "us"),
        ({"type": "Standard", **SWEDEN}, "swedencentral"),
        ({"type": "Standard", "place": "uksouth"}, "uksouth"),
        ({"type": "ProvisionedManaged", **SWEDEN}, "provisioned"),
        ({"type": "GlobalProvisionedManaged"}, "provisioned"),
        ({"type": "DataZoneProvisionedManaged", **SWEDEN}, "provisioned"),
        ({"type": "provisioned", **SWEDEN}, "provisioned"),
        ({"place": "provisioned", **SWEDEN}, "provisioned"),
        (SWEDEN, "swedencentral"),
        ({"place": "eu", **SWEDEN}, "eu"),
        ({"place": "eu"}, "eu"),
        ({}, ""),
    ],
)
def test_a_deployment_is_served_where_its_type_says(entry, place):
    assert place_of(entry) == place


def test_what_the_section_says_is_for_those_that_say_nothing():
    assert place_of({}, place="global") == "global"
    assert place_of(SWEDEN, place="global") == "swedencentral"
    assert place_of({"type": "DataZoneStandard"}, place="swedencentral") == "eu"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"place": "global", **SWEDEN}, "region 'swedencentral' and place 'global': add type = \"GlobalStandard\""),
        ({"place": "us", **SWEDEN}, "state one of them"),
        ({"place": "us", "type": "DataZoneStandard", **SWEDEN}, "state one of them"),
        ({"place": "eu", "type": "GlobalStandard"}, "state one of them"),
        ({"type": "Standard"}, "needs the region"),
        ({"type": "DataZoneStandard"}, "needs the region"),
        ({"type": "DataZoneStandard", "place": "global"}, "needs the region"),
        ({"type": "Standard", "place": "global"}, "needs the region"),
        ({"type": "DataZoneStandart", **SWEDEN}, "did you mean 'DataZoneStandard'"),
        ({"type": "globl"}, "did you mean 'global'"),
        ({"type": "eu"}, "no type of deployment: GlobalStandard"),
        ({"type": 5}, "no type of deployment"),
        ({"type": "x" * 10_000}, "no type of deployment"),
        ({"region": "mars"}, "mars"),
        ({"region": "global"}, "'global' is no region"),
    ],
)
def test_what_contradicts_itself_or_says_too_little_is_refused_with_advice(entry, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        place_of(entry)
    assert caught.value.key.startswith("platforms.azure.deployments.d")


def test_a_global_place_of_the_section_makes_no_regional_deployment_cheaper():
    with pytest.raises(ConfigurationError, match="needs the region"):
        place_of({"type": "Standard"}, place="global")


def test_every_type_is_tried_here():
    assert len(TYPES) == 9
