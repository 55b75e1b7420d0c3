"""Streams of a LiteLLM router, read as they pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, Self

from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

from llm_cost_middleware.errors import MissingExtraError, UnreadableUsageError
from llm_cost_middleware.integrations.litellm.convert import RouterCall
from llm_cost_middleware.integrations.litellm.usage import (
    FREE,
    extra,
    is_cached,
    never_zero,
    read_chunks,
)
from llm_cost_middleware.lifecycle import AsyncGovernedStream, GovernedStream
from llm_cost_middleware.providers.anthropic.usage import StreamReader as MessagesReader
from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.providers.openai.usage import StreamReader as ResponsesReader
from llm_cost_middleware.request import Attempt, CallResult
from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import field_reader


class ChatStream:
    """A ``CallStream`` over LiteLLM's chat stream.

    Args:
        stream: LiteLLM's ``CustomStreamWrapper``.
        reading: Tells what its chunks have said so far.
        keep_usage: The caller asked for the chunk that carries the usage.
    """

    __slots__ = ("_keep_usage", "_reading", "stream")

    def __init__(self, stream: Any, reading: Callable[[Any], UsageReport], *, keep_usage: bool) -> None:
        self.stream, self._reading, self._keep_usage = stream, reading, keep_usage

    def __iter__(self) -> Iterator[Any]:
        keep = self._keep_usage
        for chunk in self.stream:
            if keep or extra(chunk, "usage") is None:
                yield chunk

    async def __aiter__(self) -> AsyncIterator[Any]:
        keep = self._keep_usage
        async for chunk in self.stream:
            if keep or extra(chunk, "usage") is None:
                yield chunk

    def reading(self) -> UsageReport:
        """What the chunks seen so far say of the usage."""
        return self._reading(self.stream)

    def close(self) -> None:
        """Close LiteLLM's generator, and with it the connection."""
        inner = getattr(self.stream, "completion_stream", None)
        if (close := getattr(inner, "close", None)) is not None:
            close()

    async def aclose(self) -> None:
        """Close LiteLLM's stream, and with it the connection."""
        await self.stream.aclose()


class EventStream:
    """A ``CallStream`` over the events of the responses API or the bytes of the messages API."""

    __slots__ = ("_reader", "_seen", "stream")

    def __init__(self, stream: Any, reader: Any, seen: Callable[[UsageReport], UsageReport]) -> None:
        self.stream, self._reader, self._seen = stream, reader, seen

    def __iter__(self) -> Iterator[Any]:
        feed = self._reader.feed
        for event in self.stream:
            feed(_event(event))
            yield event

    async def __aiter__(self) -> AsyncIterator[Any]:
        feed = self._reader.feed
        async for event in self.stream:
            feed(_event(event))
            yield event

    def reading(self) -> UsageReport:
        """What the events seen so far say of the usage."""
        if is_cached(self.stream):
            return FREE
        try:
            reading = never_zero(self._seen(self._reader.reading()))
            return reading._replace(complete=False) if _ended_early(self.stream) else reading
        except UnreadableUsageError as error:
            return UsageReport(warnings=(str(error),))

    def close(self) -> None:
        """Close the stream."""
        if (close := getattr(self.stream, "close", None)) is not None:
            close()

    async def aclose(self) -> None:
        """Close the stream."""
        if (aclose := getattr(self.stream, "aclose", None)) is not None:
            await aclose()


def _ended_early(stream: Any) -> bool:
    """Whether a stream that LiteLLM made of a chat stream ended without the provider's end, whatever it says itself."""
    source = getattr(stream, "_billing_source", stream)
    chat = getattr(source, "litellm_custom_stream_wrapper", None)
    return chat is not None and not read_chunks(chat.chunks, "openai").complete


def _event(event: Any) -> Any:
    """LiteLLM's events name their type by an enumeration; a reader wants the text."""
    if isinstance(event, bytes | str | dict):
        return event
    get = field_reader(event)
    kind = get("type")
    return {"type": getattr(kind, "value", kind), "response": get("response"), "error": get("error")}


def result(
    call: RouterCall, attempt: Attempt, answer: Any, chunks: Sequence[Any] | None = None
) -> CallResult | ChatStream | EventStream:
    """What an attempt brought: an answer with its usage, or an open stream.

    Args:
        call: The call.
        attempt: The attempt.
        answer: What LiteLLM returned.
        chunks: The chunks of a chat stream, where the stream itself may not keep them.
    """
    if not call.request.stream:
        return CallResult(answer, call.read(attempt, answer), read_content=read_content)
    if call.endpoint == "chat.completions":
        asked = bool((call.arguments.get("stream_options") or {}).get("include_usage"))
        return ChatStream(answer, lambda stream: call.read_chunks(attempt, stream, chunks), keep_usage=asked)
    reader = MessagesReader() if call.endpoint == "messages" else ResponsesReader()
    return EventStream(answer, reader, call.priced)


class GovernedStreamWrapper(CustomStreamWrapper):  # type: ignore[misc]  # LiteLLM is not typed
    """LiteLLM's stream class, so that code which asks for it is content; it settles however it is left."""

    def __init__(self, inner: CustomStreamWrapper, governed: Any) -> None:
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


def deliver(answer: Any, sent: list[Any]) -> Any:
    """What the caller gets: a stream that LiteLLM's own class is asked of keeps it."""
    if isinstance(answer, GovernedStream | AsyncGovernedStream) and isinstance(sent[0], CustomStreamWrapper):
        return GovernedStreamWrapper(sent[0], answer)
    return answer


def require_fastapi() -> None:
    """LiteLLM imports it only after the request was sent and billed.

    Raises:
        MissingExtraError: It is not installed.
    """
    if find_spec("fastapi") is None:
        raise MissingExtraError("a stream of anthropic_messages through LiteLLM", "proxy")
