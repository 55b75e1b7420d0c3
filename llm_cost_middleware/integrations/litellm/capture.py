"""What LiteLLM lets its caller see of one attempt: the provider's own answer, through the documented ``logger_fn``.

An answer that LiteLLM cannot use ends as an error of LiteLLM's own making; what it cost stands in the body all the
same. A stream's outer wrapper may keep no chunks; the wrapper inside, which is shown here, does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from traceback import walk_tb
from typing import Any

import httpx
from msgspec import structs

from llm_cost_middleware.integrations.litellm.mocks import shows_mock
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.retry.request_phase import failed_before_send
from llm_cost_middleware.usage import FAILED_LOCALLY, LOST_LOCALLY, NOT_SENT, UsageReport
from llm_cost_middleware.wire import odd_count

_LINKS = 8
_OK = 200
_LOCAL = frozenset({"builtins", "json", "pydantic_core"})
"""Where the classes come from that an argument raises which no request can be made of."""
_ENCODING = frozenset(
    {"dumps", "default", "encode", "iterencode", "_iterencode", "_iterencode_dict", "_iterencode_list"}
)
_ODD = re.compile(r'_(?:tokens|requests)"\s*:\s*(?!null\b|\d+\s*[,}])')
"""What may be a count that is none: most answers have nothing like it, and are not parsed for it."""
_WIRE = frozenset({*NAMES, "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp"})
"""Whose own errors are about an answer, or about the net; an SDK is called as its provider."""
_ON_THE_WAY = (RuntimeError, StopIteration)
"""Errors that LiteLLM handles while it sends: it looks for an event loop by one."""
_CLIENTS = frozenset({"httpx._client", "httpx2._client"})
_HEADERS = ("litellm.llms.openai.openai", "_request_without_sdk_transform")
"""Where LiteLLM checks the headers of a chat: with pydantic, which it also reads answers with, elsewhere."""


class AnswerCapture:
    """Takes what LiteLLM shows during one attempt.

    Args:
        callers: The caller's own ``logger_fn``, which is still called.
    """

    __slots__ = ("_began", "_callers", "body", "chunks", "mocked")

    def __init__(self, callers: Callable[[Any], Any] | None) -> None:
        self._callers = callers
        self._began = False
        self.mocked = False
        """LiteLLM answers it itself."""
        self.body: str | None = None
        """The provider's answer, as JSON; ``None`` where none was shown."""
        self.chunks: list[Any] | None = None
        """The chunks of a chat stream with what the provider sent in them; ``None`` where none was shown."""

    def logger_fn(self, details: Mapping[str, Any]) -> None:
        """Called by LiteLLM before it sends and after it received. The mapping is its own, and lives on."""
        self.mocked = self.mocked or (not self._began and shows_mock(details))
        self._began = True
        shown = details.get("original_response")
        if isinstance(shown, str):  # of an error, too: only an answer is JSON from its first character
            self.body = shown if shown.startswith("{") else self.body
        elif isinstance(chunks := getattr(shown, "chunks", None), list):
            self.chunks = chunks  # not the stream: it leads back here, and a ring is not freed when it is dropped
        if self._callers is not None:
            self._callers(details)

    @property
    def odd_count(self) -> str | None:
        """Which count of the answer is none, though LiteLLM has made a number of it; ``None`` where it shows none."""
        if self.body is None or _ODD.search(self.body) is None:
            return None
        try:
            body = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return odd_count(body.get("usage")) if isinstance(body, dict) else None

    def billed_usage(self, error: Exception, provider: str, *, never_left: bool) -> UsageReport | None:
        """The usage of the answer behind an error; ``None`` where no answer is known to have arrived.

        Args:
            error: What LiteLLM raised.
            provider: Whose answer it would be.
            never_left: No request was handed over to be sent.
        """
        if self.mocked:
            return NOT_SENT
        links = list(_chain(error))
        if _is_local(links) and (never_left or any(map(_makes_request, links))):
            return FAILED_LOCALLY
        if never_left:
            return NOT_SENT
        messages = (str(getattr(link, "message", "")) for link in links if getattr(link, "status_code", None) == _OK)
        readings = (_read(text, provider) for text in (self.body, *messages) if text)
        found = next((reading for reading in readings if reading is not None), None)
        if not _is_lost_here(links):
            return found
        return LOST_LOCALLY if found is None else structs.replace(found, in_vain=True)


def _read(text: str, provider: str) -> UsageReport | None:
    try:
        reading = get_provider(provider).read_usage(json.loads(text))
    except Exception:  # noqa: BLE001 - whatever is odd in it: what it cost is then unconfirmed
        return None
    return reading if reading.items else None


def _is_local(links: Sequence[BaseException]) -> bool:
    """Whether it is Python's own and not of a connection, such as a ``TypeError`` for a bad argument."""
    # it may stand behind a class that LiteLLM raises for whatever it does not know
    local = any(type(link).__module__.partition(".")[0] in _LOCAL and not isinstance(link, OSError) for link in links)
    return local and not any(isinstance(link, OSError | httpx.TransportError) for link in links)


def _is_lost_here(links: Sequence[BaseException]) -> bool:
    """Whether an answer was lost on this machine, as the next one would be; neither provider nor net has failed.

    One that was no JSON, or not all of it, may be better the next time.
    """
    made_here = [link for link in links if type(link) not in _ON_THE_WAY]
    elsewhere = any(type(link).__module__.partition(".")[0] in _WIRE for link in links)
    return _is_local(made_here) and not elsewhere and not any(isinstance(link, json.JSONDecodeError) for link in links)


def _makes_request(link: BaseException) -> bool:
    """Whether it was raised where a request is made of what is to be sent, after LiteLLM has shown it already."""
    places = [(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame, _ in walk_tb(link.__traceback__)]
    # an encoder fails at objects of the caller: those of an answer were JSON before
    encoding = bool(places) and places[-1][0].partition(".")[0] == "json" and places[-1][1] in _ENCODING
    building = any(module in _CLIENTS and function == "build_request" for module, function in places)
    return encoding or building or failed_before_send(link) or places[-2:-1] == [_HEADERS]


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(_LINKS):  # a chain may be a ring
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__
