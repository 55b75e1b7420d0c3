"""``ChatAnthropicVertex`` of langchain-google-vertexai, guarded: a copy, of a subclass of its class.

Its calls are those of the ``anthropic`` SDK's clients that it holds, so each is governed as at that door: held,
retried, booked from the events of the stream itself. Its own retries are off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import BaseChatModel

from llm_cost_middleware.call_ids import BOOKED_KEY, call_id_of
from llm_cost_middleware.context import METADATA_KEY
from llm_cost_middleware.integrations.langchain.entries import GuardEntries
from llm_cost_middleware.integrations.langchain.errors import ERRORS
from llm_cost_middleware.integrations.langchain.runtime import ROUTE_KEY
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platform import served_model
from llm_cost_middleware.platforms.vertex.names import parse
from llm_cost_middleware.sdk_clients import Api
from llm_cost_middleware.sdk_clients.client import govern, ungoverned

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult

Model = TypeVar("Model", bound=BaseChatModel)

_CLASS = ("langchain_google_vertexai.model_garden", "ChatAnthropicVertex")
_CLIENTS = ("client", "async_client")
_ONCE = 1
"""LangChain's own number of tries of a guarded model."""


class _NoBatches:
    """The client of Vertex makes none."""

    path = "/v1/messages/batches"

    def observes(self, path: str) -> bool:
        """Nothing to observe."""
        del path
        return False


API = Api(
    provider="anthropic",
    clients=frozenset(),
    endpoints={"/v1/messages": "messages"},
    methods={"messages": ("create",), "beta.messages": ("create",)},
    ungoverned={},
    free={"counting tokens is free": ("/v1/messages/count_tokens",)},
    errors=ERRORS,
    injected_chunks=lambda _: None,
    batches=_NoBatches(),  # type: ignore[arg-type]  # nothing else of it is asked where a platform makes none
    sockets={},
    platforms={
        "AnthropicVertex": "vertex_ai", "AsyncAnthropicVertex": "vertex_ai",
        "AnthropicBedrock": "bedrock", "AsyncAnthropicBedrock": "bedrock",
        "AnthropicBedrockMantle": "bedrock", "AsyncAnthropicBedrockMantle": "bedrock",
    },
)  # fmt: skip
"""What LangChain's classes call of the SDK's clients of platforms."""


def speaks_vertex(model: Any) -> bool:
    """Whether a chat model is a ``ChatAnthropicVertex`` of a Claude model, so that it can be guarded."""
    known = any((kind.__module__, kind.__name__) == _CLASS for kind in type(model).__mro__)
    return known and parse(str(model.model_name)) is not None


def guard_vertex(model: Model, pipeline: CostPipeline, *, pinned: bool) -> Model:
    """A copy of a ``ChatAnthropicVertex`` whose every call is routed, held, retried, cached and booked."""
    from anthropic import DEFAULT_MAX_RETRIES

    plain: Any = getattr(type(model), "_llm_cost_plain", lambda: type(model))()
    held: Any = model
    # LangChain keeps the client from retrying and retries around it: that is the client's to do now, under holds
    chosen = "max_retries" in model.model_fields_set
    retries = max(held.max_retries - 1, 0) if chosen else DEFAULT_MAX_RETRIES

    def hold(made: Any) -> None:
        routed = made.model_name if not pinned and _is_routed(pipeline, str(made.location).lower()) else ""
        again = retries if made.max_retries == _ONCE else max(made.max_retries - 1, 0)
        for name in _CLIENTS:
            client = ungoverned(getattr(made, name)).with_options(max_retries=again)
            setattr(made, name, govern(client, pipeline, API, routed=routed))
        made.max_retries = _ONCE

    body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__,
            "_llm_cost_plain": staticmethod(lambda: plain), "_llm_cost_hold": staticmethod(hold)}  # fmt: skip
    guarded = model.model_copy(update={"max_retries": _ONCE})
    hold(guarded)
    object.__setattr__(guarded, "__class__", type(plain)(plain.__name__, (VertexGuard, plain), body))
    return guarded


