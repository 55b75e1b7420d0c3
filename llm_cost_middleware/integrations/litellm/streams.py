"""Streams of a LiteLLM router: what their chunks report, how they close, and the object that their caller gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
from msgspec import structs

from llm_cost_middleware.extras import require
from llm_cost_middleware.integrations.litellm.mocks import provider_id
from llm_cost_middleware.integrations.litellm.usage import (
    FREE,
    extra,
    finish_reason,
    is_cached,
    read_chunks,
)
from llm_cost_middleware.integrations.litellm.workarounds import inner_chunks
from llm_cost_middleware.provider import StreamUsageReader
from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import field_reader

_Priced = Callable[[UsageReport], UsageReport]


class ChatReader:
    """A ``StreamUsageReader`` of a chat stream.

    LiteLLM keeps the chunks as the provider sent them, and fills the usage of those that it passes on with an estimate:
    what is kept is read, what passes only where nothing is kept.

    Args:
        stream: LiteLLM's ``CustomStreamWrapper``; on the proxy whatever another callback made of it.
        priced: Adapts the reading to the prices of the group that was called.
        provider: Whose stream it is.
        kept: The chunks that the stream inside keeps; ``None``: those of ``stream`` itself.
    """

    __slots__ = ("_kept", "_passed", "_priced", "_provider", "_stream")

    def __init__(self, stream: Any, priced: _Priced, provider: str, kept: Sequence[Any] | None) -> None:
        kept = inner_chunks(stream) if kept is None else kept
        self._stream, self._priced, self._provider, self._kept = stream, priced, provider, kept
        self._passed: list[Any] | None = None if kept is not None or hasattr(stream, "chunks") else []

    def feed(self, event: Any) -> None:
        """Keep a chunk that ends the answer or reports usage, where LiteLLM keeps none."""
        if self._passed is not None and (extra(event, "usage") is not None or finish_reason([event]) is not None):
            self._passed.append(event)

    def reading(self) -> UsageReport:
        """The usage that the chunks so far report."""
        if is_cached(self._stream):
            return FREE
        kept = self._kept if self._passed is None else self._passed
        return self._priced(read_chunks(self._stream.chunks if kept is None else kept, self._provider))


class EventReader:
    """A ``StreamUsageReader`` of the events of the responses API or the bytes of the messages API.

    Args:
        stream: LiteLLM's.
        priced: As for ``ChatReader``.
        reader: The provider's own.
    """

    __slots__ = ("_priced", "_reader", "_stream")

    def __init__(self, stream: Any, priced: _Priced, reader: StreamUsageReader) -> None:
        self._stream, self._priced, self._reader = stream, priced, reader

    def feed(self, event: Any) -> None:
        """Take note of one event."""
        if not isinstance(event, bytes | str | dict):
            # LiteLLM's events name their type by an enumeration; a reader wants the text
            get = field_reader(event)
            kind = get("type")
            event = {"type": getattr(kind, "value", kind), "response": get("response"), "error": get("error")}
        self._reader.feed(event)

    def reading(self) -> UsageReport:
        """The usage that the events so far report."""
        if is_cached(self._stream):
            return FREE
        reading = self._priced(self._reader.reading())
        if reading.response_id is not None:
            reading = structs.replace(reading, response_id=provider_id(reading.response_id))
        # of a chat stream that broke off, LiteLLM makes events that end as if it were whole
        chat = getattr(getattr(self._stream, "_billing_source", self._stream), "litellm_custom_stream_wrapper", None)
        broken = chat is not None and finish_reason(chat.chunks) is None
        return structs.replace(reading, complete=False) if broken else reading


def carries_usage(chunk: Any) -> bool:
    """Whether a chat chunk is the one that LiteLLM adds for usage."""
    return extra(chunk, "usage") is not None


def closing(stream: Any, *, asynchronous: bool) -> Callable[[], Any]:
    """What closes a stream, and with it the connection; awaitable where it is asynchronous."""
    if asynchronous:
        return getattr(stream, "aclose", _anothing)
    # older chat wrappers have no close of their own; the generator inside always has
    inner = getattr(stream, "completion_stream", stream)
    return getattr(inner, "close", _nothing)


def _nothing() -> None:
    """What there is to close of a stream that cannot be closed."""


async def _anothing() -> None:
    """As ``_nothing``."""


class GovernedStreamWrapper(CustomStreamWrapper):  # type: ignore[misc]  # LiteLLM is not typed
    """A subclass of LiteLLM's stream class, which its own code and others' ask for; it settles however it is left."""

    def __init__(self, inner: CustomStreamWrapper, governed: Any) -> None:
        # what the open stream holds already, its id and its chunks, is kept: no ``super().__init__``
        self.__dict__.update(vars(inner))
        self.completion_stream = self._governed = governed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self._governed)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._governed)

    def close(self) -> None:
        """Walk away: close the connection and settle."""
        self._governed.close()

    async def aclose(self) -> None:
        """Walk away: close the connection and settle."""
        await self._governed.aclose()


def require_fastapi() -> None:
    """LiteLLM imports it only after the request was sent and billed.

    Raises:
        MissingExtraError: It is not installed.
    """
    require("a stream of anthropic_messages through LiteLLM", ("fastapi",))
