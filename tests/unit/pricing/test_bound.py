"""The most a request can cost: what it counts, what it admits not to know, and the cap that fits a budget."""

from __future__ import annotations

import base64

import pytest
from msgspec import structs

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.bound import bound
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, Message, Part

NONE = NanoUSD(0)


@pytest.fixture(scope="session")
def most(catalogue, on):
    """The bound of a request body."""

    def read(provider, body, *, endpoint=None, max_tokens=1_000, **options):
        rules = get_provider(provider)
        request = rules.read_request(body, endpoint or ("messages" if provider == "anthropic" else "chat.completions"))
        params = {"inference_geo": "global", "service_tier": "default"} | dict(request.params)
        rates = catalogue.upper_bound_rates(provider, request.model, at=on("2026-11-01"), params=params)
        limits = options.pop("limits", catalogue.limits(provider, request.model))
        return bound(request, rules, rates, max_tokens=max_tokens, limits=limits, **options)

    return read


def claude(*content, **more):
    return {"model": "claude-sonnet-4-6", "messages": [{"role": "user", "content": list(content)}]} | more


def gpt(content="hi", **more):
    return {"model": "gpt-5-mini", "messages": [{"role": "user", "content": content}]} | more


def text(words="hi"):
    return {"type": "text", "text": words}


def _png(width, height):
    head = b"\x89PNG\r\n\x1a\n" + bytes(4) + b"IHDR" + width.to_bytes(4) + height.to_bytes(4)
    return base64.b64encode(head + bytes(60)).decode()


def test_a_bound_is_input_at_its_most_expensive_and_output_at_its_cap(most):
    found = most("openai", gpt("é" * 100))
    assert found.input_tokens == 64 + 200 + 8
    assert found.amount_nanousd == 272 * 250 + 1_000 * 2_000
    assert found.guaranteed
    assert not found.notes
    claimed = most("anthropic", claude(text("é" * 100)), cache_writes=False)
    assert claimed.input_tokens == 64 + 2 * 200 + 16
    assert claimed.amount_nanousd == 480 * 3_000 + 1_000 * 15_000


def test_every_answer_asked_for_is_paid_for(most):
    assert most("openai", gpt(n=5)).output_picousd == 5 * most("openai", gpt()).output_picousd


def test_a_cache_plan_may_double_the_input_and_marks_of_the_caller_count_in_any_case(most):
    marked = claude(text() | {"cache_control": {"type": "ephemeral"}})
    prices = {
        "free": most("anthropic", claude(text()), cache_writes=False),
        "5m": most("anthropic", marked, cache_writes=False),
        "1h": most("anthropic", claude(text())),
    }
    per_token = {name: found.fixed_picousd / found.input_tokens for name, found in prices.items()}
    assert per_token == {"free": 3_000_000, "5m": 3_750_000, "1h": 6_000_000}
    whole = most("anthropic", claude(text(), cache_control={"type": "ephemeral", "ttl": "1h"}), cache_writes=False)
    assert whole.fixed_picousd / whole.input_tokens == 6_000_000


def test_tools_schemas_and_calls_count_beyond_their_text(most):
    plain = most("openai", gpt())
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert most("openai", gpt(tools=[tool])).input_tokens > plain.input_tokens + 600
    assert most("openai", gpt(response_format={"type": "json_object"})).input_tokens > plain.input_tokens
    held = most("anthropic", claude(text(), tools=[{"type": "bash_20250124", "name": "bash"}]))
    assert held.input_tokens > 1_500
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "", "arguments": ""}}]}
    body = gpt() | {"messages": [{"role": "user", "content": "hi"}, call]}
    assert most("openai", body).input_tokens >= plain.input_tokens + 24


def test_pictures_count_at_the_models_largest_and_documents_by_their_pages(most):
    picture = {"type": "image", "source": {"type": "base64", "data": "aaaa"}}
    plain = most("anthropic", claude(text())).input_tokens
    assert most("anthropic", claude(text(), picture, picture)).input_tokens == plain + 2 * (1_700 + 16)
    sized = {"type": "image", "source": {"type": "base64", "data": _png(1_000, 1_000)}}
    assert most("anthropic", claude(text(), sized)).input_tokens == plain + 1_008 * 1_008 // 700 + 16 + 16
    huge = {"type": "image", "source": {"type": "base64", "data": _png(8_000, 8_000)}}
    assert most("anthropic", claude(text(), huge)).input_tokens == plain + 1_700 + 16
    newer = claude(text(), picture) | {"model": "claude-opus-4-8"}
    assert most("anthropic", newer).input_tokens == plain + 5_000 + 16


def test_what_cannot_be_seen_is_bounded_by_the_context_window(most, catalogue):
    pdf = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    found = most("anthropic", claude(text(), pdf))
    assert found.input_tokens == 1_000_000
    assert found.guaranteed, "a longer request is refused, and not billed"
    assert "context window" in found.notes[0]
    stored = most("openai", {"model": "gpt-5", "input": "hi", "previous_response_id": "r"}, endpoint="responses")
    assert (stored.input_tokens, stored.guaranteed) == (400_000, True)
    unknown = catalogue.limits("openai", "unheard-of")
    assert not most("anthropic", claude(text(), pdf), limits=unknown).guaranteed


def test_nothing_is_bounded_above_the_context_window(most):
    assert most("openai", gpt("x" * 2_000_000)).input_tokens == 400_000


