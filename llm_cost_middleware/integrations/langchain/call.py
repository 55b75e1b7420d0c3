"""One call of a guarded model, as a ``HostCall``: rendered for a target model, read, and delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult

from llm_cost_middleware.host import Governed, ObservedStream
from llm_cost_middleware.integrations.langchain.render import render
from llm_cost_middleware.integrations.langchain.structured import (
    StreamedAnswer,
    UnparsedAnswer,
    billed_usage,
    parse_answer,
    wanted_class,
)
from llm_cost_middleware.integrations.langchain.targets import TargetModels
from llm_cost_middleware.integrations.langchain.usage import BOOKED_KEY, ChunkObserver, read_result
from llm_cost_middleware.lifecycle import CallOutcome, RoutedCall
from llm_cost_middleware.request import AnswerContent, Attempt, CallRequest, CallResult, ModelRef
from llm_cost_middleware.usage import UsageReport, read_or_unknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class RenderedCall(NamedTuple):
    """What sends one attempt: the target model with its messages and arguments."""

    model: Any
    messages: list[BaseMessage]
    call_kwargs: dict[str, Any]
    target: ModelRef
    checked: bool
    """An answer that the SDK cannot parse is an answer all the same: the check rejects it."""

    def generate(self) -> ChatResult | UnparsedAnswer:
        """Send it, for an answer in one piece."""
        try:
            result: ChatResult = self.model._generate(self.messages, **self.call_kwargs)  # noqa: SLF001 - documented
        except Exception as error:  # noqa: BLE001 - raised again, unless a billed answer stands behind it
            return self._unparsed(error)
        return result

    async def agenerate(self) -> ChatResult | UnparsedAnswer:
        """Send it on an event loop, for an answer in one piece."""
        try:
            result: ChatResult = await self.model._agenerate(self.messages, **self.call_kwargs)  # noqa: SLF001
        except Exception as error:  # noqa: BLE001 - as above
            return self._unparsed(error)
        return result

    def _unparsed(self, error: Exception) -> UnparsedAnswer:
        """The answer behind an error, where one was billed and is to be checked; otherwise raises the error."""
        usage = billed_usage(error, self.target) if self.checked else None
        if usage is None:
            raise error
        return UnparsedAnswer(error, usage)

    def stream(self) -> Iterator[Any]:
        """Send it, for a stream."""
        return self.model._stream(self.messages, **self.call_kwargs)  # type: ignore[no-any-return]  # noqa: SLF001

    async def astream(self) -> AsyncIterator[Any]:
        """Send it on an event loop, for a stream."""
        return self.model._astream(self.messages, **self.call_kwargs)  # type: ignore[no-any-return]  # noqa: SLF001


class GuardedCall:
    """One call of a guarded model.

    Args:
        request: The neutral view.
        providers: Those that understand the call.
        prepared: The call, if it was routed ahead.
        targets: The models that it can be sent through.
        messages: As the caller gave them; never changed.
        call_kwargs: The arguments of the call; never changed.
        stream: Whether it is sent as a stream. LangChain may stream what was asked for in one piece.
        checked: Whether a check decides which answer stands.
    """

    __slots__ = (
        "_call_kwargs", "_checked", "_messages", "_stream", "_targets", "prepared", "providers", "request",
        "streamed_answer",
    )  # fmt: skip

    def __init__(
        self,
        request: CallRequest,
        providers: frozenset[str],
        prepared: RoutedCall | None,
        targets: TargetModels,
        messages: Sequence[BaseMessage],
        call_kwargs: Mapping[str, Any],
        *,
        stream: bool,
        checked: bool,
    ) -> None:
        self._stream = stream
        self.request, self.providers, self.prepared = request, providers, prepared
        self._targets, self._messages, self._call_kwargs, self._checked = targets, messages, call_kwargs, checked
        self.streamed_answer = StreamedAnswer.of(call_kwargs, targets.source.provider) if stream else None

    def render(self, attempt: Attempt) -> RenderedCall:
        """The target model, and copies of messages and arguments in the words of its provider."""
        targets, target = self._targets, attempt.target
        messages, call_kwargs = render(
            targets.source.provider, self._messages, self._call_kwargs, attempt, timeout=targets.clients.timeout
        )
        if self.streamed_answer is not None:
            self.streamed_answer.provider = target.provider
        model = targets.for_request(target, messages, call_kwargs, attempt.changes)
        return RenderedCall(model, messages, call_kwargs, target, self._checked)

    def read(self, attempt: Attempt, raw: Any) -> CallResult | ObservedStream:
        """The answer with its usage, marked as booked; or the open stream."""
        provider, booked = attempt.target.provider, booked_as(attempt)
        if self._stream:
            # a synchronous stream has ``close``, an asynchronous one ``aclose`` alone
            return ObservedStream(raw, ChunkObserver(provider, booked), getattr(raw, "aclose", None) or raw.close)
        if isinstance(raw, UnparsedAnswer):
            return CallResult(raw, raw.usage)
        message: Any = raw.generations[0].message
        usage = read_or_unknown(read_result, provider, raw)
        # a new mapping: LangChain may hand one out that its own cache keeps
        message.response_metadata = {**message.response_metadata, BOOKED_KEY: booked}
        # the parser of ChatOpenAI looks for an object that only the OpenAI SDK leaves there
        if provider != self._targets.source.provider and (kind := wanted_class(self._call_kwargs)) is not None:
            message.additional_kwargs.update(parse_answer(kind, message.text))
        return CallResult(raw, usage, read_content=_read_content)

    def billed_usage(self, attempt: Attempt, error: Exception) -> UsageReport | None:
        """The usage of an answer that LangChain or the SDK could not parse."""
        return billed_usage(error, attempt.target)

    def deliver(self, answer: Governed) -> Any:
        """LangChain's result, or the governed stream of chunks."""
        if not isinstance(answer, CallOutcome):
            return answer
        if isinstance(answer.response, UnparsedAnswer):
            raise answer.response.error
        return answer.response


def booked_as(attempt: Attempt) -> dict[str, Any]:
    """What an answer carries under ``BOOKED_KEY``."""
    return {"call_id": attempt.call_id, "attempt": attempt.number, "model": str(attempt.target)}


def _read_content(result: ChatResult) -> AnswerContent:
    message: Any = result.generations[0].message
    calls = (*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ()))
    return AnswerContent(message.text, tuple((call["name"], call["args"]) for call in calls))
