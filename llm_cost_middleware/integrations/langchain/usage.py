"""Usage as LangChain reports it, to a reading: the provider's own figures where they survived, else LangChain's.

LangChain's ``usage_metadata`` counts cached tokens inside its input, renames buckets for flex and priority tiers, and
loses the lifetime of cache writes, the service tier and searches in Anthropic's streams. ModelRef models therefore keep
the provider's own usage event on the chunk that it became (``single_attempt.py``); where that is missing, LangChain's
figures are converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.call_ids import BOOKED_KEY
from llm_cost_middleware.integrations.langchain.asked import with_asked
from llm_cost_middleware.provider import StreamUsageReader
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport, without_zero_output
from llm_cost_middleware.wire import count_group, required_count, token_count, token_counts

RAW_USAGE_KEY = "llm_cost_raw"
"""Where a target model leaves the provider's own event, in ``response_metadata``; taken out before delivery."""
_TIERS = ("", "flex_", "priority_")
_CLAUDES_SEARCH = "web_search of server_tool_use"
_FEES = frozenset(
    {
        _CLAUDES_SEARCH,
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_call",
    }
)
_IDS = ("msg_", "resp_", "chatcmpl")


def read_result(provider: str, result: Any) -> UsageReport:
    """The usage of a ``ChatResult``."""
    output, generation = result.llm_output or {}, result.generations[0]
    message = generation.message
    raw = output.get("usage") or output.get("token_usage")
    if not raw:
        return read_message(provider, message, output)
    finish = (generation.generation_info or {}).get("finish_reason")
    body = {
        **output,
        "usage": raw,
        "model": output.get("model") or output.get("model_name"),
        "content": message.content,
        "choices": ({"finish_reason": finish},),
    }
    return get_provider(provider).read_usage(body)


def read_message(
    provider: str, message: Any, extra: Mapping[str, Any] | None = None, request: CallRequest | None = None
) -> UsageReport:
    """The usage of a finished message.

    Args:
        provider: Who answered; it decides how long its cache writes live.
        message: An ``AIMessage``, or the sum of its chunks.
        extra: Further metadata, such as ``llm_output``.
        request: What was asked, where it is known: for what LangChain's figures do not show.
    """
    metadata = {**(extra or {}), **message.response_metadata}
    raw = metadata.get("usage") or metadata.get("token_usage")
    usage = message.usage_metadata or {}
    if raw and usage.get("total_cost") != 0:  # an answer in one piece, as the provider counted it
        model, finish = metadata.get("model") or metadata.get("model_name"), metadata.get("finish_reason")
        metadata |= {"usage": raw, "model": model, "content": message.content, "choices": ({"finish_reason": finish},)}
        return get_provider(provider).read_usage(metadata)
    return _reading(provider, usage, metadata, message.id, _fees(message.content), request)


def _reading(
    provider: str,
    usage: Mapping[str, Any],
    metadata: Mapping[str, Any],
    message_id: object,
    fees: Mapping[str, int],
    request: CallRequest | None,
) -> UsageReport:
    free = usage.get("total_cost") == 0  # LangChain's mark of an answer out of its own cache
    counted = bool(usage.get("input_tokens")) and not free  # a gateway's zeros are no bill: nothing is free to read
    finish = metadata.get("finish_reason") or metadata.get("stop_reason") or _status(metadata)
    own_id = str(message_id)
    searched = fees.get(_CLAUDES_SEARCH, 0)
    reading = UsageReport(
        items=(BilledItem(_tokens(provider, usage, metadata)),) if counted else (),
        model=metadata.get("model_name") or metadata.get("model"),
        response_id=metadata.get("id") or (own_id if own_id.startswith(_IDS) else None),
        service_tier=metadata.get("service_tier"),
        complete=counted and finish is not None,
        finish_reason=finish,
        unbilled=free,
        tool_calls={kind: calls for kind, calls in fees.items() if kind != _CLAUDES_SEARCH} or None,
    )
    reading = without_zero_output(reading, "LangChain")
    if request is None or not reading.items:
        return reading
    unsplit = _pick(usage.get("input_token_details") or {}, "cache_creation")
    return with_asked(reading, request._replace(provider=provider), unsplit=unsplit, searched=searched)


