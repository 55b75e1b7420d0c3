"""Reuse of prefixes like this one: prior probabilities, and trials counted in groups of peers.

A group counts how often prefixes of one kind came back. It is the prior of a prefix that was seen too seldom to have
statistics of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from llm_cost_middleware.prompt_cache.layout import PromptLayout
from llm_cost_middleware.prompt_cache.plan import HORIZONS_S, ReuseProbability
from llm_cost_middleware.request import Section

_STAGE_REUSE: Mapping[str, ReuseProbability] = {
    # The end of a request, before any evidence: agents go on, conversations often do, single questions do not.
    "first": (0.05, 0.05, 0.05),
    "first_with_tools": (0.5, 0.5, 0.5),
    "chat": (0.5, 0.5, 0.5),
    "agent": (0.9, 0.9, 0.9),
}
_SEEN_REUSE: tuple[ReuseProbability, ...] = ((0.1, 0.1, 0.1), (0.5, 0.5, 0.5), (0.6, 0.6, 0.6), (0.7, 0.7, 0.7))
"""Inner boundary that was seen never, once, twice, more often."""
ENOUGH_SEEN = len(_SEEN_REUSE) - 1
"""Arrivals from which a prefix has enough statistics of its own."""
PRIOR_TRIALS = 1.0
_PEER_TRIALS = 3.0
_MAX_TRIALS = 200
"""Trials of a group at which all its counts are halved, so that old ones fade."""
_MAX_GROUPS = 1_024

TrialCounts = list[float]
"""Trials, and how many of them came back within each horizon."""


class PeerGroups:
    """Bounded set of groups. Mutable; its owner holds the lock."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[object, ...], TrialCounts] = OrderedDict()

    def peers(self, layout: PromptLayout, at: int, seen: int) -> tuple[TrialCounts, ...]:
        """Return the groups that a boundary counts in, the closest first."""
        if at == len(layout.boundaries) - 1:
            return self._group((layout.traffic_key, layout.stage)), self._group((layout.stage,))
        return (self._group((layout.boundaries[at].ref.section, min(seen, ENOUGH_SEEN))),)

    def prior(self, layout: PromptLayout, at: int, seen: int) -> tuple[ReuseProbability, float]:
        """Return the reuse of a boundary's peers, and the trials that it counts as."""
        end = at == len(layout.boundaries) - 1
        reuse, weight = _STAGE_REUSE[layout.stage] if end else _SEEN_REUSE[min(seen, ENOUGH_SEEN)], PRIOR_TRIALS
        # From the widest group to the closest: each corrects the one before it by its own evidence.
        for group in reversed(self.peers(layout, at, seen)):
            reuse, weight = blend(group, reuse, weight), _PEER_TRIALS
        return reuse, weight

    def inner_reuse(self, section: Section, seen: int) -> ReuseProbability:
        """Return the reuse of inner boundaries of a section that were seen ``seen`` times."""
        seen = min(seen, ENOUGH_SEEN)
        return blend(self._group((section, seen)), _SEEN_REUSE[seen], PRIOR_TRIALS)

    def stages(self) -> dict[str, TrialCounts]:
        """Return the groups by stage alone: the ones worth keeping, since they hold for any traffic."""
        return {str(key[0]): group for key, group in self._groups.items() if len(key) == 1}

    def restore(self, stages: Mapping[str, TrialCounts]) -> None:
        """Set the groups that ``stages`` returned."""
        for stage, group in stages.items():
            self._groups[stage,] = group

    def _group(self, key: tuple[object, ...]) -> TrialCounts:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = [0.0] * (1 + len(HORIZONS_S))
            if len(self._groups) > _MAX_GROUPS:
                self._groups.popitem(last=False)
        return group


def blend(group: Sequence[float], prior: ReuseProbability, weight: float) -> ReuseProbability:
    """Return the posterior probability of a group whose prior counts as ``weight`` trials."""
    trials, first, second, third = group
    n = trials + weight
    return (first + weight * prior[0]) / n, (second + weight * prior[1]) / n, (third + weight * prior[2]) / n


def count_trial(group: TrialCounts) -> None:
    """Add a trial to a group; old ones fade."""
    group[0] += 1.0
    if group[0] > _MAX_TRIALS:
        group[:] = [each / 2 for each in group]
