"""The candidates of one call with their expected costs, written out only when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from llm_cost_middleware.money import PICO_PER_NANO, NanoUSD
from llm_cost_middleware.named_tuples import made
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import EvaluatedCandidate
from llm_cost_middleware.routing.eligibility import Eligibility
from llm_cost_middleware.routing.history import Outputs

_NOTHING = NanoUSD(0)
_cost = attrgetter("expected_nanousd")  # of candidates just evaluated, where it is never ``None``


class Evaluated(Sequence[EvaluatedCandidate]):
    """The candidates as they were evaluated for one call, each with its expected cost: written out when looked at.

    Compares, prints and is copied as the tuple that it stands for.

    Args:
        eligibility: Who may take the call.
        sizes: Its expected input tokens, how many answers it asks for, and the length expected of one at each.
        affinity: Nano-dollars that a warm cache is worth, by model.
    """

    __slots__ = ("_affinity", "_entries", "_sizes", "eligibility", "takers")

    def __init__(
        self, eligibility: Eligibility, sizes: tuple[int, int, Sequence[int]], affinity: Mapping[ModelRef, int]
    ) -> None:
        self.eligibility, self._sizes, self.takers = eligibility, sizes, eligibility.takers
        self._affinity = affinity or None
        self._entries: tuple[EvaluatedCandidate, ...] | None = None

    def at_lengths(self, outputs: Outputs) -> Evaluated:
        """The same without warm caches, where answers are of other lengths."""
        tokens, answers, _ = self._sizes
        return Evaluated(self.eligibility, (tokens, answers, self.eligibility.lengths(outputs)), {})

    def cheapest(self, tier: int) -> EvaluatedCandidate | None:
        """The cheapest of a tier that may take the call, the first of several; ``None`` without any."""
        places = self.eligibility.of_tier.get(tier)
        if places is None:
            return None
        if self._affinity is not None:
            return min([self.entry(place) for place in places], key=_cost)
        best, least = self._least(places)
        return made(EvaluatedCandidate, (self.eligibility.targets[best], tier, NanoUSD(least), "", _NOTHING))

    def _least(self, places: tuple[int, ...]) -> tuple[int, int]:
        """The first of some places with the least expected cost without a warm cache, and this in nano-dollars."""
        (tokens, answers, lengths), prices = self._sizes, self.eligibility.prices
        best = least = -1
        for place in places:
            inward, outward, most = prices[place]
            length = lengths[place]
            length = length if length < most else most  # noqa: FURB136 - calling min() costs more than all the rest
            cost = -(-(tokens * inward + length * answers * outward) // PICO_PER_NANO)
            if cost < least or best < 0:
                best, least = place, cost
        return best, least

    def entry(self, place: int) -> EvaluatedCandidate:
        """One of them."""
        if self._entries is not None:
            return self._entries[place]
        of, cold = self.eligibility, NanoUSD(self._least((place,))[1])
        target, saving = of.targets[place], _NOTHING
        if self._affinity is not None:
            saving = NanoUSD(min(cold, self._affinity.get(target.plain, 0)))
        cost = NanoUSD(cold - saving) if saving else cold
        return made(EvaluatedCandidate, (target, of.candidates[place].tier, cost, of.reasons[place], saving))

    def eligible(self) -> list[EvaluatedCandidate]:
        """Those that may take the call."""
        return [self.entry(place) for place in self.eligibility.takers]

    def _all(self) -> tuple[EvaluatedCandidate, ...]:
        if self._entries is None:
            self._entries = tuple([self.entry(place) for place in range(len(self))])
        return self._entries

    def __getitem__(self, at: Any) -> Any:
        return self._all()[at]

    def __len__(self) -> int:
        return len(self.eligibility.targets)

    def __iter__(self) -> Iterator[EvaluatedCandidate]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return self._all() == (other._all() if isinstance(other, Evaluated) else other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self._all(),)
