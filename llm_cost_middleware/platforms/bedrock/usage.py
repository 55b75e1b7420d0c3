"""Usage of Converse, and of the model's own answers through ``invoke``, to disjoint buckets.

Rules, from the service model of botocore and the User Guide's "Prompt caching":

* ``inputTokens`` excludes what was read from and written to the cache.
* ``cacheDetails`` splits the writes by lifetime; what it leaves out is five-minute cache.
* A stream of Converse has its usage in the ``metadata`` event, which comes last.
* A stream of ``invoke`` is the model's own; its last event repeats the counts as ``amazon-bedrock-invocationMetrics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.platforms.bedrock.errors import read_error
from llm_cost_middleware.providers.anthropic import usage as anthropic
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport, without_zero_input
from llm_cost_middleware.wire import count_group, field_reader, parse, required_count, str_or_none, token_count

_NAME = "bedrock"
METRICS = "amazon-bedrock-invocationMetrics"
_STANDARD_TIERS = ("default", "standard")


def read_usage(response: Any) -> UsageReport:
    """The usage that a response reports.

    Args:
        response: An answer of Converse, or of ``invoke`` for a Claude model, as JSON object or text; a list of the
            events of a stream of Converse; or what the anthropic SDK makes of an answer.

    Raises:
        UnreadableUsageError: A count that is not one, or broken JSON.
    """
    if isinstance(response, str | bytes | bytearray) and response.lstrip()[:1] in ("{", b"{", "[", b"["):
        response = parse(response, _NAME)
    if isinstance(response, list | tuple):
        reader = BedrockStreamReader()
        for event in response:
            reader.feed(event)
        return reader.reading()
    if isinstance(response, Mapping):
        if isinstance(response.get("Error"), Mapping) or ("message" in response and len(response) == 1):
            _, code, message = read_error(response)
            return UsageReport(error=": ".join(part for part in (code, message) if part) or "error", unbilled=True)
        if is_converse(response):
            return converse_usage(
                response.get("usage"), finish=str_or_none(response.get("stopReason")), answer=response
            )
    return anthropic.read_usage(response)


def is_converse(response: Mapping[str, Any]) -> bool:
    """Whether an answer is one of Converse."""
    usage = response.get("usage")
    return "stopReason" in response or "output" in response or (isinstance(usage, Mapping) and "inputTokens" in usage)


def converse_usage(
    usage: Any, *, finish: str | None, answer: Mapping[str, Any], complete: bool = True, error: str | None = None
) -> UsageReport:
    """A ``TokenUsage`` of Converse. Raises ``UnreadableUsageError``."""
    if usage is None:
        return UsageReport(warnings=("the response carries no usage",), error=error)
    counts = count_group(usage, _NAME, "usage")
    output = required_count(counts.get("outputTokens"), _NAME, "outputTokens")
    written = token_count(counts.get("cacheWriteInputTokens"), _NAME, "cacheWriteInputTokens")
    short, long, notes, doubts = _split(counts.get("cacheDetails"), written)
    tokens = TokenUsage(
        uncached_input=required_count(counts.get("inputTokens"), _NAME, "inputTokens"),
        cache_read=token_count(counts.get("cacheReadInputTokens"), _NAME, "cacheReadInputTokens"),
        cache_write_5m=short,
        cache_write_1h=long,
        output=output,
        reasoning=min(_thoughts(answer), output),
    )
    tier = str_or_none(field_reader(answer.get("serviceTier") or {})("type"))
    reading = UsageReport(
        items=(BilledItem(tokens),),
        service_tier=None if tier in _STANDARD_TIERS else tier,
        complete=complete,
        finish_reason=finish,
        error=error,
        warnings=notes,
        doubts=doubts,
    )
    return without_zero_input(reading)


def _split(details: Any, written: int) -> tuple[int, int, tuple[str, ...], tuple[str, ...]]:
    """Writes for five minutes and for an hour; what to note, and what to doubt."""
    long = named = 0
    for detail in details if isinstance(details, list | tuple) else ():
        entry = count_group(detail, _NAME, "cacheDetails")
        tokens = token_count(entry.get("inputTokens"), _NAME, "cacheDetails.inputTokens")
        named += tokens
        long += tokens if entry.get("ttl") == "1h" else 0
    if named == written:
        return written - long, long, (), ()
    note = f"cache writes are split as {named:,} but total {written:,}: the total is billed"
    long = min(long, written)
    return written - long, long, (note,) if 0 < named < written else (), (note,) if named > written else ()


def _thoughts(answer: Mapping[str, Any]) -> int:
    """Thinking tokens, where ``additionalModelResponseFieldPaths`` asked for the model's own usage."""
    fields = answer.get("additionalModelResponseFields")
    usage = fields.get("usage") if isinstance(fields, Mapping) else None
    details = usage.get("output_tokens_details") if isinstance(usage, Mapping) else None
    return token_count(details.get("thinking_tokens"), _NAME, "thinking_tokens") if isinstance(details, Mapping) else 0


class BedrockStreamReader:
    """The usage of a stream, fed one event at a time: of Converse as botocore parses it, or of the model's own."""

    __slots__ = ("_error", "_finish", "_metadata", "_own", "_stop", "_told")

    def __init__(self) -> None:
        self._metadata: Mapping[str, Any] | None = None
        self._stop: Mapping[str, Any] = {}
        self._finish: str | None = None
        self._error: str | None = None
        self._own = anthropic.AnthropicStreamReader()
        self._told = False

    def feed(self, event: Any) -> None:
        """Take note of one event. Never raises; ``reading`` reports what makes no sense."""
        if isinstance(event, Mapping) and "type" not in event:
            if isinstance(found := event.get("metadata"), Mapping):
                self._metadata = dict(found)  # LangChain takes the usage out of what it is handed
            elif isinstance(found := event.get("messageStop"), Mapping):
                self._stop, self._finish = found, str_or_none(found.get("stopReason"))
            elif any(isinstance(name, str) and name.endswith("Exception") for name in event):
                _, code, message = read_error(event)
                self._error = ": ".join(part for part in (code, message) if part)
            return
        self._told = True
        self._own.feed(event)

    def reading(self) -> UsageReport:
        """The usage of the events so far. Raises ``UnreadableUsageError`` for a count that is not one."""
        if self._told:
            return self._own.reading()
        if self._metadata is None:
            return UsageReport(warnings=("the stream carries no usage",), error=self._error)
        answer = {**self._stop, **self._metadata}
        complete = self._finish is not None
        return converse_usage(
            self._metadata.get("usage"), finish=self._finish, answer=answer, complete=complete, error=self._error
        )
