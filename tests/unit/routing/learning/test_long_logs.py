"""Logs of any length: replaying and learning read them several times and keep none of their calls."""

from __future__ import annotations

import gc
import random

import pytest
from msgspec.structs import replace

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.routing.decision_log import LoggedCall, Outcome, QualitySource, Settlement
from llm_cost_middleware.routing.learning import labels
from llm_cost_middleware.routing.learning.labels import labels_from_log
from llm_cost_middleware.routing.learning.replay import replay
from llm_cost_middleware.routing.learning.survey import survey
from llm_cost_middleware.routing.policy import RoutingPolicy

MANY = 400
TIERS = ("small", "large")


class Log:
    """A log that is read anew at each use, and knows how many of its calls somebody kept."""

    def __init__(self, lines):
        self._lines, self.reads, self.most_kept = lines, 0, 0

    def __iter__(self):
        self.reads += 1
        for line in self._lines:
            yield LoggedCall.from_json(line)
        self.most_kept = max(self.most_kept, sum(type(each) is LoggedCall for each in gc.get_objects()))


@pytest.fixture
def lines(route, ask):
    """Half the calls explored, with n-grams, of two sites."""
    rng, policy, found = random.Random(1), RoutingPolicy(explore=0.5, tiers=TIERS), []
    for number in range(MANY):
        request = ask("x" * rng.choice((500, 20_000)), context={"call_site": rng.choice("ab")})
        decision = route(request, policy, seed=number)
        decision = decision._replace(call_id=f"c{number}", at=1_000.0 + number, ngrams=(1, number % 7))
        scored = (Outcome(decision.call_id, "feedback", float(rng.random() < 0.8), 0.0),)
        paid = Settlement(decision.call_id, decision.target, NanoUSD(2 * decision.expected_nanousd), 1, 0.0)
        found.append(LoggedCall(decision, scored, paid).to_json())
    gc.collect()
    return found


@pytest.mark.parametrize("kind", [{"floor": 1}, {"ceiling": 0}, {"kind": "cascade", "accept": "no_failure"}])
def test_a_replay_keeps_no_call_of_a_log(lines, kind):
    log, policy = Log(lines), RoutingPolicy(tiers=TIERS, **kind)
    before = sum(type(each) is LoggedCall for each in gc.get_objects())
    rows = replay(log, policy)
    assert log.reads >= 2
    assert log.most_kept - before < 10
    assert rows == replay(iter([LoggedCall.from_json(line) for line in lines]), policy), "what is read once is kept"
    assert rows[-1].calls == MANY


def test_labels_are_all_that_is_kept_of_a_log(lines):
    log = Log(lines)
    entries = [LoggedCall.from_json(line) for line in lines]
    pair = [next(e.decision.target for e in entries if e.decision.tier == tier) for tier in (0, 1)]
    expected = labels_from_log(entries, *pair)
    del entries
    gc.collect()
    before = sum(type(each) is LoggedCall for each in gc.get_objects())
    found = labels_from_log(log, *pair)
    assert log.most_kept - before < 10
    assert found == expected
    assert len(found.labels) == MANY


def test_more_labels_than_are_held_are_a_share_that_no_order_changes(lines, monkeypatch):
    entries = [LoggedCall.from_json(line) for line in lines]
    pair = [next(e.decision.target for e in entries if e.decision.tier == tier) for tier in (0, 1)]
    every = dict(zip((whole := labels_from_log(entries, *pair)).call_ids, whole.labels, strict=True))
    monkeypatch.setattr(labels, "MOST_LABELS", 100)
    found, backwards = labels_from_log(entries, *pair), labels_from_log(entries[::-1], *pair)
    assert set(found.call_ids) == set(backwards.call_ids)
    assert 20 <= len(found.labels) <= 100
    assert found.left_out == {"more than 100 labels": MANY - len(found.labels)}
    for call_id, label in zip(found.call_ids, found.labels, strict=True):
        assert label.weak == pytest.approx(every[call_id].weak), "estimated from all of the log"
        assert label.weak_nanousd == every[call_id].weak_nanousd


def test_a_survey_tells_what_a_log_holds(lines):
    held = survey(Log(lines))
    assert (held.calls, held.rated, held.paired, held.span) == (MANY, MANY, 0, (1_000.0, 999.0 + MANY))
    assert held.source is QualitySource.FEEDBACK
    assert sum(sum(models.values()) for models in held.used.values()) == MANY
    assert survey(()).span is None


def test_a_survey_counts_a_call_that_was_refused_as_none_that_was_answered(lines):
    refused = replace(next(iter(Log(lines))), outcomes=(), settlement=None)
    held = survey([refused, *Log(lines)])
    assert (held.calls, held.answered) == (MANY + 1, MANY)
