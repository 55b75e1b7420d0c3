"""``ChatAnthropicBedrock`` and ``ChatAnthropicMantle`` of langchain-aws, guarded: copies, of subclasses of their own.

They are LangChain's ``ChatAnthropic`` over the ``anthropic`` SDK's clients of Bedrock. Each call of those is governed
as at that door: held, retried, booked from the events of the stream itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import BaseChatModel

from llm_cost_middleware.call_ids import call_id_of, note_call
from llm_cost_middleware.integrations.langchain.entries import GuardEntries
from llm_cost_middleware.integrations.langchain.vertex import API, Answered, stamp, with_said
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platforms.bedrock.names import parse
from llm_cost_middleware.sdk_clients.client import govern, ungoverned

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult

Model = TypeVar("Model", bound=BaseChatModel)

_CLASSES = {("langchain_aws.chat_models.anthropic", name) for name in ("ChatAnthropicBedrock", "ChatAnthropicMantle")}
_CLIENTS = ("_client", "_async_client")
_NATIVE = ("_stream_chat_model_events", "_astream_chat_model_events")
"""Sources of events of its own, which would go past the methods below."""


def speaks_messages(model: Any, pipeline: CostPipeline | None) -> bool:
    """Whether a chat model is one of the two, of a Claude model, so that it can be guarded.

    Args:
        model: The model.
        pipeline: Its configuration says which models stand behind ARNs; ``None``: nobody says.
    """
    if not any((kind.__module__, kind.__name__) in _CLASSES for kind in type(model).__mro__):
        return False
    name = str(model.model)
    return parse(name if pipeline is None else pipeline.config.platforms["bedrock"].target(name).model) is not None


def guard_messages(model: Model, pipeline: CostPipeline, *, pinned: bool) -> Model:
    """A copy of such a model whose every call is routed, held, retried, cached and booked."""
    plain: Any = getattr(type(model), "_llm_cost_plain", lambda: type(model))()
    targets = (target for tier in pipeline.config.tiers for target in tier.models)
    routes = pipeline.config.routes and not pinned and any(target.provider == "bedrock" for target in targets)

    def hold(made: Any) -> None:  # LangChain makes the clients when they are first asked for, and keeps them there
        for name in _CLIENTS:
            client = ungoverned(getattr(made, name))
            vars(made)[name] = govern(client, pipeline, API, routed=str(made.model) if routes else "")

    body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__,
            "_llm_cost_plain": staticmethod(lambda: plain), "_llm_cost_hold": staticmethod(hold),
            **{name: property(lambda _: None) for name in _NATIVE if hasattr(plain, name)}}  # fmt: skip
    guarded = model.model_copy()
    hold(guarded)
    object.__setattr__(guarded, "__class__", type(plain)(plain.__name__, (MessagesGuard, plain), body))
    return guarded


class MessagesGuard(GuardEntries):
    """The part of a guarded model that is ours."""

    def _format_output(self, data: Any, **kwargs: Any) -> ChatResult:
        result: ChatResult = super()._format_output(data, **kwargs)  # type: ignore[misc]  # the user's class has it
        stamp(result.generations[0].message, data)
        return result

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        twin, _ = self._watched("_client")
        told = with_said(kwargs, self.metadata)
        result: ChatResult = super(MessagesGuard, twin)._generate(messages, stop, run_manager, **told)  # type: ignore[safe-super]  # as above
        return result

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        twin, _ = self._watched("_async_client")
        told = with_said(kwargs, self.metadata)
        result: ChatResult = await super(MessagesGuard, twin)._agenerate(messages, stop, run_manager, **told)
        return result

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        twin, seen = self._watched("_client")
        chunks = super(MessagesGuard, twin)._stream(messages, stop, run_manager, **with_said(kwargs, self.metadata))
        try:
            for chunk in chunks:
                seen.stamp(chunk.message)
                yield chunk
        finally:  # of a stream that its reader leaves, the rest is settled now
            if seen.answer is not None:
                seen.answer.close()

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        twin, seen = self._watched("_async_client")
        chunks = super(MessagesGuard, twin)._astream(messages, stop, run_manager, **with_said(kwargs, self.metadata))
        try:
            async for chunk in chunks:
                seen.stamp(chunk.message)
                yield chunk
        finally:
            if seen.answer is not None:
                await seen.answer.close()

    def _watched(self, name: str) -> tuple[Any, Answered]:
        """A copy for one call, whose answer is remembered."""
        twin: Any = self.model_copy()
        seen = Answered()
        vars(twin)[name] = _Client(getattr(self, name), seen)
        return twin, seen


class _Client:
    """A client, or a resource of it, whose raw answers are remembered."""

    def __init__(self, held: Any, seen: Answered) -> None:
        self._held, self._seen = held, seen

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._held, name)
        return _Client(found, self._seen) if name in ("messages", "beta", "with_raw_response") else found

    def create(self, **params: Any) -> Any:
        """As the resource does; of an asynchronous client, to be awaited."""
        answer = self._held.create(**params)
        return self._awaited(answer) if hasattr(answer, "__await__") else _Raw(answer, self._seen)

    async def _awaited(self, answer: Any) -> Any:
        return _Raw(await answer, self._seen)


class _Raw:
    """A raw answer of which it is remembered what was made of it."""

    def __init__(self, raw: Any, seen: Answered) -> None:
        self._raw, self._seen = raw, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def parse(self) -> Any:
        """As the answer does; of an asynchronous one, perhaps to be awaited."""
        parsed = self._raw.parse()
        if hasattr(parsed, "__await__"):
            return self._awaited(parsed)
        return self._noted(parsed)

    async def _awaited(self, parsed: Any) -> Any:
        return self._noted(await parsed)

    def _noted(self, parsed: Any) -> Any:
        note_call(parsed, call_id_of(self._raw))  # what is made of a raw answer is another object
        self._seen.answer = parsed
        return parsed