def test_server_tools_are_not_bounded_and_the_bound_reports_it(most):
    search = {"type": "web_search_20260209", "name": "web_search", "max_uses": 3}
    found = most("anthropic", claude(text(), tools=[search]), server_tool_allowance=NanoUSD(50_000_000))
    assert not found.guaranteed
    plain = most("anthropic", claude(text()), server_tool_allowance=NanoUSD(50_000_000))
    assert found.amount_nanousd - plain.amount_nanousd == 3 * (50_000_000 + 10_000_000), "allowance and fee a use"
    endless = most("anthropic", claude(text(), tools=[{"type": "web_search_20260209", "name": "s"}]))
    assert endless.amount_nanousd - plain.amount_nanousd == 5 * 10_000_000


@pytest.mark.parametrize(
    ("body", "endpoint", "told"),
    [
        (gpt() | {"input": "hi", "reasoning": {"mode": "pro"}}, "responses", "pro reasoning"),
        (claude(text(), context_management={"edits": []}), None, "compact"),
    ],
)
def test_what_runs_beyond_the_request_is_admitted(most, body, endpoint, told):
    found = most("openai" if endpoint else "anthropic", body, endpoint=endpoint)
    assert not found.guaranteed
    assert told in found.notes[0]


def test_a_count_replaces_the_bytes_and_an_estimate_guarantees_nothing(most):
    counted = most("openai", gpt("x" * 900), input_tokens=50)
    assert (counted.input_tokens, counted.guaranteed) == (50, True)
    assert not most("openai", gpt("x" * 900), input_tokens=50, doubt="an estimate").guaranteed


def test_a_request_without_a_cap_is_bounded_at_the_models_maximum(most, catalogue):
    assert most("openai", gpt(), max_tokens=None).max_tokens == 128_000
    assert not most("openai", gpt(), max_tokens=None, limits=catalogue.limits("openai", "unheard-of")).guaranteed


def test_long_contexts_are_priced_as_such_only_when_they_can_occur(most):
    short = most("openai", gpt("x" * 1_000) | {"model": "gpt-6-sol"})
    long = most("openai", gpt("x" * 300_000) | {"model": "gpt-6-sol"})
    assert short.output_picousd == 10_000_000
    assert long.output_picousd == 15_000_000
    assert long.fixed_picousd == long.input_tokens * 5_000_000, "a cache write of a long context"


def test_audio_is_bounded_at_its_own_price_and_refused_without_one(most):
    spoken = [{"type": "input_audio", "input_audio": {"data": "a" * 4_000, "format": "mp3"}}]
    found = most("openai", gpt(spoken, modalities=["text", "audio"]) | {"model": "gpt-4o-audio-preview-2024-12-17"})
    assert found.fixed_picousd == found.input_tokens * 40_000_000
    assert found.output_picousd == 80_000_000
    with pytest.raises(PriceNotFoundError, match="audio"):
        most("openai", gpt(spoken))


def test_a_prediction_is_billed_as_output_where_it_is_rejected(most):
    predicted = most("openai", gpt(prediction={"type": "content", "content": "x" * 100}))
    assert predicted.fixed_picousd >= 100 * predicted.output_picousd


@pytest.mark.parametrize("room", [0, 1, 1_000, 10_000_000, 123_456_789])
def test_the_affordable_cap_is_the_largest_that_fits(most, room):
    found = most("openai", gpt(n=2))
    cap = found.max_tokens_within(NanoUSD(room))
    if cap:
        assert most("openai", gpt(n=2), max_tokens=cap).amount_nanousd <= room
    assert most("openai", gpt(n=2), max_tokens=cap + 1).amount_nanousd > room


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        (Part("document", "", None, {"pages": 10}), 10 * (3_000 + 3_779)),
        (Part("document", "grass", None, {"text": True}), 5),
        (Part("audio", "", None, {"seconds": 2.5}), 50),
        (Part("tool_result", "", None, {}, (Part("document", "", None, {"pages": 1}),)), 6_779 + 3 * 8),
        (Part("document", "", None, {"bytes": 900}), None),
        (Part("audio"), None),
    ],
)
def test_what_a_host_knows_of_a_part_bounds_it_and_what_it_does_not_know_takes_the_window(catalogue, part, tokens):
    request = CallRequest("openai", "gpt-4o-audio-preview", (Message("user", (part,)),), endpoint="chat.completions")
    rates = catalogue.upper_bound_rates("openai", request.model)
    limits = structs.replace(catalogue.limits("openai", request.model), image_tokens=3_779)
    found = bound(request, get_provider("openai"), rates, max_tokens=9, limits=limits)
    assert found.input_tokens == (128_000 if tokens is None else 64 + 8 + tokens)


def test_a_picture_of_a_model_whose_limit_is_unknown_takes_the_window(catalogue):
    request = CallRequest("openai", "gpt-5", (Message("user", (Part("image"),)),), endpoint="chat.completions")
    limits = structs.replace(catalogue.limits("openai", "gpt-5"), image_tokens=None)
    found = bound(
        request, get_provider("openai"), catalogue.upper_bound_rates("openai", "gpt-5"), max_tokens=9, limits=limits
    )
    assert found.input_tokens == 400_000


def test_a_price_that_had_to_be_assumed_guarantees_nothing(catalogue, on):
    request = CallRequest(
        "openai", "gpt-5-nano", (Message("user", (Part("text", "hi"),)),), endpoint="chat.completions"
    )
    rates = catalogue.rates("openai", "gpt-5-nano", at=on("2026-11-01"), service_tier="priority")
    limits = catalogue.limits("openai", "gpt-5-nano")
    found = bound(request, get_provider("openai"), rates, max_tokens=9, limits=limits)
    assert not found.guaranteed
    assert "priority" in found.notes[0]
