"""Usage of Anthropic's responses to disjoint buckets.

Rules of the bill, each of which was seen in recorded traffic:

* ``input_tokens`` excludes cached and written tokens.
* The split of ``cache_creation`` by TTL may sum to less than ``cache_creation_input_tokens``: the total is billed, the
  residue is five-minute cache. Older responses carry no split at all.
* ``iterations`` are the bill where one of them is not a plain message: compactions, advisor and fallback messages
  stand outside the top-level usage, the latter two at a model of their own.
* In a stream, ``message_delta`` repeats cumulative counts and wins over ``message_start`` wherever it says something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_cost_middleware.provider import BilledItem, UsageReading
from llm_cost_middleware.usage import TokenUsage
from llm_cost_middleware.wire import SSEDecoder, count, getter, looks_like_sse, mapping, parse, text

_NAME = "anthropic"
_DULL = (
    '{"type":"content_block_delta"',
    '{"type": "content_block_delta"',
    '{"type":"content_block_stop"',
    '{"type": "ping"',
    '{"type":"ping"',
)
_ERROR = "error"


def read_usage(response: Any) -> UsageReading:
    """What a response says of its own bill.

    Args:
        response: A JSON object of ``messages``, ``messages/batches``, ``count_tokens`` or the OpenAI-compatible
            endpoint, a batch's result line or a list of them, JSON or SSE text, or the SDK's object.

    Raises:
        UnreadableUsageError: A count that is not one, or broken JSON.
    """
    if isinstance(response, str | bytes | bytearray):
        if looks_like_sse(response):
            reader = StreamReader()
            reader.feed(response)
            return reader.reading()
        response = parse(response, _NAME)
    if isinstance(response, list | tuple):
        return _batch(response)
    return _read(response)


def _read(response: Any) -> UsageReading:
    get = getter(response)
    kind = get("type")
    error = get("error")
    if kind == _ERROR or (error is not None and get("usage") is None):
        return UsageReading(error=_describe(error), free=True)
    if get("result") is not None and get("custom_id") is not None:
        return _batch((response,))
    if kind == "message_batch":
        return UsageReading(notes=("a batch's status carries no usage: its results do",))
    usage = mapping(get("usage"))
    if not usage:
        if type(get("input_tokens")) is int and get("id") is None:
            return UsageReading(free=True, complete=True, notes=("a count of tokens is not billed",))
        return UsageReading(model=text(get("model")), notes=("the response carries no usage",))
    finish = text(get("stop_reason"))
    return _reading(
        usage,
        model=text(get("model")),
        response_id=text(get("id")),
        finish=finish,
        complete=True,
        looped=_server_loop(get("content"), usage),
    )


def _reading(
    usage: Mapping[str, Any],
    *,
    model: str | None,
    response_id: str | None,
    finish: str | None,
    complete: bool,
    looped: Mapping[str, int] | None,
    error: str | None = None,
) -> UsageReading:
    items, notes = _items(usage)
    tier = text(usage.get("service_tier"))
    return UsageReading(
        items=items,
        model=model,
        response_id=response_id,
        service_tier=tier,
        speed=text(usage.get("speed")),
        geo=text(usage.get("inference_geo")),
        batch=tier == "batch",
        complete=complete,
        finish_reason=finish,
        error=error,
        tool_calls=looped,
        notes=notes,
    )


def _items(usage: Mapping[str, Any]) -> tuple[tuple[BilledItem, ...], tuple[str, ...]]:
    """The billed items of a usage object: its iterations where they say more than the top level."""
    searches = count(mapping(usage.get("server_tool_use")).get("web_search_requests"), _NAME, "web_search_requests")
    iterations = usage.get("iterations")
    entries = [mapping(entry) for entry in iterations] if isinstance(iterations, list | tuple) else []
    entries = [entry for entry in entries if entry]
    if not entries:
        bucketed, notes = _bucket(usage, searches)
        return (BilledItem(bucketed),), notes
    items: list[BilledItem] = []
    told: list[str] = []
    for entry in entries:
        kind = text(entry.get("type")) or "message"
        bucketed, notes = _bucket(entry, 0)
        items.append(BilledItem(bucketed, model=text(entry.get("model")), kind=kind))
        told.extend(notes)
    if searches:
        # Searches are counted for the whole response; they cost the same whichever iteration made them.
        first = items[0]
        items[0] = BilledItem(first.usage + TokenUsage(web_searches=searches), model=first.model, kind=first.kind)
    return tuple(items), tuple(dict.fromkeys(told))


def _bucket(usage: Mapping[str, Any], searches: int) -> tuple[TokenUsage, tuple[str, ...]]:
    if "prompt_tokens" in usage:  # the OpenAI-compatible endpoint, which reports no cache
        return TokenUsage(
            uncached_input=count(usage.get("prompt_tokens"), _NAME, "prompt_tokens"),
            output=count(usage.get("completion_tokens"), _NAME, "completion_tokens"),
        ), ()
    notes: tuple[str, ...] = ()
    split = mapping(usage.get("cache_creation"))
    short = count(split.get("ephemeral_5m_input_tokens"), _NAME, "ephemeral_5m_input_tokens")
    long = count(split.get("ephemeral_1h_input_tokens"), _NAME, "ephemeral_1h_input_tokens")
    total = usage.get("cache_creation_input_tokens")
    if total is not None:
        written = count(total, _NAME, "cache_creation_input_tokens")
        if written != short + long:
            if split:
                notes = (f"cache writes are split as {short + long:,} but total {written:,}: the total is billed",)
            long = min(long, written)
            short = written - long
    output = count(usage.get("output_tokens"), _NAME, "output_tokens")
    thinking = mapping(usage.get("output_tokens_details")).get("thinking_tokens")
    return TokenUsage(
        uncached_input=count(usage.get("input_tokens"), _NAME, "input_tokens"),
        cache_read=count(usage.get("cache_read_input_tokens"), _NAME, "cache_read_input_tokens"),
        cache_write_5m=short,
        cache_write_1h=long,
        output=output,
        reasoning=min(count(thinking, _NAME, "thinking_tokens"), output),
        web_searches=searches,
    ), notes


_LOOP_FROM = 100_000  # below every long-context threshold a loop of internal turns changes no price


def _server_loop(content: Any, usage: Mapping[str, Any]) -> Mapping[str, int] | None:
    """The provider-side tools that ran, whose internal turns are summed into one input count."""
    calls = {
        name: uses for name, uses in mapping(usage.get("server_tool_use")).items() if type(uses) is int and uses > 0
    }
    if not calls and isinstance(content, list | tuple) and (usage.get("input_tokens") or 0) >= _LOOP_FROM:
        runs = sum(1 for block in content if getter(block)("type") == "server_tool_use")
        calls = {"server_tool_use": runs} if runs else {}
    return calls or None


def _batch(lines: Iterable[Any]) -> UsageReading:
    """Result lines of a message batch: every succeeded one is an item at its own model."""
    items: list[BilledItem] = []
    errors: list[str] = []
    notes: list[str] = []
    last = UsageReading()
    for line in lines:
        result = getter(getter(line)("result"))
        if result("type") != "succeeded":
            errors.append(_describe(getter(result("error"))("error") or result("error") or result("type")))
            continue
        last = _read(result("message"))
        items.extend(BilledItem(i.usage, model=i.model or last.model, kind=i.kind) for i in last.items)
        notes.extend(last.notes)
    return UsageReading(
        items=tuple(items),
        model=last.model,
        response_id=last.response_id,
        service_tier=last.service_tier,
        geo=last.geo,
        batch=True,
        complete=True,
        finish_reason=last.finish_reason,
        error="; ".join(dict.fromkeys(errors)) or None,
        free=bool(errors) and not items,
        notes=tuple(dict.fromkeys(notes)),
    )


def _describe(error: Any) -> str:
    get = getter(error)
    kind, message = text(get("type")), text(get("message"))
    return ": ".join(part for part in (kind, message) if part) or (error if isinstance(error, str) else "error")


class StreamReader:
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
        """Take note of one event. Never raises; what makes no sense is told by ``reading``."""
        if type(event) is dict:
            kind = event.get("type")
        elif isinstance(event, str | bytes | bytearray):
            self._sse = self._sse or SSEDecoder(_DULL)
            for parsed in self._sse.feed(event):
                self.feed(parsed)
            return
        else:
            kind = getattr(event, "type", None)
        if type(kind) is str and kind in _TELLING:
            self._note(kind, event)

    def _note(self, kind: str, event: Any) -> None:
        get = getter(event)
        if kind == "message_start":
            message = getter(get("message"))
            self._start = mapping(message("usage"))
            self._model, self._id = text(message("model")), text(message("id"))
        elif kind == "message_delta":
            self._delta.update((k, v) for k, v in mapping(get("usage")).items() if v is not None)
            self._finish = text(getter(get("delta"))("stop_reason")) or self._finish
        elif kind == "message_stop":
            self._stopped = True
        elif kind == _ERROR:
            self._error = _describe(get("error"))
        elif getter(get("content_block"))("type") == "server_tool_use":
            self._runs += 1

    def reading(self) -> UsageReading:
        """What the events so far say. Raises ``UnreadableUsageError`` for a count that is not one."""
        if self._sse is not None:
            for parsed in self._sse.tail():
                self.feed(parsed)
        if self._start is None and not self._delta:
            if self._error:
                return UsageReading(error=self._error, free=True)
            return UsageReading(notes=("the stream carries no usage",))
        merged = {**(self._start or {}), **self._delta}
        complete = bool(self._finish or self._stopped) and bool(self._delta)
        looped = _server_loop(None, merged) or ({"server_tool_use": self._runs} if self._runs else None)
        return _reading(
            merged,
            model=self._model,
            response_id=self._id,
            finish=self._finish,
            complete=complete,
            looped=looped,
            error=self._error,
        )


_TELLING = frozenset({"message_start", "message_delta", "message_stop", "content_block_start", _ERROR})
