"""Answers in the background: their money stays set aside until somebody reads, cancels or streams one to its end."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from llm_cost_middleware.event_loops import in_thread
from llm_cost_middleware.host import ObservedStream
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.provider import StreamUsageReader
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.sdk_clients.bodies import fields_of
from llm_cost_middleware.sdk_clients.call import RAW_RESPONSE
from llm_cost_middleware.sdk_clients.response_bodies import BodyReader, body_of, rewrap_body
from llm_cost_middleware.sdk_clients.rewrapping import rewrap_response
from llm_cost_middleware.usage import UsageReport, read_or_unknown


class BackgroundAnswers:
    """The answers of one provider that come later.

    Args:
        pipeline: Booked whose money is set aside.
        provider: The provider.
    """

    def __init__(self, pipeline: CostPipeline, provider: str) -> None:
        self._pipeline, self._provider, self._rules = pipeline, provider, get_provider(provider)

    def observe(self, answer: Any, arguments: Mapping[str, Any]) -> Any:
        """Book a retrieved answer, and return what its caller gets: the answer; of an unread one, a copy that is read.

        Args:
            answer: What the SDK returned.
            arguments: With which its ``get`` or ``post`` was called.
        """
        asked = ((arguments.get("options") or {}).get("headers") or {}).get(RAW_RESPONSE)
        if asked == "stream":
            return rewrap_body(answer, self._observed_body(answer.http_response))
        if asked is None:
            if hasattr(answer, "_iterator"):
                return self._observed(answer)
            self.settle(read_or_unknown(self._rules.read_usage, fields_of(answer)))
        elif arguments.get("stream"):
            return rewrap_response(answer, self._observed(answer.parse()))
        else:
            self.settle(read_or_unknown(self._rules.read_usage, answer.http_response.content))
        return answer

    def settle(self, reading: UsageReport) -> None:
        """Book what an answer reports."""
        self._pipeline.settle_retrieved(self._provider, reading)

    def _observed_body(self, response: Any) -> ObservedStream:
        body = body_of(response)
        reader = _Retrieved(self, BodyReader(self._rules, is_stream=body.is_stream))
        return ObservedStream(body.chunks, reader, reader.closing(body.close), on_end=reader.settle)

    def _observed(self, stream: Any) -> Any:
        reader, chunks = _Retrieved(self, self._rules.new_stream_reader()), stream._iterator  # noqa: SLF001 - as rewrap_stream
        close = reader.closing(stream.close)
        passing = ObservedStream(chunks, reader, close, on_end=reader.settle)
        outer = copy.copy(stream)
        outer._iterator = aiter(passing) if hasattr(chunks, "__anext__") else iter(passing)  # noqa: SLF001 - where the SDK keeps it
        outer.close = close
        return outer


class _Retrieved:
    """The usage in a retrieved answer that is read as it comes, a ``StreamUsageReader``."""

    def __init__(self, answers: BackgroundAnswers, reader: StreamUsageReader) -> None:
        self._answers, self._reader = answers, reader
        self._passed = False
        self.feed = reader.feed

    def reading(self) -> UsageReport:
        """The usage so far."""
        return self._reader.reading()

    def settle(self) -> None:
        """All of it has passed."""
        self._passed = True
        self._answers.settle(read_or_unknown(self.reading))

    def closing(self, close: Callable[[], Any]) -> Callable[[], Any]:
        """``close``, after the bill was booked where it has come: a caller may stop at the event that brings it."""
        if inspect.iscoroutinefunction(close):

            async def aleave() -> None:
                await in_thread(self._left)
                await close()

            return aleave

        def leave() -> None:
            self._left()
            close()

        return leave

    def _left(self) -> None:
        if not self._passed and (reading := read_or_unknown(self.reading)).items:
            self._answers.settle(reading)
