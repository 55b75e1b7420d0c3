"""``[routing] regions``: a rule names places that there are."""

import pytest

from llm_cost_middleware import CostConfig
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.platform import PLATFORMS, find_platform
from llm_cost_middleware.platforms.azure import places


@pytest.mark.parametrize(
    ("name", "meant"),
    [("mars", None), ("eu ", "eu"), (" us", "us"), ("europe", "eu"), ("eu-", "eu"), ("us_gov", "us-gov"),
     ("provisioned", None), ("gloabl", "global"), ("eu-west", "eu"), ("", None)],
)  # fmt: skip
def test_a_name_that_is_no_place_is_refused_with_the_nearest_that_is(name, meant):
    with pytest.raises(ConfigurationError) as refused:
        CostConfig(routing={"regions": ["us", name]})
    assert refused.value.key == "routing.regions"
    hint = str(refused.value).partition("did you mean ")[2]
    assert hint == (f"{meant!r}?" if meant else "")
    assert not name or "apac, au, br, ca, ch, eu, global" in str(refused.value)  # the list


@pytest.mark.parametrize(
    "name",
    ["eu", "EU", "global", "us-gov", "uk", "eu-west-1", "us-gov-west-1", "swedencentral", "europe-west1", "us-east5"],
)
def test_a_place_of_any_platform_is_taken(name):
    assert CostConfig(routing={"regions": [name]}).routing.regions == (name.lower(),)


def test_every_geography_of_every_platform_can_be_named():
    named = {name for platform in PLATFORMS for name in find_platform(platform).geographies}
    assert set(CostConfig(routing={"regions": sorted(named)}).routing.regions) == named
    found = {places.geography(region) for regions in places._REGIONS.values() for region in regions}
    for platform, regions in {
        "bedrock": ("us-gov-west-1", "us-east-1", "ca-central-1", "eu-west-2", "eu-central-2", "eu-west-1",
                    "ap-northeast-1", "ap-southeast-2", "ap-south-1", "ap-southeast-1"),
        "vertex_ai": ("us-east5", "europe-west1", "europe-west2", "europe-west6", "asia-east1", "australia-southeast1",
                      "northamerica-northeast1", "northamerica-south1", "southamerica-east1", "me-west1",
                      "africa-south1"),
    }.items():  # fmt: skip
        found |= {find_platform(platform).geography(region) for region in regions}
    assert found <= named