def _status(metadata: Mapping[str, Any]) -> str | None:
    """How an answer of the Responses API ended: it has a status instead of a finish reason."""
    incomplete = metadata.get("incomplete_details")
    return (incomplete or {}).get("reason") or metadata.get("status")


def _tokens(provider: str, usage: Mapping[str, Any], metadata: Mapping[str, Any]) -> TokenUsage:
    """LangChain's inclusive counts to disjoint buckets (``cache_creation`` and its split by TTL exclude each other)."""
    inward, outward = usage.get("input_token_details") or {}, usage.get("output_token_details") or {}
    read, written = (token_count(_pick(inward, name), provider, name) for name in ("cache_read", "cache_creation"))
    audio, short, long = token_counts(
        inward, provider, "audio", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"
    )
    sound = token_count(outward.get("audio"), provider, "audio")
    output = max(required_count(usage.get("output_tokens"), provider, "output_tokens") - sound, 0)
    total = required_count(usage.get("input_tokens"), provider, "input_tokens")
    ran = count_group(metadata.get("server_tool_use"), provider, "server_tool_use")
    unnamed = get_provider(provider).default_write_ttl
    return TokenUsage(
        uncached_input=max(total - read - written - short - long - audio, 0),
        cache_read=read,
        cache_write_5m=short + (written if unnamed == "5m" else 0),
        cache_write_1h=long + (written if unnamed == "1h" else 0),
        cache_write_30m=written if unnamed == "30m" else 0,
        output=output,
        reasoning=min(token_count(_pick(outward, "reasoning"), provider, "reasoning"), output),
        audio_input=audio,
        audio_output=sound,
        web_searches=token_count(ran.get("web_search_requests"), provider, "web_search_requests"),
    )


def _pick(details: Mapping[str, Any], name: str) -> Any:
    return next((details[tier + name] for tier in _TIERS if details.get(tier + name)), 0)


def _fees(content: Any) -> dict[str, int]:
    """Provider-side tool calls among content blocks, by kind."""
    calls: dict[str, int] = {}
    for block in () if type(content) is str else content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "server_tool_use" and block.get("name") == "web_search":
            kind = _CLAUDES_SEARCH
        if kind in _FEES:
            calls[kind] = calls.get(kind, 0) + 1
    return calls


class ChunkObserver:
    """The usage in the chunks of one attempt, a ``StreamUsageReader``. It marks the first chunk as booked.

    Args:
        provider: Who answers.
        booked: What the first chunk carries under ``BOOKED_KEY``.
        request: What was asked.
    """

    __slots__ = ("_booked", "_fees", "_id", "_metadata", "_provider", "_raw", "_request", "_usage")

    def __init__(self, provider: str, booked: Mapping[str, Any], request: CallRequest) -> None:
        self._provider, self._request = provider, request
        self._booked: Mapping[str, Any] | None = booked
        self._raw: StreamUsageReader | None = None
        self._usage: Mapping[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self._fees: dict[str, int] = {}
        self._id: object = None

    def feed(self, chunk: Any) -> None:
        """Take note of a chunk, and take the provider's own event out of it."""
        message = chunk.message
        metadata = message.response_metadata
        if RAW_USAGE_KEY in metadata:
            if self._raw is None:
                self._raw = get_provider(self._provider).new_stream_reader()
            self._raw.feed(metadata.pop(RAW_USAGE_KEY))
        if message.usage_metadata is not None:
            # cumulative where a server sends it more than once: the last counts
            self._usage = message.usage_metadata
        if len(metadata) > 1:
            self._metadata.update(metadata)
        if chunk.generation_info:
            self._metadata.update(chunk.generation_info)
        if type(message.content) is list:
            for kind, calls in _fees(message.content).items():
                self._fees[kind] = self._fees.get(kind, 0) + calls
        if self._booked is not None:
            metadata[BOOKED_KEY], self._booked, self._id = self._booked, None, message.id

    def reading(self) -> UsageReport:
        """The usage of the chunks so far."""
        if self._raw is not None:
            reading = self._raw.reading()
            if reading.items or not self._usage:
                return reading
        return _reading(self._provider, self._usage, self._metadata, self._id, self._fees, self._request)
