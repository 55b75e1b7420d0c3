"""What the calls of a site have produced so far: the basis of what the next call is expected to cost."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from math import sqrt
from types import MappingProxyType

from llm_cost_middleware.request import ModelRef

_MEMORY = 0.1
"""The weight of the newest call once there are ten; before that a plain mean. A mean, not a median: cost is linear
in tokens, so its expectation needs the expected number."""

_ENOUGH = 5
"""Calls from which a spread can be told."""

_TARGETS = 64
"""Models remembered at a site: callers may name any."""


class Mean:
    """A running mean that forgets old values slowly."""

    __slots__ = ("calls", "value")

    def __init__(self) -> None:
        self.calls, self.value = 0, 0.0

    def note(self, value: float) -> None:
        """Take one value more into it."""
        self.calls = calls = self.calls + 1
        self.value += (value - self.value) * (1 / calls if calls * _MEMORY < 1 else _MEMORY)


Outputs = Mapping[ModelRef | None, Mean]
"""Output tokens by model; under ``None`` those of all models together."""

NO_OUTPUTS: Outputs = MappingProxyType({})


class _Site:
    """What is known of one call site."""

    __slots__ = ("accepted", "outputs", "seconds", "squared")

    def __init__(self) -> None:
        self.outputs: defaultdict[ModelRef | None, Mean] = defaultdict(Mean)
        self.seconds: defaultdict[ModelRef, Mean] = defaultdict(Mean)
        self.squared, self.accepted = Mean(), Mean()


class SiteHistory:
    """Running means by call site and model. Bounded; its owner holds the lock.

    Args:
        keep: How many sites are remembered; the least recently written are dropped.
    """

    def __init__(self, keep: int = 2_048) -> None:
        self._keep = keep
        self._sites: OrderedDict[str, _Site] = OrderedDict()

    def observe(
        self,
        site: str,
        target: ModelRef,
        output_tokens: int | None = None,
        *,
        seconds: float | None = None,
        accepted: bool | None = None,
    ) -> None:
        """Take note of a settled call: what it produced, how long it took, whether a check accepted its answer."""
        known = self._sites.get(site)
        if known is None:
            known = self._sites[site] = _Site()
            if len(self._sites) > self._keep:
                self._sites.popitem(last=False)
        else:
            self._sites.move_to_end(site)
        outputs = known.outputs
        if output_tokens is not None:
            if len(outputs) > _TARGETS and target not in outputs:
                for other in [other for other in outputs if other is not None]:
                    del outputs[other]
            outputs[target].note(output_tokens)
            outputs[None].note(output_tokens)
            known.squared.note(output_tokens * output_tokens)
        if seconds is not None:
            if len(known.seconds) > _TARGETS:
                known.seconds.clear()
            known.seconds[target].note(seconds)
        if accepted is not None:
            known.accepted.note(accepted)

    def outputs(self, site: str) -> Outputs:
        """Output tokens expected of each model at this site; empty where nothing is known.

        Models of a site answer the same task: for a model without calls, the mean of all is a better guess than a
        constant.
        """
        known = self._sites.get(site)
        return known.outputs if known is not None else NO_OUTPUTS

    def least_output(self, site: str) -> float:
        """Output tokens that nearly every call of this site exceeds: two deviations below the mean, 0 where unknown."""
        known = self._sites.get(site)
        if known is None or known.squared.calls < _ENOUGH:
            return 0.0
        mean = known.outputs[None].value
        return max(0.0, mean - 2 * sqrt(max(0.0, known.squared.value - mean * mean)))

    def expected_seconds(self, site: str, target: ModelRef) -> float | None:
        """How long this model takes at this site; ``None`` where nothing is known."""
        known = self._sites.get(site)
        seconds = known.seconds.get(target) if known else None
        return seconds.value if seconds else None

    def acceptance(self, site: str) -> tuple[float, int]:
        """The share of cheap answers that were accepted at this site, and of how many it was seen."""
        known = self._sites.get(site)
        return (known.accepted.value, known.accepted.calls) if known else (0.0, 0)
