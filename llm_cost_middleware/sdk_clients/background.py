"""Answers in the background: their money stays set aside until somebody reads, cancels or streams one to its end."""

from __future__ import annotations

import copy
from typing import Any

from llm_cost_middleware.host import ObservedStream
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.provider import StreamUsageReader
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.sdk_clients.bodies import fields_of
from llm_cost_middleware.usage import UsageReport, read_or_unknown


class BackgroundAnswers:
    """The answers of one provider that come later.

    Args:
        pipeline: Booked whose money is set aside.
        provider: The provider.
    """

    def __init__(self, pipeline: CostPipeline, provider: str) -> None:
        self._pipeline, self._provider, self._rules = pipeline, provider, get_provider(provider)

    def observe(self, answer: Any) -> Any:
        """Book a retrieved answer, and return what its caller gets: the answer; of a stream, a copy that is read."""
        if hasattr(answer, "_iterator"):
            return self._observed(answer)
        raw = getattr(answer, "http_response", None)
        if raw is None or raw.is_stream_consumed:  # what is streamed unparsed is left to its caller
            body = fields_of(answer) if raw is None else raw.content
            self.settle(read_or_unknown(self._rules.read_usage, body))
        return answer

    def settle(self, reading: UsageReport) -> None:
        """Book what an answer reports."""
        self._pipeline.settle_retrieved(self._provider, reading)

    def _observed(self, stream: Any) -> Any:
        reader = _Retrieved(self, self._rules.new_stream_reader())
        passing = ObservedStream(stream._iterator, reader, stream.close, on_end=reader.settle)  # noqa: SLF001 - as rewrap_stream
        outer = copy.copy(stream)
        asynchronous = hasattr(stream._iterator, "__anext__")  # noqa: SLF001 - where the SDK keeps what it iterates over
        outer._iterator = aiter(passing) if asynchronous else iter(passing)  # noqa: SLF001 - the same
        return outer


class _Retrieved:
    """The usage in the events of a retrieved answer, a ``StreamUsageReader``."""

    def __init__(self, answers: BackgroundAnswers, reader: StreamUsageReader) -> None:
        self._answers, self._reader = answers, reader
        self.feed = reader.feed

    def reading(self) -> UsageReport:
        """The usage so far."""
        return self._reader.reading()

    def settle(self) -> None:
        """The stream has ended."""
        self._answers.settle(read_or_unknown(self.reading))
