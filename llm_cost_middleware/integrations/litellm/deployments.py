"""One entry of a router's ``model_list``: which model it calls, and at what price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import litellm
from litellm.litellm_core_utils.credential_accessor import CredentialAccessor

from llm_cost_middleware.config.gateways import platform_at
from llm_cost_middleware.config.platforms import PlatformConfig
from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.integrations.litellm.entry_points import deployment_id
from llm_cost_middleware.platform import Platform, at_place, platform_in_litellm
from llm_cost_middleware.providers import NAMES
from llm_cost_middleware.request import EMPTY, ModelRef

_PRICES: Mapping[str, str] = {
    "input_cost_per_token": "input_mtok",
    "output_cost_per_token": "output_mtok",
    "cache_read_input_token_cost": "cache_read_mtok",
    "cache_creation_input_token_cost": "cache_write_mtok",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_mtok",
    "input_cost_per_audio_token": "input_audio_mtok",
    "output_cost_per_audio_token": "output_audio_mtok",
}
"""LiteLLM's names of a deployment's own prices, in USD a token, and the catalogue's, in USD a million tokens."""
_MTOK = 10**6
WAYS = ("responses/", "chat_completions/", "converse/", "invoke/", "messages/", "o_series/", "gpt5_series/")
"""They choose LiteLLM's way to a model, and are no part of its name."""
Platforms = Mapping[str, PlatformConfig]
Prices = tuple[tuple[str, str], ...]
"""A deployment's own prices by their name in the catalogue; none where it has the model's."""


class Deployment(NamedTuple):
    """What matters here of one entry of a ``model_list``."""

    group: str
    target: ModelRef | None
    """``None``: a platform with prices of its own, or a provider that is not known."""
    prices: Prices
    params: Mapping[str, Any]
    id: Any = None


def deployment_of(entry: Mapping[str, Any], platforms: Platforms = EMPTY) -> Deployment:
    """What matters of an entry. ``platforms``: as for ``target_of``."""
    params: Mapping[str, Any] = entry["litellm_params"]
    return Deployment(
        entry["model_name"], target_of(params, platforms), tuple(own_prices(entry)), params, deployment_id(entry)
    )


def target_of(params: Mapping[str, Any], platforms: Platforms = EMPTY) -> ModelRef | None:
    """The model that parameters of LiteLLM name; ``None`` for platforms and providers that are not governed.

    Args:
        params: As of an entry, or of a request that is about to leave.
        platforms: ``[platforms]``: what stands behind the names of deployments.
    """
    params = _whole(params)
    called = _called(params)
    if called is None:
        return None
    provider, model = called
    if isinstance(provider, str):
        return None if _platform_of(provider, params) else ModelRef(provider, model)
    return target_at(provider, model, params, platforms)


def check_named(params: Mapping[str, Any], platforms: Platforms = EMPTY) -> None:
    """Look at a deployment of a platform whose models are called by names that only their owner can read.

    Raises:
        UnsupportedRequestError: Nobody says which model stands behind its name, or it is called as the provider's own.
    """
    params = _whole(params)
    platform, name = _called(params) or ("", "")
    if isinstance(platform, str):
        if there := _platform_of(platform, params):
            raise UnsupportedRequestError(f"{platform}/{name} at an address of {there}", f"call it {there}/{name}")
        return
    if not platform.deploys:
        return
    if target_at(platform, name, params, platforms) is None:
        raise UnsupportedRequestError(
            f"{platform.name}/{name}",
            f'nothing says which model it is: [platforms.{platform.name}.deployments] "{name}" = "MODEL"',
        )


def _platform_of(provider: str, params: Mapping[str, Any]) -> str | None:
    """The platform whose address a deployment of a provider's own has: its prices and places are not the provider's."""
    return platform_at(provider, params.get("api_base") or params.get("base_url")) if provider else None


def _whole(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters with those of a shared credential, which LiteLLM adds where they say nothing."""
    name = params.get("litellm_credential_name")
    return {**CredentialAccessor.get_credential_values(name), **params} if name else params


def _called(params: Mapping[str, Any]) -> tuple[str | Platform, str] | None:
    """The provider or the platform that is called, and by which name; ``None`` for those that are not governed."""
    if (called := params.get("deployment_id")) is not None:  # LiteLLM calls it instead of the model, at Azure
        params = {**params, "model": str(called), "azure": True}
    if params.get("azure") is True:
        params = {**params, "custom_llm_provider": "azure"}
    try:
        model, provider, _, _ = litellm.get_llm_provider(
            model=litellm.model_alias_map.get(params["model"], params["model"]),
            custom_llm_provider=params.get("custom_llm_provider"),
            api_base=params.get("api_base"),
        )
    except Exception:  # noqa: BLE001 - whatever LiteLLM raises for a name it does not know: nothing we can govern
        return None
    for way in WAYS:
        model = model.removeprefix(way)
    if provider in NAMES:
        return provider, model
    platform = platform_in_litellm(provider)
    if platform is None:
        return None
    if called := params.get("model_id"):  # what LiteLLM calls in the model's place
        model = str(called)
    return platform, platform.litellm_deployment(params, model)


def target_at(
    platform: Platform, model: str, params: Mapping[str, Any], platforms: Platforms = EMPTY
) -> ModelRef | None:
    """The target that a name at a platform stands for, where its parameters send it.

    ``None`` for a name that only its owner can read, of a deployment or an ARN, which has no price here.
    """
    section = platforms.get(platform.name)
    if section is not None and model in section.deployments:
        model = section.target(model).model
    served = platform.parse(model)
    if served is None:
        return None
    place = platform.litellm_place(params, served.place)
    if place and place != served.place:
        bare = model.removeprefix(f"{served.place}/")
        named = at_place(bare, place)
        # of a word that is no place nobody knows where it is, whatever is configured
        return ModelRef(platform.name, named if platform.parse(named) is not None else bare)
    target = ModelRef(platform.name, model)
    return target if section is None else section.placed(target)


def own_prices(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A deployment's own prices, in USD a million tokens, by their name in the catalogue; sorted."""
    for source in (entry["litellm_params"], entry.get("model_info") or {}):
        found = {name: source[key] for key, name in _PRICES.items() if source.get(key) is not None}
        if found:
            for name in sorted(found):
                # the decimal that was written, not the binary float nearest to it
                yield name, f"{Decimal(repr(found[name])) * _MTOK:f}"
            return
