"""A configuration in LiteLLM's own terms: the keyword arguments of a router, and the file of a proxy."""

from __future__ import annotations

import json
import re
from typing import Any

from llm_cost_middleware.config import ConfigSource, CostConfig


def router_config(config: ConfigSource, *, routed: str | None = None) -> dict[str, Any]:
    """The keyword arguments of a plain ``litellm.Router`` with the models of a configuration's tiers.

    A plain router balances and retries, and knows no budget. Fallbacks lead from each model to the models of its own
    tier and of the stronger ones.

    Args:
        config: The configuration. Keys are read from the environment variables it names, when LiteLLM reads the list.
        routed: Also serve the cheapest tier's models, balanced, under this name, which a plain router cannot route.

    Returns:
        ``model_list``, ``num_retries``, ``retry_policy``, ``fallbacks``, ``timeout``; model names are the providers'
        own.
    """
    config = CostConfig.read(config)
    # a group serves a model; what an arm asks of it goes into each request
    targets = dict.fromkeys(target.plain for tier in config.tiers for target in tier.models)
    entries = [_entry(config, target.model, target) for target in targets]
    if routed is not None:
        entries += [
            _entry(config, routed, target) for target in dict.fromkeys(each.plain for each in config.tiers[0].models)
        ]
    retries = config.retry.max_attempts - 1
    return {
        "model_list": entries,
        "num_retries": retries,
        # LiteLLM retries whatever is not named here, and takes an empty account for a rate limit
        "retry_policy": {
            "DefaultRetries": 0,
            "RateLimitErrorRetries": retries,
            "TimeoutErrorRetries": retries,
            "InternalServerErrorRetries": retries,
            "ServiceUnavailableErrorRetries": retries,
        },
        "fallbacks": _fallbacks(config) if config.retry.fallback else [],
        **_cut(config),
    }


def _cut(config: CostConfig) -> dict[str, Any]:
    """A router's timeout, where the deadline is to cut what is under way."""
    return {"timeout": config.retry.deadline_s} if config.retry.cut_at_deadline else {}


def _entry(config: CostConfig, name: str, target: Any) -> dict[str, Any]:
    provider = config.providers[target.provider]
    params: dict[str, Any] = {
        "model": str(target.plain),
        "api_key": f"os.environ/{provider.api_key_env}",
    }
    if provider.timeout_s is not None:
        params["timeout"] = provider.timeout_s
    if provider.base_url:
        params["api_base"] = provider.base_url
    return {"model_name": name, "litellm_params": params}


def _fallbacks(config: CostConfig) -> list[dict[str, list[str]]]:
    table: dict[str, list[str]] = {}
    for index, tier in enumerate(config.tiers):
        stronger = [target.model for later in config.tiers[index + 1 :] for target in later.models]
        for target in tier.models:
            others = [other.model for other in tier.models]
            rest = [name for name in dict.fromkeys([*others, *stronger]) if name != target.model]
            if rest:
                table.setdefault(target.model, rest)
    return [{name: rest} for name, rest in table.items()]


def proxy_config(config: ConfigSource, *, routed: str = "smart") -> str:
    """The ``config.yaml`` of a LiteLLM proxy that governs its calls with this package.

    The proxy reads the configuration itself from the file in ``LLM_COST_CONFIG``, and needs ``LITELLM_MASTER_KEY``.
    Retries are off: each attempt of a client is a call of its own, with a reservation of its own.

    Args:
        config: The configuration.
        routed: The model name that is routed.
    """
    config = CostConfig.read(config)
    names = [target.model for tier in config.tiers for target in tier.models]
    names = list(dict.fromkeys(names))
    deployments = [_entry(config, target.model, target) for tier in config.tiers for target in tier.models]
    deployments = [entry for index, entry in enumerate(deployments) if entry not in deployments[:index]]
    for entry in deployments:
        entry["litellm_params"]["max_retries"] = 0
    if len(names) > 1:  # LiteLLM wants two at least to choose between
        deployments.append({"model_name": routed, "litellm_params": _marker(names)})
    return _HEAD + _yaml(
        {
            "model_list": deployments,
            "router_settings": {"num_retries": 0, **_cut(config)},
            "litellm_settings": {"callbacks": [f"{_PROXY}.governor"], "num_retries": 0},
        }
    )


_PROXY = "llm_cost_middleware.integrations.litellm.proxy"
_HEAD = """\
# Written by `llm-cost litellm-config`. Run with:
#   LLM_COST_CONFIG=cost.toml LITELLM_MASTER_KEY=sk-... litellm --config config.yaml
# Workers (--num_workers) share a ledger only where [ledger] url is sqlite:// or redis://.
"""


def _marker(names: list[str]) -> dict[str, Any]:
    """LiteLLM's routing deployment: a tier a model, and the classifier that names the tier that was decided."""
    return {
        "model": "auto_router/complexity_router",
        "complexity_router_config": {
            "classifier_type": "custom",
            "classifier_plugin": f"{_PROXY}.classifier",
            "tier_definitions": [{"name": name, "description": f"calls that go to {name}"} for name in names],
            "fallback_tier": names[0],
            "max_tokens_from_tier_model": False,  # it would write the most that the model gives over the caller's cap
            "tiers": {name: name for name in names},
        },
    }


def _yaml(value: Any, indent: str = "") -> str:
    """Plain mappings, lists and scalars as block YAML. Scalars are written as JSON, which YAML includes."""
    if isinstance(value, dict):
        return "".join(f"{indent}{_key(key)}:{_below(item, indent)}" for key, item in value.items())
    lines = []
    for item in value:
        block = _yaml(item, indent + "  ") if isinstance(item, dict) else f"{indent}  {json.dumps(item)}\n"
        lines.append(f"{indent}- {block[len(indent) + 2 :]}")
    return "".join(lines)


def _below(value: Any, indent: str) -> str:
    if isinstance(value, dict | list) and value:
        return "\n" + _yaml(value, indent + "  ")
    return f" {json.dumps(value)}\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[a-z][a-z0-9_.-]{2,}", name) else json.dumps(name)
