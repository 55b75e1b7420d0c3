"""One attempt is one request: inside a governed call, LiteLLM's HTTP client may not repeat what it lost.

Its asynchronous client sends a POST again when the connection dies, although the provider may have answered and billed
it by then, and tells nobody (``AsyncHTTPHandler.post``; https://github.com/BerriAI/litellm/pull/34830).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

_once: ContextVar[bool] = ContextVar("llm_cost_sent_once", default=False)
_REPEAT = "single_connection_post_request"


@contextmanager
def sent_once() -> Iterator[None]:
    """Let the error of a lost connection out, for the lifecycle to book and to judge. Other calls are as they were."""
    token = _once.set(True)
    try:
        yield
    finally:
        _once.reset(token)


def _guarded(repeat: Any) -> Any:
    @wraps(repeat)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        lost = sys.exception()  # it is called where that is being handled, and nowhere else
        if lost is not None and _once.get():
            raise lost
        return await repeat(*args, **kwargs)

    return guarded


if (_repeat := getattr(AsyncHTTPHandler, _REPEAT, None)) is not None:  # a LiteLLM without it repeats nothing
    setattr(AsyncHTTPHandler, _REPEAT, _guarded(_repeat))
