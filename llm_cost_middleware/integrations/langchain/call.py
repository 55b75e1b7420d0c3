"""One call of a guarded model, as a ``HostCall``: rendered for a target model, read, and delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult

from llm_cost_middleware.call_ids import BOOKED_KEY
from llm_cost_middleware.host import Governed, ObservedStream, account_of
from llm_cost_middleware.integrations.langchain.render import cap_name, render
from llm_cost_middleware.integrations.langchain.structured import (
    StreamedAnswer,
    UnparsedAnswer,
    billed_usage,
    parse_answer,
    wanted_class,
)
from llm_cost_middleware.integrations.langchain.targets import TargetModels
from llm_cost_middleware.integrations.langchain.usage import ChunkObserver, read_result
from llm_cost_middleware.lifecycle import CallOutcome, RoutedCall
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import AnswerContent, Attempt, CallRequest, CallResult, ModelRef
from llm_cost_middleware.usage import UsageReport, read_or_unknown
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

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
        messages: As they were read, and nobody else's; never changed.
        call_kwargs: The arguments of the call, likewise.
        stream: Whether it is sent as a stream. LangChain may stream what was asked for in one piece.
        checked: Whether a check decides which answer stands.
    """

    __slots__ = (
        "_call_kwargs", "_checked", "_messages", "_stream", "prepared", "providers", "request",
        "streamed_answer", "targets",
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
        self.targets, self._messages, self._call_kwargs, self._checked = targets, messages, call_kwargs, checked
        self.streamed_answer = StreamedAnswer.of(call_kwargs, targets.source.provider) if stream else None

    def render(self, attempt: Attempt) -> RenderedCall:
        """The target model, and copies of messages and arguments in the words of its provider."""
        targets, target, arguments = self.targets, attempt.target, self._call_kwargs
        if self.request.has_odd_cap:  # of the model itself, perhaps: what is made for a target has none
            settings = self.request.settings
            odd = next(settings[name] for name in OUTPUT_CAP_FIELDS if settings.get(name) is not None)
            arguments = (
                {cap_name(target.provider): odd, **arguments}
                if not arguments.keys() & {*OUTPUT_CAP_FIELDS}
                else arguments
            )
        messages, call_kwargs = render(
            targets.source.provider, self._messages, arguments, attempt,
            timeout=targets.clients.timeout, effort=targets.source.effort,
        )  # fmt: skip
        if self.streamed_answer is not None:
            self.streamed_answer.provider = target.provider
        model = targets.for_request(target, messages, call_kwargs, attempt.changes)
        return RenderedCall(model, messages, call_kwargs, target, self._checked)

    def read(self, attempt: Attempt, raw: Any) -> CallResult | ObservedStream:
        """The answer with its usage, marked as booked; or the open stream."""
        provider, booked = attempt.target.provider, booked_as(attempt)
        if self._stream:
            # a synchronous stream has ``close``, an asynchronous one ``aclose`` alone
            close = getattr(raw, "aclose", None) or getattr(raw, "close", None) or (lambda: None)  # a mock has none
            return ObservedStream(raw, ChunkObserver(provider, booked, self.request), close)
        if isinstance(raw, UnparsedAnswer):
            return CallResult(raw, raw.usage)
        message: Any = raw.generations[0].message
        usage = read_or_unknown(read_result, provider, raw)
        # a new mapping: LangChain may hand one out that its own cache keeps
        message.response_metadata = {**message.response_metadata, BOOKED_KEY: booked}
        # the parser of ChatOpenAI looks for an object that only the OpenAI SDK leaves there
        if provider != self.targets.source.provider and (kind := wanted_class(self._call_kwargs)) is not None:
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

    @property
    def counter(self) -> RenderedCounter | None:
        """Asks the target's own model object; ``None`` where no target counts."""
        return RenderedCounter(self) if "anthropic" in self.providers else None


class RenderedCounter:
    """An ``InputCounter`` over ``ChatAnthropic.get_num_tokens_from_messages``, which asks the provider.

    Args:
        call: The call; it is rendered without marks.
    """

    __slots__ = ("_call",)

    def __init__(self, call: GuardedCall) -> None:
        self._call = call

    def account(self, target: ModelRef) -> str:
        """A digest of the key and the address of the target's model object."""
        model: Any = self._call.targets.get(target)
        key = getattr(model, "anthropic_api_key", None)
        return account_of(key.get_secret_value() if key is not None else "", str(model.anthropic_api_url))

    def counts(self, target: ModelRef) -> bool:
        """Whether LangChain's class for the target asks its provider, instead of loading a tokenizer."""
        return bool(get_provider(target.provider).count_fields)

    def prepare(self) -> None:
        """Nothing: the model object is there."""

    def count(self, target: ModelRef, timeout_s: float) -> int:
        """Ask."""
        sent = self._call.render(Attempt(self._call.request.model, 0, target, None, None, timeout_s))
        given = {name: value for name in _COUNTED if (value := _given(sent, name)) is not None}
        return int(sent.model.get_num_tokens_from_messages(sent.messages, timeout=timeout_s, **given))

    async def acount(self, target: ModelRef, timeout_s: float) -> int:
        """Ask in a thread: LangChain has no asynchronous form of it."""
        return await asyncio.to_thread(self.count, target, timeout_s)


_COUNTED = ("tools", "tool_choice", "thinking")


def _given(sent: RenderedCall, name: str) -> Any:
    """An argument of the call, or what its model was made with."""
    return sent.call_kwargs.get(name) or getattr(sent.model, name, None)


def booked_as(attempt: Attempt) -> dict[str, Any]:
    """What an answer carries under ``BOOKED_KEY``."""
    return {"call_id": attempt.call_id, "attempt": attempt.number, "model": str(attempt.target)}


def _read_content(result: ChatResult) -> AnswerContent:
    message: Any = result.generations[0].message
    calls = (*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ()))
    refused = bool(getattr(message, "additional_kwargs", {}).get("refusal"))
    return AnswerContent(message.text, tuple((call["name"], call["args"]) for call in calls), refused)
