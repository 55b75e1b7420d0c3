"""Calibrated estimates of a request's input tokens, learned from settled calls.

Pure state; the owner holds the lock. An estimate is a quantile of past calls with a margin, not a bound.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from math import ceil
from typing import NamedTuple

from llm_cost_middleware.pricing.bound import InputSize, measure
from llm_cost_middleware.request import CallRequest, ModelRef

_MAX_RATIOS = 512
_MAX_KEYS = 256
_BLOCK_WEIGHT = 24
"""Bytes that a block or a tool weighs beside its text: small requests are mostly overhead."""


class Coverage(NamedTuple):
    """How often estimates covered what was billed, as measured when the answers came in."""

    estimates: int = 0
    covered: int = 0

    @property
    def share(self) -> float | None:
        """Share of the estimates that were at least what was billed, 0 to 1; ``None`` before the first."""
        return self.covered / self.estimates if self.estimates else None


class TokenCalibration:
    """Tokens per byte of past calls, by model and call site.

    Args:
        quantile: Share of calls whose input the estimate covers.
        margin: Share of the estimate that is added to it.
        warm: Calls to learn from before the first estimate.
    """

    def __init__(self, *, quantile: float = 0.99, margin: float = 0.1, warm: int = 20) -> None:
        if not 0 < quantile < 1 or margin < 0 or warm < 1:
            raise ValueError("quantile must be between 0 and 1, margin not negative, warm at least 1")
        self.quantile, self.margin, self.warm = quantile, margin, warm
        self._seen: OrderedDict[tuple[ModelRef, bool, str], _Ratios] = OrderedDict()
        self.coverage = Coverage()

    def learn(self, target: ModelRef, request: CallRequest, tokens: int, site: str = "") -> None:
        """Record the input tokens that a request was billed for, and whether they would have been covered."""
        size = measure(request)
        if not _plain(request, size) or tokens <= 0:
            return
        estimate = self.tokens(target, request, site)
        if estimate is not None:
            estimates, covered = self.coverage
            self.coverage = Coverage(estimates + 1, covered + (estimate >= tokens))
        # Requests with tools carry hidden instructions: one ratio for both kinds would be wrong for each.
        for key in {(target, size.tools > 0, site), (target, size.tools > 0, "")}:
            ratios = self._seen.get(key)
            if ratios is None:
                ratios = self._seen[key] = _Ratios()
                if len(self._seen) > _MAX_KEYS:
                    self._seen.popitem(last=False)
            ratios.add(tokens / _weight(size))

    def tokens(self, target: ModelRef, request: CallRequest, site: str = "") -> int | None:
        """Return the estimated input tokens of ``request``; ``None`` while too few calls were recorded.

        A call site of which too little is known takes the estimate of all sites of its model.
        """
        size = measure(request)
        if not _plain(request, size):
            return None
        for key in ((target, size.tools > 0, site), (target, size.tools > 0, "")):
            ratios = self._seen.get(key)
            if ratios is not None and len(ratios.order) >= self.warm:
                return ceil(_weight(size) * ratios.quantile(self.quantile) * (1 + self.margin))
        return None


class CountChecks:
    """What answers showed of counts: a gateway may serve a model under another tokenizer than its name says."""

    def __init__(self) -> None:
        self._permille: dict[tuple[ModelRef, bool], int] = {}

    def check(self, target: ModelRef, held: int, billed: int, *, close: bool = False) -> None:
        """Take note of an answer that was billed for more input than was counted. ``close``: it was no bound."""
        if billed > held > 0:
            key = target, close
            self._permille[key] = self._permille.get(key, 1_000) * billed // held + 1

    def scaled(self, target: ModelRef, count: int, *, close: bool = False) -> int:
        """Return a count, raised by what answers of this model went beyond theirs."""
        permille = self._permille.get((target, close))
        return count if permille is None else -(-count * permille // 1_000)


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
