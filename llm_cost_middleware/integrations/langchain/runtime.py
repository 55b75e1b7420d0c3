"""What a guarded model consults: its pipeline, its targets, and how one attempt is sent through them."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from llm_cost_middleware.context import METADATA_KEY, current_context, read_context
from llm_cost_middleware.errors import BudgetExceededError, LLMCostError, NoEligibleModelError
from llm_cost_middleware.integrations.langchain.convert import read_call
from llm_cost_middleware.integrations.langchain.errors import raise_as_model_error
from llm_cost_middleware.integrations.langchain.render import is_portable, render
from llm_cost_middleware.integrations.langchain.structured import (
    StreamedAnswer,
    note_bill,
    parse_answer,
    wanted_class,
)
from llm_cost_middleware.integrations.langchain.targets import Targets
from llm_cost_middleware.integrations.langchain.usage import STAMP, MeteredStream, read_result
from llm_cost_middleware.lifecycle import RoutedCall
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import AnswerContent, Attempt, CallRequest, CallResult

ROUTE = "llm_cost_route"
"""The argument that carries the route from the entry of a call to its sending, past traces and the LLM cache."""
_INSTANCES = 32


class Route(str):
    """Where a call goes, as text for traces and cache keys, with what its sending needs."""

    __slots__ = ("call", "error", "metadata", "providers", "request")

    metadata: Mapping[str, Any] | None
    request: CallRequest | None
    """``None``: not routed ahead, because several prompts share the arguments."""
    providers: frozenset[str]
    call: RoutedCall | None
    """The call, already routed; ``None`` where that would have blocked an event loop: its policy asks the ledger."""
    error: LLMCostError | None
    """What stands against it: raised when it would be sent, so that its run shows it."""

    @classmethod
    def made(
        cls,
        metadata: Mapping[str, Any] | None,
        request: CallRequest | None = None,
        providers: frozenset[str] = frozenset(),
        call: RoutedCall | None = None,
        error: LLMCostError | None = None,
    ) -> Route:
        """A route."""
        route = cls(call.target if call is not None else "")
        route.metadata, route.request, route.providers, route.call, route.error = (
            metadata, request, providers, call, error,
        )  # fmt: skip
        return route


class Governor:
    """Shared by a guarded model and all copies made of it. Safe between threads and tasks.

    Args:
        pipeline: Who governs.
        pinned: Never route: every call goes to the model that it names.
        escalates: Structured output that does not parse goes up a tier.
    """

    def __init__(self, pipeline: CostPipeline, *, pinned: bool = False, escalates: bool = False) -> None:
        self.pipeline, self.escalates = pipeline, escalates
        self._pinned, self._lock = pinned, Lock()
        self._by_id: dict[int, tuple[weakref.ref[Any], Targets]] = {}
        self._by_settings: OrderedDict[Any, Targets] = OrderedDict()

    # --- targets -------------------------------------------------------------------------------------------------

    def targets(self, model: Any) -> Targets:
        """The targets of this very instance: a copy with other settings has others."""
        entry = self._by_id.get(id(model))
        if entry is not None and entry[0]() is model:
            return entry[1]
        key = _settings_of(model)
        with self._lock:
            targets = self._by_settings.get(key)
            if targets is None:
                targets = self._by_settings[key] = Targets(model.model_copy(), self.pipeline.config)
                if len(self._by_settings) > _INSTANCES:
                    self._by_settings.popitem(last=False)
            self._by_id[id(model)] = (weakref.ref(model, partial(_forget, self._by_id, id(model))), targets)
        return targets

    def forget(self, model: Any) -> None:
        """The settings of ``model`` have changed."""
        self._by_id.pop(id(model), None)

    # --- route ---------------------------------------------------------------------------------------------------

    def read(
        self,
        model: Any,
        messages: Sequence[BaseMessage],
        arguments: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        *,
        stream: bool,
    ) -> tuple[CallRequest, frozenset[str]]:
        """The neutral view of a call, and the providers that understand it."""
        targets = self.targets(model)
        providers = targets.providers
        if arguments and len(providers) > 1 and not is_portable(arguments, targets.home.provider):
            providers = targets.home_only
        said = metadata.get(METADATA_KEY) if metadata else None
        if said is None and model.metadata:
            said = model.metadata.get(METADATA_KEY)
        context = read_context(said) if said else current_context()
        request = read_call(targets.home, messages, arguments, context=context, stream=stream, pinned=self._pinned)
        return request, providers

    def route(
        self,
        model: Any,
        messages: Sequence[BaseMessage],
        arguments: Mapping[str, Any],
        metadata: Mapping[str, Any] | None,
        *,
        stream: bool,
        may_block: bool = False,
    ) -> Route:
        """Decide where a call goes; not on an event loop where that would block it.

        What stands against the call is raised when it would be sent, inside its run.
        """
        request, providers = self.read(model, messages, arguments, metadata, stream=stream)
        try:
            try:
                call = self.pipeline.prepare(request, providers=providers, may_block=may_block)
            except NoEligibleModelError:
                targets = self.targets(model)
                if providers is targets.providers and not targets.bound_home:
                    raise
                # only this provider understands the call, and no tier names a model of it: the user's own remains
                request = request._replace(model_pinned=True)
                call = self.pipeline.prepare(request, providers=providers, may_block=may_block)
        except LLMCostError as error:
            return Route.made(metadata, request, providers, None, error)
        return Route.made(metadata, request, providers, call)

    # --- send ----------------------------------------------------------------------------------------------------

    def generate(self, model: Any, messages: list[BaseMessage], told: dict[str, Any]) -> ChatResult:
        """Answer in one piece."""
        request, route, targets = self._enter(model, messages, told, stream=False)

        def send(attempt: Attempt) -> CallResult:
            sent, arguments = render(targets.home.provider, messages, told, attempt, timeout=targets.timeout)
            try:
                result = targets.fit(attempt.target, sent, arguments)._generate(sent, **arguments)  # noqa: SLF001 - documented
            except Exception as error:
                note_bill(error, attempt.target)
                raise
            return _answered(result, attempt, targets, told)

        try:
            return self.pipeline.run(request, send, providers=route.providers, prepared=route.call)  # type: ignore[no-any-return]  # what send returned
        except BudgetExceededError as error:
            raise_as_model_error(error)

    async def agenerate(self, model: Any, messages: list[BaseMessage], told: dict[str, Any]) -> ChatResult:
        """Answer in one piece, on an event loop."""
        request, route, targets = self._enter(model, messages, told, stream=False)

        async def send(attempt: Attempt) -> CallResult:
            sent, arguments = render(targets.home.provider, messages, told, attempt, timeout=targets.timeout)
            try:
                result = await targets.fit(attempt.target, sent, arguments)._agenerate(sent, **arguments)  # noqa: SLF001
            except Exception as error:
                note_bill(error, attempt.target)
                raise
            return _answered(result, attempt, targets, told)

        try:
            return await self.pipeline.arun(request, send, providers=route.providers, prepared=route.call)  # type: ignore[no-any-return]
        except BudgetExceededError as error:
            raise_as_model_error(error)

    def stream(self, model: Any, messages: list[BaseMessage], told: dict[str, Any]) -> Iterator[ChatGenerationChunk]:
        """Answer chunk by chunk."""
        request, route, targets = self._enter(model, messages, told, stream=True)
        words = StreamedAnswer.of(told, targets.home.provider)

        def send(attempt: Attempt) -> MeteredStream:
            sent, arguments = render(targets.home.provider, messages, told, attempt, timeout=targets.timeout)
            chunks = targets.fit(attempt.target, sent, arguments)._stream(sent, **arguments)  # noqa: SLF001
            if words is not None:
                words.provider = attempt.target.provider
            return MeteredStream(attempt.target.provider, chunks, _stamp(attempt))

        try:
            with self.pipeline.run(request, send, providers=route.providers, prepared=route.call) as chunks:
                for chunk in chunks:
                    if words is not None:
                        words.note(chunk)
                    yield chunk
            if words is not None:
                yield from words.last()
        except BudgetExceededError as error:
            raise_as_model_error(error)

    async def astream(
        self, model: Any, messages: list[BaseMessage], told: dict[str, Any]
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Answer chunk by chunk, on an event loop."""
        request, route, targets = self._enter(model, messages, told, stream=True)
        words = StreamedAnswer.of(told, targets.home.provider)

        async def send(attempt: Attempt) -> MeteredStream:
            sent, arguments = render(targets.home.provider, messages, told, attempt, timeout=targets.timeout)
            chunks = targets.fit(attempt.target, sent, arguments)._astream(sent, **arguments)  # noqa: SLF001
            if words is not None:
                words.provider = attempt.target.provider
            return MeteredStream(attempt.target.provider, chunks, _stamp(attempt))

        try:
            answer = await self.pipeline.arun(request, send, providers=route.providers, prepared=route.call)
            async with answer as chunks:
                async for chunk in chunks:
                    if words is not None:
                        words.note(chunk)
                    yield chunk
            if words is not None:
                for chunk in words.last():
                    yield chunk
        except BudgetExceededError as error:
            raise_as_model_error(error)

    def _enter(
        self, model: Any, messages: Sequence[BaseMessage], told: dict[str, Any], *, stream: bool
    ) -> tuple[CallRequest, Route, Targets]:
        route = told.pop(ROUTE, None)
        if not isinstance(route, Route) or route.request is None:
            route = self.route(model, messages, told, getattr(route, "metadata", None), stream=stream)
        if route.error is not None:
            raise route.error
        assert route.request is not None  # noqa: S101 - ``route`` has just read it
        return route.request, route, self.targets(model)


def _answered(result: ChatResult, attempt: Attempt, targets: Targets, told: Mapping[str, Any]) -> CallResult:
    provider = attempt.target.provider
    message: Any = result.generations[0].message
    reading = read_result(provider, result)
    message.response_metadata = {**message.response_metadata, STAMP: _stamp(attempt)}
    if provider != targets.home.provider and (kind := wanted_class(told)) is not None:
        message.additional_kwargs.update(parse_answer(kind, message.text))
    return CallResult(result, reading, read_content=_said)


def _said(result: ChatResult) -> AnswerContent:
    message: Any = result.generations[0].message
    calls = (*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ()))
    return AnswerContent(message.text, tuple((call["name"], call["args"]) for call in calls))


def _stamp(attempt: Attempt) -> dict[str, Any]:
    return {"call_id": attempt.call_id, "attempt": attempt.number, "model": str(attempt.target)}


def _forget(table: dict[int, Any], at: int, _: object) -> None:
    table.pop(at, None)


def _settings_of(model: Any) -> Any:
    """A key that is equal for instances with equal settings."""
    return type(model), tuple((name, _key(getattr(model, name))) for name in sorted(model.model_fields_set))


def _key(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value
