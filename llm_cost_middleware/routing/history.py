"""History of call sites: output lengths, latencies and acceptance, from which the next call's cost is expected."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import sqrt
from types import MappingProxyType

from msgspec import Struct

from llm_cost_middleware.request import ModelRef

# Weight of the newest call once there are ten; before that a plain mean. A mean, not a median: cost is linear in
# tokens, so its expectation needs the expected number.
_SMOOTHING = 0.1
_PLAIN_MEAN = 10
_MIN_CALLS = 5  # a deviation of fewer is mostly chance
MIN_HELPED = 1 / 3  # of the escalations of a site; below it they are given up there
_TARGETS = 64  # models remembered per site: callers may name any


class Mean(Struct, frozen=True, gc=False):
    """Running mean that forgets old values slowly (exponential smoothing)."""

    value: float = 0.0
    calls: int = 0

    def after(self, value: float) -> Mean:
        """The mean with one value more."""
        calls, before = self.calls + 1, self.value
        return Mean(before + (value - before) * (1 / calls if calls < _PLAIN_MEAN else _SMOOTHING), calls)


_NONE = Mean()
Outputs = Mapping[ModelRef | None, Mean]
"""Mean output tokens by model; under ``None`` that of all models together."""

NO_OUTPUTS: Outputs = MappingProxyType({})


class _Site:
    """Means of one call site."""

    __slots__ = ("accepted", "helped", "outputs", "seconds", "squared")

    def __init__(self) -> None:
        self.outputs: dict[ModelRef | None, Mean] = {}
        """Never changed, but replaced: whoever has read it may go on with it."""
        self.seconds: dict[ModelRef, Mean] = {}
        self.squared = self.accepted = self.helped = _NONE


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
        """Record a settled call: its output tokens, its duration, whether a check accepted its answer."""
        known = self._sites.get(site)
        if known is None:
            known = self._sites[site] = _Site()
            if len(self._sites) > self._keep:
                self._sites.popitem(last=False)
        else:
            self._sites.move_to_end(site)
        if output_tokens is not None:
            outputs = known.outputs
            if len(outputs) > _TARGETS and target not in outputs:
                outputs = {None: outputs[None]}
            grown = outputs.copy()
            grown[target] = outputs.get(target, _NONE).after(output_tokens)
            grown[None] = outputs.get(None, _NONE).after(output_tokens)
            known.outputs = grown
            known.squared = known.squared.after(output_tokens * output_tokens)
        if seconds is not None:
            if len(known.seconds) > _TARGETS:
                known.seconds.clear()
            known.seconds[target] = known.seconds.get(target, _NONE).after(seconds)
        if accepted is not None:
            known.accepted = known.accepted.after(accepted)

    def observe_escalation(self, site: str, *, helped: bool) -> None:
        """Record whether a stronger model's answer was free of the failures that it was asked for."""
        if (known := self._sites.get(site)) is not None:
            known.helped = known.helped.after(helped)

    def escalation_helps(self, site: str) -> bool:
        """Return whether asking a stronger model after a failure helps at this site, as far as is known."""
        known = self._sites.get(site)
        return known is None or known.helped.calls < _MIN_CALLS or known.helped.value >= MIN_HELPED

    def outputs(self, site: str) -> Outputs:
        """Return the mean output tokens of each model at this site; empty for an unknown site.

        Models of a site answer the same task: for a model without calls, the mean of all is a better guess than a
        constant.
        """
        known = self._sites.get(site)
        return known.outputs if known is not None else NO_OUTPUTS

    def least_output(self, site: str) -> float:
        """Return output tokens that nearly every call exceeds: two deviations below the mean, 0 where unknown."""
        known = self._sites.get(site)
        if known is None or known.squared.calls < _MIN_CALLS:
            return 0.0
        mean = known.outputs[None].value
        return max(0.0, mean - 2 * sqrt(max(0.0, known.squared.value - mean * mean)))

    def expected_seconds(self, site: str, target: ModelRef) -> float | None:
        """Return the mean duration of a call to this model at this site; ``None`` where unknown."""
        known = self._sites.get(site)
        seconds = known.seconds.get(target) if known else None
        return seconds.value if seconds else None

    def acceptance(self, site: str) -> tuple[float, int]:
        """Return the share of cheap answers that were accepted at this site, and the number of calls it rests on."""
        known = self._sites.get(site)
        return (known.accepted.value, known.accepted.calls) if known else (0.0, 0)
