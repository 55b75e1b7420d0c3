"""The model of a run, from the metadata and parameters that LangChain's callbacks carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from llm_cost_middleware.config.platforms import PlatformConfig
from llm_cost_middleware.platforms.bedrock.names import parse
from llm_cost_middleware.providers import get_provider, provider_of
from llm_cost_middleware.request import Endpoint
from llm_cost_middleware.wire import as_mapping

DECISIONS = "decision models are not governed; ask a chat model for a structured output"
_DECORATION = re.compile(r"^(?:[a-z]{2,6}\.)?(?:anthropic\.|openai\.)|-v\d+(?::\d+)?$")
"""Bedrock's region, vendor and revision around a model's own name."""


_AT_BEDROCK = re.compile(r"(?:^|[./])anthropic\.claude-")


class ModelName(NamedTuple):
    """A model whose price may be known."""

    provider: str
    name: str
    endpoint: Endpoint


def model_of(
    metadata: Mapping[str, Any],
    call_kwargs: Mapping[str, Any],
    serialized: Any,
    platforms: Mapping[str, PlatformConfig],
) -> ModelName | None:
    """The model of a run, by its maker's name wherever it is hosted; ``None`` for other makers.

    Args:
        metadata: ``ls_provider``, ``ls_model_name``.
        call_kwargs: The invocation parameters.
        serialized: The model as a callback is shown it.
        platforms: Their configuration: it says which models stand behind deployments of Azure.
    """
    name = metadata.get("ls_model_name") or call_kwargs.get("model") or call_kwargs.get("model_name")
    if metadata.get("ls_provider") == "azure" and isinstance(name, str):
        settings = as_mapping(as_mapping(serialized).get("kwargs"))
        deployment, section = settings.get("deployment_name") or settings.get("azure_deployment"), platforms["azure"]
        target = section.target(str(deployment) if deployment in section.deployments else name)
        return ModelName(*target.plain, "chat.completions")
    return _named(name) if isinstance(name, str) else None


@lru_cache(maxsize=256)
def _named(name: str) -> ModelName | None:
    if _AT_BEDROCK.search(name) and parse(name) is not None:  # where it is served decides its price
        return ModelName("bedrock", name, "messages")
    bare = _DECORATION.sub("", name.rpartition("/")[2]).replace("@", "-")
    provider = provider_of(bare)
    if provider is None:
        return None
    return ModelName(provider, bare, get_provider(provider).endpoints[0])
