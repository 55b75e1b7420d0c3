"""From usage to money: statuses, shares, fees, memos."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from llm_cost_middleware.budget.tallies import tally_of
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.metering import (
    SeenResponses,
    decode_memo,
    encode_memo,
    max_cost_of_interrupted,
    price_response,
    price_usage,
    reprice,
)
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

NOV = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
CATALOGUE = Catalogue()


def claude(usage, model="claude-sonnet-4-6", **more):
    return {"id": "msg_1", "type": "message", "model": model, "stop_reason": "end_turn", "usage": usage} | more


def gpt(usage, model="gpt-5-2025-08-07", **more):
    return {"id": "resp_1", "object": "response", "status": "completed", "model": model, "usage": usage} | more


def test_a_response_is_priced_to_the_nano_dollar_and_names_the_prices():
    priced = price_response("anthropic", claude({"input_tokens": 7, "output_tokens": 3}), at=NOV)
    assert priced.cost_usd == Decimal("0.000066")
    assert priced.cost_nanousd == 66_000
    assert (priced.status, priced.model, priced.notes) == ("exact", "claude-sonnet-4-6", ())
    assert priced.items[0].components == {"uncached_input": Decimal("0.000021"), "output": Decimal("0.000045")}
    assert priced.price_version == CATALOGUE.version


def test_shares_of_items_sum_to_the_whole_after_its_one_rounding():
    usage = {
        "input_tokens": 1,
        "output_tokens": 1,
        "iterations": [
            {"type": "compaction", "cache_read_input_tokens": 1, "input_tokens": 0, "output_tokens": 0},
            {"type": "message", "cache_read_input_tokens": 1, "input_tokens": 0, "output_tokens": 0},
            {
                "type": "advisor_message",
                "model": "claude-fable-5-2",
                "cache_read_input_tokens": 1,
                "input_tokens": 0,
                "output_tokens": 0,
            },
        ],
    }
    priced = price_response("anthropic", claude(usage, model="claude-fable-5-1"), at=NOV + 30 * 86_400)
    assert [item.model for item in priced.items] == ["claude-fable-5-1", "claude-fable-5-1", "claude-fable-5-2"]
    pico = sum(sum(item.components_picousd.values()) for item in priced.items)
    assert pico == 700_000
    assert sum(item.cost_nanousd for item in priced.items) == priced.cost_nanousd == 700


def test_the_model_of_the_response_is_priced_not_the_one_that_was_asked_for():
    reading = UsageReport(items=(BilledItem(TokenUsage(output=1_000)),), model="gpt-5-mini-2025-08-07", complete=True)
    priced = price_usage(reading, get_provider("openai"), CATALOGUE, at=NOV, requested_model="gpt-5-pro")
    assert (priced.model, priced.cost_nanousd) == ("gpt-5-mini-2025-08-07", 2_000_000)
    nameless = UsageReport(items=(BilledItem(TokenUsage(output=1_000)),), complete=True)
    asked = price_usage(nameless, get_provider("openai"), CATALOGUE, at=NOV, requested_model="gpt-5-pro")
    assert asked.cost_nanousd == 120_000_000
    assert price_usage(nameless, get_provider("openai"), CATALOGUE, at=NOV).status == "unknown"


def test_a_response_is_priced_at_its_own_time():
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
    body = {"object": "chat.completion", "model": "o3", "created": 1_748_000_000, "usage": usage}
    assert price_response("openai", body).cost_usd == 10
    assert price_response("openai", body | {"created": NOV}).cost_usd == 2
    assert price_response("openai", body, at=NOV).cost_usd == 2
    text = json.dumps(body)
    assert price_response("openai", text).cost_usd == 2, "text is not searched for a date: the newest price"


@pytest.mark.parametrize(
    ("provider", "body", "why"),
    [
        (
            "anthropic",
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "overloaded_error",
        ),
        ("openai", {"error": {"code": "insufficient_quota", "message": "pay"}}, "insufficient_quota"),
        ("anthropic", {"input_tokens": 3}, "not billed"),
    ],
)
def test_what_is_not_billed_costs_nothing_and_reports_it(provider, body, why):
    priced = price_response(provider, body)
    assert priced.cost_usd == 0
    assert priced.status == "exact"
    assert why in priced.notes[-1]


@pytest.mark.parametrize(
    ("provider", "body", "why"),
    [
        ("openai", {"object": "chat.completion", "model": "gpt-5"}, "no usage"),
        ("openai", gpt(None, status="queued"), "retrieved"),
        ("openai", gpt({"input_tokens": -1, "output_tokens": 1}), "not a count"),
        ("anthropic", claude({"input_tokens": 1, "output_tokens": 1}, model="claude-next"), "no price"),
        ("anthropic", "upstream connect error", "no usage"),
        ("openai", gpt({"input_tokens": 9, "output_tokens": 1, "input_tokens_details": {"audio_tokens": 4}}), "audio"),
    ],
)
def test_what_is_not_known_has_no_cost_and_a_reason(provider, body, why):
    priced = price_response(provider, body, at=NOV)
    assert priced.cost_usd is None
    assert priced.status == "unknown"
    assert any(why in note for note in priced.notes)


def test_an_unknown_provider_is_an_error():
    with pytest.raises(ConfigurationError):
        price_response("gemini", {})


def test_a_cut_stream_is_an_estimate_of_what_was_reported():
    start = {
        "type": "message_start",
        "message": {"model": "claude-sonnet-4-6", "usage": {"input_tokens": 1_000, "output_tokens": 2}},
    }
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in (start, error))
    priced = price_response("anthropic", text, at=NOV)
    assert priced.cost_nanousd == 3_030_000
    assert priced.status == "estimated"
    assert any("overloaded_error" in note for note in priced.notes)


def test_what_a_cut_stream_can_have_cost_lies_between_its_input_and_the_reservation():
    rates = CATALOGUE.rates("anthropic", "claude-sonnet-4-6", at=NOV)
    reading = UsageReport(items=(BilledItem(TokenUsage(uncached_input=1_000, output=2)),))
    assert max_cost_of_interrupted(reading, rates, 100, NanoUSD(10**9)) == 3_000_000 + 1_500_000
    assert max_cost_of_interrupted(reading, rates, 100, NanoUSD(5)) == 5
    assert max_cost_of_interrupted(UsageReport(), rates, 100, NanoUSD(77)) == 77


def test_a_loop_of_internal_turns_is_not_priced_as_a_long_context():
    usage = {"input_tokens": 404_500, "output_tokens": 943, "server_tool_use": {"web_search_requests": 10}}
    march = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    looped = price_response("anthropic", claude(usage, model="claude-sonnet-4-5"), at=march)
    assert looped.cost_nanousd == 404_500 * 3_000 + 943 * 15_000 + 10 * 10_000_000
    assert looped.status == "estimated"
    assert "loop" in looped.notes[0]
    usage = {"input_tokens": 404_500, "output_tokens": 943}
    long = price_response("anthropic", claude(usage, model="claude-sonnet-4-5"), at=march)
    assert long.cost_nanousd == 404_500 * 6_000 + 943 * 22_500
    assert long.status == "exact"
    code = [{"type": "server_tool_use", "name": "code_execution"}]
    executed = price_response("anthropic", claude(usage, model="claude-sonnet-4-5", content=code), at=march)
    assert executed.status == "estimated"


def test_fees_of_openai_tools_are_separate_and_an_estimate():
    output = [
        {"type": "web_search_call"},
        {"type": "web_search_call"},
        {"type": "image_generation_call"},
        {"type": "mcp_call"},
    ]
    priced = price_response("openai", gpt({"input_tokens": 1_000, "output_tokens": 0}, output=output), at=NOV)
    tokens, fees = priced.items
    assert tokens.cost_nanousd == 1_250_000
    assert (fees.kind, fees.components) == ("tool_fees", {"web_search_call": Decimal("0.02")})
    assert priced.cost_nanousd == 1_250_000 + 20_000_000
    assert priced.status == "estimated"
    assert sum("image_generation_call" in note for note in priced.notes) == 1
    assert not any("mcp_call" in note for note in priced.notes)


def test_twelve_hour_writes_rest_on_one_source_and_report_it():
    details = {"cache_write_tokens": 100, "cache_write_tokens_details": {"ttl_12h_tokens": 100}}
    body = gpt({"input_tokens": 100, "output_tokens": 0, "input_tokens_details": details}, model="gpt-6-sol")
    priced = price_response("openai", body, at=NOV)
    assert priced.cost_nanousd == 100 * 5_000
    assert priced.status == "estimated"


def test_batch_results_are_priced_each_at_its_model_and_at_half():
    lines = [
        {
            "custom_id": str(i),
            "result": {"type": "succeeded", "message": claude({"input_tokens": 1_000, "output_tokens": 0}, model=m)},
        }
        for i, m in enumerate(("claude-sonnet-4-6", "claude-haiku-4-5-20251001"))
    ]
    assert price_response("anthropic", lines, at=NOV).cost_nanousd == 1_500_000 + 500_000


def test_a_background_response_is_counted_once_however_often_it_is_retrieved():
    seen = SeenResponses(keep=2)
    read = get_provider("openai").read_usage
    pending, done = read(gpt(None, status="queued")), read(gpt({"input_tokens": 1, "output_tokens": 1}))
    assert seen.first(pending)
    assert seen.first(done)
    assert not seen.first(done)
    for name in "abc":
        assert seen.first(read(gpt({"input_tokens": 1, "output_tokens": 1}, id=name)))
    assert seen.first(done), "only the latest ids are kept"
    assert seen.first(UsageReport(items=(BilledItem(TokenUsage()),)))


def test_a_memo_is_read_back_and_can_be_priced_again():
    body = claude(
        {"input_tokens": 1_000, "output_tokens": 500, "service_tier": "batch", "inference_geo": "us"},
        model="claude-opus-4-8",
    )
    reading = get_provider("anthropic").read_usage(body)
    priced = price_usage(reading, get_provider("anthropic"), CATALOGUE, at=NOV)
    memo = encode_memo(
        call_id="c1", attempt=2, target=ModelRef("anthropic", "claude-opus-4-8"), priced=priced, reading=reading
    )
    assert len(memo) < 400
    back = decode_memo(memo)
    assert (back.call_id, back.attempt, back.target, back.response_id) == (
        "c1",
        2,
        ModelRef("anthropic", "claude-opus-4-8"),
        "msg_1",
    )
    assert back.items[0].usage == reading.usage
    assert reprice(back, CATALOGUE, at=NOV).cost_nanousd == priced.cost_nanousd == 500 * 5_500 + 250 * 27_500
    dearer = Catalogue({"anthropic/claude-opus-4-8": {"input_mtok": "50", "output_mtok": "250"}})
    assert reprice(back, dearer, at=NOV).cost_nanousd == 10 * priced.cost_nanousd


def test_a_memo_without_an_answer_is_short():
    memo = encode_memo(call_id="c1", attempt=1, target=ModelRef("openai", "gpt-5"))
    assert memo == b'{"v":1,"call":"c1","n":1,"at":["openai","gpt-5"]}'
    assert reprice(decode_memo(memo), CATALOGUE, at=NOV).status == "unknown"


@pytest.mark.parametrize(
    "memo", [b"", b"{}", b"[]", b"7", b'{"v":2,"call":"c","n":1}', b'{"v":1,"call":"c","n":1,"items":[[1]]}', b"\xff"]
)
def test_what_is_not_a_memo_is_refused(memo):
    with pytest.raises(ValueError, match="not a memo"):
        decode_memo(memo)


def test_a_memo_comes_with_its_kind_and_its_counts():
    def told(call, tools, *usages, **rest):
        items = tuple(BilledItem(usage) for usage in usages)
        reading = UsageReport(items=items, complete=True, tool_calls=tools, model="gpt-5-mini", response_id=call)
        return encode_memo(call_id=call, attempt=1, target=ModelRef("openai", "gpt-5-mini"), reading=reading, **rest)

    one, other = told("a", 0, TokenUsage(5, output=7)), told("b", 3, TokenUsage(11, output=2))
    assert tally_of(one).kind == tally_of(other).kind
    assert (tally_of(one).counts, tally_of(other).counts) == ((5, 7), (11, 2))
    kind = decode_memo(tally_of(one).kind.encode())
    assert (kind.target, kind.items[0].model) == (decode_memo(one).target, "gpt-5-mini")
    assert tally_of(told("c", 0, TokenUsage(5, output=7), tier="small")).kind != tally_of(one).kind
    assert tally_of(told("d", 0, TokenUsage(1, 2, 3, output=4), TokenUsage(1, output=2))) is None  # six counts
    assert tally_of(bytes(one)) is None
    assert tally_of(pickle.loads(pickle.dumps(one))) == tally_of(one)  # noqa: S301 - its own
    assert tally_of(encode_memo(call_id="hold", attempt=1, target=None)) is None
