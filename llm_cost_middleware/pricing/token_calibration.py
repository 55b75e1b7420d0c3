"""Calibrated estimates of a request's input tokens, learned from settled calls.

Pure state; the owner holds the lock. An estimate is a quantile of past calls with a margin, not a bound.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from math import ceil

from llm_cost_middleware.pricing.bound import InputSize, measure
from llm_cost_middleware.request import CallRequest, ModelRef

_MAX_RATIOS = 512
_MAX_KEYS = 256
_BLOCK_WEIGHT = 24
"""Bytes that a block or a tool weighs beside its text: small requests are mostly overhead."""


class TokenCalibration:
    """Tokens per byte of past calls, by model.

    Args:
        quantile: Share of calls whose input the estimate covers.
        margin: Share of the estimate that is added to it.
        warm: Calls to learn from before the first estimate.
    """

    def __init__(self, *, quantile: float = 0.99, margin: float = 0.1, warm: int = 20) -> None:
        if not 0 < quantile < 1 or margin < 0 or warm < 1:
            raise ValueError("quantile must be between 0 and 1, margin not negative, warm at least 1")
        self.quantile, self.margin, self.warm = quantile, margin, warm
        self._seen: OrderedDict[tuple[ModelRef, bool], _Ratios] = OrderedDict()

    def learn(self, target: ModelRef, request: CallRequest, tokens: int) -> None:
        """Record the input tokens that a request was billed for."""
        size = measure(request)
        if not _plain(request, size) or tokens <= 0:
            return
        # Requests with tools carry hidden instructions: one ratio for both kinds would be wrong for each.
        key = (target, size.tools > 0)
        ratios = self._seen.get(key)
        if ratios is None:
            ratios = self._seen[key] = _Ratios()
            if len(self._seen) > _MAX_KEYS:
                self._seen.popitem(last=False)
        ratios.add(tokens / _weight(size))

    def tokens(self, target: ModelRef, request: CallRequest) -> int | None:
        """Return the estimated input tokens of ``request``; ``None`` while too few calls were recorded."""
        size = measure(request)
        ratios = self._seen.get((target, size.tools > 0))
        if ratios is None or len(ratios.order) < self.warm or not _plain(request, size):
            return None
        return ceil(_weight(size) * ratios.quantile(self.quantile) * (1 + self.margin))


class _Ratios:
    """Latest ratios, in order of arrival and sorted."""

    __slots__ = ("order", "ranked")

    def __init__(self) -> None:
        self.order: deque[float] = deque()
        self.ranked: list[float] = []

    def add(self, ratio: float) -> None:
        self.order.append(ratio)
        insort(self.ranked, ratio)
        if len(self.order) > _MAX_RATIOS:
            del self.ranked[bisect_left(self.ranked, self.order.popleft())]

    def quantile(self, share: float) -> float:
        """Return the conformal quantile: the largest ratio while there are too few."""
        # n + 1, not n: the next call is one of n + 1 exchangeable ones, and the share must hold for it.
        rank = ceil((len(self.ranked) + 1) * share)
        return self.ranked[min(rank, len(self.ranked)) - 1]


def _plain(request: CallRequest, size: InputSize) -> bool:
    media = size.images or size.documents or size.audio
    tools = request.server_tools or request.params.get("provider_tools")
    return not (media or request.has_server_side_context or tools)


def _weight(size: InputSize) -> int:
    return size.text_bytes + size.tool_bytes + _BLOCK_WEIGHT * (size.blocks + size.tools + 1)
