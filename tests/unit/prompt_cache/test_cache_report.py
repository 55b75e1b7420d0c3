from __future__ import annotations

import pytest
from msgspec.structs import replace

from llm_cost_middleware.prompt_cache.cache_report import compare_prompts, report_prefixes
from llm_cost_middleware.prompt_cache.plan import CachePlan
from llm_cost_middleware.prompt_cache.trace import Trace, Tracer
from llm_cost_middleware.request import CallRequest, Message, Part
from llm_cost_middleware.usage import TokenUsage


@pytest.fixture
def trace(prices, sonnet):
    tracer = Tracer()

    def take(request, usage=None, at=0.0):
        usage = usage or TokenUsage(uncached_input=1_000)
        taken = tracer.trace(request, sonnet, CachePlan(prices=prices), usage, at=at)
        return Trace.decode(taken.encode(), at=at)

    return take


def with_system(request, text):
    return request._replace(messages=(Message("system", (Part("text", text),)), *request.messages[1:]))


def test_a_growing_conversation_breaks_nothing(conversation, trace):
    for turn in range(1, 6):
        assert compare_prompts(trace(conversation(turn, tools=3)), trace(conversation(turn + 1, tools=3))) is None


def test_another_question_breaks_nothing(conversation, trace):
    assert compare_prompts(trace(conversation(1, salt="a")), trace(conversation(1, salt="b"))) is None
    assert compare_prompts(trace(conversation(4, salt="a")), trace(conversation(1, salt="b"))) is None


def test_a_timestamp_in_the_system_prompt_is_named(conversation, trace):
    request = conversation(2)
    one = with_system(request, "It is Monday, 2026-11-23 09:15:02. " + "S" * 5_000)
    other = with_system(request, "It is Tuesday, 2026-11-24 17:01:44. " + "S" * 5_000)
    found = compare_prompts(trace(one), trace(other))
    assert found.reason == "system 0 differs only in numbers or dates: a timestamp, counter or id"
    assert found.lost_tokens > 1_250


def test_a_request_id_is_named_too(conversation, trace):
    request = conversation(2)
    ids = ("3f2b8c1e-77aa-4e0c-9d0b-0a1b2c3d4e5f", "9a8b7c6d-1111-4222-8333-abcdefabcdef")
    found = compare_prompts(*(trace(with_system(request, f"Request {one}. " + "S" * 5_000)) for one in ids))
    assert "numbers or dates" in found.reason


def test_a_rewritten_system_prompt_is_named_as_changed(conversation, trace):
    request = conversation(2)
    found = compare_prompts(trace(request), trace(with_system(request, "quite another text" * 300)))
    assert found.reason == "system 0 changed"


def test_reordered_added_and_changed_tools_are_distinguished(conversation, trace):
    request = conversation(2, tools=3)
    a, b, c = request.tools
    changed = request._replace(tools=(a, replace(b, text="{}"), c))
    assert (
        compare_prompts(trace(request), trace(request._replace(tools=(b, a, c)))).reason
        == "the same tools in another order"
    )
    assert compare_prompts(trace(request), trace(request._replace(tools=(a, b)))).reason == "tools were removed"
    assert compare_prompts(trace(request._replace(tools=(a, c))), trace(request)).reason == "tools were added"
    assert compare_prompts(trace(request), trace(changed)).reason == "the definition of tool 1 changed"


def test_a_changed_image_is_named(trace):
    def of(digest):
        image = Part("image", media={"bytes": 4_000, "digest": digest})
        first = Message("user", (image, Part("text", "describe" * 200)))
        return CallRequest("anthropic", "m", (first, Message("assistant", (Part("text", "a" * 900),))))

    assert compare_prompts(trace(of("1")), trace(of("2"))).reason == "message 0.0: the image changed"


def test_an_edited_history_is_named(conversation, trace):
    request = conversation(4)
    messages = list(request.messages)
    messages[3] = Message("user", (Part("text", "shortened"),))
    found = compare_prompts(trace(request), trace(request._replace(messages=tuple(messages))))
    assert found.reason == "message 2 changed within the history"


def test_a_changed_parameter_is_named(conversation, trace):
    one, other = (conversation(3, params={"tool_choice": choice}) for choice in ("auto", "any"))
    assert compare_prompts(trace(one), trace(other)).reason == "parameter tool_choice changed"


def test_a_report_sums_money_and_counts_breaks(conversation, trace, prices):
    request = conversation(2)
    stamped = [with_system(request, f"At 09:{minute:02}. " + "S" * 5_000) for minute in range(10)]
    wasted = TokenUsage(uncached_input=100, cache_write_5m=2_000)
    (report,) = report_prefixes(trace(each, wasted, at=float(at)) for at, each in enumerate(stamped))
    assert (report.calls, report.hit_rate) == (10, 0.0)
    assert report.paid_nanousd == 10 * 2_000 * 750_000 // 1_000
    assert report.net_nanousd == -report.paid_nanousd
    assert report.breaks.total() == 9
    good = TokenUsage(uncached_input=100, cache_read=1_900)
    (healthy,) = report_prefixes(trace(conversation(turn), good, at=float(turn)) for turn in range(1, 5))
    assert healthy.hit_rate == pytest.approx(0.95)
    assert healthy.saved_nanousd == 4 * 1_900 * 2_700_000 // 1_000
    assert not healthy.breaks


def test_a_trace_holds_no_text(conversation, trace):
    request = with_system(conversation(2, tools=2), "the secret recipe" * 100)
    data = trace(request).encode()
    assert b"secret" not in data
    assert len(data) < 1_000


def test_a_trace_of_another_version_is_refused():
    with pytest.raises(ValueError):
        Trace.decode(b'{"v": 9}', at=0.0)


def test_long_histories_are_bounded(trace):
    messages = tuple(Message("user" if at % 2 else "assistant", (Part("text", f"{at}"),)) for at in range(2_000))
    assert len(trace(CallRequest("anthropic", "m", messages)).segments) == 256
