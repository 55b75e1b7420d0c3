"""Structured output: an answer parsed for the class it was asked in, and the bill of one that would not parse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableSequence

from llm_cost_middleware.integrations.langchain.usage import read_message
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult, ModelRef
from llm_cost_middleware.usage import UsageReport, read_or_unknown


class UnparsedAnswer(NamedTuple):
    """An answer that was billed and arrived, and that LangChain or the SDK could not parse."""

    error: Exception
    usage: UsageReport


def billed_usage(error: BaseException, target: ModelRef) -> UsageReport | None:
    """The usage of an answer that was served and not parsed, from the error that came instead; ``None`` without one.

    LangChain leaves the response on the error when an answer that came could not be parsed; the OpenAI SDK leaves the
    completion on its own length and content-filter errors; a refusal carries the message that was refused.
    """
    # by attributes, not by class: the errors of three packages and several versions
    raw = getattr(error, "raw_message", None)
    body = getattr(error, "completion", None)
    response = getattr(error, "response", None)
    if body is None and response is not None and getattr(response, "is_success", False):
        try:
            body = response.json()
        except ValueError:  # no JSON: whatever this was, it reports no usage
            return None
    if body is not None:
        usage = read_or_unknown(get_provider(target.provider).read_usage, body)
    elif isinstance(raw, AIMessage):
        usage = read_or_unknown(read_message, target.provider, raw)
    else:
        return None
    return usage if usage.items else None


def check_of(chain: Any) -> Callable[[CallResult], bool]:
    """The parser of a structured-output chain as a check of answers: one that it cannot parse goes up a tier.

    Args:
        chain: A model and what follows it.
    """
    parser = RunnableSequence(*chain.steps[1:]) if len(chain.steps) > 2 else chain.last  # noqa: PLR2004 - model, parser

    def parses(result: CallResult) -> bool:
        if isinstance(result.response, UnparsedAnswer):
            return False
        try:
            # without callbacks: the chain parses again, and that run is the one to be traced
            parsed = parser.invoke(result.response.generations[0].message, {"callbacks": []})
        except Exception:  # noqa: BLE001 - whatever a parser raises: the answer cannot be used
            return False
        return parsed is not None

    return parses


def in_one_piece(chain: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The chain, invoked also where it is streamed: LangChain's parsers make nothing of a message in one piece."""

    def ask(given: Any, config: RunnableConfig) -> Any:
        return chain.invoke(given, config)

    async def aask(given: Any, config: RunnableConfig) -> Any:
        return await chain.ainvoke(given, config)

    return RunnableLambda(ask, aask, name="structured_output")


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

    __slots__ = ("_kind", "_source", "_texts", "provider")

    def __init__(self, kind: Any, source: str) -> None:
        self._kind, self._source, self._texts = kind, source, list[str]()
        self.provider = source

    @classmethod
    def of(cls, arguments: Mapping[str, Any], source: str) -> Self | None:
        """``None`` where no class was asked for: the usual case costs nothing."""
        kind = wanted_class(arguments)
        return None if kind is None else cls(kind, source)

    def observe(self, chunk: Any) -> None:
        """Keep the text of a chunk until the end."""
        self._texts.append(chunk.text)

    def last_chunks(self) -> Iterator[ChatGenerationChunk]:
        """The chunk that ChatOpenAI would have ended with."""
        if self.provider != self._source and (parsed := parse_answer(self._kind, "".join(self._texts))):
            yield ChatGenerationChunk(message=AIMessageChunk(content="", additional_kwargs=dict(parsed)))
