"""Vertex: names, places and prices of Claude there, and the errors of Google's front."""

from __future__ import annotations

import json
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest

from llm_cost_middleware.metering.price import price_usage
from llm_cost_middleware.platform import find_platform, geography_of, served_model
from llm_cost_middleware.platforms.vertex.errors import ERROR_RULES, read_error
from llm_cost_middleware.platforms.vertex.names import factor, geography, parse, wire_name
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.provider import FailureKind as K
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.retry.classify import _provider_rule, classify_response
from llm_cost_middleware.retry.facts import read_response

VERTEX = "vertex_ai"
PRICES = Catalogue()


@pytest.mark.parametrize(
    ("name", "model", "place"),
    [
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5-20251001", ""),
        ("global/claude-haiku-4-5@20251001", "claude-haiku-4-5-20251001", "global"),
        ("europe-west1/claude-opus-5-5@default", "claude-opus-5-5", "europe-west1"),
        ("eu/claude-sonnet-5-5", "claude-sonnet-5-5", "eu"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet-20241022", ""),
        ("claude-opus-4@20250514", "claude-opus-4-20250514", ""),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001", ""),  # as answers say
    ],
)
def test_a_name_says_its_model_and_its_place(name, model, place):
    assert parse(name) == served_model(VERTEX, name) == ("anthropic", model, place)


@pytest.mark.parametrize(
    "name",
    ["gemini-2.5-pro", "eu/gemini-3", "mars/claude-haiku-4-5", "a/b/claude-haiku-4-5", "claude-haiku-4-5@2025", "",
     "claude-haiku-4-5@20251001@default", "meta/llama-4", "claude-" + "9" * 5_000 + "@"],
)  # fmt: skip
def test_what_is_no_claude_here_is_none(name):
    assert parse(name) is None


def test_a_request_carries_vertexs_name_for_the_model():
    assert wire_name("eu/claude-haiku-4-5-20251001") == "claude-haiku-4-5@20251001"
    assert wire_name("claude-haiku-4-5@20251001") == "claude-haiku-4-5@20251001"
    assert wire_name("global/claude-opus-5-5@default") == "claude-opus-5-5@default"
    assert wire_name("claude-opus-5-5") == "claude-opus-5-5"
    assert wire_name("eu/claude-3-5-sonnet-20241022") == "claude-3-5-sonnet-v2@20241022"  # the second edition
    assert wire_name("claude-3-5-sonnet-v2@20241022") == "claude-3-5-sonnet-v2@20241022"
    assert wire_name("claude-3-5-sonnet-20240620") == "claude-3-5-sonnet@20240620"


def test_places_have_a_geography_and_london_and_zurich_are_not_in_the_eu():
    assert geography_of(VERTEX, "europe-west4/claude-opus-5") == "eu"
    known = {"global": "global", "us": "us", "us-east5": "us", "eu": "eu", "europe-west2": "uk", "europe-west6": "ch",
             "asia-southeast1": "apac", "me-central1": "me", "x-y1": ""}  # fmt: skip
    assert {place: geography(place) for place in known} == known


def test_everything_but_the_global_place_costs_a_tenth_more_from_sonnet_4_5_on():
    for name in ("claude-3-5-haiku@20241022", "claude-opus-4@20250514", "claude-opus-4-1@20250805",
                 "claude-sonnet-4@20250514", "claude-3-7-sonnet@20250219"):  # fmt: skip
        assert factor(parse(f"us-east5/{name}")) == 1, name
    for name in ("claude-sonnet-4-5@20250929", "claude-haiku-4-5", "claude-opus-4-5", "claude-opus-4-6@default",
                 "claude-sonnet-4-6", "claude-sonnet-5-5", "claude-fable-5-1"):  # fmt: skip
        assert factor(parse(f"us-east5/{name}")) == factor(parse(name)) == Decimal("1.1"), name
        assert factor(parse(f"global/{name}")) == 1, name


# --- prices beside the two trackers ----------------------------------------------------------------------------------

_FIELDS = (("uncached_input", "input_cost_per_token"), ("output", "output_cost_per_token"),
           ("cache_read", "cache_read_input_token_cost"), ("cache_write_5m", "cache_creation_input_token_cost"),
           ("cache_write_1h", "cache_creation_input_token_cost_above_1hr"))  # fmt: skip
_PICO = 10**12
LITELLM_DIFFERS = {
    "claude-3-5-haiku": "ours: Google's price page and genai-prices have 0.80/4 since the price cut of December 2024",
}
"""Differences by the beginning of a name, with why our side is taken."""
GENAI_DIFFERS: dict[str, str] = {}
"""None today; genai-prices lacks Sonnet 5 and the fee of web searches, which the provider's list has."""


@pytest.fixture(scope="module")
def litellms():
    spec = find_spec("litellm")
    if spec is None:
        pytest.skip("litellm is not installed: there is nothing to compare with")
    text = Path(spec.origin).with_name("model_prices_and_context_window_backup.json").read_text(encoding="utf-8")
    return {name.removeprefix("vertex_ai/"): row for name, row in json.loads(text).items()
            if name.startswith("vertex_ai/claude-")}  # fmt: skip


def _pico(text: object, factor: str) -> int:
    return int(Decimal(repr(text)) * Decimal(factor) * _PICO)


@pytest.mark.parametrize("place", ["global", "eu", "us-east5"])
def test_prices_are_litellms_or_differ_for_a_stated_reason(litellms, place):
    compared, met = 0, set()
    for name, row in litellms.items():
        level = PRICES.rates(VERTEX, f"{place}/{name}").level(1)
        by = repr(row.get("regional_endpoint_uplift_multiplier", 1)) if place != "global" else "1"
        for ours, theirs in _FIELDS:
            if row.get(theirs) is None:
                continue
            compared += 1
            if getattr(level, ours) != _pico(row[theirs], by):
                why = next((start for start in LITELLM_DIFFERS if name.startswith(start)), None)
                assert why is not None, (name, ours, getattr(level, ours), row[theirs])
                met.add(why)
    assert compared > 100
    assert met == set(LITELLM_DIFFERS), "a difference that is no longer there"


def test_prices_are_those_of_genai_prices_or_differ_for_a_stated_reason():
    from genai_prices.data import providers

    google = next(provider for provider in providers if provider.id == "google")
    compared, met = 0, set()
    for model in (model for model in google.models if "claude" in model.id):
        prices = model.prices[-1].prices if isinstance(model.prices, list) else model.prices
        level = PRICES.rates(VERTEX, f"global/{model.id}").level(1)
        for ours, theirs in (("uncached_input", "input_mtok"), ("output", "output_mtok"),
                             ("cache_read", "cache_read_mtok"), ("cache_write_5m", "cache_write_mtok"),
                             ("cache_write_1h", "cache_write_1h_mtok")):  # fmt: skip
            price = getattr(prices, theirs)
            if price is None:
                continue
            compared += 1
            if getattr(level, ours) != int(getattr(price, "base", price) * 10**6):
                why = GENAI_DIFFERS.get(model.id)
                assert why is not None, (model.id, ours, getattr(level, ours), price)
                met.add(model.id)
    assert compared > 80
    assert met == set(GENAI_DIFFERS), "a difference that is no longer there"


def test_a_model_of_another_maker_has_no_price_here():
    from llm_cost_middleware.errors import PriceNotFoundError

    for name in ("gemini-2.5-pro", "global/gemini-2.5-pro", "claude-none"):
        with pytest.raises(PriceNotFoundError):
            PRICES.rates(VERTEX, name)


# --- answers ---------------------------------------------------------------------------------------------------------

SAMPLES = [
    # Google, "Request predictions with Claude models": an answer of rawPredict; its ids as documented there
    ("global/claude-sonnet-4-5@20250929",
     {"id": "msg_vrtx_01Y1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
      "content": [{"type": "text", "text": "Hello!"}], "stop_reason": "end_turn", "stop_sequence": None,
      "usage": {"input_tokens": 14, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "output_tokens": 12}}, 222_000),
    # the SDK's ``types.Usage`` with both lifetimes of writes, in a region: 11/10
    ("europe-west1/claude-haiku-4-5@20251001",
     {"id": "msg_vrtx_01Y2", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001",
      "content": [], "stop_reason": "end_turn",
      "usage": {"input_tokens": 1_000, "cache_creation_input_tokens": 600, "cache_read_input_tokens": 500,
                "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 500},
                "output_tokens": 200}}, (1_000_000 + 125_000 + 1_000_000 + 50_000 + 1_000_000) * 11 // 10),
    # web searches are a fee, which no place makes dearer (types.ServerToolUsage)
    ("eu/claude-sonnet-4-6",
     {"id": "msg_vrtx_01Y3", "type": "message", "role": "assistant", "model": "claude-sonnet-4-6", "content": [],
      "usage": {"input_tokens": 100, "output_tokens": 100, "server_tool_use": {"web_search_requests": 2}}},
     1_980_000 + 20_000_000),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "answer", "nanousd"), SAMPLES)
def test_an_answer_is_priced_at_the_place_that_was_asked(asked, answer, nanousd):
    rules = get_provider(VERTEX)
    priced = price_usage(rules.read_usage(answer), rules, PRICES, at=None, requested_model=asked)
    assert (priced.cost_nanousd, priced.status) == (nanousd, "exact")


def test_the_shortest_prefix_and_the_lifetimes_are_the_models():
    abilities = get_provider(VERTEX).cache_capabilities
    assert (abilities("eu/claude-haiku-4-5@20251001").min_tokens, abilities("claude-opus-5").min_tokens) == (4096, 512)
    assert abilities("eu/claude-haiku-4-5@20251001").ttls == ("5m", "1h")
    assert abilities("us-east5/claude-3-7-sonnet@20250219").ttls == ("5m",)


# --- errors ----------------------------------------------------------------------------------------------------------


def _google(status, message="m", reason=None):
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}] if reason else None
    return {"error": {"code": 1, "message": message, "status": status} | ({"details": details} if details else {})}


