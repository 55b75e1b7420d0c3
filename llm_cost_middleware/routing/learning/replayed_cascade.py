"""What a cascade by schema or by visible failures would have cost on logged calls, and how good its answers were.

Where the cheap model was asked, the log shows whether its answer failed visibly, so whether it would have been
escalated. Where it was not asked, the share of its site stands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.routing.decision import EvaluatedCandidate
from llm_cost_middleware.routing.decision_log import LoggedCall
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.signals import ESCALATED, PARSE_FAILED, SCHEMA_VIOLATED, VISIBLE_FAILURES

_PRIOR = 10.0  # calls that the share over all sites counts for at each, as in ``fitting.SITE_PRIOR``
_FAILURES = frozenset({PARSE_FAILED, SCHEMA_VIOLATED})
_ANY_FAILURE = frozenset(VISIBLE_FAILURES)
_STRUCTURED = frozenset({"schema", "tools"})


class CascadedCall(NamedTuple):
    """A logged call under a cascade."""

    nanousd: float
    """Both attempts, where there are two."""
    escalated: float
    """How likely it is that the stronger model is asked, 0 to 1."""
    seen: bool
    """The cheap model was asked in the log, so that ``escalated`` is 0 or 1."""


class CascadeReplay:
    """The cascade of a policy over a log.

    Args:
        policy: The policy of the cascade.
        logged: The log.

    Raises:
        ConfigurationError: Its answers are accepted by what no log keeps.
    """

    def __init__(self, policy: RoutingPolicy, logged: Iterable[LoggedCall]) -> None:
        if policy.accept not in ("schema", "no_failure"):
            what = "what your check says of an answer" if policy.accept == "check" else "a second cheap model's answer"
            raise ConfigurationError(f"a cascade by {policy.accept} cannot be replayed: the log does not keep {what}")
        self._by_schema = policy.accept == "schema"
        self._failures = _FAILURES if self._by_schema else _ANY_FAILURE
        counts: dict[str, list[int]] = {}
        for entry in logged:
            if self._checks(entry) and (escalated := self._escalated(entry)) is not None:
                for key in (entry.decision.site, ""):
                    seen = counts.setdefault(key, [0, 0])
                    seen[0] += escalated
                    seen[1] += 1
        failed, n = counts.get("", (0, 0))
        overall = failed / n if n else 0.0
        self._shares = {site: (bad + _PRIOR * overall) / (total + _PRIOR) for site, (bad, total) in counts.items()}
        self._overall = overall

    def call(self, entry: LoggedCall, paid: int, ratio: float) -> CascadedCall:
        """One call.

        Args:
            entry: The call.
            paid: Nano-dollars that it cost.
            ratio: Paid by expected costs at its site.
        """
        decision = entry.decision
        cheap, strong = _pair(decision.eligible)
        cost = {c.target: (c.expected_nanousd or 0) * ratio for c in decision.eligible}
        if cheap is None:
            return CascadedCall(float(paid), 0.0, seen=False)
        if strong is None or not self._checks(entry):
            same = decision.target == cheap.target and not _was_escalated(entry)
            return CascadedCall(float(paid) if same else cost[cheap.target], 0.0, seen=same)
        known = self._escalated(entry)
        if _was_escalated(entry):
            return CascadedCall(float(paid), 1.0, seen=True)
        if known is not None:
            return CascadedCall(paid + known * cost[strong.target], float(known), seen=True)
        share = self._shares.get(decision.site, self._overall)
        return CascadedCall(cost[cheap.target] + share * paid, share, seen=False)

    def _checks(self, entry: LoggedCall) -> bool:
        """Whether the cascade would look at the answer of a call."""
        return not self._by_schema or bool(_STRUCTURED.intersection(entry.decision.features.needs))

    def _escalated(self, entry: LoggedCall) -> bool | None:
        """Whether the cheap model's answer was or would be escalated; ``None`` where it was not asked."""
        cheap, _ = _pair(entry.decision.eligible)
        if cheap is None or entry.decision.tier != cheap.tier:
            return None
        return _was_escalated(entry) or any(outcome.name in self._failures for outcome in entry.outcomes)


def _was_escalated(entry: LoggedCall) -> bool:
    return any(outcome.name == ESCALATED for outcome in entry.outcomes)


def _pair(eligible: Sequence[EvaluatedCandidate]) -> tuple[EvaluatedCandidate | None, EvaluatedCandidate | None]:
    """The model that a cascade asks first, and the one that it escalates to."""
    cheap = min(eligible, key=_order, default=None)
    above = [c for c in eligible if cheap is not None and c.tier > cheap.tier]
    return cheap, min(above, key=_order, default=None)


def _order(candidate: EvaluatedCandidate) -> tuple[int, int]:
    return candidate.tier, candidate.expected_nanousd or 0
