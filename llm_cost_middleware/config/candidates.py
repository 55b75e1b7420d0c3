"""Candidates of routing: the configured models with today's prices, and the reason why one is unavailable."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import Any

from msgspec import Struct

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.platform import find_platform, is_inside, served_model, why_outside
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.eligibility import Candidate, CandidateSet

_log = logging.getLogger(__name__)

_DAY_S = 86_400
_HOSTS = 256
_CAPABILITIES = frozenset({"tools", "images", "documents", "schema"})
_NAMED = 3
"""Providers that a reason names."""


class _Day(Struct, frozen=True):
    """The candidates of a host on one day."""

    midnight: float
    """When it began, seconds since the Unix epoch."""
    priced_by: Any
    """The table of the catalogue's prices that they were made by: others have another."""
    candidates: CandidateSet


class ConfiguredModels:
    """Models of a configuration's tiers. Prices are looked up once per day.

    Args:
        config: The tiers, and the names of the variables that hold the keys.
        catalogue: The prices.
        clock: Tells the day.
    """

    def __init__(self, config: CostConfig, catalogue: Catalogue, clock: Clock) -> None:
        self._config, self._catalogue, self._clock = config, catalogue, clock
        self._of_day: dict[tuple[frozenset[str] | None, Any], _Day] = {}
        self._unpriced: set[ModelRef] = set()

    def for_providers(self, providers: frozenset[str] | None, prices: Any = None) -> CandidateSet:
        """Return the candidates of a host.

        Args:
            providers: Providers that the host reaches, or single models as ``provider/model``; ``None``: the
                providers with a key in the environment.
            prices: The catalogue that holds for the call; ``None``: the pipeline's.
        """
        # Kept for a day: routing only compares models. Bounds and bills are priced at the time of the call.
        now, priced_by, key = self._clock.now(), self._catalogue.table, (providers, prices)
        known = self._of_day.get(key)
        if known is not None and 0 <= now - known.midnight < _DAY_S and known.priced_by is priced_by:
            return known.candidates
        tiers = enumerate(self._config.tiers)
        catalogue = prices or self._catalogue
        made = CandidateSet(
            self._make(target, index, providers, catalogue, now) for index, tier in tiers for target in tier.models
        )
        if providers is not None:  # without: who sends by himself has keys that nobody sees
            made.out_of_reach = partial(self._out_of_reach, providers=providers)
        if len(self._of_day) >= _HOSTS:
            self._of_day.clear()
        self._of_day[key] = _Day(now - now % _DAY_S, priced_by, made)
        return made

    def _make(
        self, target: ModelRef, tier: int, providers: frozenset[str] | None, catalogue: Catalogue, now: float
    ) -> Candidate:
        limits = catalogue.limits(target.provider, target.model)
        unavailable = self._out_of_reach(target, providers) or self._elsewhere(target)
        prices = (0, 0)
        try:
            level = catalogue.rates(target.provider, target.model, at=now).levels[0]
            prices = (level.uncached_input, level.output)
        except PriceNotFoundError as error:
            if unavailable is None and target not in self._unpriced:  # said once, or a misspelt one is never missed
                self._unpriced.add(target)
                _log.warning("tier %s: %s: it is never called", self._config.tiers[tier].name, error)
            unavailable = str(error)
        return Candidate(target, tier, *prices, limits.context_window, limits.max_output, _CAPABILITIES, unavailable)

    def _elsewhere(self, target: ModelRef) -> str | None:
        """Why a target may not be used, or has no name to be called by, where it is served."""
        regions, section = self._config.routing.regions, self._config.platforms.get(target.provider)
        if regions and not is_inside(target.provider, target.model, regions):
            advice = "" if section is not None else "; a platform may serve it there: llm-cost help platforms"
            return why_outside(target.provider, target.model, regions) + advice
        if section is not None and section.wire(target) is None:
            return f"no deployment of it in [platforms.{target.provider}.deployments]"
        return None

    def _out_of_reach(self, target: ModelRef, providers: frozenset[str] | None) -> str | None:
        if providers is not None:
            place = served_model(*target.plain).place  # a client may be bound to one
            reached = not providers.isdisjoint((target.provider, str(target.plain), f"{target.provider}/{place}"))
            named = "" if reached else _named(providers, target.provider)
            return None if reached else f"cannot be reached from here, which calls {named}"
        platform, access = find_platform(target.provider), self._config.access(target.provider)
        variables = (access.api_key_env,) if access.api_key_env or platform is None else platform.key_env
        return None if any(map(os.environ.get, variables)) else f"no key in {' or '.join(variables)}"


def _named(providers: frozenset[str], asked: str) -> str:
    """What a host calls, in few words: it stands in the log of every decision, and a router may have hundreds."""
    names = sorted({one.partition("/")[0] for one in providers})
    if asked in names:
        return f"other models of {asked}"
    return " and ".join(names[:_NAMED]) + (" and others" if len(names) > _NAMED else "")
