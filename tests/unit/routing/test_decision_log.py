from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decision_log import DecisionLog, LoggedCall, QualitySource, Settlement
from llm_cost_middleware.routing.policy import RoutingPolicy


class Entry(NamedTuple):
    kind: str
    id: str
    at: float
    data: bytes


class ListJournal:
    """A storage's journal, in a list: the real ones are proved with their storage."""

    def __init__(self):
        self.lines = []

    def append(self, kind, id_, at, data):
        self.lines.append(Entry(kind, id_, at, data))

    def read(self, kind, since=None):
        return (line for line in self.lines if line.kind == kind and (since is None or line.at >= since))


@pytest.fixture(params=["journal", "memory"])
def log(request):
    return DecisionLog(ListJournal() if request.param == "journal" else None)


def test_a_decision_survives_its_line(route, ask):
    decision = route(ask("x" * 700, tools=("t",), context={"call_site": "s"}), RoutingPolicy(explore=0.5))
    line = decision.to_json()
    assert "\n" not in line
    assert RoutingDecision.from_json(line) == decision
    assert RoutingDecision.from_json(line.encode()) == decision


def test_a_line_of_an_older_version_is_read_with_defaults():
    line = '{"id": "c", "at": 5, "target": ["openai", "gpt-5-mini"], "features": {"text_length": 12}, "tier": 0}'
    decision = RoutingDecision.from_json(line)
    assert (decision.features.text_length, decision.features.item_count, decision.propensity) == (12, 1, 1.0)
    assert decision.explain() == "openai/gpt-5-mini (): ."


LINE = (
    '{"v":1,"id":"c1","at":1.5,"target":["openai","gpt-5-mini"],"tier":0,"tier_name":"small","policy":"threshold",'
    '"policy_version":"threshold:1","reason":"short","score":0.1,"propensity":0.9,"site":"s","requested":"auto",'
    '"features":{"text_length":5,"item_count":1,"total_chars":5,"input_tokens":1,"turns":1,"messages":1,"tools":0,'
    '"media":0,"needs":[]},"candidates":[["openai","gpt-5-mini",0,120,"",7]],"grams":[3,3,9],"shape":[0.5]}'
)


def test_a_line_of_version_1_keeps_its_keys():
    decision = RoutingDecision.from_json(LINE)
    assert (decision.ngrams, decision.text_stats) == ((3, 3, 9), (0.5,))
    assert decision.candidates[0].cache_saving_nanousd == 7
    assert decision.to_json() == LINE


def test_a_line_with_more_than_is_known_is_read(route, ask):
    data = json.loads(route(ask("x")).to_json())
    data["mood"] = "good"
    data["features"]["mood"] = 1
    data["candidates"][0].append("more")
    assert RoutingDecision.from_json(json.dumps(data)) == route(ask("x"))


@pytest.mark.parametrize(
    "line", ["", "nonsense", "[]", "{}", '{"v": "x"}', '{"id": "c", "at": 1}', '{"v": 99, "id": "c"}']
)
def test_what_is_no_decision_is_refused(line):
    with pytest.raises(ConfigurationError):
        RoutingDecision.from_json(line)


def test_a_newer_version_is_refused_with_the_reason(route, ask):
    line = route(ask("x")).to_json().replace('"v":1', '"v":2')
    with pytest.raises(ConfigurationError, match="version 2; this version reads up to 1"):
        RoutingDecision.from_json(line)


def test_decisions_outcomes_and_costs_are_joined(log, route, ask, models):
    decision = route(ask("x"))
    log.append(decision)
    log.outcome("call-1", "truncated", 0.0, 2.0)
    log.settled(Settlement("call-1", models["haiku"], NanoUSD(1_234), 17, 3.0))
    (entry,) = log.read()
    assert entry.decision == decision
    assert entry.quality == 0.0
    assert (entry.settlement.target, entry.settlement.cost_nanousd, entry.settlement.output_tokens) == (
        models["haiku"],
        1_234,
        17,
    )
    assert LoggedCall.from_json(entry.to_json()) == entry


def test_feedback_wins_over_what_was_seen_and_the_newest_counts(log, route, ask):
    log.append(route(ask("x")))
    for name, score in (("feedback", 0.2), ("truncated", 0.0), ("feedback", 0.9)):
        log.outcome("call-1", name, score, 1.0)
    (entry,) = log.read()
    assert entry.quality == 0.9


def test_a_call_without_outcome_has_no_quality(log, route, ask):
    log.append(route(ask("x")))
    (entry,) = log.read()
    assert entry.quality is None


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), True, "good", None])
def test_a_score_outside_zero_to_one_is_refused(log, score):
    with pytest.raises(ConfigurationError):
        log.outcome("call-1", "feedback", score, 0.0)


def test_the_memory_is_bounded(route, ask):

    log = DecisionLog(keep=10)
    for number in range(100):
        log.append(route(ask("x"))._replace(call_id=str(number)))
    assert [entry.decision.call_id for entry in log.read()] == [str(number) for number in range(90, 100)]


