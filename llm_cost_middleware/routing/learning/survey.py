"""One look through a log before anything is made of it: what its quality can be measured by, and who answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision_log import LoggedCall, QualitySource


class LogSurvey(NamedTuple):
    """What a log holds."""

    calls: int
    answered: int
    """Calls that ended in an answer, or were graded; without those that were refused."""
    rated: int
    """Calls that the application reported of."""
    paired: int
    """Calls that two models answered, where it is known whether they said the same."""
    used: Mapping[int, Counter[ModelRef]]
    """How many calls went to each model, by tier; without calls whose model the caller chose."""
    span: tuple[float, float] | None
    """First and last moment, seconds since the Unix epoch; ``None``: the log is empty."""

    @property
    def source(self) -> QualitySource:
        """What quality is measured by where nothing was chosen."""
        return QualitySource.of_counts(self.rated, self.paired)


def survey(logged: Iterable[LoggedCall]) -> LogSurvey:
    """Look through a log."""
    used: defaultdict[int, Counter[ModelRef]] = defaultdict(Counter)
    calls = answered = rated = paired = 0
    first, last = float("inf"), float("-inf")
    for entry in logged:
        decision = entry.decision
        calls += 1
        answered += entry.assumed_quality is not None
        rated += entry.feedback is not None
        paired += entry.agreed is not None
        first, last = min(first, decision.at), max(last, decision.at)
        if decision.tier >= 0:
            used[decision.tier][decision.target] += 1
    return LogSurvey(calls, answered, rated, paired, used, (first, last) if calls else None)


def rereadable(logged: Iterable[LoggedCall]) -> Iterable[LoggedCall]:
    """Return what can be read more than once: a log of millions is read anew, and what is no log is kept."""
    return list(logged) if isinstance(logged, Iterator) else logged
