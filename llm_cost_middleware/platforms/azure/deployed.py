"""Types of deployments on Azure, by the names of their SKUs, and where each is served.

Source: learn.microsoft.com, "Deployment types" of Azure OpenAI ("SKU name in code"): a global one is served anywhere,
one of a data zone in the zone that its resource's region is in, a standard one in that region itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.platform import GLOBAL, PROVISIONED
from llm_cost_middleware.platforms.azure.places import geography

_ZONE, _REGION = "zone", "region"
TYPES: Mapping[str, str] = {
    "GlobalStandard": GLOBAL,
    "GlobalBatch": GLOBAL,
    "DeveloperTier": GLOBAL,
    "DataZoneStandard": _ZONE,
    "DataZoneBatch": _ZONE,
    "Standard": _REGION,
    "GlobalProvisionedManaged": PROVISIONED,
    "DataZoneProvisionedManaged": PROVISIONED,
    "ProvisionedManaged": PROVISIONED,
}
"""Whence a deployment of a type is served."""
_WORDS = {name.lower(): served for name, served in TYPES.items()} | {"global": GLOBAL, "provisioned": PROVISIONED}
_ZONES = ("us", "eu", "apac")


def deployed_at(kind: str, region: str, place: str, usual: str, key: str) -> str:
    """Return the place of a deployment.

    Args:
        kind: Its type as stated; empty: not stated.
        region: That of its resource, as a place; empty: not stated.
        place: Where it is served, as stated; empty: not stated.
        usual: The place of deployments that say nothing.
        key: Where it is stated, for a refusal.

    Raises:
        ConfigurationError: What is stated contradicts itself, or does not say where it is served.
    """
    served = _served(kind, key)
    if region and not geography(region):
        raise ConfigurationError(f"{region!r} is no region of azure", key=f"{key}.region")
    if PROVISIONED in (served, place):
        return PROVISIONED
    zone = geography(region) if region else geography(place)
    if place and region and place not in (region, zone):
        known = served == GLOBAL and place == GLOBAL
        if not known:
            advice = 'add type = "GlobalStandard" if it is served anywhere' if place == GLOBAL else "state one of them"
            raise ConfigurationError(f"says both region {region!r} and place {place!r}: {advice}", key=key)
    if served == GLOBAL:
        if place not in ("", GLOBAL):
            raise ConfigurationError(f"says both type {kind!r} and place {place!r}: state one of them", key=key)
        return GLOBAL
    if served is None:
        return place or region or usual
    stated = place or region
    if stated == GLOBAL or (not stated and usual in ("", GLOBAL)):
        raise ConfigurationError(
            f'a deployment of type {kind!r} needs the region of its resource: region = "…"', key=key
        )
    if served == _REGION:
        return stated or usual
    zone = zone if stated else geography(usual)
    return zone if zone in _ZONES else stated or usual


def is_batch_type(kind: str) -> bool:
    """Whether deployments of a type answer batches, and nothing else."""
    return _word(kind).endswith("batch")


def _word(kind: str) -> str:
    return "".join(filter(str.isalnum, kind)).lower()  # documents write Global-Standard and Global Standard, too


def _served(kind: str, key: str) -> str | None:
    word = _word(kind)
    if not word:
        return None
    if word not in _WORDS:
        near = get_close_matches(word, _WORDS, n=1) if len(word) < _LONG else []
        meant = next((name for name in TYPES if name.lower() == near[0]), near[0]) if near else ""
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise ConfigurationError(
            f"{kind[:_LONG]!r} is no type of deployment: {', '.join(TYPES)}{hint}", key=f"{key}.type"
        )
    return _WORDS[word]


_LONG = 64
