"""What plans expected to read and what was read, by call site."""

from __future__ import annotations

from llm_cost_middleware.prompt_cache.plan import CachePlan
from llm_cost_middleware.prompt_cache.site_report import EXPIRED, GONE, UNEXPECTED, report_sites
from llm_cost_middleware.prompt_cache.trace import Trace, Tracer
from llm_cost_middleware.request import CallRequest, Message, ModelRef, Part
from llm_cost_middleware.usage import TokenUsage

SONNET = ModelRef("anthropic", "claude-sonnet-4-6")


def trace(prices, at, *, expected, read, site="answer", system="s" * 8_000):
    request = CallRequest(*SONNET, (Message("system", (Part("text", system),)), Message("user", (Part("text", "q"),))))
    plan, usage = CachePlan(prices=prices, warm=expected), TokenUsage(uncached_input=2_300 - read, cache_read=read)
    made = Tracer().trace(request, SONNET, plan, usage, at=at, call_id=f"{at}", site=site)
    assert Trace.decode(made.encode(), at=at) == made
    return made


def test_what_was_read_as_expected_has_no_cause(prices):
    calls = [trace(prices, 20.0 * at, expected=2_000 if at else 0, read=2_000 if at else 0) for at in range(5)]
    (report,) = report_sites([*calls, trace(prices, 200.0, expected=2_000, read=1_990)])
    assert (report.calls, report.expected_tokens, report.read_tokens) == (6, 10_000, 9_990)
    assert not report.causes
    assert report.short_calls == 0


def test_the_cause_of_a_difference_is_named(prices):
    found = report_sites(
        [
            trace(prices, 0.0, expected=0, read=0),
            trace(prices, 700.0, expected=2_000, read=0),
            trace(prices, 710.0, expected=2_000, read=0),
            trace(prices, 720.0, expected=0, read=2_000),
            trace(prices, 730.0, expected=2_000, read=0, system="It is 10:31. " + "s" * 8_000, site="clock"),
            trace(prices, 740.0, expected=2_000, read=0, system="It is 10:32. " + "s" * 8_000, site="clock"),
        ]
    )
    by_site = {report.site: report for report in found}
    assert by_site["answer"].causes == {EXPIRED.format(minutes=11): 1, GONE: 1, UNEXPECTED: 1}
    assert by_site["answer"].short_calls == 2
    assert any("differs only in numbers or dates" in cause for cause in by_site["clock"].causes)


def test_a_line_of_an_older_version_is_read(prices):
    old = trace(prices, 0.0, expected=0, read=0, site="")
    data = old.encode().replace(b',"c":"","w":0', b"")
    assert b'"w"' not in data
    assert Trace.decode(data, at=0.0) == old
