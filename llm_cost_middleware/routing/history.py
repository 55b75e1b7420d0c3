"""What the calls of a site have produced so far: the basis of what the next call is expected to cost."""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt

from llm_cost_middleware.request import Target

_MEMORY = 0.1
"""The weight of the newest call once there are ten; before that a plain mean. A mean, not a median: cost is linear
in tokens, so its expectation needs the expected number."""

_ENOUGH = 5
"""Calls from which a spread can be told."""

_Key = tuple[str, Target | None, str]


class SiteHistory:
    """Running means by call site and model, forgetting old calls slowly. Bounded; its owner holds the lock.

    Args:
        keep: How many means are remembered; the least recently written are dropped.
    """

    def __init__(self, keep: int = 8_192) -> None:
        self._keep = keep
        self._means: OrderedDict[_Key, tuple[int, float]] = OrderedDict()

    def observe(
        self,
        site: str,
        target: Target,
        output_tokens: int | None = None,
        *,
        seconds: float | None = None,
        accepted: bool | None = None,
    ) -> None:
        """Take note of a settled call: what it produced, how long it took, whether a check accepted its answer."""
        if output_tokens is not None:
            self._note((site, target, "output"), output_tokens)
            self._note((site, None, "output"), output_tokens)
            self._note((site, None, "output squared"), output_tokens * output_tokens)
        if seconds is not None:
            self._note((site, target, "seconds"), seconds)
        if accepted is not None:
            self._note((site, None, "accepted"), float(accepted))
        while len(self._means) > self._keep:
            self._means.popitem(last=False)

    def expected_output(self, site: str, target: Target) -> float | None:
        """Expected output tokens of this model at this site, else of any model there; ``None`` where nothing is known.

        Models of a site answer the same task: another model's length is a better guess than a constant.
        """
        known = self._means.get((site, target, "output")) or self._means.get((site, None, "output"))
        return known[1] if known else None

    def least_output(self, site: str) -> float:
        """Output tokens that nearly every call of this site exceeds: two deviations below the mean, 0 where unknown."""
        count, mean = self._means.get((site, None, "output"), (0, 0.0))
        if count < _ENOUGH:
            return 0.0
        _, square = self._means[site, None, "output squared"]
        return max(0.0, mean - 2 * sqrt(max(0.0, square - mean * mean)))

    def expected_seconds(self, site: str, target: Target) -> float | None:
        """How long this model takes at this site; ``None`` where nothing is known."""
        known = self._means.get((site, target, "seconds"))
        return known[1] if known else None

    def acceptance(self, site: str) -> tuple[float, int]:
        """The share of cheap answers that were accepted at this site, and of how many it was seen."""
        count, mean = self._means.get((site, None, "accepted"), (0, 0.0))
        return mean, count

    def _note(self, key: _Key, value: float) -> None:
        count, mean = self._means.get(key, (0, 0.0))
        count += 1
        self._means[key] = (count, mean + (value - mean) * max(1 / count, _MEMORY))
        self._means.move_to_end(key)
