"""The candidates of one call with their expected costs, written out only when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_cost_middleware.money import PICO_PER_NANO, ZERO, NanoUSD, ceil_picousd
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import EvaluatedCandidate
from llm_cost_middleware.routing.eligibility import Eligibility
from llm_cost_middleware.routing.history import Outputs


class Evaluated(Sequence[EvaluatedCandidate]):
    """The candidates as they were evaluated for one call, each with its expected cost: written out when looked at.

    Compares, prints and is copied as the tuple that it stands for.
    """

    __slots__ = ("_affinity", "_answers", "_entries", "_lengths", "_tokens", "eligibility", "takers")
    _affinity: Mapping[ModelRef, int] | None
    _answers: int
    _entries: tuple[EvaluatedCandidate, ...] | None
    _lengths: Sequence[int]
    _tokens: int
    eligibility: Eligibility
    takers: tuple[int, ...]

    @staticmethod
    def of(
        eligibility: Eligibility, tokens: int, answers: int, lengths: Sequence[int], affinity: Mapping[ModelRef, int]
    ) -> Evaluated:
        """What a constructor would make, without its frame.

        Args:
            eligibility: Who may take the call.
            tokens: Its expected input tokens.
            answers: How many answers it asks for.
            lengths: The output tokens that are expected of an answer of each.
            affinity: Nano-dollars that a warm cache is worth, by model.
        """
        new = Evaluated()
        new.eligibility, new.takers, new._tokens, new._answers = eligibility, eligibility.takers, tokens, answers
        new._lengths, new._affinity, new._entries = lengths, affinity or None, None
        return new

    def at_lengths(self, outputs: Outputs) -> Evaluated:
        """The same without warm caches, where answers are of other lengths."""
        return Evaluated.of(self.eligibility, self._tokens, self._answers, self.eligibility.lengths(outputs), {})

    def cheapest(self, tier: int) -> int | None:
        """The place of the cheapest of a tier that may take the call, the first of several; ``None`` without any."""
        places = self.eligibility.of_tier.get(tier)
        if places is None or len(places) == 1:
            return places and places[0]
        if self._affinity is not None:
            return min(places, key=lambda place: self.entry(place).expected_nanousd or 0)
        best = least = least_pico = -1
        for place in places:
            pico = self._pico(place)
            if pico < least_pico or best < 0:
                cost = -(-pico // PICO_PER_NANO)  # compared as it is booked: the first of equals is taken
                if cost < least or best < 0:
                    best, least, least_pico = place, cost, pico
        return best

    def _pico(self, place: int) -> int:
        """The expected cost at one of them without a warm cache, in pico-dollars."""
        inward, outward, most = self.eligibility.prices[place]
        length = self._lengths[place]
        return self._tokens * inward + (length if length < most else most) * self._answers * outward  # noqa: FURB136 - a call of min() costs more

    def entry(self, place: int) -> EvaluatedCandidate:
        """One of them."""
        if self._entries is not None:
            return self._entries[place]
        of, cold = self.eligibility, ceil_picousd(self._pico(place))
        target, saving = of.targets[place], ZERO
        if self._affinity is not None:
            saving = NanoUSD(min(cold, self._affinity.get(target.plain, 0)))
        cost = NanoUSD(cold - saving) if saving else cold
        return EvaluatedCandidate(target, of.candidates[place].tier, cost, of.reasons[place], saving)

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
