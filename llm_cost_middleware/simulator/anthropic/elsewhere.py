"""Answers of the Messages API as platforms hand them on: their usage tells neither a tier nor a place."""

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.simulator.reading import Reply

from . import reply as messages


def reply(out: Reply) -> dict[str, Any]:
    """Return the JSON body."""
    body = messages.message(out)
    if "usage" in body:
        body["usage"] = usage_elsewhere(body["usage"])
    return body


def usage_elsewhere(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a usage without what only the provider's own service says."""
    return {key: value for key, value in usage.items() if key not in {"service_tier", "inference_geo"}}
