"""What is wrong with a deployment is said once, under the key that somebody wrote, with what mends it."""

import pytest

from llm_cost_middleware import ConfigurationError, CostConfig, PriceNotFoundError
from llm_cost_middleware.config.candidates import ConfiguredModels
from llm_cost_middleware.platform import why_outside
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.system_clock import SystemClock


def azure(**deployments):
    return {"platforms": {"azure": {"deployments": deployments}}}


def paid(**prices):
    return azure(ours={"model": "gpt-5", "type": "provisioned", **prices})


def refused(config):
    catalogue = Catalogue(config.prices)
    target = config.platforms["azure"].target("ours")
    with pytest.raises(PriceNotFoundError) as raised:
        catalogue.rates(target.provider, target.model)
    return str(raised.value)


@pytest.mark.parametrize(("price", "fault"), [("abc", "not a number"), ("-1", "negative"), (2e9, "thousand million")])
@pytest.mark.parametrize("name", ["input_mtok", "output_mtok", "cache_read_mtok"])
def test_a_price_that_is_none_is_named_once_and_by_its_own_key(name, price, fault):
    stated = {"input_mtok": "1", "output_mtok": "2", name: price}
    with pytest.raises(ConfigurationError, match=fault) as raised:
        CostConfig.from_mapping(paid(**stated))
    key = f"platforms.azure.deployments.ours.{name}"
    assert raised.value.key == key
    assert str(raised.value).count(key) == str(raised.value).count(repr(price)) == 1


def test_a_price_of_a_model_is_named_once_too():
    with pytest.raises(ConfigurationError) as raised:
        CostConfig.from_mapping({"prices": {"openai/mine": {"input_mtok": "abc", "output_mtok": "1"}}})
    assert str(raised.value).count("input_mtok") == str(raised.value).count("abc") == 1


def test_a_provisioned_deployment_without_prices_is_told_to_state_them_and_that_works():
    told = refused(CostConfig.from_mapping(paid()))
    assert "add input_mtok and output_mtok to it in [platforms.azure.deployments]" in told
    assert "name the model" not in told
    mended = CostConfig.from_mapping(paid(input_mtok="1", output_mtok="2"))
    target = mended.platforms["azure"].target("ours")
    level = Catalogue(mended.prices).rates(target.provider, target.model).levels[0]
    assert level.output == 2 * level.uncached_input > 0


def test_a_deployment_of_a_misspelt_model_is_told_to_correct_it():
    told = refused(CostConfig.from_mapping(azure(ours="gpt-5-minii")))
    assert "the nearest known are gpt-5-mini" in told
    assert "or correct it where one states it as its model" in told


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (
            ("azure", "gpt-5"),
            "is not known to be served in eu: say it by [platforms.azure] place, or of its deployment",
        ),
        (("azure", "us/gpt-5"), "is not served in eu"),
        (("openai", "gpt-5"), "is not served in eu"),
    ],
)
def test_a_target_whose_place_nobody_told_is_not_said_to_be_elsewhere(target, told):
    assert why_outside(*target, ("eu",)) == told
    tiers = [{"name": "one", "models": ["/".join(target)]}]
    config = CostConfig.from_mapping({"routing": {"regions": ["eu"]}, "tiers": tiers})
    (made,) = ConfiguredModels(config, Catalogue(), SystemClock()).for_providers(frozenset({target[0]}))
    advice = "; a platform may serve it there: llm-cost help platforms" if target[0] == "openai" else ""
    assert made.unavailable == told + advice


@pytest.mark.parametrize(("section", "name"), [("providers", "openai"), ("platforms", "azure")])
def test_a_service_tier_is_one_that_there_is(section, name):
    with pytest.raises(ConfigurationError, match="did you mean 'priority'"):
        CostConfig(**{section: {name: {"service_tier": "prioriy"}}})
    for tier in ("", "auto", "default", "flex", "priority", "scale", "ultrafast"):
        assert CostConfig(**{section: {name: {"service_tier": tier}}}).access(name).service_tier == tier