CASES = [
    (429, _google("RESOURCE_EXHAUSTED"), K.RATE_LIMITED, True),
    (429, [_google("RESOURCE_EXHAUSTED")], K.RATE_LIMITED, True),
    (429, _google("RESOURCE_EXHAUSTED", reason="RATE_LIMIT_EXCEEDED"), K.RATE_LIMITED, True),
    (403, _google("PERMISSION_DENIED", reason="BILLING_DISABLED"), K.QUOTA_EXHAUSTED, False),
    (403, _google("PERMISSION_DENIED", reason="SERVICE_DISABLED"), K.PERMISSION, False),
    (400, _google("INVALID_ARGUMENT", "The request: prompt is too long: 9 > 8"), K.CONTEXT_OVERFLOW, False),
    (400, _google("INVALID_ARGUMENT", "Request payload size exceeds the limit"), K.REQUEST_TOO_LARGE, False),
    (400, _google("INVALID_ARGUMENT"), K.INVALID_REQUEST, False),
    (400, _google("FAILED_PRECONDITION"), K.PERMISSION, False),
    (401, _google("UNAUTHENTICATED"), K.AUTHENTICATION, False),
    (403, _google("PERMISSION_DENIED"), K.PERMISSION, False),
    (404, _google("NOT_FOUND"), K.NOT_FOUND, False),
    (409, _google("ABORTED"), K.CONFLICT, True),
    (499, _google("CANCELLED"), K.CANCELLED, False),
    (500, _google("INTERNAL"), K.SERVER_ERROR, True),
    (503, _google("UNAVAILABLE"), K.OVERLOADED, True),
    (504, [_google("DEADLINE_EXCEEDED")], K.TIMEOUT, True),
    # the model's own words
    (529, {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}, K.OVERLOADED, True),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}},
     K.CONTEXT_OVERFLOW, False),
    # neither's
    (502, "<html>Bad Gateway</html>", K.SERVER_ERROR, True),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "retryable"), CASES)
def test_an_error_is_classified(status, body, kind, retryable):
    failure = classify_response(VERTEX, status, {}, json.dumps(body) if isinstance(body, list) else body)
    assert (failure.kind, failure.retryable) == (kind, retryable)


def test_every_row_of_googles_errors_is_met():
    met = {_provider_rule(read_response(VERTEX, status, {}, body)) for status, body, *_ in CASES}
    assert [rule for rule in ERROR_RULES if rule not in met] == []


def test_an_error_body_is_read_in_any_shape():
    assert read_error(_google("ABORTED", "m", "R")) == ("ABORTED", "R", "m")
    assert read_error([_google("ABORTED")]) == ("ABORTED", "", "m")
    assert read_error({"error": {"type": "api_error", "message": "m"}}) == ("api_error", "", "m")
    for odd in ([], [3], {"error": {"status": 3}}, {"error": {"status": "X", "details": [3, {"reason": 4}]}}, None):
        assert read_error(odd)[0] in {"", "X"}
    assert read_error("text") == ("", "", "text")


def test_the_platform_is_registered_with_its_provider():
    platform = find_platform(VERTEX)
    assert (platform.name, platform.provider, platform.rules.name) == (VERTEX, "anthropic", VERTEX)
