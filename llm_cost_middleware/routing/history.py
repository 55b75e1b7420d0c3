"""What the calls of a site have produced so far: expected output tokens, for the expected cost of the next call."""

from __future__ import annotations

from collections import OrderedDict

from llm_cost_middleware.request import Target

_MEMORY = 0.1
"""The weight of the newest call once there are ten; before that a plain mean. A mean, not a median: cost is linear
in tokens, so its expectation needs the expected number."""


class SiteHistory:
    """Mean output tokens by (call site, model), forgetting old calls slowly. Bounded; its owner holds the lock.

    Args:
        keep: How many (site, model) pairs are remembered; the least recently used are dropped.
    """

    def __init__(self, keep: int = 4_096) -> None:
        self._keep = keep
        self._means: OrderedDict[tuple[str, Target | None], tuple[int, float]] = OrderedDict()

    def observe(self, site: str, target: Target, output_tokens: int) -> None:
        """Take note of what a settled call produced."""
        for key in ((site, target), (site, None)):
            count, mean = self._means.get(key, (0, 0.0))
            count += 1
            self._means[key] = (count, mean + (output_tokens - mean) * max(1 / count, _MEMORY))
            self._means.move_to_end(key)
        while len(self._means) > self._keep:
            self._means.popitem(last=False)

    def expected_output(self, site: str, target: Target) -> float | None:
        """Expected output tokens of this model at this site, else of any model there; ``None`` where nothing is known.

        Models of a site answer the same task: another model's length is a better guess than a constant.
        """
        known = self._means.get((site, target)) or self._means.get((site, None))
        return known[1] if known else None
