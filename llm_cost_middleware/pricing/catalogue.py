"""Catalogue of prices: layered sources, compiled once per model, period and terms, then looked up.

Layers from bottom to top: genai-prices' dated prices, the package's overlay, the user's configuration. The network is
used only with ``update_prices``. The time is always an argument.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import Any
from weakref import WeakSet

from msgspec import structs

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.limits import ModelLimits, find_limits
from llm_cost_middleware.money import DisplayCurrency
from llm_cost_middleware.platform import (
    PLATFORMS,
    PROVISIONED,
    REGIONAL,
    Platform,
    find_platform,
    names_of_target,
    served_model,
)
from llm_cost_middleware.pricing.compose import (
    NEWEST,
    PricedModel,
    Terms,
    change_moments,
    compose,
    highest_rates,
    possible_service_tiers,
)
from llm_cost_middleware.pricing.contracts import Contract, discounted
from llm_cost_middleware.pricing.genai import GenaiPrices, family_of, installed_version, names_model
from llm_cost_middleware.pricing.overlay import Overlay, configured, packaged
from llm_cost_middleware.pricing.rates import Rates
from llm_cost_middleware.request import EMPTY


class Catalogue:
    """Prices by provider, model, moment and terms.

    Args:
        overrides: ``[prices]`` table of a configuration; see ``pricing.overlay`` for its form.
        update_prices: Fetch today's published prices once, when the first price is needed; a string is the URL to
            fetch them from. ``version`` then contains a digest of the fetched data.

    Raises:
        ConfigurationError: Invalid ``overrides``.
    """

    _lock = ForkSafeLock()

    def __init__(self, overrides: Mapping[str, Any] | None = None, *, update_prices: bool | str = False) -> None:
        self._own = configured(overrides)
        self._below: Overlay | None = None
        self._above: WeakSet[Catalogue] = WeakSet()
        self._update = update_prices
        self.table: dict[tuple[str, str], PricedModel] = {}
        """The layers of the models that were asked for; where other prices come in force, another table."""
        self.plain: dict[Any, Any] = {}
        """What ``metering`` worked out of it for plain answers: as long as the table."""
        self.laid: Mapping[str, Any] = EMPTY
        """What ``with_prices`` laid over the catalogue that this one was made of."""

    def with_prices(self, prices: Mapping[str, Any]) -> Catalogue:
        """Return this catalogue with a host's prices (of a router's deployments) as a layer below the user's own.

        This one stays as it is: such prices hold for the calls of that host alone.

        Raises:
            ConfigurationError: Invalid ``prices``.
        """
        scoped = Catalogue(update_prices=self._update)
        scoped._below = configured(prices)
        # Published prices are read, or fetched, once for all catalogues that stand on them.
        vars(scoped)["_source"] = self._source
        scoped.laid = prices
        with self._lock:
            scoped._stand_on(self._own)
            self._above.add(scoped)
        return scoped

    def without_contracts(self) -> Catalogue:
        """Return this catalogue at list prices: without the discounts of contracts."""
        listed = Catalogue(update_prices=self._update)
        listed._own = self._own._replace(contracts=())
        vars(listed)["_source"] = self._source
        return listed

    def without_own(self) -> Catalogue:
        """Return this catalogue without the user's own prices and contracts."""
        listed = Catalogue(update_prices=self._update)
        vars(listed)["_source"] = self._source
        return listed

    def reprice(self, overrides: Mapping[str, Any]) -> None:
        """Put other prices of the user's own in force, here and in every catalogue that stands on this one.

        Raises:
            ConfigurationError: Invalid ``overrides``; then nothing is changed.
        """
        self._stand_on(configured(overrides))

    def _stand_on(self, users: Overlay) -> None:
        with self._lock:
            below = self._below
            own = (
                users
                if below is None
                else users._replace(blocks=(*below.blocks, *users.blocks), digest=f"{users.digest}+{below.digest}")
            )
            self._own = own
            # After the prices: whoever fills the new tables reads these, and the old ones are nobody's any more.
            self.table, self.plain = {}, {}
            for scoped in tuple(self._above):
                scoped._stand_on(own)  # noqa: SLF001 - one of this class

    @property
    def currency(self) -> DisplayCurrency | None:
        """What people are shown amounts in; ``None``: US dollars."""
        return self._own.currency

    @property
    def contracts(self) -> tuple[Contract, ...]:
        """Discounts of the list price, whenever they hold."""
        return self._own.contracts

    @cached_property
    def _source(self) -> GenaiPrices:
        return GenaiPrices(update=self._update)

    @property
    def version(self) -> str:
        """Version of every layer: genai-prices (``~`` and a digest when updated), the overlay, the user's prices."""
        return f"{self._listed_version}, own {self._own.digest}"

    @cached_property
    def _listed_version(self) -> str:
        base = self._source.version if self._update else installed_version()
        return f"genai-prices {base}, overlay {packaged().digest}"

    @property
    def looked_at(self) -> float | None:
        """When the prices of this package were last looked at, seconds since the Unix epoch.

        The snapshot beside them has no date of its own. ``None`` where prices are fetched at start.
        """
        return None if self._update else packaged().checked

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
        """Return the rates of a model.

        Args:
            provider: ``anthropic`` or ``openai``.
            model: Name of the model in a response or a request.
            at: Seconds since the epoch; ``None`` means the newest price.
            service_tier: As in the response: ``default``, ``flex``, ``priority`` …
            speed: As in the response: ``standard`` or ``fast``.
            geo: Place of processing as in the response: ``us``, ``global`` …
            batch: Processed in a batch.

        Raises:
            PriceNotFoundError: No source has the model; the error names the nearest known ones.
        """
        # Rates change only at ``breaks``: the index of the period is the key, so a lookup costs one bisection.
        priced = self.priced(provider, model)
        when = NEWEST if at is None else at
        key = (bisect_right(priced.breaks, when), service_tier, speed, geo, batch)
        found = priced.compiled.get(key)
        if found is None:
            composed = compose(priced, when, Terms(service_tier, speed, geo, batch))
            found = priced.compiled[key] = discounted(composed, priced.contracts, when)
        return found

    def upper_bound_rates(
        self, provider: str, model: str, *, at: float | None = None, params: Mapping[str, Any] = EMPTY
    ) -> Rates:
        """Return rates for a bound: at every context length the highest that a request could be served at.

        Args:
            provider: ``anthropic`` or ``openai``.
            model: The model.
            at: Seconds since the epoch; ``None`` means the newest price.
            params: The request's ``service_tier``, ``speed``, ``inference_geo`` and ``batch``. The account may decide
                what is missing (a project's default tier, a workspace's place): the highest price counts.

        Raises:
            PriceNotFoundError: No source has the model.
        """
        priced = self.priced(provider, model)
        when = NEWEST if at is None else at
        tier = speed = geo = None
        if params:
            tier, speed, geo = (
                _text_param(params, "service_tier"),
                _text_param(params, "speed"),
                _text_param(params, "inference_geo"),
            )
        key = (bisect_right(priced.breaks, when), tier, speed, geo, bool(params.get("batch")))
        found = priced.upper_bounds.get(key)
        if found is None:
            candidates = [
                self.rates(provider, name, at=at, service_tier=t, speed=speed, geo=g, batch=key[4])
                for name in (model, *priced.relatives)  # an unlisted snapshot may cost what any of its family does
                for t in possible_service_tiers(priced, tier)
                for g in ([geo] if geo else [None, *priced.possible_terms("geo")])
            ]
            found = highest_rates(candidates)
            if priced.relatives:
                found = replace(found, notes=candidates[0].notes[:1])
            priced.upper_bounds[key] = found
        return found

    def limits(self, provider: str, model: str) -> ModelLimits:
        """Return context window and output limits of a model, unknown ones ``None``. Never raises."""
        found = find_limits(provider, model)
        if found.context_window is not None:
            return found
        try:
            listing = self.priced(provider, model).listing
        except PriceNotFoundError:
            return found
        return found if listing is None else structs.replace(found, context_window=listing.context_window)

    def models(self, provider: str) -> tuple[str, ...]:
        """Return every model with a price, sorted."""
        own = {block.model for block in (*packaged().blocks, *self._own.blocks) if block.provider == provider}
        platform = find_platform(provider)
        listed = self._source.names(provider) if platform is None else self._makers.models(platform.provider)
        return tuple(sorted(own.union(listed)))

    def _price_model(self, provider: str, model: str) -> PricedModel:
        ref, table = model.lower().removeprefix(f"{provider}/"), self.table
        try:
            platform = find_platform(provider)
            priced = self._listed(provider, ref) if platform is None else self._hosted(platform, ref)
        except PriceNotFoundError:
            relatives = self._family(provider, ref)
            if not relatives:
                advice = _advice(provider, model) or self._whose(provider, ref)
                raise PriceNotFoundError(provider, model, self.models(provider), advice) from None
            listed = self._listed(provider, relatives[0])
            priced = replace(listed, relatives=relatives, compiled={}, upper_bounds={})
        table[provider, model] = priced
        return priced

    def _whose(self, provider: str, ref: str) -> str:
        """That a name without a price here is another maker's, where it is."""
        platforms = () if find_platform(provider) else map(find_platform, PLATFORMS)
        for other in dict.fromkeys(platform.provider for platform in platforms if platform is not None):
            with suppress(PriceNotFoundError):
                self._listed(other, ref)
                return f"; {other} has a model of that name: call it there, unless a gateway serves it here"
        return ""

    @cached_property
    def _makers(self) -> Catalogue:
        """The providers' list prices, which platforms' are made from: what is paid a provider is no platform's."""
        return self.without_own()

    def _hosted(self, platform: Platform, ref: str) -> PricedModel:
        """The layers of a platform's model. Raises ``PriceNotFoundError``."""
        served = platform.parse(ref)
        stated = [one for one in self._own.blocks if one.provider == platform.name]
        own = tuple(one for one in stated if names_model(one.model, ref))
        names = names_of_target(platform.name, ref)
        if not own:
            own = tuple(one for one in stated if names_model(one.model, names[-1]))
        if served is None and not any("input_mtok" in block.card for block in own):
            raise PriceNotFoundError(platform.name, ref)
        listing, factor, blocks = None, Decimal(1), own
        relatives: tuple[str, ...] = ()
        if served is not None:
            listed = ((self._source.find(platform.price_source, name), by) for name, by in platform.listed_as(served))
            listing, factor = next(
                ((one, by) for one, by in listed if one is not None), (None, platform.factor(served))
            )
            if listing is None and served.place != PROVISIONED:
                base = self._makers.priced(served.provider, served.model)
                listing, relatives, blocks = base.listing, base.relatives, (*base.blocks, *own)
        if listing is None and not any("input_mtok" in block.card for block in blocks):
            raise PriceNotFoundError(platform.name, ref)
        paid = any("input_mtok" in block.card for block in own)
        contracts = (
            ()
            if own
            else tuple(one for one in self._own.contracts if any(one.covers(platform.name, name) for name in names))
        )
        unplaced = served is not None and served.place in ("", REGIONAL) and not paid
        return PricedModel(
            provider=platform.name,
            id=ref,
            listing=listing,
            blocks=own if paid else blocks,
            rules={
                **packaged().rules.get(platform.provider, EMPTY),
                "geo": EMPTY,
                **packaged().rules.get(platform.name, EMPTY),
            },
            breaks=change_moments(listing, (*blocks, *contracts)),
            relatives=relatives,
            contracts=contracts,
            factor=Decimal(1) if paid else factor,
            notes=(_UNPLACED.format(platform.name),) if unplaced and factor != 1 else (),
        )

    def priced(self, provider: str, model: str) -> PricedModel:
        """The price layers of a model. Raises ``PriceNotFoundError``."""
        return self.table.get((provider, model)) or self._price_model(provider, model)

    def _family(self, provider: str, ref: str) -> tuple[str, ...]:
        """Every name with a price of the family of a snapshot: the undated one first, then the latest."""
        family = family_of(ref)
        if family is None:
            return ()
        dated = [name for name in self.models(provider) if family_of(name) == family]
        try:
            self._listed(provider, family)
        except PriceNotFoundError:
            return tuple(reversed(dated))
        return (family, *reversed(dated))

    def _listed(self, provider: str, ref: str) -> PricedModel:
        """The layers of a model that has a price under this very name. Raises ``PriceNotFoundError``."""
        listing = self._source.find(provider, ref)
        known = listing.id if listing else None
        blocks = tuple(
            block
            for block in (*packaged().blocks, *self._own.blocks)
            if block.provider == provider and (block.model == known or names_model(block.model, ref))
        )
        alias = next((block.same_as for block in blocks if block.same_as), None)
        if listing is None and alias is not None:
            listing = self._source.find(provider, alias.partition("/")[2])
        if listing is None and not any("input_mtok" in block.card for block in blocks):
            raise PriceNotFoundError(provider, ref)
        own = blocks[-1].model if blocks else ref
        # What somebody wrote down as his price is what he pays.
        paid = any(block in self._own.blocks for block in blocks)
        contracts = () if paid else tuple(one for one in self._own.contracts if one.covers(provider, known or ref))
        return PricedModel(
            provider=provider,
            id=known or own,
            listing=listing,
            blocks=blocks,
            rules=packaged().rules.get(provider, EMPTY),
            breaks=change_moments(listing, (*blocks, *contracts)),
            contracts=contracts,
        )


_UNPLACED = "where it is served is not known: priced at the dearest place ([platforms.{}] place, or its deployments)"


def _text_param(params: Mapping[str, Any], name: str) -> str | None:
    value = params.get(name)
    return value if isinstance(value, str) else None


def _advice(provider: str, model: str) -> str:
    """What is wrong with a name without a price, or what to write where only its owner may know the model of it."""
    platform, table = find_platform(provider), f"[platforms.{provider}.deployments]"
    if platform is None:
        routed = "; it is the name that SDK clients and routers route, and no model: name one, or list [[tiers]]"
        return routed if model == "smart" else ""
    if served_model(provider, model).place == PROVISIONED:
        return f'; of a deployment, add input_mtok and output_mtok to it in {table}, "0" where the hour is paid'
    named = model.removeprefix(f"{provider}/")
    place, _, bare = named.rpartition("/")
    if place and not named.startswith("arn:") and platform.parse(bare) is not None and platform.parse(named) is None:
        return f"; {place!r} is no place of {provider}: correct the region that is called"
    if not (platform.deploys or model.startswith("arn:")):
        return ""
    corrected = ", or correct it where one states it as its model" if platform.deploys else ""
    return f'; of a deployment, name the model: {table} "{model}" = "MODEL"{corrected}'
