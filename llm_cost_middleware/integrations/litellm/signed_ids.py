"""Ids of calls as they ride in LiteLLM's metadata: signed, as a client of the proxy writes into the same mapping.

A request is found by its id when its answer is in, and a ``CostLogger`` books no call that has one. Both look for an id
that this process wrote: what anybody else puts there, an old id too, is none.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.integrations.litellm.arguments import GOVERNED, each_metadata

_SECRET = os.urandom(32)
_DOT = "."


def signed(call_id: str) -> str:
    """An id with its signature."""
    return f"{call_id}{_DOT}{_signature(call_id)}"


def governed_call_id(arguments: Mapping[str, Any]) -> str | None:
    """The id of the governed call that keyword arguments of LiteLLM belong to; ``None`` where there is none."""
    for metadata in each_metadata(arguments):
        value = metadata.get(GOVERNED)
        if isinstance(value, str):
            call_id, _, signature = value.rpartition(_DOT)
            if call_id and hmac.compare_digest(signature.encode(), _signature(call_id).encode()):
                return call_id
    return None


def _signature(call_id: str) -> str:
    return hmac.digest(_SECRET, call_id.encode(), "sha256").hex()
