"""What the catalogue says a model charges: by name, by date, by tier, by place, and by whom."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llm_cost_middleware.errors import ConfigurationError, PriceNotFoundError, UnknownKeyError
from llm_cost_middleware.pricing.catalogue import Catalogue

# USD a million tokens is the same number of micro-dollars a token: times 1e6 pico-dollars.
M = 1_000_000


def level(rates, above=0):
    return next(level for level in rates.levels if level.above == above)


@pytest.mark.parametrize(
    ("model", "day", "uncached", "read", "write_5m", "write_1h", "output"),
    [
        ("claude-haiku-4-5-20251001", "2026-11-01", 1, 0.1, 1.25, 2, 5),
        ("claude-opus-4-5", "2026-11-01", 5, 0.5, 6.25, 10, 25),
        ("claude-opus-5-5", "2026-11-01", 4, 0.2, 5, 8, 20),
        ("claude-fable-5-2", "2026-11-20", 8, 0.2, 10, 16, 40),
        ("claude-sonnet-5-5", "2026-10-06", 2, 0.2, 2.5, 4, 10),
        ("claude-sonnet-5-5", "2026-10-07", 2, 0.1, 2.5, 4, 10),
        ("claude-sonnet-5", "2026-11-01", 2, 0.2, 2.5, 4, 10),
        ("claude-mythos-5-1", "2026-11-01", 10, 0.25, 12.5, 20, 50),
    ],
)
def test_anthropic_models_charge_the_published_prices(
    catalogue, on, model, day, uncached, read, write_5m, write_1h, output
):
    base = level(catalogue.rates("anthropic", model, at=on(day)))
    found = (base.uncached_input, base.cache_read, base.cache_write_5m, base.cache_write_1h, base.output)
    assert found == tuple(round(usd * M) for usd in (uncached, read, write_5m, write_1h, output))
    assert base.web_searches == 10 * 10**9


@pytest.mark.parametrize(
    ("model", "day", "uncached", "read", "write", "output"),
    [
        ("gpt-4o-2024-08-06", "2026-01-01", 2.5, 1.25, 2.5, 10),
        ("gpt-5-mini", "2026-01-01", 0.25, 0.025, 0.25, 2),
        ("o3", "2025-06-09", 10, 2.5, 10, 40),
        ("o3", "2025-06-10", 2, 0.5, 2, 8),
        ("gpt-5.6-sol", "2026-08-20", 5, 0.5, 6.25, 30),
        ("gpt-5.6", "2026-08-21", 4, 0.4, 5, 20),
        ("gpt-6.1-sol", "2026-11-20", 2, 0.1, 2.5, 10),
    ],
)
def test_openai_models_charge_the_published_prices(catalogue, on, model, day, uncached, read, write, output):
    base = level(catalogue.rates("openai", model, at=on(day)))
    found = (base.uncached_input, base.cache_read, base.cache_write_30m, base.output)
    assert found == tuple(round(usd * M) for usd in (uncached, read, write, output))


def test_long_contexts_are_levels_and_begin_above_their_threshold(catalogue, on):
    haiku = catalogue.rates("anthropic", "claude-haiku-5-5", at=on("2026-11-01"))
    assert haiku.long_context_from == 100_000
    assert haiku.level(100_000) is haiku.levels[0]
    assert haiku.level(100_001).uncached_input == round(0.5 * M)
    astra = catalogue.rates("openai", "gpt-6-astra", at=on("2026-11-01"))
    assert (level(astra, 272_000).uncached_input, level(astra, 272_000).output) == (20 * M, 75 * M)
    beta = catalogue.rates("anthropic", "claude-sonnet-4-20250514", at=on("2025-09-01"))
    assert (level(beta, 200_000).uncached_input, level(beta, 200_000).output) == (6 * M, round(22.5 * M))
    history = catalogue.rates("anthropic", "claude-opus-4-6", at=on("2026-03-12"))
    assert level(history, 200_000).uncached_input == 10 * M
    assert catalogue.rates("anthropic", "claude-opus-4-6", at=on("2026-03-13")).long_context_from is None


@pytest.mark.parametrize(
    ("provider", "model", "terms", "uncached", "output"),
    [
        ("anthropic", "claude-opus-5", {"speed": "fast"}, 10, 50),
        ("anthropic", "claude-opus-4-6", {"speed": "fast"}, 30, 150),
        ("anthropic", "claude-sonnet-4-6", {"batch": True}, 1.5, 7.5),
        ("anthropic", "claude-3-opus-20240229", {"batch": True}, 7.5, 37.5),
        ("anthropic", "claude-opus-4-8", {"geo": "us"}, 5.5, 27.5),
        ("anthropic", "claude-opus-4-8", {"geo": "us", "speed": "fast"}, 11, 55),
        ("anthropic", "claude-sonnet-4-5", {"geo": "us"}, 3, 15),
        ("anthropic", "claude-sonnet-4-6", {"geo": "global", "service_tier": "standard", "speed": "standard"}, 3, 15),
        ("openai", "gpt-5", {"service_tier": "flex"}, 0.625, 5),
        ("openai", "gpt-5", {"service_tier": "priority"}, 2.5, 20),
        ("openai", "gpt-5", {"service_tier": "default"}, 1.25, 10),
        ("openai", "gpt-4o", {"batch": True}, 1.25, 5),
        ("openai", "gpt-6-astra", {"service_tier": "ultrafast"}, 60, 300),
    ],
)
def test_the_terms_of_the_response_decide_the_rate(catalogue, on, provider, model, terms, uncached, output):
    rates = catalogue.rates(provider, model, at=on("2026-11-01"), **terms)
    assert (rates.levels[0].uncached_input, rates.levels[0].output) == (round(uncached * M), round(output * M))
    assert not rates.notes


def test_flex_cost_half_before_the_day_it_was_recorded_and_followed_the_price_of_its_time(catalogue, on):
    early = catalogue.rates("openai", "gpt-5", at=on("2026-02-01"), service_tier="flex").levels[0]
    assert (early.uncached_input, early.output) == (625_000, 5 * M)
    before_the_cut = catalogue.rates("openai", "gpt-5.6-sol", at=on("2026-08-01"), batch=True).levels[0]
    assert (before_the_cut.uncached_input, before_the_cut.output) == (round(2.5 * M), 15 * M)


def test_a_tier_without_a_price_is_priced_as_standard_and_reports_it(catalogue, on):
    rates = catalogue.rates("openai", "gpt-5-nano", at=on("2026-11-01"), service_tier="priority")
    assert "priority" in rates.notes[0]
    assert catalogue.rates("openai", "gpt-5", at=on("2026-11-01"), service_tier="scale").notes


def test_twelve_hour_writes_cost_two_and_a_half_times_the_input_where_writes_are_paid(catalogue, on):
    sol = catalogue.rates("openai", "gpt-6-sol", at=on("2026-11-01")).levels[0]
    assert sol.cache_write_12h == 5 * M
    old = catalogue.rates("openai", "gpt-5", at=on("2026-11-01")).levels[0]
    assert old.cache_write_12h == old.uncached_input


def test_audio_has_a_price_or_none_never_the_price_of_text(catalogue, on):
    audio = catalogue.rates("openai", "gpt-4o-audio-preview-2024-12-17", at=on("2025-04-01")).levels[0]
    assert (audio.audio_input, audio.audio_output) == (40 * M, 80 * M)
    assert catalogue.rates("openai", "gpt-5", at=on("2026-11-01")).levels[0].audio_input is None


@pytest.mark.parametrize(
    "model",
    [
        "claude-sonnet-4-5-anything",
        "claude-opus-4-10",
        "gpt-7",
        "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "",
        "x/y",
    ],
)
def test_an_unknown_model_is_an_error_not_zero(catalogue, model):
    for provider in ("anthropic", "openai"):
        with pytest.raises(PriceNotFoundError):
            catalogue.rates(provider, model)


def test_the_error_names_the_nearest_known_models(catalogue):
    with pytest.raises(PriceNotFoundError) as caught:
        catalogue.rates("anthropic", "claude-sonet-4-6")
    assert "claude-sonnet-4-6" in caught.value.nearest


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("anthropic", "anthropic/claude-sonnet-4-5-20250929"),
        ("anthropic", "claude-sonnet-4-5@20250929"),
        ("anthropic", "Claude-Sonnet-4-5-latest"),
        ("openai", "openai/gpt-5.2-20251211"),
        ("openai", "gpt-4o-mini-audio-preview-2024-12-17"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc"),
    ],
)
def test_dates_versions_and_the_providers_own_prefix_do_not_hide_a_model(catalogue, provider, model):
    assert catalogue.rates(provider, model).levels[0].uncached_input > 0


def test_without_a_moment_the_newest_price_holds(catalogue, on):
    newest = catalogue.rates("openai", "gpt-5.6-sol")
    assert newest is catalogue.rates("openai", "gpt-5.6-sol", at=on("2026-11-20"))
    assert newest.levels[0].uncached_input == 4 * M


def test_your_own_prices_win_key_by_key_and_by_date(on):
    own = Catalogue(
        {
            "openai/my-finetune": {"input_mtok": "1.10", "output_mtok": "4.40"},
            "openai/gpt-5": [
                {"input_mtok": "1.00", "valid_from": "2026-06-01"},
                {"output_mtok": 8, "valid_from": "2026-07-01", "valid_until": "2026-08-01"},
            ],
            "anthropic/claude-sonnet-4-6": {"speed": "fast", "input_mtok": "9", "output_mtok": "45"},
            "anthropic/claude-private": {"input_mtok": "4", "output_mtok": "8"},
        }
    )
    mine = own.rates("openai", "my-finetune").levels[0]
    assert (mine.uncached_input, mine.cache_read, mine.output) == (1_100_000, 1_100_000, 4_400_000)
    for day, expected in (
        ("2026-05-31", (1.25, 10)),
        ("2026-06-30", (1, 10)),
        ("2026-07-31", (1, 8)),
        ("2026-08-01", (1, 10)),
    ):
        base = own.rates("openai", "gpt-5-2025-08-07", at=on(day)).levels[0]
        assert (base.uncached_input, base.output) == tuple(round(usd * M) for usd in expected)
    batch = own.rates("openai", "gpt-5", at=on("2026-11-01"), batch=True).levels[0]
    assert batch.uncached_input == 500_000, "a batch keeps its ratio to the standard price"
    fast = own.rates("anthropic", "claude-sonnet-4-6", at=on("2026-11-01"), speed="fast").levels[0]
    assert (fast.uncached_input, fast.output) == (9 * M, 45 * M)
    private = own.rates("anthropic", "claude-private").levels[0]
    assert (private.cache_write_5m, private.cache_write_1h, private.cache_read) == (5 * M, 8 * M, 4 * M)
    assert {"my-finetune", "gpt-5"} <= set(own.models("openai"))


@pytest.mark.parametrize(
    ("prices", "error", "told"),
    [
        ({"openai/x": {"input_mtk": 1}}, UnknownKeyError, "input_mtok"),
        ({"openai/x": {"input_mtok": "cheap"}}, ConfigurationError, "cheap"),
        ({"openai/x": {"input_mtok": -1}}, ConfigurationError, "negative"),
        ({"openai/x": {"input_mtok": 1, "valid_from": "soon"}}, ConfigurationError, "soon"),
        ({"x": {"input_mtok": 1}}, ConfigurationError, "provider/model"),
        ({"openai/x": 3}, ConfigurationError, "table"),
        ({"openai/x": {"input_mtok": 1, "tiers": [{"input_mtok": 2}]}}, ConfigurationError, "above"),
    ],
)
def test_prices_that_cannot_be_used_are_refused_where_they_stand(prices, error, told):
    with pytest.raises(error, match=told):
        Catalogue(prices)


def test_the_version_names_the_snapshot_and_changes_with_your_own_prices():
    plain, mine, other = (
        Catalogue(),
        Catalogue({"openai/x": {"input_mtok": 1}}),
        Catalogue({"openai/x": {"input_mtok": 2}}),
    )
    assert plain.version.startswith("genai-prices ")
    assert len({plain.version, mine.version, other.version}) == 3
    assert mine.version == Catalogue({"openai/x": {"input_mtok": 1}}).version


class _Published(BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        prices = {"input_mtok": 9, "output_mtok": 90}
        model = {"id": "gpt-5", "match": {"equals": "gpt-5"}, "prices": prices}
        body = json.dumps([{"id": "openai", "name": "OpenAI", "api_pattern": "x", "models": [model]}]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_prices_are_fetched_once_and_only_when_asked_for_and_the_version_shows_it():
    with HTTPServer(("127.0.0.1", 0), _Published) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        fresh = Catalogue(update_prices=f"http://127.0.0.1:{server.server_port}/data.json")
        assert _Published.asked == 0, "nothing is fetched before a price is needed"
        assert fresh.rates("openai", "gpt-5").levels[0].uncached_input == 9 * M
        fresh.rates("openai", "gpt-5", at=0)
        assert _Published.asked == 1
        assert "~" in fresh.version
        assert fresh.version != Catalogue().version
        server.shutdown()
    assert Catalogue().rates("openai", "gpt-5").levels[0].uncached_input == 1_250_000, "no process-global change"


def test_when_prices_cannot_be_fetched_the_installed_ones_hold(caplog):
    offline = Catalogue(update_prices="http://127.0.0.1:9/data.json")
    assert offline.rates("openai", "gpt-5").levels[0].uncached_input == 1_250_000
    assert "could not be updated" in caplog.text
    assert offline.version == Catalogue().version


def test_a_bound_counts_what_the_account_may_decide(catalogue, on):
    now = on("2026-11-01")
    unset = catalogue.upper_bound_rates("openai", "gpt-5", at=now)
    pinned = catalogue.upper_bound_rates("openai", "gpt-5", at=now, params={"service_tier": "default"})
    assert unset.levels[0].output == 20 * M, "an unset tier may be the project's priority tier"
    assert pinned.levels[0].output == 10 * M
    place = catalogue.upper_bound_rates("anthropic", "claude-opus-4-8", at=now)
    assert place.levels[0].output == round(27.5 * M)
    assert (
        catalogue.upper_bound_rates("anthropic", "claude-opus-4-8", at=now, params={"inference_geo": "global"})
        .levels[0]
        .output
        == 25 * M
    )
    fast = catalogue.upper_bound_rates(
        "anthropic", "claude-opus-5", at=now, params={"speed": "fast", "inference_geo": "global"}
    )
    assert fast.levels[0].output == 50 * M


def test_limits_are_known_by_the_longest_beginning_and_unknown_is_none(catalogue):
    assert catalogue.limits("anthropic", "claude-opus-4-6").context_window == 1_000_000
    assert catalogue.limits("anthropic", "claude-opus-4-5-20251101").max_output == 64_000
    assert catalogue.limits("anthropic", "claude-opus-4-20250514").max_output == 32_000
    assert catalogue.limits("openai", "gpt-4o-mini").image_tokens == 48_169
    assert catalogue.limits("openai", "gpt-5").default_output < catalogue.limits("openai", "gpt-5").max_output
    assert catalogue.limits("openai", "nothing-like-it").context_window is None


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_every_listed_model_that_chats_has_a_price_and_a_window(catalogue, provider):
    for model in catalogue.models(provider):
        rates = catalogue.rates(provider, model)
        assert rates.levels[0].uncached_input > 0, model
        limits = catalogue.limits(provider, model)
        assert limits.default_output > 0
        if limits.max_output:  # an embedding has none
            assert limits.default_output <= limits.max_output, model


@pytest.mark.parametrize(
    ("provider", "model", "whose"),
    [("anthropic", "gpt-5-mini", "openai"), ("openai", "claude-haiku-4-5", "anthropic"), ("anthropic", "gpt-99", "")],
)
def test_a_name_of_another_maker_is_told(provider, model, whose):
    with pytest.raises(PriceNotFoundError) as caught:
        Catalogue().rates(provider, model)
    told = f"{whose} has a model of that name: call it there, unless a gateway serves it here. Set one"
    assert (told in str(caught.value)) == bool(whose)
