"""Discounts of a contract: which holds, what it is of, and that a row says so."""

from datetime import UTC, datetime
from decimal import localcontext
from fractions import Fraction
from math import ceil

import pytest

from llm_cost_middleware import ConfigurationError, CostConfig
from llm_cost_middleware.metering import price_usage
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

IN_2026, IN_2027 = (datetime(year, 6, 1, tzinfo=UTC).timestamp() for year in (2026, 2027))
MINI, SONNET = ("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-4-6")


def token(prices, model, at=IN_2026):
    return Catalogue(prices).rates(*model, at).levels[0].output


@pytest.mark.parametrize(
    ("prices", "paid"),
    [
        ({"discount": "15%"}, 0.85),
        ({"discount": 0.15}, 0.85),
        ({"discount": "5%", "discounts": {"openai": "15%"}}, 0.85),
        ({"discount": "5%", "discounts": {"openai": "15%", "openai/gpt-5*": "20%", "openai/gpt-5-nano": "90%"}}, 0.8),
        ({"discounts": {"anthropic": "15%"}}, 1),
        ({"discounts": {"openai": {"discount": "15%", "valid_from": "2027-01-01"}}}, 1),
        ({"discounts": {"openai": [{"discount": "10%"}, {"discount": "15%", "valid_from": "2026-01-01"}]}}, 0.85),
    ],
)
def test_the_most_specific_discount_holds(prices, paid):
    assert token(prices, MINI) == token({}, MINI) * paid


def test_a_commitment_ends():
    prices = {"discounts": {"anthropic/claude*": {"discount": "20%", "valid_until": "2027-01-01"}}}
    assert token(prices, SONNET) == token({}, SONNET) * 0.8
    assert token(prices, SONNET, IN_2027) == token({}, SONNET, IN_2027)


def test_a_price_of_ones_own_is_what_is_paid_and_fees_are_not_discounted():
    own = {"openai/gpt-5-mini": {"input_mtok": 1, "output_mtok": 2}}
    assert token({**own, "discount": "50%"}, MINI) == token(own, MINI)
    half, whole = Catalogue({"discount": "50%"}).rates(*SONNET), Catalogue().rates(*SONNET)
    assert (half.levels[0].web_searches, half.fees) == (whole.levels[0].web_searches, whole.fees)
    assert [level.above for level in half.levels] == [level.above for level in whole.levels]


def test_the_bound_of_a_call_is_discounted_as_its_bill_is():
    half, whole = Catalogue({"discount": "50%"}), Catalogue()
    for model in (MINI, SONNET):
        assert half.upper_bound_rates(*model, at=IN_2026).levels[0].output * 2 == (
            whole.upper_bound_rates(*model, at=IN_2026).levels[0].output
        )


def test_every_bill_says_whether_it_is_at_list_or_contract_price():
    reading = UsageReport(items=(BilledItem(TokenUsage(uncached_input=1_000_000)),), model="gpt-5-mini", complete=True)
    catalogue = Catalogue({"discounts": {"openai": "15%"}})
    priced = price_usage(reading, get_provider("openai"), catalogue, at=IN_2026)
    listed = price_usage(reading, get_provider("openai"), Catalogue(), at=IN_2026)
    assert priced.cost_nanousd == listed.cost_nanousd * 85 // 100
    assert priced.status == listed.status == "exact"
    assert priced.price_version.endswith(", contract openai -15%")
    assert "contract" not in listed.price_version


def test_the_general_one_has_no_name():
    reading = UsageReport(items=(BilledItem(TokenUsage(output=1)),), model="gpt-5-mini", complete=True)
    priced = price_usage(reading, get_provider("openai"), Catalogue({"discount": "15%"}), at=IN_2026)
    assert priced.price_version.endswith(", contract -15%")


