"""Advice on rows that no pipeline of this version wrote, and on names that would break a line."""

from __future__ import annotations

import io
import json

import pytest

from llm_cost_middleware.advice import Advice, Evidence, advise
from llm_cost_middleware.advice.calls import CallLog
from llm_cost_middleware.budget.rules.bookings import Booking
from llm_cost_middleware.cli import advise as command
from llm_cost_middleware.cli.loading import PlainConsole
from llm_cost_middleware.metering.call_facts import CallFacts, facts_text, read_facts, tools_of, tools_used
from llm_cost_middleware.metering.refused import read_refusal, refusal_line
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import AnswerContent, CallRequest, ModelRef, Tool

GOOD = {
    "v": 1, "call": "c", "n": 1, "at": ["anthropic", "claude-haiku-4-5"], "st": "exact",
    "items": [["claude-haiku-4-5", "message", {"uncached_input": 100, "output": 50}]],
}  # fmt: skip


def read(*memos):
    log = CallLog()
    for memo in memos:
        log.add(Booking(1_795_000_000_000, "global", "exact", 350_000, 1, memo))
    return log


@pytest.mark.parametrize(
    "change",
    [
        {"n": "x"}, {"n": -1}, {"v": 2}, {"at": None}, {"call": 5}, {"terms": [1]}, {"terms": {"service_tier": ["x"]}},
        {"items": [["m", "k", {"output": -1}]]}, {"items": [["m", "k", {"output": "5"}]]},
        {"items": [["m", "k", {"output": 10**30}]]}, {"items": [["m", "k", {"output": 1.5}]]}, {"items": 7},
    ],
)  # fmt: skip
def test_a_row_that_says_nonsense_is_counted_and_spoils_no_other(change):
    odd = json.dumps({**GOOD, **change}).encode()
    log = read(odd, json.dumps(GOOD).encode(), odd, b"", b"x", b"[]")
    assert (log.calls, log.unread) == (6, 5)
    (group,) = log.groups
    assert {len(column) for column in (*group.columns, group.at, group.flags, group.caps, group.ids)} == {1}
    assert advise(Evidence(log, Catalogue())).advice == ()


def test_a_row_of_an_earlier_version_has_a_price_and_no_more():
    report = advise(Evidence(read(*[json.dumps(GOOD).encode()] * 30), Catalogue()))
    (found,) = report.advice
    assert (found.kind, found.calls, found.lines[1]) == ("sibling", 30, f'model = "{found.evidence["newer"][10:]}"')
    assert 0 < found.saved_nanousd == found.saved_in_order_nanousd == report.saved_nanousd < report.cost_nanousd


def test_sites_with_too_few_calls_to_advise_on_are_counted():
    def of(site, model="claude-haiku-4-5"):
        facts = [site, 100, 3, 400, [], []]
        return json.dumps({**GOOD, "at": ["anthropic", model], "f": facts}).encode()

    report = advise(Evidence(read(*[of("a")] * 15, *[of("b")] * 3, of("b", "claude-sonnet-4-6")), Catalogue()))
    assert report.advice == ()
    (note,) = report.notes
    assert note.startswith("2 call sites have fewer than 20 calls of a model, 19 in all: too few for most advice")
    assert advise(Evidence(read(*[of("a")] * 20), Catalogue())).notes == ()


def of_refusals(*refused, longest=12):
    """Advice on calls that held a cent and cost a hundredth of it, and on refusals beside them."""
    log, memo = CallLog(), json.dumps({**GOOD, "items": [["claude-haiku-4-5", "message", {"output": longest}]]})
    log.add(Booking(1_795_000_000_000, "team:a", "exact", 100_000, 1, memo.encode(), (), 10_000_000))
    target = ModelRef("anthropic", "claude-haiku-4-5")
    lines = [
        refusal_line(
            call_id="r", target=target, scopes=("team:a",), scope="team:a", wanted=NanoUSD(10**7), tier="", **noted
        )
        for noted in refused
    ]
    refusals = [(read_refusal(line), 1_795_000_000.0) for line in lines]
    return [one.lines for one in advise(Evidence(log, Catalogue(), refusals=refusals)).advice if one.kind == "holds"]


@pytest.mark.parametrize(
    ("pending", "fits", "cap", "waits"),
    [(0, 255, 255, False), (0, 300, 256, False), (0, 11, 256, False), (5, 255, 255, True), (5, 0, 256, True)],
)
def test_a_refused_call_is_advised_what_would_have_let_it_pass(pending, fits, cap, waits):
    (lines,) = of_refusals({"pending": NanoUSD(pending), "fits": fits})
    assert lines[1].startswith(f"default_max_tokens = {cap} ")
    assert any(line.startswith("max_wait_for_budget_s") for line in lines) == waits


def test_a_refused_call_that_nothing_would_have_let_pass_is_no_advice():
    """The money was spent, not held."""
    spent = {"pending": NanoUSD(0), "fits": 0}
    assert of_refusals(spent, spent) == []
    (lines,) = of_refusals({})  # an earlier version noted neither
    assert len(lines) == 3


def test_a_name_with_line_breaks_stays_on_its_line():
    facts = ['x\n[ledger]\nurl = "sqlite:///evil.db"\u001b[31m', 100, 3, 400, [], []]
    report = advise(Evidence(read(*[json.dumps({**GOOD, "f": facts}).encode()] * 30), Catalogue()))
    lines = [line for one in report.advice for line in one.lines]
    assert {one.kind for one in report.advice} >= {"cap"}
    assert all(line.isprintable() for line in lines)
    assert "[ledger]" not in lines


def test_a_called_tool_whose_name_is_none_is_not_told():
    request = CallRequest("openai", "gpt-5.1", (), tools=(Tool("find", '{"name":"find"}'),))
    content = AnswerContent(tool_calls=(([], None), (None, 1), ("find", "{}"), ("other", "{}")))
    assert tools_used(request, content) == (tools_of(request)[0][0],)
    assert tools_used(request, None) == ()


def test_facts_are_read_as_they_were_written_and_hold_no_name_of_a_tool():
    facts = CallFacts('site "x"\n', 4_096, 9, 120, (("0a1b2c3d", 15),), ("0a1b2c3d",), "timeout")
    text = facts_text(facts)
    assert read_facts(json.loads(text)) == facts
    assert read_facts("nonsense") == read_facts([1, 2]) == CallFacts()


def test_lines_to_write_stay_whole_in_a_narrow_terminal(monkeypatch):
    line = "# move what changes (a date, a counter) behind everything that stays, best into the question"
    money = (NanoUSD(9), NanoUSD(8), NanoUSD(8))
    one = Advice("cache", "rag", "m", "prompts lost their cache", (line,), 3, *money, {}, "what a log shows", "", ())
    text = io.StringIO()
    monkeypatch.setattr(command, "out", PlainConsole(width=40, file=text, force_terminal=True, no_color=True))
    command._tell(1, one)
    assert f"     {line}" in text.getvalue().splitlines()
