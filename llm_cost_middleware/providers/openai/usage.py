"""Usage of OpenAI's responses to disjoint buckets.

Rules of the bill, each of which was seen in recorded traffic:

* ``prompt_tokens`` (``input_tokens``) includes what was read from and written to the cache, and audio.
* Reasoning is inside the output count.
* A chat stream carries usage only where ``stream_options.include_usage`` asked for it; a stream that fails ends in
  zeros, which say nothing.
* A background response carries no usage until it is finished, and then as often as it is retrieved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_cost_middleware.provider import BilledItem, UsageReading
from llm_cost_middleware.usage import TokenUsage
from llm_cost_middleware.wire import SSEDecoder, count, getter, looks_like_sse, mapping, parse, text

_NAME = "openai"
_DULL = tuple(
    f'{{"type":{space}"response.{kind}'
    for space in ("", " ")
    for kind in ("output_text.delta", "reasoning_summary_text.delta", "function_call_arguments.delta")
)
_UNFINISHED = frozenset({"queued", "in_progress"})
_FREE_COUNTS = frozenset({"response.input_tokens"})
_NO_STREAM_USAGE = "the stream carries no usage: ask for it with stream_options={'include_usage': True}"


def read_usage(response: Any) -> UsageReading:
    """What a response says of its own bill.

    Args:
        response: A JSON object of ``chat/completions``, ``responses`` (retrieved ones too), ``responses/compact``,
            ``embeddings``, ``batches``; a batch's result line or a list of them; JSON or SSE text; the SDK's object.

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
    kind, error, usage = get("object"), get("error"), mapping(get("usage"))
    if get("custom_id") is not None and (get("response") is not None or error is not None):
        return _batch((response,))
    if kind == "batch":
        return UsageReading(notes=("a batch's status carries no bill: its results do",))
    if error is not None and not usage:
        # A failed response may have been billed; an error in a response's place never is.
        return UsageReading(error=_describe(error), free=kind is None, model=text(get("model")), response_id=_id(get))
    if type(kind) is str and kind in _FREE_COUNTS:
        return UsageReading(free=True, complete=True, notes=("a count of tokens is not billed",))
    if not usage:
        return _without_usage(get)
    choices = get("choices")
    finish = _finish(choices) if choices else _status(get)
    return _reading(
        usage,
        model=text(get("model")),
        response_id=_id(get),
        service_tier=text(get("service_tier")),
        finish=finish,
        error=_describe(error) if error is not None else None,
        tool_calls=_tool_calls(get("output")),
    )


def _without_usage(get: Any) -> UsageReading:
    status = get("status")
    unfinished = type(status) is str and status in _UNFINISHED
    note = f"the response is {status}: its usage comes with the retrieved one" if unfinished else "no usage in it"
    return UsageReading(
        model=text(get("model")),
        response_id=_id(get),
        service_tier=text(get("service_tier")),
        finish_reason=_finish(get("choices")) or text(status),
        notes=(note if unfinished else "the response carries no usage",),
    )


def _reading(
    usage: Mapping[str, Any],
    *,
    model: str | None,
    response_id: str | None,
    service_tier: str | None,
    finish: str | None,
    error: str | None,
    tool_calls: Mapping[str, int] | None,
) -> UsageReading:
    bucketed, notes = _bucket(usage)
    return UsageReading(
        items=(BilledItem(bucketed),),
        model=model,
        response_id=response_id,
        service_tier=service_tier,
        complete=error is None,
        finish_reason=finish,
        error=error,
        tool_calls=tool_calls,
        notes=notes,
    )