def test_reading_since_a_moment(log, route, ask):
    decision = route(ask("x"))
    log.append(decision)
    assert list(log.read(since=decision.at + 1)) == []


def test_a_bare_decision_line_is_a_log_too(route, ask):
    decision = route(ask("x"))
    assert LoggedCall.from_json(decision.to_json()) == LoggedCall(decision)
    with pytest.raises(ConfigurationError):
        LoggedCall.from_json('{"decision": {}}')


# --- by what quality is measured


@pytest.fixture
def entries(log, route, ask, models):
    """Thirty finished calls, of which ten were cut off, and one that is still under way."""
    for number in range(31):
        log.append(route(ask("x"))._replace(call_id=str(number)))
        if number < 30:
            log.settled(Settlement(str(number), models["mini"], NanoUSD(5), 7, 1.0))
        if number % 3 == 0 and number < 30:
            log.outcome(str(number), "truncated", 0.0, 1.0)
    return log


def test_without_feedback_a_finished_call_that_shows_no_failure_is_a_good_one(entries):
    found = list(entries.read())
    source = QualitySource.of(found)
    assert source is QualitySource.FAILURES
    qualities = [source.read(entry) for entry in found]
    assert qualities == [float(number % 3 != 0) for number in range(30)] + [None]


def test_with_enough_feedback_only_feedback_counts(entries, route, ask, monkeypatch):
    """Else every failure would count, and of the good answers only those that somebody praised."""
    for number in (0, 1, 2):
        entries.outcome(str(number), "feedback", 0.8, 2.0)
    entries.outcome("3", "tests passed", 0.4, 2.0)
    found = list(entries.read())
    assert QualitySource.of(found) is QualitySource.FAILURES
    monkeypatch.setattr("llm_cost_middleware.routing.decision_log.MIN_FEEDBACK_CALLS", 4)
    assert QualitySource.of(found) is QualitySource.FEEDBACK
    assert [QualitySource.FEEDBACK.read(entry) for entry in found[:5]] == [0.8, 0.8, 0.8, 0.4, None]
    assert [QualitySource.FAILURES.read(entry) for entry in found[:5]] == [0.8, 0.8, 0.8, 0.0, 1.0]


class Backwards(list):
    """A store that counts what is read of it, newest first."""

    def __init__(self, lines):
        super().__init__(lines)
        self.read_back = 0

    def read(self, kind, since=None):
        return (line for line in self if line.kind == kind and (since is None or line.at >= since))

    def newest(self, kind):
        for line in reversed(self):
            if line.kind == kind:
                self.read_back += 1
                yield line


def test_the_last_decisions_are_read_without_the_rest():
    lines = []
    for number in range(2000):
        text = LINE.replace('"c1"', f'"c{number:04}"').replace('"at":1.5', f'"at":{number * 10.0}')
        made = RoutingDecision.from_json(text.replace('"site":"s"', f'"site":"s{number % 7}"'))
        lines.append(Entry("decision", made.call_id, made.at, made.to_json().encode()))
        lines.append(Entry("outcome", made.call_id, made.at + 1, b'{"name": "feedback", "score": 1.0}'))
    store = Backwards(lines)
    found = DecisionLog(store).last(5, lambda made: made.site == "s3")
    assert [entry.decision.call_id for entry in found] == ["c1970", "c1977", "c1984", "c1991", "c1998"]
    assert all(entry.quality == 1.0 for entry in found)
    assert store.read_back < 50
    found = DecisionLog(store).last(9, lambda _: True, call="c19", since=19_970.0)
    assert [entry.decision.call_id for entry in found] == ["c1997", "c1998", "c1999"]
    assert DecisionLog(store).knows("c1999")
    assert not DecisionLog(store).last(3, lambda _: True, call="none")


def test_a_log_is_read_one_decision_at_a_time_and_the_last_of_a_call_counts(monkeypatch):
    store = ListJournal()
    for number, name in enumerate(("a", "b", "a", "c", "a", "b")):
        text = LINE.replace('"c1"', f'"{name}"').replace('"at":1.5', f'"at":{number * 10.0}')
        store.append("decision", name, number * 10.0, text.encode())
        outcome = {"name": "feedback", "score": number / 10}
        store.append("outcome", name, number * 10.0 + 1, json.dumps(outcome).encode())
    read, made = [], RoutingDecision.from_json
    monkeypatch.setattr(RoutingDecision, "from_json", lambda line: read.append(line) or made(line))
    entries = DecisionLog(store).read()
    first = next(entries)
    assert (first.decision.call_id, len(read)) == ("c", 1)
    assert [(entry.decision.call_id, entry.decision.at) for entry in entries] == [("a", 40.0), ("b", 50.0)]
    assert first.feedback == 0.3
    assert len(read) == 3
