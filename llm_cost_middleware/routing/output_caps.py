"""Output caps learned from past answers of a call site, with a stated risk that an answer is cut off.

The cap is a quantile of past lengths with the correction for a finite sample that makes it hold for the next one
(split conformal prediction: Vovk et al. 2005; Lei et al. 2018): of ``n`` lengths the ``ceil((n + 1) (1 - risk))``-th
shortest, and none below ``1 / risk - 1`` lengths. That needs calls whose order tells nothing. Where lengths drift, the
risk that is used falls with each answer that was cut and rises again slowly, never above the stated one (adaptive
conformal inference: Gibbs & Candes 2021), so that in the long run the share of a site's answers stays within it in any
order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from math import ceil

from llm_cost_middleware.request import ModelRef

_KEPT = 2_000
"""Lengths remembered of a site at a model."""
_SITES = 1_024
_STEP = 0.2
"""Share of the risk by which one answer that was cut lowers it."""


class _Lengths:
    """Answers of one site at one model."""

    __slots__ = ("newest", "risk", "sorted")

    def __init__(self, risk: float) -> None:
        self.newest: deque[int] = deque()
        self.sorted: list[int] = []
        self.risk = risk

    def add(self, length: int) -> None:
        self.newest.append(length)
        insort(self.sorted, length)
        if len(self.newest) > _KEPT:
            del self.sorted[bisect_left(self.sorted, self.newest.popleft())]


class LearnedCaps:
    """Lengths of answers by call site and model or arm. Bounded; its owner holds the lock.

    Args:
        risk: Share of answers that may be cut off, above 0 and below 1.
    """

    def __init__(self, risk: float) -> None:
        self._risk = risk
        self._sites: OrderedDict[tuple[str, ModelRef], _Lengths] = OrderedDict()

    def cap(self, site: str, target: ModelRef) -> int | None:
        """Output tokens that the next answer exceeds with no more than the risk; ``None`` where too few were seen."""
        known = self._sites.get((site, target))
        if known is None or known.risk <= 0:
            return None
        seen = len(known.sorted)
        place = ceil((seen + 1) * (1 - known.risk))
        # One more token: an answer as long as its cap counts as cut.
        return known.sorted[place - 1] + 1 if 0 < place <= seen else None

    def observe(self, site: str, target: ModelRef, length: int) -> None:
        """Add the length of a whole answer, output tokens; of one that was cut at another cap the cap, at least."""
        key = site, target
        known = self._sites.get(key)
        if known is None:
            known = self._sites[key] = _Lengths(self._risk)
            if len(self._sites) > _SITES:
                self._sites.popitem(last=False)
        else:
            self._sites.move_to_end(key)
        known.add(length)
        known.risk = min(self._risk, known.risk + _STEP * self._risk * self._risk)

    def note_cut(self, site: str, target: ModelRef) -> None:
        """An answer ended at a learned cap; its whole length is told by the one that is asked for again."""
        known = self._sites.get((site, target))
        if known is not None:
            known.risk -= _STEP * self._risk