def _bucket(usage: Mapping[str, Any]) -> tuple[TokenUsage, tuple[str, ...]]:
    """One usage object, of either API, to buckets. The names differ, the meaning does not."""
    chat = "prompt_tokens" in usage
    inputs, outputs = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    total_in, total_out = count(usage.get(inputs), _NAME, inputs), count(usage.get(outputs), _NAME, outputs)
    within = mapping(usage.get(f"{inputs}_details"))
    without = mapping(usage.get(f"{outputs}_details"))
    cached = count(within.get("cached_tokens"), _NAME, "cached_tokens")
    audio = count(within.get("audio_tokens"), _NAME, "audio_tokens")
    audio_cached = 0
    if cached and audio:
        audio_cached = count(mapping(within.get("cached_tokens_details")).get("audio_tokens"), _NAME, "audio_tokens")
        audio_cached = min(audio_cached, cached, audio)
    written = count(within.get("cache_write_tokens"), _NAME, "cache_write_tokens")
    half_day = 0
    if written:
        by_ttl = mapping(within.get("cache_write_tokens_details"))
        half_day = min(count(by_ttl.get("ttl_12h_tokens"), _NAME, "ttl_12h_tokens"), written)
    audio_out = count(without.get("audio_tokens"), _NAME, "audio_tokens")
    reasoning = count(without.get("reasoning_tokens"), _NAME, "reasoning_tokens")
    plain = total_in - cached - written - (audio - audio_cached)
    output = max(total_out - audio_out, 0)
    notes: tuple[str, ...] = ()
    if plain < 0 or audio_out > total_out:
        notes = ("the parts of a count exceed it: the parts are billed",)
    return TokenUsage(
        uncached_input=max(plain, 0),
        cache_read=cached - audio_cached,
        cache_write_30m=written - half_day,
        cache_write_12h=half_day,
        output=output,
        reasoning=min(reasoning, output),
        audio_input=audio - audio_cached,
        audio_cache_read=audio_cached,
        audio_output=audio_out,
    ), notes


def _batch(lines: Iterable[Any]) -> UsageReading:
    """Result lines of a batch: every answered one is an item at its own model."""
    items: list[BilledItem] = []
    errors: list[str] = []
    notes: list[str] = []
    calls: dict[str, int] = {}
    last = UsageReading()
    for line in lines:
        get = getter(line)
        body = getter(get("response"))("body")
        one = _read(body) if body is not None else UsageReading(error=_describe(get("error")))
        if one.error:
            errors.append(one.error)
        if one.items:
            last = one
            items.extend(BilledItem(i.usage, model=one.model, kind=i.kind) for i in one.items)
            for kind, uses in (one.tool_calls or {}).items():
                calls[kind] = calls.get(kind, 0) + uses
        notes.extend(one.notes)
    return UsageReading(
        items=tuple(items),
        model=last.model,
        response_id=last.response_id,
        service_tier=last.service_tier,
        batch=True,
        complete=True,
        finish_reason=last.finish_reason,
        error="; ".join(dict.fromkeys(errors)) or None,
        free=bool(errors) and not items,
        tool_calls=calls or None,
        notes=tuple(dict.fromkeys(notes)),
    )


def _id(get: Any) -> str | None:
    return text(get("id"))


def _finish(choices: Any) -> str | None:
    if not isinstance(choices, list | tuple):
        return None
    for choice in choices:
        reason = text(getter(choice)("finish_reason"))
        if reason:
            return reason
    return None


def _status(get: Any) -> str | None:
    """``completed``, ``incomplete`` …: with its reason where there is one."""
    return text(getter(get("incomplete_details"))("reason")) or text(get("status"))


def _tool_calls(output: Any) -> Mapping[str, int] | None:
    """Items of the provider's own tools, by type. Only searches count among web search actions: pages are free."""
    if not isinstance(output, list | tuple):
        return None
    calls: dict[str, int] = {}
    for item in output:
        get = getter(item)
        kind = get("type")
        if type(kind) is not str or kind not in _FEE_TYPES:
            continue
        if kind == "web_search_call" and (getter(get("action"))("type") or "search") != "search":
            continue
        calls[kind] = calls.get(kind, 0) + 1
    return calls or None


_FEE_TYPES = frozenset(
    {
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "shell_call",
        "mcp_call",
        "computer_call",
    }
)


def _describe(error: Any) -> str:
    get = getter(error)
    kind, message = text(get("code")) or text(get("type")), text(get("message"))
    return ": ".join(part for part in (kind, message) if part) or (error if isinstance(error, str) else "error")


