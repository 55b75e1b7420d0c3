"""The candidates of one call with their expected costs, written out only when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llm_cost_middleware.money import PICO_PER_NANO, ZERO, NanoUSD, ceil_picousd
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.decision import EvaluatedCandidate
from llm_cost_middleware.routing.eligibility import Eligibility
from llm_cost_middleware.routing.history import Outputs
from llm_cost_middleware.sentences import text


class Evaluated(Sequence[EvaluatedCandidate]):
    """The candidates as they were evaluated for one call, each with its expected cost: written out when looked at.

    Compares, prints and is copied as the tuple that it stands for.
    """

    __slots__ = ("_affinity", "_answers", "_entries", "_outputs", "_tokens", "eligibility", "takers")
    _affinity: Mapping[ModelRef, int] | None
    _answers: int
    _entries: tuple[EvaluatedCandidate, ...] | None
    _outputs: Outputs
    _tokens: int
    eligibility: Eligibility
    takers: tuple[int, ...]

    @staticmethod
    def of(
        eligibility: Eligibility, tokens: int, answers: int, outputs: Outputs, affinity: Mapping[ModelRef, int]
    ) -> Evaluated:
        """What a constructor would make, without its frame.

        Args:
            eligibility: Who may take the call.
            tokens: Its expected input tokens.
            answers: How many answers it asks for.
            outputs: Means of the output tokens of the call's site, by arm; never changed.
            affinity: Nano-dollars that a warm cache is worth, by model.
        """
        new = Evaluated()
        new.eligibility, new.takers, new._tokens, new._answers = eligibility, eligibility.takers, tokens, answers
        new._outputs, new._affinity, new._entries = outputs, affinity or None, None
        return new

    def at_lengths(self, outputs: Outputs) -> Evaluated:
        """The same without warm caches, where answers are of other lengths."""
        return Evaluated.of(self.eligibility, self._tokens, self._answers, outputs, {})

    def cheapest(self, tier: int) -> int | None:
        """The place of the cheapest of a tier that may take the call, the first of several; ``None`` without any."""
        of, affinity = self.eligibility, self._affinity
        places = of.of_tier.get(tier)
        if places is None or len(places) == 1:
            return places and places[0]
        best, least = 0, -1
        for at, pico in enumerate(of.picousd(places, self._tokens, self._answers, self._outputs)):
            cost = -(-pico // PICO_PER_NANO)  # compared as it is booked: the first of equals is taken
            if affinity is not None:
                saving = affinity.get(of.targets[places[at]].plain, 0)
                cost = cost - saving if saving < cost else 0
            if cost < least or least < 0:
                best, least = at, cost
        return places[best]

    def _picousd(self, places: Iterable[int]) -> list[int]:
        return self.eligibility.picousd(places, self._tokens, self._answers, self._outputs)

    def entry(self, place: int) -> EvaluatedCandidate:
        """One of them."""
        return self._write(place, *self._picousd((place,))) if self._entries is None else self._entries[place]

    def _write(self, place: int, pico: int) -> EvaluatedCandidate:
        of, cold, saving = self.eligibility, ceil_picousd(pico), ZERO
        target = of.targets[place]
        if self._affinity is not None:
            saving = NanoUSD(min(cold, self._affinity.get(target.plain, 0)))
        cost = NanoUSD(cold - saving) if saving else cold
        return EvaluatedCandidate(target, of.candidates[place].tier, cost, text(of.reasons[place]), saving)

    def eligible(self) -> list[EvaluatedCandidate]:
        """Those that may take the call."""
        return [self._write(*each) for each in zip(self.takers, self._picousd(self.takers), strict=True)]

    def _all(self) -> tuple[EvaluatedCandidate, ...]:
        if self._entries is None:
            self._entries = tuple([self._write(*each) for each in enumerate(self._picousd(range(len(self))))])
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
