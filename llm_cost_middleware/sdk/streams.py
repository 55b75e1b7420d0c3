"""An SDK's stream, read as it passes, and put back into the caller's hands in its own class."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.lifecycle import AsyncGovernedStream, GovernedStream
from llm_cost_middleware.provider import UsageReading


class SdkStream:
    """A ``CallStream`` over a ``Stream`` or an ``AsyncStream``.

    Args:
        stream: The SDK's stream.
        reader: A provider's ``StreamReader``.
        surplus: Tells the chunks that were asked for here and not by the caller; they are read and kept back.
    """

    __slots__ = ("_reader", "_surplus", "stream")

    def __init__(self, stream: Any, reader: Any, surplus: Callable[[Any], bool] | None) -> None:
        self.stream, self._reader, self._surplus = stream, reader, surplus

    def __iter__(self) -> Iterator[Any]:
        feed, surplus = self._reader.feed, self._surplus
        for chunk in self.stream._iterator:  # noqa: SLF001 - below the SDK's own tracing, which watches the outer one
            feed(chunk)
            if surplus is None or not surplus(chunk):
                yield chunk

    async def __aiter__(self) -> AsyncIterator[Any]:
        feed, surplus = self._reader.feed, self._surplus
        async for chunk in self.stream._iterator:  # noqa: SLF001 - as above
            feed(chunk)
            if surplus is None or not surplus(chunk):
                yield chunk

    def reading(self) -> UsageReading:
        """What the chunks seen so far say of the usage."""
        try:
            reading: UsageReading = self._reader.reading()
        except UnreadableUsageError as error:
            return UsageReading(notes=(str(error),))
        return reading

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()

    async def aclose(self) -> None:
        """Close the connection."""
        await self.stream.close()


def put_back(inner: Any, governed: GovernedStream | AsyncGovernedStream) -> Any:
    """A stream of the same class and response as ``inner`` that yields what ``governed`` yields, and settles with it.

    A copy, so that no cycle of references keeps a dropped stream from being noticed.
    """
    outer = copy.copy(inner)
    outer._iterator = governed  # noqa: SLF001 - where both SDKs keep what they iterate over
    outer.close = governed.close if isinstance(governed, GovernedStream) else governed.aclose
    return outer