class StreamReader:
    """The usage of a stream, fed one event at a time: parsed, as an SDK object, or raw in pieces cut anywhere.

    Chat chunks and events of the Responses API are told apart by themselves.
    """

    __slots__ = ("_error", "_final", "_finish", "_id", "_model", "_sse", "_status", "_tier", "_usage")

    def __init__(self) -> None:
        self._usage: Mapping[str, Any] | None = None
        self._final: Any = None
        self._model: str | None = None
        self._id: str | None = None
        self._tier: str | None = None
        self._finish: str | None = None
        self._status: str | None = None
        self._error: str | None = None
        self._sse: SSEDecoder | None = None

    def feed(self, event: Any) -> None:
        """Take note of one event. Never raises; what makes no sense is told by ``reading``."""
        if type(event) is dict:
            kind = event.get("type")
            choices, usage = event.get("choices"), event.get("usage")
        elif isinstance(event, str | bytes | bytearray):
            self._sse = self._sse or SSEDecoder(_DULL)
            for parsed in self._sse.feed(event):
                self.feed(parsed)
            return
        else:
            kind, choices, usage = _peek(event)
        if choices is not None or usage is not None:
            self._chunk(event, choices, usage)
        elif kind is None:
            self._failed(getter(event)("error"))
        elif type(kind) is str and kind in _TELLING:
            self._event(kind, event)

    def _chunk(self, event: Any, choices: Any, usage: Any) -> None:
        if self._model is None:
            get = getter(event)
            self._model, self._id = text(get("model")), _id(get)
        if usage is not None:
            self._usage = mapping(usage)
            self._tier = text(getter(event)("service_tier")) or self._tier
        if choices and isinstance(choices, list | tuple):
            choice = choices[0]
            reason = choice.get("finish_reason") if type(choice) is dict else getattr(choice, "finish_reason", None)
            if reason is not None:
                self._finish = text(reason)
                self._tier = text(getter(event)("service_tier")) or self._tier

    def _event(self, kind: str, event: Any) -> None:
        if kind == "error":
            get = getter(event)
            self._failed(get("error") or event)
            return
        response = getter(event)("response")
        get = getter(response)
        self._model = text(get("model")) or self._model
        self._id = _id(get) or self._id
        if kind in _FINAL:
            self._final = response
        else:
            self._status = text(get("status"))

    def _failed(self, error: Any) -> None:
        if error is not None:
            self._error = _describe(error)

    def reading(self) -> UsageReading:
        """What the events so far say. Raises ``UnreadableUsageError`` for a count that is not one."""
        if self._sse is not None:
            for parsed in self._sse.tail():
                self.feed(parsed)
        if self._final is not None:
            return _read(self._final)
        usage = self._usage
        if usage and not (self._error and not any(usage.get(name) for name in ("prompt_tokens", "completion_tokens"))):
            return _reading(
                usage,
                model=self._model,
                response_id=self._id,
                service_tier=self._tier,
                finish=self._finish,
                error=self._error,
                tool_calls=None,
            )
        silent = self._id is None and self._model is None
        note = "the stream ended before its usage came" if self._finish is None else _NO_STREAM_USAGE
        return UsageReading(
            model=self._model,
            response_id=self._id,
            finish_reason=self._finish or self._status,
            error=self._error,
            free=self._error is not None and silent,
            notes=(note,),
        )


def _peek(event: Any) -> tuple[Any, Any, Any]:
    """The telling fields of an SDK object. Asking pydantic for a field that it lacks costs microseconds: look inside."""
    fields = getattr(event, "__dict__", None)
    if fields is None:
        return getattr(event, "type", None), getattr(event, "choices", None), getattr(event, "usage", None)
    usage = fields.get("usage")
    if usage is None:
        usage = (getattr(event, "model_extra", None) or fields).get("usage")
    return fields.get("type"), fields.get("choices"), usage


_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_TELLING = _FINAL | {"response.created", "response.queued", "response.in_progress", "error"}
