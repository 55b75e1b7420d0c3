"""Usage of a stream, an event at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.providers.anthropic.answers import bill, describe, server_loop
from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import SSEDecoder, as_mapping, field_reader, str_or_none

_TEXT = (str, bytes, bytearray)  # named: a union is built at every check
_DULL = (
    '{"type":"content_block_delta"',
    '{"type": "content_block_delta"',
    '{"type":"content_block_stop"',
    '{"type": "ping"',
    '{"type":"ping"',
)
_ERROR = "error"


class AnthropicStreamReader:
    """The usage of a stream, fed one event at a time: parsed, as an SDK object, or raw in pieces cut anywhere."""

    __slots__ = ("_delta", "_error", "_finish", "_id", "_model", "_runs", "_sse", "_start", "_stopped")

    def __init__(self) -> None:
        self._start: Mapping[str, Any] | None = None
        self._delta: dict[str, Any] = {}
        self._model: str | None = None
        self._id: str | None = None
        self._finish: str | None = None
        self._error: str | None = None
        self._stopped = False
        self._runs = 0
        self._sse: SSEDecoder | None = None

    def feed(self, event: Any) -> None:
        """Take note of one event. Never raises; ``reading`` reports what makes no sense."""
        kind = getattr(event, "type", None)  # objects first: an SDK's stream is of them alone
        if kind is None and type(event) is dict:
            kind = event.get("type")
        elif kind is None and isinstance(event, _TEXT):
            self._sse = self._sse or SSEDecoder(_DULL)
            for parsed in self._sse.feed(event):
                self.feed(parsed)
            return
        if type(kind) is str and kind in _TELLING:
            self._note(kind, event)

    def _note(self, kind: str, event: Any) -> None:
        get = field_reader(event)
        if kind == "message_start":
            message = field_reader(get("message"))
            self._start = as_mapping(message("usage"))
            self._model, self._id = str_or_none(message("model")), str_or_none(message("id"))
        elif kind == "message_delta":
            # counts are cumulative, and a later event leaves some out as null
            self._delta.update((k, v) for k, v in as_mapping(get("usage")).items() if v is not None)
            self._finish = str_or_none(field_reader(get("delta"))("stop_reason")) or self._finish
        elif kind == "message_stop":
            self._stopped = True
        elif kind == _ERROR:
            self._error = describe(get("error"))
        elif field_reader(get("content_block"))("type") == "server_tool_use":
            self._runs += 1

    def reading(self) -> UsageReport:
        """The usage of the events so far. Raises ``UnreadableUsageError`` for a count that is not one."""
        if self._sse is not None:
            for parsed in self._sse.flush():
                self.feed(parsed)
        if self._start is None and not self._delta:
            return UsageReport(error=self._error, warnings=("the stream carries no usage",))
        # the first event has the input and the cache, the last one the output
        merged = {**(self._start or {}), **self._delta}
        complete = bool(self._finish or self._stopped) and bool(self._delta)
        if complete and "output_tokens" not in self._delta:  # the first event's count is of the first token alone
            merged.pop("output_tokens", None)
        elif not complete:
            merged.setdefault("output_tokens", 0)
        looped = server_loop(None, merged) or ({"server_tool_use": self._runs} if self._runs else None)
        return bill(
            merged,
            model=self._model,
            response_id=self._id,
            finish=self._finish,
            complete=complete,
            looped=looped,
            error=self._error,
        )


_TELLING = frozenset({"message_start", "message_delta", "message_stop", "content_block_start", _ERROR})
