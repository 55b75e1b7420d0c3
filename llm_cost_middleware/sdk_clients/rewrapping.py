"""Governed streams put back into the caller's hands as objects of the SDK's own classes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from llm_cost_middleware.lifecycle import AsyncGovernedStream, GovernedStream


def rewrap_stream(inner: Any, governed: GovernedStream | AsyncGovernedStream) -> Any:
    """A stream of the same class and response as ``inner`` that yields what ``governed`` yields, and settles with it.

    A copy, so that no cycle of references keeps a dropped stream from being noticed.
    """
    outer = copy.copy(inner)  # ``isinstance`` checks of the caller hold, and the response stays at hand
    outer._iterator = governed  # noqa: SLF001 - where both SDKs keep what they iterate over
    outer.close = governed.close if isinstance(governed, GovernedStream) else governed.aclose
    return outer


def rewrap_response(response: Any, stream: Any) -> Any:
    """A copy of an unparsed response whose ``parse`` returns ``stream``, awaited where the original's is."""
    twin = copy.copy(response)

    def parse(**_: Any) -> Any:
        return stream

    async def aparse(**_: Any) -> Any:
        return stream

    awaited: Callable[..., Any] = aparse if inspect.iscoroutinefunction(type(response).parse) else parse
    twin.parse = awaited
    return twin
