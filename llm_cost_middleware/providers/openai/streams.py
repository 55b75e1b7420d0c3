"""Usage of a stream, an event at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.providers.openai.answers import bill, describe, read_answer
from llm_cost_middleware.usage import UsageReport
from llm_cost_middleware.wire import EMPTY_MAPPING, SSEDecoder, as_mapping, field_reader, str_or_none

_TEXT, _LISTS = (str, bytes, bytearray), (list, tuple)  # named: a union is built at every check
_DULL = tuple(
    f'{{"type":{space}"response.{kind}'
    for space in ("", " ")
    for kind in ("output_text.delta", "reasoning_summary_text.delta", "function_call_arguments.delta")
)
_NO_STREAM_USAGE = "the stream carries no usage: ask for it with stream_options={'include_usage': True}"


class OpenAIStreamReader:
    """The usage of a stream, fed one event at a time: parsed, as an SDK object, or raw in pieces cut anywhere.

    Chat chunks and events of the Responses API are distinguished by their shape.
    """

    __slots__ = ("_background", "_error", "_final", "_finish", "_id", "_model", "_sse", "_status", "_tier", "_usage")

    def __init__(self) -> None:
        self._usage: Mapping[str, Any] | None = None
        self._final: Any = None
        self._model: str | None = None
        self._id: str | None = None
        self._tier: str | None = None
        self._finish: str | None = None
        self._status: str | None = None
        self._error: str | None = None
        self._background = False
        self._sse: SSEDecoder | None = None

    def feed(self, event: Any) -> None:
        """Take note of one event. Never raises; ``reading`` reports what makes no sense."""
        fields = getattr(event, "__dict__", EMPTY_MAPPING)
        choices = fields.get("choices")
        if (
            type(choices) is list and choices and self._model is not None and fields.get("usage", 0) is None
            and getattr(choices[0], "finish_reason", 0) is None
        ):  # fmt: skip
            return  # a chunk of a chat in the middle of its answer, as an SDK's object: almost every one
        if type(event) is dict:
            kind = event.get("type")
            choices, usage = event.get("choices"), event.get("usage")
        elif isinstance(event, _TEXT):
            self._sse = self._sse or SSEDecoder(_DULL)
            for parsed in self._sse.feed(event):
                self.feed(parsed)
            return
        else:
            kind, choices, usage = _peek(event)
        if choices is not None or usage is not None:
            self._chunk(event, choices, usage)
        elif kind is None:
            self._failed(field_reader(event)("error"))
        elif type(kind) is str and kind in _TELLING:
            self._event(kind, event)

    def _chunk(self, event: Any, choices: Any, usage: Any) -> None:
        if self._model is None:
            get = field_reader(event)
            self._model, self._id = str_or_none(get("model")), str_or_none(get("id"))
        if usage is not None:
            self._usage = as_mapping(usage)
            self._tier = str_or_none(field_reader(event)("service_tier")) or self._tier
        if choices and isinstance(choices, _LISTS):
            choice = choices[0]
            reason = choice.get("finish_reason") if type(choice) is dict else getattr(choice, "finish_reason", None)
            if reason is not None:
                self._finish = str_or_none(reason)
                self._tier = str_or_none(field_reader(event)("service_tier")) or self._tier

    def _event(self, kind: str, event: Any) -> None:
        if kind == "error":
            get = field_reader(event)
            self._failed(get("error") or event)
            return
        response = field_reader(event)("response")
        get = field_reader(response)
        self._model = str_or_none(get("model")) or self._model
        self._id = str_or_none(get("id")) or self._id
        if kind in _FINAL:
            self._final = response
        else:
            self._status = str_or_none(get("status"))
            self._background = get("background") is True

    def _failed(self, error: Any) -> None:
        if error is not None:
            self._error = describe(error)

    def reading(self) -> UsageReport:
        """What the events so far say. Raises ``UnreadableUsageError`` for a count that is not one."""
        if self._sse is not None:
            for parsed in self._sse.flush():
                self.feed(parsed)
        if self._final is not None:
            return read_answer(self._final)
        if self._usage:
            return bill(
                self._usage,
                model=self._model,
                response_id=self._id,
                service_tier=self._tier,
                finish=self._finish,
                error=self._error,
                tool_calls=None,
            )
        note = "the stream ended before its usage came" if self._finish is None else _NO_STREAM_USAGE
        return UsageReport(
            model=self._model,
            response_id=self._id,
            finish_reason=self._finish or self._status,
            error=self._error,
            pending=self._background and self._error is None,
            warnings=(note,),
        )


def _peek(event: Any) -> tuple[Any, Any, Any]:
    """The telling fields of an object. Asking pydantic for a field that it lacks costs microseconds: look inside."""
    fields = getattr(event, "__dict__", None)
    if fields is None:
        return getattr(event, "type", None), getattr(event, "choices", None), getattr(event, "usage", None)
    usage = fields.get("usage", fields)
    if usage is fields:  # an object that does not know the field keeps it apart
        usage = (getattr(event, "model_extra", None) or fields).get("usage")
    return fields.get("type"), fields.get("choices"), usage


_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_TELLING = _FINAL | {"response.created", "response.queued", "response.in_progress", "error"}
