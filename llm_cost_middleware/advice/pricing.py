"""The price of one call as it might have been served: exact nano-dollars, price steps and cache buckets included."""

from __future__ import annotations

from typing import Any, NamedTuple

from llm_cost_middleware.advice.calls import BUCKETS, OUTPUT, CallGroup, Tokens
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import ModelRef

_PRICED = BUCKETS[: OUTPUT + 1]
_DAY = 86_400.0


class Served(NamedTuple):
    """How a call was served, or might have been."""

    provider: str
    model: str
    terms: tuple[tuple[str, Any], ...]
    tokens: Tokens

    @classmethod
    def of(cls, group: CallGroup, tokens: Tokens) -> Served:
        """As it was."""
        return cls(group.key.provider, group.key.billed, group.key.terms, tokens)


class Pricer:
    """Prices calls; keeps the rates of each model by the day, on which alone they change.

    Args:
        catalogue: The prices.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._levels: dict[tuple[Any, ...], tuple[tuple[int, ...], ...] | None] = {}

    def cost(self, served: Served, at: float) -> int | None:
        """Nano-dollars; ``None`` where there is no price."""
        levels = self.levels(served.provider, served.model, served.terms, at)
        if levels is None:
            return None
        fresh, read, five, hour, half, output, _ = served.tokens
        level = levels[0]
        if len(levels) > 1:
            whole = fresh + read + five + hour + half
            for other in levels[1:]:
                if whole <= other[0]:
                    break
                level = other
        pico = (
            fresh * level[1] + read * level[2] + five * level[3] + hour * level[4] + half * level[5] + output * level[6]
        )
        return -(-pico // 1_000)

    def levels(
        self, provider: str, model: str, terms: tuple[tuple[str, Any], ...], at: float
    ) -> tuple[tuple[int, ...], ...] | None:
        """The price levels on a day: input tokens above which each holds, then pico-dollars by bucket."""
        key = (provider, model, terms, at // _DAY)
        if key not in self._levels:
            self._levels[key] = self._find(provider, model, dict(terms), at)
        return self._levels[key]

    def _find(self, provider: str, model: str, terms: dict[str, Any], at: float) -> tuple[tuple[int, ...], ...] | None:
        try:
            rates = self._catalogue.rates(provider, model, at, **terms)
            if terms and rates.notes:  # no price for these terms: the standard one stands in
                return None
        except PriceNotFoundError:
            return None
        return tuple((level.above, *(getattr(level, name) for name in _PRICED)) for level in rates.levels)

    def context_window(self, target: ModelRef) -> int | None:
        """Most input of a model, tokens."""
        return self._catalogue.limits(*target).context_window