def _is_routed(pipeline: CostPipeline, place: str) -> bool:
    """Whether the tiers have a model that is served where the clients send; otherwise the caller's stays."""
    targets = (target for tier in pipeline.config.tiers for target in tier.models)
    here = (t for t in targets if t.provider == "vertex_ai" and served_model(*t.plain).place == place)
    return pipeline.config.routes and any(here)


class VertexGuard(GuardEntries):
    """The part of a guarded ``ChatAnthropicVertex`` that is ours."""

    client: Any
    async_client: Any

    def _format_output(self, data: Any, **kwargs: Any) -> ChatResult:
        result: ChatResult = super()._format_output(data, **kwargs)  # type: ignore[misc]  # the user's class has it
        stamp(result.generations[0].message, data)
        return result

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        result: ChatResult = super()._generate(messages, stop, run_manager, **self._told(kwargs))  # type: ignore[safe-super]  # as above
        return result

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return await super()._agenerate(messages, stop, run_manager, **self._told(kwargs))

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        seen = _Seen(self.client)
        twin: Any = self.model_copy(update={"client": seen})
        try:
            for chunk in super(VertexGuard, twin)._stream(messages, stop, run_manager, **self._told(kwargs)):
                seen.stamp(chunk.message)
                yield chunk
        finally:  # of a stream that its reader leaves, the rest is settled now
            if seen.answer is not None:
                seen.answer.close()

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        seen = _Seen(self.async_client)
        twin: Any = self.model_copy(update={"async_client": seen})
        try:
            async for chunk in super(VertexGuard, twin)._astream(messages, stop, run_manager, **self._told(kwargs)):
                seen.stamp(chunk.message)
                yield chunk
        finally:
            if seen.answer is not None:
                await seen.answer.close()

    def _told(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return with_said(kwargs, self.metadata)


def with_said(kwargs: dict[str, Any], own: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of a call with what it says of itself, as the governed client takes it.

    Args:
        kwargs: The arguments; the note is taken out.
        own: The model's own metadata.
    """
    metadata = getattr(kwargs.pop(ROUTE_KEY, None), "metadata", None) or {}
    attributes = metadata.get(METADATA_KEY) or (own or {}).get(METADATA_KEY) or {}
    of_graph = {"thread": metadata.get("thread_id"), "agent": metadata.get("lc_agent_name")}
    said = {**{kind: str(name) for kind, name in of_graph.items() if name is not None}, **attributes}
    return {**kwargs, "extra": {METADATA_KEY: said}} if said else kwargs


class Answered:
    """What one call was answered with: the call is known by it."""

    def __init__(self) -> None:
        self.answer: Any = None
        self._stamped = False

    def stamp(self, message: Any) -> None:
        """Write on the first chunk whose it is."""
        if not self._stamped and self.answer is not None:
            self._stamped = True
            stamp(message, self.answer)


class _Seen(Answered):
    """A client whose stream is remembered."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client

    @property
    def messages(self) -> Any:
        """The resource."""
        return _SeenMessages(self, self._client.messages)

    @property
    def beta(self) -> Any:
        """What has the resource of betas."""
        return _SeenBeta(self, self._client.beta.messages)


class _SeenBeta:
    def __init__(self, seen: _Seen, resource: Any) -> None:
        self.messages = _SeenMessages(seen, resource)


class _SeenMessages:
    def __init__(self, seen: _Seen, resource: Any) -> None:
        self._seen, self._resource = seen, resource

    def create(self, **params: Any) -> Any:
        """As the resource does; of an asynchronous client, to be awaited."""
        answer = self._resource.create(**params)
        if hasattr(answer, "__await__"):
            return self._awaited(answer)
        self._seen.answer = answer
        return answer

    async def _awaited(self, answer: Any) -> Any:
        self._seen.answer = await answer
        return self._seen.answer


def stamp(message: Any, answer: Any) -> None:
    """Write into a message whose call it is of."""
    message.response_metadata = {**message.response_metadata, BOOKED_KEY: {"call_id": call_id_of(answer)}}
