"""Structured output: an answer parsed for the class it was asked in, and the bill of one that would not parse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.integrations.langchain.usage import read_message
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import attach_usage


def note_bill(error: BaseException, target: ModelRef) -> None:
    """Note on an error that belongs to an answer which was served what was billed for it, and who answered.

    LangChain leaves the response on the error when an answer that came could not be parsed; the OpenAI SDK leaves the
    completion on its own length and content-filter errors; a refusal carries the message that was refused.
    """
    raw = getattr(error, "raw_message", None)
    body = getattr(error, "completion", None)
    response = getattr(error, "response", None)
    if body is None and response is not None and getattr(response, "is_success", False):
        try:
            body = response.json()
        except ValueError:  # no JSON: whatever this was, it tells no usage
            return
    if body is not None or isinstance(raw, AIMessage):
        try:
            rules = get_provider(target.provider)
            reading = rules.read_usage(body) if body is not None else read_message(target.provider, raw)
        except UnreadableUsageError:
            return
        if reading.items:
            attach_usage(error, reading)
            vars(error)["llm_cost_target"] = str(target)


def wanted_class(arguments: Mapping[str, Any]) -> Any:
    """The class that a ``response_format`` asks for; ``None`` where it is none."""
    form = arguments.get("response_format")
    return form if isinstance(form, type) and hasattr(form, "model_validate_json") else None


def parse_answer(kind: Any, text: str) -> Mapping[str, Any]:
    """The additional arguments of a message that ChatOpenAI's parser looks for.

    Empty where the text does not parse: the parser then says so, in its own words, after the answer was booked.
    """
    try:
        return {"parsed": kind.model_validate_json(text)}
    except ValueError:
        return {}


class StreamedAnswer:
    """Gathers a streamed answer that another provider gives to a ``response_format`` class, to parse it at its end."""

    __slots__ = ("_home", "_kind", "_texts", "provider")

    def __init__(self, kind: Any, home: str) -> None:
        self._kind, self._home, self._texts = kind, home, list[str]()
        self.provider = home

    @classmethod
    def of(cls, arguments: Mapping[str, Any], home: str) -> Self | None:
        """``None`` where no class was asked for: the usual case costs nothing."""
        kind = wanted_class(arguments)
        return None if kind is None else cls(kind, home)

    def note(self, chunk: Any) -> None:
        """Keep the text of a chunk until the end."""
        self._texts.append(chunk.text)

    def last(self) -> Iterator[ChatGenerationChunk]:
        """The chunk that ChatOpenAI would have ended with."""
        if self.provider != self._home and (parsed := parse_answer(self._kind, "".join(self._texts))):
            yield ChatGenerationChunk(message=AIMessageChunk(content="", additional_kwargs=dict(parsed)))
