"""What a name of a router reaches, and what calls can be routed to: the values that ``groups`` reads off a router."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.gateways import is_gateway
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import ModelRef

_log = logging.getLogger(__name__)


class PricedDeployment(NamedTuple):
    """What one deployment is billed at."""

    prices: Catalogue
    own: bool
    """They are its own, and hold whatever model its answers name."""


class Group(NamedTuple):
    """What a name reaches, where it can be governed."""

    target: ModelRef
    """The model it calls; where it mixes models, the one that costs the most."""
    prices: Catalogue | None
    """The prices of its own deployments, where they have any: they hold for its calls alone."""
    alternatives: tuple[ModelRef, ...]
    """The models among which LiteLLM chooses; none where it is one."""
    defaults: Mapping[str, Any]
    own_timeout: bool
    shadowed: bool
    """A deployment has a ``silent_model``: LiteLLM would send each chat there too, unless it is kept from it."""
    places_marks: bool
    """LiteLLM places cache marks of its own."""
    access: Mapping[str, Any] | None = None
    """The parameters of the deployment whose key may count input; ``None`` where they are of several models."""
    addresses: tuple[str, ...] = ()
    """Those of its deployments that have one of their own."""
    apart: Mapping[Any, PricedDeployment] = MappingProxyType({})
    """Its deployments by their ids, where those of one model differ in price."""


class ServedModels(NamedTuple):
    """The models of a router that calls can be routed to."""

    groups: Mapping[ModelRef, str]
    """Each with the group that serves it."""
    reach: frozenset[str]
    """The same models, by provider and name."""
    prices: Catalogue | None
    """The prices of those whose groups have their own."""
    own_priced: frozenset[ModelRef]
    """Those models."""
    places_marks: bool
    """LiteLLM places cache marks of its own for some of them."""
    router_id: int
    """Tells the router from others of the process."""
    mocked: frozenset[Any] = frozenset()
    """The ids of the deployments whose chats LiteLLM answers by itself."""
    access: Mapping[ModelRef, Mapping[str, Any]] = MappingProxyType({})
    """The parameters of a deployment of each model."""
    addresses: tuple[tuple[ModelRef, str], ...] = ()
    """Of deployments that have one of their own."""
    found: list[tuple[CostConfig, frozenset[ModelRef]]] = []  # noqa: RUF012 - of the one without addresses
    """What ``behind_gateways`` has found."""
    hidden: Mapping[ModelRef, str] = MappingProxyType({})
    """The models that stand only in groups that calls cannot be routed to, each with the reason."""
    told: set[ModelRef] = set()  # noqa: RUF012 - of the one without any
    """Those that ``tell_hidden`` has told."""

    def tell_hidden(self, config: CostConfig) -> None:
        """Say once of each model of a tier that no routed call can go to it, though the router has it."""
        for tier in config.tiers:
            for arm in tier.models:
                if (why := self.hidden.get(arm.plain)) and arm.plain not in self.told:
                    self.told.add(arm.plain)
                    _log.warning(
                        "tier %s: no routed call goes to %s: %s; give it a model_name of its own",
                        tier.name,
                        arm.plain,
                        why,
                    )

    def behind_gateways(self, config: CostConfig) -> frozenset[ModelRef]:
        """The models that a gateway serves, if only one of several deployments."""
        if not self.addresses:
            return frozenset()
        if not self.found or self.found[0][0] is not config:
            behind = (target for target, address in self.addresses if is_gateway(config, target.provider, address))
            self.found[:] = [(config, frozenset(behind))]
        return self.found[0][1]
