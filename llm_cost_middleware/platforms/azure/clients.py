"""What the SDK's clients of Azure are set to, by their own attributes: a deployment, and a version of the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from llm_cost_middleware.platform import PROVISIONED
from llm_cost_middleware.platforms.azure.places import PLACES, geography

_HOST = re.compile(r"//(?:[^/@]*@)?([^/:?#]+)")
_IN_PATH = re.compile(r"/deployments/([^/?]+)")
_STREAM_USAGE_SINCE = "2024-09-01"
"""Versions of the API before it refuse ``stream_options`` (Azure/azure-rest-api-specs 29157)."""


_DEPLOYED = frozenset({
    "chat.completions", "completions", "embeddings", "audio.transcriptions", "audio.translations", "audio.speech",
    "images.generations", "images.edits",
})  # fmt: skip
"""What goes to a deployment's own path (``_deployments_endpoints`` in ``openai/lib/azure.py``). Everything else goes to
the resource, where the request names the deployment, even if the client fixes one."""


def deployment_of(client: Any, endpoint: str) -> str:
    """Return the deployment that a client's address fixes for an endpoint; empty where each call names its own."""
    if endpoint not in _DEPLOYED:
        return ""
    return deployment_in(str(getattr(client, "base_url", "")))


def deployment_in(path: str) -> str:
    """Return the deployment that a path or an address names; empty where it names none."""
    found = _IN_PATH.search(path)
    return unquote(found[1]) if found else ""


def place_of(client: Any) -> str:
    """Return the geography of a client of Azure Government, by its address; empty of any other."""
    return "us-gov" if _is_government(getattr(client, "base_url", "")) else ""


def litellm_place(params: Mapping[str, Any], named: str) -> str:
    """Return the same for a deployment in LiteLLM, where its configuration names no place."""
    return named or ("us-gov" if _is_government(params.get("api_base") or params.get("base_url")) else "")


def litellm_deployment(params: Mapping[str, Any], named: str) -> str:
    """Return the deployment that the address of one in LiteLLM fixes; else the one that its model names."""
    return deployment_in(str(params.get("api_base") or params.get("base_url") or "")) or named


def reached_from(place: str) -> tuple[str, ...]:
    """Return the places that a client of Azure Government can call."""
    return (*(there for there in PLACES if geography(there) == place), PROVISIONED)


def _is_government(url: object) -> bool:
    found = _HOST.search(str(url or ""))
    return found is not None and found[1].lower().endswith(".azure.us")


def knows_no_stream_usage(client: Any) -> bool:
    """Return whether the usage of a stream cannot be asked for: what was held is booked, as an estimate."""
    version = getattr(client, "_api_version", None)
    return isinstance(version, str) and version[: len(_STREAM_USAGE_SINCE)] < _STREAM_USAGE_SINCE
