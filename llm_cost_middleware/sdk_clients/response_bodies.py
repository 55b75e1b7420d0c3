"""Answers of ``with_streaming_response``: the caller reads the body as it comes, and it is observed on its way.

What the SDK hands out is an object of its own around an HTTP response that was not read yet. The caller gets copies of
both whose bytes come out of the governed stream; everything that reads a body (``read``, ``parse``, lines, text, a
stream of events) asks for these bytes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from llm_cost_middleware.host import ObservedStream
from llm_cost_middleware.lifecycle import AsyncGovernedStream, GovernedStream
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import SSEDecoder

Injected = Callable[[Any], bool]
_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_FACTS = ("_elapsed", "_num_bytes_downloaded")  # what httpx notes of a body that was read


class BodyReader:
    """Reads the usage out of the bytes of a body, as a ``StreamUsageReader``.

    Args:
        rules: The provider's.
        is_stream: The body is a stream of events.
    """

    def __init__(self, rules: Provider, *, is_stream: bool) -> None:
        self._rules, self._whole = rules, list[bytes]()
        self._events = rules.new_stream_reader() if is_stream else None
        self._decoder = SSEDecoder()

    def feed(self, chunk: Any) -> None:
        """Take note of some bytes."""
        if self._events is None:
            self._whole.append(chunk)
        else:
            for event in self._decoder.feed(chunk):
                self._events.feed(event)

    def reading(self) -> UsageReport:
        """As ``StreamUsageReader`` does.

        Raises:
            UnreadableUsageError: The body is not whole yet, or has a count that cannot be read.
        """
        return self._rules.read_usage(b"".join(self._whole)) if self._events is None else self._events.reading()


class Body(NamedTuple):
    """The body of an HTTP response that its caller reads by themselves."""

    chunks: Any
    """Its bytes; of a stream with events to leave out, one event at a time."""
    close: Callable[[], Any]
    is_injected: Injected | None
    is_stream: bool
    """It is a stream of events."""


def body_of(response: Any, is_injected: Injected | None = None) -> Body:
    """The body of a response of which nothing was read.

    Args:
        response: The response, of a synchronous or an asynchronous client.
        is_injected: Recognises events of a stream that the caller did not ask for.
    """
    is_async = not hasattr(response.stream, "__iter__")
    chunks, close = (response.aiter_bytes(), response.aclose) if is_async else (response.iter_bytes(), response.close)
    if not _is_event_stream(response):
        return Body(chunks, close, None, is_stream=False)
    if is_injected is not None:  # to leave one event out, events must come one by one
        chunks, is_injected = (_aevents_of if is_async else _events_of)(chunks), _is_injected_event(is_injected)
    return Body(chunks, close, is_injected, is_stream=True)


def _is_event_stream(response: Any) -> bool:
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


def _is_injected_event(is_injected: Injected) -> Injected:
    return lambda event: any(map(is_injected, SSEDecoder().feed(event)))


def _events_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes of a stream, cut behind each event."""
    rest = b""
    for chunk in chunks:
        *events, rest = _cut(rest + chunk)
        yield from events
    if rest:
        yield rest


async def _aevents_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``_events_of`` for an asynchronous client."""
    rest = b""
    async for chunk in chunks:
        *events, rest = _cut(rest + chunk)
        for event in events:
            yield event
    if rest:
        yield rest


def _cut(data: bytes) -> list[bytes]:
    ends = [found.end() for found in _END_OF_EVENT.finditer(data)]
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


def rewrap_body(response: Any, governed: GovernedStream | AsyncGovernedStream | ObservedStream) -> Any:
    """A copy of the SDK's response whose body is what ``governed`` yields, and which settles with it."""
    inner = response.http_response
    kind: Any = type(inner)
    outer = object.__new__(_governed_class(kind))
    outer.__dict__.update(vars(inner), llm_cost_body=(inner, governed))
    twin = copy.copy(response)
    twin.http_response = outer
    return twin


class _GovernedBody:
    """The part of such an HTTP response that is ours; the class of the HTTP library follows it."""

    llm_cost_body: tuple[Any, Any]
    """The response underneath, and the governed stream of its bytes."""

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """The body, as far as it was not read yet."""
        if hasattr(self, "_content"):
            yield from super().iter_bytes(chunk_size)  # type: ignore[misc]  # of the HTTP library
            return
        rest = b""
        for piece in self.llm_cost_body[1]:
            *sized, rest = _sized(rest + piece, chunk_size)
            yield from sized
        if rest:
            yield rest
        self._note_end()

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """``iter_bytes`` of an asynchronous client."""
        if hasattr(self, "_content"):
            async for piece in super().aiter_bytes(chunk_size):  # type: ignore[misc]  # of the HTTP library
                yield piece
            return
        rest = b""
        async for piece in self.llm_cost_body[1]:
            *sized, rest = _sized(rest + piece, chunk_size)
            for part in sized:
                yield part
        if rest:
            yield rest
        self._note_end()

    def close(self) -> None:
        """Walk away, and settle."""
        self.llm_cost_body[1].close()
        self._note_end()

    async def aclose(self) -> None:
        """Walk away, and settle."""
        await self.llm_cost_body[1].aclose()
        self._note_end()

    def _note_end(self) -> None:
        inner = vars(self.llm_cost_body[0])
        vars(self).update({name: inner[name] for name in _FACTS if name in inner}, is_closed=True)


def _sized(data: bytes, size: int | None) -> list[bytes]:
    """The whole parts of a size that ``data`` holds, and the rest; without a size all of it is one part."""
    if size is None:
        return [data, b""] if data else [b""]
    whole = len(data) // size * size
    return [*(data[at : at + size] for at in range(0, whole, size)), data[whole:]]


@cache
def _governed_class(kind: type) -> Any:
    if issubclass(kind, _GovernedBody):  # governed on another ledger as well
        return kind
    return type(kind.__name__, (_GovernedBody, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
