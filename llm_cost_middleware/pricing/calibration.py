"""Calibrated estimates: what a model's input is likely to be at most, learned from settled calls.

Pure state; the owner holds the lock. It is not a bound: it holds a quantile of what was seen, with a margin.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from math import ceil

from llm_cost_middleware.pricing.bound import InputSize, measure
from llm_cost_middleware.request import CallRequest, Target

_KEEP = 512
_TARGETS = 256
_FRAME = 24
"""Tokens a block, and 600 tools, count as without being bytes: small requests are mostly framing."""


class Calibration:
    """Tokens per byte by model, in recorded order.

    Args:
        quantile: The share of calls whose input the estimate is to cover.
        margin: What is added on top, as a share of the estimate.
        warm: Calls to learn from before the first estimate.
    """

    def __init__(self, *, quantile: float = 0.99, margin: float = 0.1, warm: int = 20) -> None:
        if not 0 < quantile < 1 or margin < 0 or warm < 1:
            raise ValueError("quantile must be between 0 and 1, margin not negative, warm at least 1")
        self.quantile, self.margin, self.warm = quantile, margin, warm
        self._seen: OrderedDict[tuple[Target, bool], _Ratios] = OrderedDict()

    def learn(self, target: Target, request: CallRequest, tokens: int) -> None:
        """Take note of the input that a request was billed for."""
        size = measure(request)
        if not _plain(request, size) or tokens <= 0:
            return
        key = (target, size.tools > 0)
        ratios = self._seen.get(key)
        if ratios is None:
            ratios = self._seen[key] = _Ratios()
            if len(self._seen) > _TARGETS:
                self._seen.popitem(last=False)
        ratios.add(tokens / _weight(size))

    def tokens(self, target: Target, request: CallRequest) -> int | None:
        """The input that ``request`` is likely to have at most; ``None`` while too little was learned."""
        size = measure(request)
        ratios = self._seen.get((target, size.tools > 0))
        if ratios is None or len(ratios.order) < self.warm or not _plain(request, size):
            return None
        return ceil(_weight(size) * ratios.quantile(self.quantile) * (1 + self.margin))


class _Ratios:
    """The latest ratios, in order of arrival and sorted."""

    __slots__ = ("order", "ranked")

    def __init__(self) -> None:
        self.order: deque[float] = deque()
        self.ranked: list[float] = []

    def add(self, ratio: float) -> None:
        self.order.append(ratio)
        insort(self.ranked, ratio)
        if len(self.order) > _KEEP:
            del self.ranked[bisect_left(self.ranked, self.order.popleft())]

    def quantile(self, share: float) -> float:
        """The conformal quantile: the rank that covers the next of equals, the largest while there are too few."""
        rank = ceil((len(self.ranked) + 1) * share)
        return self.ranked[min(rank, len(self.ranked)) - 1]


def _plain(request: CallRequest, size: InputSize) -> bool:
    media = size.images or size.documents or size.audio
    return not (media or request.stored_context or request.server_tools or request.params.get("provider_tools"))


def _weight(size: InputSize) -> int:
    return size.text_bytes + size.tool_bytes + _FRAME * (size.blocks + size.tools + 1)
