"""What ``llm-cost doctor`` looks at of platforms: what stands behind their deployments, at what price, and where."""

from __future__ import annotations

import os

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.platforms import PlatformConfig
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.platform import PROVISIONED, REGIONAL, find_platform, is_inside, served_model
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import ModelRef

_Row = tuple[str, str, str]
_GOOD, _LOOK, _BAD = "ok", "look", "no"
_NAMED = 3
"""Deployments that a row names, at most."""


def check_platforms(config: CostConfig, catalogue: Catalogue) -> list[_Row]:
    """Rows for the platforms that a configuration names: their keys and their deployments."""
    tiers = {target.provider for tier in config.tiers for target in tier.models}
    rows: list[_Row] = []
    for name, section in config.platforms.items():
        if name in tiers or section.deployments or section.place or section.api_key_env:
            rows += [_key(name, section), *_deployments(name, section, config.routing.regions, catalogue)]
    return rows


def _key(name: str, section: PlatformConfig) -> _Row:
    platform = find_platform(name)
    known = platform.key_env if platform is not None and not section.api_key_env else (section.api_key_env,)
    found = next((variable for variable in known if os.environ.get(variable)), None)
    if found is not None:
        return _GOOD, name, f"key in {found}"
    return _LOOK, name, f"no key in {' or '.join(known)}: routed to by LiteLLM's groups alone"


def _deployments(name: str, section: PlatformConfig, regions: tuple[str, ...], catalogue: Catalogue) -> list[_Row]:
    rows: list[_Row] = []
    nowhere, outside = [], []
    for wire in section.deployments:
        target = section.target(wire)
        try:
            catalogue.rates(target.provider, target.model)
        except PriceNotFoundError as error:
            rows.append((_BAD, f"deployment {wire}", f"{_unpriced(target, error)}: every call of it is refused"))
            continue
        if served_model(*target.plain).place in ("", REGIONAL):
            nowhere.append(wire)
        elif regions and not is_inside(*target.plain, regions):
            outside.append(wire)
    if nowhere:
        told = f'held and booked at the dearest place, as an estimate: [platforms.{name}] place = "…"'
        rows.append((_LOOK, f"{name} deployments", f"nothing says where {_listed(nowhere)} is served: {told}"))
    if outside:
        told = f"[routing] regions = {[*regions]}: calls are refused"
        rows.append((_LOOK, f"{name} deployments", f"{_listed(outside)} is served outside {told}"))
    if section.deployments and not rows:
        rows.append((_GOOD, f"{name} deployments", f"{len(section.deployments)}, each with a place and a price"))
    return rows


def _unpriced(target: ModelRef, error: PriceNotFoundError) -> str:
    """What a deployment lacks: unlike the error of a call, a row knows that it is one, and which."""
    if served_model(*target.plain).place == PROVISIONED:
        return f'no price for {target}: add input_mtok and output_mtok to it, "0" where the hour is paid'
    meant = f"did you mean {error.nearest[0]!r}? " if error.nearest else ""
    return f'no price for {target}; {meant}correct its model, or state a price: [prices."{target}"]'


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
