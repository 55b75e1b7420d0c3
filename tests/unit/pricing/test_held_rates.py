"""Terms that attempts are held at are worked out once, and again as soon as anything that they rest on changes."""

from datetime import UTC, datetime, timedelta

import pytest

from llm_cost_middleware import CostConfig
from llm_cost_middleware.config.candidates import ConfiguredModels
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.lifecycle.stages.cache import CacheStage
from llm_cost_middleware.lifecycle.stages.held_rates import HeldRates
from llm_cost_middleware.lifecycle.state import Settings
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.prompt_cache.plan import CachePolicy
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.testing import FakeClock

MINI = ModelRef("openai", "gpt-5-mini")
REQUEST = CallRequest("openai", "gpt-5-mini", ())


def _held(catalogue, clock, **settings):
    config = CostConfig()
    return HeldRates(Settings(**settings), catalogue, ConfiguredModels(config, catalogue, clock).for_providers, clock)


@pytest.fixture
def clock():
    return FakeClock()


def _fresh(held, request=REQUEST, target=MINI, lane=""):
    return held._look_up(target, request, lane, held._clock.now())


def test_terms_that_are_kept_are_those_that_would_be_looked_up(clock):
    held = _held(Catalogue(), clock)
    for target in (MINI, ModelRef("anthropic", "claude-haiku-4-5"), ModelRef("azure", "gpt-5-mini")):
        for lane in ("", "flex"):
            first = held.terms(target, REQUEST, lane)
            assert held.terms(target, REQUEST, lane) is first
            assert first == _fresh(held, target=target, lane=lane)


def test_terms_that_a_request_states_are_its_own(clock):
    held = _held(Catalogue(), clock)
    plain = held.terms(MINI, REQUEST, "")
    for params in ({"service_tier": "priority"}, {"batch": True}, {"service_tier": ["no", "name"]}):
        request = REQUEST._replace(params=params)
        assert held.terms(MINI, request, "") == _fresh(held, request)
    assert held.terms(MINI, REQUEST._replace(params={"service_tier": "priority"}), "").rates != plain.rates
    assert held.terms(MINI, REQUEST._replace(params={"prompt_cache_key": "k"}), "") is plain
    assert held.terms(MINI, REQUEST, "") is plain


def test_other_prices_end_them(clock):
    catalogue = Catalogue()
    held = _held(catalogue, clock)
    before = held.terms(MINI, REQUEST, "")
    catalogue.reprice({"openai/gpt-5-mini": {"input_mtok": "9", "output_mtok": "9"}})
    assert held.terms(MINI, REQUEST, "").rates.levels[0].output == 9_000_000 != before.rates.levels[0].output


def test_a_catalogue_of_the_call_has_its_own(clock):
    catalogue = Catalogue()
    held = _held(catalogue, clock)
    scoped = catalogue.with_prices({"openai/gpt-5-mini": {"input_mtok": "7", "output_mtok": "7"}})
    theirs = REQUEST._replace(prices=scoped)
    for _ in range(2):
        assert held.terms(MINI, theirs, "").rates.levels[0].output == 7_000_000
        assert held.terms(MINI, REQUEST, "").rates.levels[0].output == 2_000_000


def test_a_tier_seen_in_an_answer_ends_them(clock):
    held = _held(Catalogue(), clock)
    before = held.terms(MINI, REQUEST, "")
    assert held.answered("openai", "priority", dearer=True)
    after = held.terms(MINI, REQUEST, "")
    assert after.rates.levels[0].output > before.rates.levels[0].output
    assert after == _fresh(held)


@pytest.fixture
def dated(clock):
    """Prices that are others from tomorrow on."""
    day = datetime.fromtimestamp(clock.now(), UTC).date() + timedelta(days=1)
    blocks = [
        {"input_mtok": "3", "output_mtok": "3"},
        {"valid_from": day, "input_mtok": "9", "output_mtok": "9"},
    ]
    return Catalogue({"openai/gpt-5-mini": blocks})


def test_a_date_of_the_price_list_ends_them(clock, dated):
    held = _held(dated, clock)
    before = held.terms(MINI, REQUEST, "").rates.levels[0].output
    clock.advance(2 * 86_400)
    assert held.terms(MINI, REQUEST, "").rates.levels[0].output == 9_000_000 != before


def test_a_model_without_a_price_has_none_to_keep(clock):
    held = _held(Catalogue(), clock)
    for _ in range(2):
        with pytest.raises(PriceNotFoundError):
            held.terms(ModelRef("openai", "no-such-model"), REQUEST, "")
    assert not held._known


def test_what_caching_costs_ends_with_the_prices_and_with_their_date(clock, dated):
    stage = CacheStage(Settings(), CachePolicy(), dated, None, clock)
    assert stage.prices(MINI) is stage.prices(MINI)
    assert stage.prices(MINI).uncached == 3_000_000
    clock.advance(2 * 86_400)
    assert stage.prices(MINI).uncached == 9_000_000
    dated.reprice({"openai/gpt-5-mini": {"input_mtok": "7", "output_mtok": "7"}})
    assert stage.prices(MINI).uncached == 7_000_000
    assert stage.prices(MINI, Catalogue()).uncached == 250_000
    assert stage.prices(MINI).uncached == 7_000_000
