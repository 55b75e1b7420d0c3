"""Claude on Google Cloud's Vertex AI: ``vertex_ai/[PLACE/]claude-…@DATE``.

The bodies and the usage are Anthropic's. The model and its place stand in the address, which the SDK writes; prices are
the provider's list, and a tenth more outside the place ``global`` from Claude Sonnet 4.5 on. Only answers with
status 200 are charged. Gemini and the other makers' models are none of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llm_cost_middleware.platform import PROVISIONED, Platform, served_model
from llm_cost_middleware.platforms.vertex.errors import ERROR_RULES, read_error
from llm_cost_middleware.platforms.vertex.names import GEOGRAPHIES, factor, geography, has_place, parse, wire_name
from llm_cost_middleware.provider import CacheCapabilities
from llm_cost_middleware.providers.anthropic import PROVIDER
from llm_cost_middleware.request import Attempt, Endpoint

NAME = "vertex_ai"
_IN_PATH = re.compile(r"/locations/([^/:?]+)")
_NOWHERE = "nowhere"
"""No place: of an address that names two."""


def _cache_capabilities(model: str) -> CacheCapabilities:
    """Those of the model at its provider: the same shortest prefixes and number of marks.

    An hour is not offered for the generation of Claude 3 (Google, "Prompt caching" of Claude models).
    """
    name = served_model(NAME, model).model
    known = PROVIDER.cache_capabilities(name)
    return replace(known, ttls=("5m",)) if name.startswith("claude-3-") else known


def _write_request(body: Mapping[str, Any], attempt: Attempt, endpoint: Endpoint) -> dict[str, Any]:
    """As the provider's, with the model as Vertex names it; the place is the client's."""
    written = PROVIDER.write_request(body, attempt, endpoint)
    return {**written, "model": wire_name(written["model"])}


def _place_of(client: Any) -> str:
    """The region of a client as it is now: it stands in the path of all that it sends, whatever its host says."""
    region = getattr(client, "region", None)
    return region.lower() if isinstance(region, str) else ""


def _litellm_place(params: Mapping[str, Any], named: str) -> str:
    """The location in the path of a deployment's address, which LiteLLM takes as it is; else the one it is given.

    Of one that stands elsewhere (variables, LiteLLM's own default) nothing is known here.
    """
    if named == PROVISIONED:
        return named
    written = {*_IN_PATH.findall(str(params.get("api_base") or "").lower())}
    if written:
        return written.pop() if len(written) == 1 else _NOWHERE
    given = params.get("vertex_location") or params.get("vertex_ai_location")
    return given.lower() if given and isinstance(given, str) else named


PLATFORM = Platform(
    name=NAME,
    provider="anthropic",
    rules=replace(
        PROVIDER,
        name=NAME,
        model_prefixes=(),  # a bare id belongs to the provider itself
        domains=("googleapis.com",),
        write_request=_write_request,
        read_error=read_error,
        error_rules=(*ERROR_RULES, *PROVIDER.error_rules),
        cache_capabilities=_cache_capabilities,
    ),
    parse=parse,
    factor=factor,
    geography=geography,
    geographies=GEOGRAPHIES,
    has_place=has_place,
    key_env=("GOOGLE_APPLICATION_CREDENTIALS", "ANTHROPIC_VERTEX_PROJECT_ID", "VERTEXAI_PROJECT"),
    deploys=False,
    batches=False,
    place_of=_place_of,
    sent_as=wire_name,
    litellm_place=_litellm_place,
    litellm=("vertex_ai",),
    packages=("langchain_google_vertexai",),
)
