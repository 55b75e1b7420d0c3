"""``ChatBedrockConverse`` of langchain-aws, guarded: a copy, of a subclass of its class, over a governed client."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.language_models import BaseChatModel

from llm_cost_middleware.call_ids import BOOKED_KEY
from llm_cost_middleware.context import METADATA_KEY, current_context, read_context
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.integrations.langchain.converse_client import (
    ConverseClient,
    ConverseTerms,
    retries_of,
)
from llm_cost_middleware.integrations.langchain.entries import GuardEntries
from llm_cost_middleware.integrations.langchain.errors import ERRORS
from llm_cost_middleware.integrations.langchain.run_scopes import with_metadata
from llm_cost_middleware.integrations.langchain.runtime import ROUTE_KEY
from llm_cost_middleware.integrations.langchain.told import told, told_at_end
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platforms.bedrock.names import parse

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult

Model = TypeVar("Model", bound=BaseChatModel)
if TYPE_CHECKING:
    _Model = BaseChatModel
else:
    _Model = object  # the user's own class takes this place

_CLASS = ("langchain_aws.chat_models.bedrock_converse", "ChatBedrockConverse")


def speaks_converse(model: Any, pipeline: CostPipeline | None) -> bool:
    """Whether a chat model is a ``ChatBedrockConverse`` of a Claude model, so that it can be guarded.

    Args:
        model: The model.
        pipeline: Its configuration says which models stand behind ARNs; ``None``: nobody says.
    """
    if not any((kind.__module__, kind.__name__) == _CLASS for kind in type(model).__mro__):
        return False
    names = [name for name in (model.model_id, model.base_model_id) if name]
    if pipeline is not None:
        names = [pipeline.config.platforms["bedrock"].target(name).model for name in names]
    return any(parse(name) is not None for name in names)


def guard_converse(model: Model, pipeline: CostPipeline, *, pinned: bool) -> Model:
    """A copy of a ``ChatBedrockConverse`` whose every call is held, retried, cached and booked."""
    plain: Any = getattr(type(model), "_llm_cost_plain", lambda: type(model))()
    held: Any = model
    client = held.client.plain if isinstance(held.client, ConverseClient) else held.client
    chosen = held.max_retries is not None or getattr(held.config, "retries", None) is not None
    terms = ConverseTerms(
        pipeline, pinned or not pipeline.config.routes, held.base_model_id, retries_of(client, chosen=chosen)
    )
    body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__,
            "_llm_cost_plain": staticmethod(lambda: plain)}  # fmt: skip
    guarded = model.model_copy(update={"client": ConverseClient(client, terms)})
    object.__setattr__(guarded, "__class__", type(plain)(plain.__name__, (ConverseGuard, plain), body))
    return guarded


class ConverseGuard(GuardEntries):
    """The part of a guarded ``ChatBedrockConverse`` that is ours. Its asynchronous methods run these in threads."""

    client: Any

    def _for_call(self, kwargs: dict[str, Any]) -> tuple[Any, ConverseClient]:
        """A copy for one call, whose client knows whose call it is. Takes the note out of the arguments."""
        metadata = getattr(kwargs.pop(ROUTE_KEY, None), "metadata", None) or {}
        attributes = metadata.get(METADATA_KEY) or (self.metadata or {}).get(METADATA_KEY)
        context = read_context(attributes) if attributes else current_context()
        client = self.client.for_call(with_metadata(context, metadata) if metadata else context)
        return self.model_copy(update={"client": client}), client

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        try:
            twin, client = self._for_call(kwargs)
            sent = [*messages]  # it is changed in there
            result: ChatResult = super(ConverseGuard, twin)._generate(sent, stop, run_manager, **kwargs)  # type: ignore[safe-super]  # the user's class has it
        except LLMCostError as refusal:
            ERRORS.raised(refusal)
        _stamp(result.generations[0].message, client)
        return result if client.request is None else told(client.terms.pipeline, client.request, result)

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        try:
            twin, client = self._for_call(kwargs)
            chunks: Any = super(ConverseGuard, twin)._stream([*messages], stop, run_manager, **kwargs)
            first = next(chunks, None)  # now the call is made, and known
            if first is None or client.request is None:
                return
            _stamp(first.message, client)
            yield from told_at_end(client.terms.pipeline, client.request, _Sent(first, chunks, client))
        except LLMCostError as refusal:
            ERRORS.raised(refusal)


def _stamp(message: Any, client: ConverseClient) -> None:
    if client.booked is not None:
        message.response_metadata = {**message.response_metadata, BOOKED_KEY: dict(client.booked)}


class _Sent:
    """The chunks of a stream; closed with the block."""

    def __init__(self, first: Any, rest: Any, client: ConverseClient) -> None:
        self._first, self._rest, self._client = first, rest, client

    @property
    def call_id(self) -> str:
        """Of the call."""
        return str((self._client.booked or {}).get("call_id", ""))

    def __enter__(self) -> Iterator[Any]:
        return chain((self._first,), self._rest)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rest.close()
