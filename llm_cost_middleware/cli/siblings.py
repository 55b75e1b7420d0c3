"""Newer and cheaper siblings of configured models, from the prices and the dated tiers that are installed.

A sibling has the same name but for the version (``claude-haiku-4-5``, ``claude-haiku-5-5``; ``gpt-5-mini``,
``gpt-5.4-mini``), or stands where the model's tier stands in the dated tiers: providers rename their lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.pricing.successors import newer_models
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.policy import Tier

_TOKENS = 1_000


class _Price(NamedTuple):
    """US dollars a million tokens."""

    input: float
    output: float

    def __str__(self) -> str:
        return f"${self.input:g}/${self.output:g}"


class Sibling(NamedTuple):
    """A configured model that has one."""

    target: ModelRef
    cheaper: bool
    told: str
    """The best of them, in a sentence."""


def siblings(tiers: Sequence[Tier], todays: Sequence[Tier], catalogue: Catalogue) -> Iterator[Sibling]:
    """Yield the models that have a newer or a cheaper sibling.

    Args:
        tiers: The configured tiers.
        todays: The dated tiers.
        catalogue: Prices, in whose names siblings are looked for.
    """
    for place, tier in enumerate(tiers):
        successors = todays[place].models if len(todays) == len(tiers) else ()
        for target in dict.fromkeys(arm.plain for arm in tier.models):
            price = _price(catalogue, target)
            if price is None:
                continue
            newer = newer_models(catalogue, target)
            newer += [other for other in successors if other.provider == target.provider and other not in newer]
            known = [(other, paid) for other in newer if other != target and (paid := _price(catalogue, other))]
            cheaper = [pair for pair in known if pair[1].input <= price.input and pair[1].output <= price.output]
            best = min(cheaper, key=lambda pair: pair[1].input + pair[1].output, default=None)
            if best is not None:
                less = "costs no more" if best[1] == price else "costs less"
                told = f"{best[0].model} is newer and {less}: {best[1]} a million tokens for {price}"
                yield Sibling(target, best[1] != price, told)
            elif known:
                other, paid = known[0]
                yield Sibling(
                    target, cheaper=False, told=f"{other.model} is newer: {paid} a million tokens for {price}"
                )


def _price(catalogue: Catalogue, target: ModelRef) -> _Price | None:
    try:
        if not catalogue.limits(*target).max_output:
            return None
        level = catalogue.rates(*target).level(_TOKENS)
    except LLMCostError:
        return None
    return _Price(level.uncached_input / 1e6, level.output / 1e6)