@pytest.mark.parametrize("share", ["33.3%", "57.7%", " 7.03 %", "12.3456789%", 0.333, "0.333", "100%"])
def test_a_share_is_the_one_that_was_written(share):
    """A float of 33.3 % is 33.29999999999999 %: the bill would be another one."""
    whole = Fraction(str(share).strip().rstrip("% ")) / (100 if "%" in str(share) else 1)
    with localcontext(prec=3):
        paid = token({"discount": share}, MINI)
    assert paid == ceil(token({}, MINI) * (1 - whole))


def test_a_host_s_prices_stand_on_what_a_running_catalogue_takes_up():
    """As those of LiteLLM's deployments do, which are laid under the user's own."""
    catalogue = Catalogue()
    laid = catalogue.with_prices({"openai/theirs": {"input_mtok": 1, "output_mtok": 3}})
    both = laid.with_prices({"openai/more": {"input_mtok": 1, "output_mtok": 4}})
    before = both.rates(*MINI).levels[0].output
    catalogue.reprice({"discount": "15%", "openai/theirs": {"output_mtok": 2}})
    for scoped in (laid, both):
        assert scoped.rates(*MINI, IN_2026).levels[0].output == before * 0.85
        assert scoped.rates("openai", "theirs").levels[0].output == 2_000_000, "the user's own decides"
    assert both.rates("openai", "more").levels[0].output == 4_000_000
    assert both.version == both.version != laid.version
    with pytest.raises(ConfigurationError):
        catalogue.reprice({"discount": "500%"})
    assert laid.rates(*MINI, IN_2026).levels[0].output == before * 0.85


def test_a_running_catalogue_takes_up_a_contract():
    catalogue = Catalogue()
    before = catalogue.rates(*MINI).levels[0].output
    catalogue.reprice({"discount": "15%"})
    assert catalogue.rates(*MINI, IN_2026).levels[0].output == before * 0.85


@pytest.mark.parametrize(
    "prices",
    [
        {"discount": "120%"}, {"discount": 15}, {"discount": "-5%"}, {"discounts": "15%"},
        {"discounts": {"openai": {}}},
        {"discounts": {"openai": {"discount": "5%", "from": "2026-01-01"}}},
        {"discounts": {"openai": {"discount": "5%", "valid_from": "soon"}}},
        {"discounts": {"openai": {"discount": "5%", "valid_from": "2027-01-01", "valid_until": "2026-01-01"}}},
        {"discounts": {"openai": {"discount": "5%", "committed": "100"}}},
        {"discounts": {"openai": [{"discount": "5%"}, {"discount": "6%"}]}},
        {"discounts": {"openai": "0.00000000001%"}},
        {"discounts": {"antropic": "5%"}}, {"discounts": {"Openai/gpt-5": "5%"}}, {"discounts": {"*/gpt-5": "5%"}},
        {"discounts": {"": "5%"}}, {"discounts": {7: "5%"}},
        {"discounts": {"openai": {"discount": "5%", "valid_from": "2026-01-01", "committed": "100"}}},
        {"discounts": {"openai": {"discount": "5%", "valid_from": "2026-01-01", "valid_until": "2027-01-01",
                                  "committed": "much"}}},
        {"discounts": {"openai": {"discount": "5%", "valid_from": "2026-01-01", "valid_until": "2027-01-01",
                                  "committed": 0}}},
    ],
)  # fmt: skip
def test_what_is_no_discount_is_refused(prices):
    with pytest.raises(ConfigurationError, match="prices"):
        CostConfig.from_mapping({"prices": prices})


@pytest.mark.parametrize("price", ["1e300", 1e300, "1000000001"])
def test_a_price_that_nobody_charges_is_refused_where_it_is_written(price):
    for card in ({"input_mtok": price, "output_mtok": 1}, {"tiers": [{"above": 1, "input_mtok": price}]}):
        with pytest.raises(ConfigurationError, match=r"prices\.openai/x\.input_mtok.*no price is above"):
            CostConfig(prices={"openai/x": card})
