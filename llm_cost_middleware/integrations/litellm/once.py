"""One attempt is one request: for a governed call, LiteLLM's HTTP client may not repeat what it lost.

Its asynchronous client sends a POST again when the connection dies, although the provider may have answered and billed
it by then, and tells nobody (``AsyncHTTPHandler.post``; https://github.com/BerriAI/litellm/pull/34830). Other requests
of the process are left as they were.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

_REPEAT = "single_connection_post_request"


class Underway:
    """A governed request on its way. Tasks that were started meanwhile inherit it, so that it must be told to end."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False


_underway: ContextVar[Underway | None] = ContextVar("llm_cost_underway", default=None)


def send_once() -> Underway:
    """From here on, let the error of a lost connection out of this task, until what is returned is ``over``."""
    sent = Underway()
    _underway.set(sent)
    return sent


@contextmanager
def sent_once() -> Iterator[None]:
    """Let the error of a lost connection out of a block, for the lifecycle to book and to judge."""
    sent = Underway()
    token = _underway.set(sent)
    try:
        yield
    finally:
        sent.over = True
        _underway.reset(token)


def _guarded(repeat: Any) -> Any:
    @wraps(repeat)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        lost = sys.exception()  # it is called where that is being handled, and nowhere else
        sent = _underway.get()
        if lost is not None and sent is not None and not sent.over:
            raise lost
        return await repeat(*args, **kwargs)

    return guarded


if (_repeat := getattr(AsyncHTTPHandler, _REPEAT, None)) is not None:  # a LiteLLM without it repeats nothing
    setattr(AsyncHTTPHandler, _REPEAT, _guarded(_repeat))
