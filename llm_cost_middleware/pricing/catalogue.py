"""The catalogue of prices: sources laid over one another, compiled once a (model, period, terms), then looked up.

From below: genai-prices' dated prices, the package's overlay, the user's configuration. Nothing here touches the
network unless asked to, and nothing reads the time: the caller says when.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.compose import Entry, Terms, change_moments, compose, dearest_of, tiers_for
from llm_cost_middleware.pricing.genai import GenaiPrices, installed_version, names
from llm_cost_middleware.pricing.limits import ModelLimits, find_limits
from llm_cost_middleware.pricing.overlay import Overlay, configured, packaged
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.request import EMPTY

_NEWEST = float("inf")


class Catalogue:
    """Prices by provider, model, moment and terms.

    Args:
        overrides: The ``[prices]`` table of a configuration; see ``pricing.overlay`` for its form.
        update_prices: Fetch today's published prices once, when the first price is asked for; a text is the address
            to fetch them from. ``version`` tells that this was done, and which data came.

    Raises:
        ConfigurationError: ``overrides`` are not usable.
    """

    def __init__(self, overrides: Mapping[str, Any] | None = None, *, update_prices: bool | str = False) -> None:
        self._own = configured(overrides)
        self._update = update_prices
        self._version: str | None = None
        self._entries: dict[tuple[str, str], Entry] = {}

    def lay_under(self, prices: Mapping[str, Any]) -> None:
        """Add prices that a host knows (those of a router's deployments) beneath the user's own.

        Raises:
            ConfigurationError: They are not usable.
        """
        below = configured(prices)
        digest = f"{self._own.digest}+{below.digest}"
        self._own = Overlay((*below.blocks, *self._own.blocks), self._own.rules, digest)
        self._entries, self._version = {}, None

    @cached_property
    def _source(self) -> GenaiPrices:
        return GenaiPrices(update=self._update)

    @property
    def version(self) -> str:
        """The snapshot of prices: genai-prices' version (``~`` and a digest when updated), the overlay's, your own."""
        if self._version is not None:
            return self._version
        base = self._source.version if self._update else installed_version()
        told = f"genai-prices {base}, overlay {packaged().digest}, own {self._own.digest}"
        if not self._update:  # asked for with every price
            self._version = told
        return told

    def rates(
        self,
        provider: str,
        model: str,
        at: float | None = None,
        service_tier: str | None = None,
        speed: str | None = None,
        geo: str | None = None,
        batch: bool = False,
    ) -> Rates:
        """What a model charges.

        Args:
            provider: ``anthropic`` or ``openai``.
            model: The model as a response or a caller names it.
            at: Seconds since the epoch; ``None`` means the newest price.
            service_tier: As the response says: ``default``, ``flex``, ``priority`` …
            speed: As the response says: ``standard`` or ``fast``.
            geo: Where it was processed, as the response says: ``us``, ``global`` …
            batch: It ran in a batch.

        Raises:
            PriceNotFoundError: No source knows the model; the error names the nearest that are known.
        """
        entry = self._entries.get((provider, model)) or self._enter(provider, model)
        when = _NEWEST if at is None else at
        key = (bisect_right(entry.breaks, when), service_tier, speed, geo, batch)
        found = entry.compiled.get(key)
        if found is None:
            found = entry.compiled[key] = compose(entry, when, Terms(service_tier, speed, geo, batch))
        return found

    def dearest(
        self, provider: str, model: str, *, at: float | None = None, params: Mapping[str, Any] = EMPTY
    ) -> Rates:
        """Rates for a bound: at every context length the dearest that a request could be served at.

        Args:
            provider: ``anthropic`` or ``openai``.
            model: The model that will be asked.
            at: Seconds since the epoch; ``None`` means the newest price.
            params: The request's ``service_tier``, ``speed``, ``inference_geo`` and ``batch``. What is not said may be
                decided by the account (a project's default tier, a workspace's place), and counts at its dearest.

        Raises:
            PriceNotFoundError: No source knows the model.
        """
        entry = self._entries.get((provider, model)) or self._enter(provider, model)
        when = _NEWEST if at is None else at
        tier = speed = geo = None
        if params:
            tier, speed, geo = _named(params, "service_tier"), _named(params, "speed"), _named(params, "inference_geo")
        key = (bisect_right(entry.breaks, when), tier, speed, geo, bool(params.get("batch")))
        found = entry.dearest.get(key)
        if found is None:
            candidates = [
                self.rates(provider, model, at=at, service_tier=t, speed=speed, geo=g, batch=key[4])
                for t in tiers_for(entry, tier)
                for g in ([geo] if geo else [None, *entry.may_become("geo")])
            ]
            found = entry.dearest[key] = dearest_of(candidates)
        return found

    def limits(self, provider: str, model: str) -> ModelLimits:
        """Context window and output limits of a model, unknown ones ``None``. Never raises."""
        found = find_limits(provider, model)
        if found.context_window is not None:
            return found
        try:
            listing = (self._entries.get((provider, model)) or self._enter(provider, model)).listing
        except PriceNotFoundError:
            return found
        return found if listing is None else found._replace(context_window=listing.context_window)

    def models(self, provider: str) -> tuple[str, ...]:
        """Every model with a price, sorted."""
        own = {block.model for block in (*packaged().blocks, *self._own.blocks) if block.provider == provider}
        return tuple(sorted(own | set(self._source.names(provider))))

    def _enter(self, provider: str, model: str) -> Entry:
        ref = model.lower().removeprefix(f"{provider}/")
        listing = self._source.find(provider, ref)
        known = listing.id if listing else None
        blocks = tuple(
            block
            for block in (*packaged().blocks, *self._own.blocks)
            if block.provider == provider and (block.model == known or names(block.model, ref))
        )
        alias = next((block.same_as for block in blocks if block.same_as), None)
        if listing is None and alias is not None:
            listing = self._source.find(provider, alias.partition("/")[2])
        if listing is None and not any("input_mtok" in block.card for block in blocks):
            raise PriceNotFoundError(provider, model, self.models(provider))
        own = blocks[-1].model if blocks else ref
        entry = Entry(
            provider=provider,
            id=known or own,
            listing=listing,
            blocks=blocks,
            rules=packaged().rules.get(provider, EMPTY),
            breaks=change_moments(listing, blocks),
        )
        self._entries[provider, model] = entry
        return entry


def _named(params: Mapping[str, Any], name: str) -> str | None:
    value = params.get(name)
    return value if isinstance(value, str) else None
