"""``CostMiddleware``: agents of ``create_agent``, steered and metered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import ref

from langchain.agents.middleware import AgentMiddleware

from llm_cost_middleware.context import cost_context, current_context
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.integrations.langchain.agent_runs import agent_runs
from llm_cost_middleware.integrations.langchain.callback import CostCallbackHandler, listening
from llm_cost_middleware.integrations.langchain.configurable import is_configurable
from llm_cost_middleware.integrations.langchain.guarded import guard, is_guarded
from llm_cost_middleware.integrations.langchain.targets import provider_of
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource

if TYPE_CHECKING:
    from langchain.agents.middleware import ModelRequest, ModelResponse
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage


class CostMiddleware(AgentMiddleware[Any, Any]):
    """Routes, holds, retries, caches and books the model calls of an agent, and meters the models inside its tools.

    It may stand anywhere among the middlewares. The model of a call is guarded, whichever it is by then; cache settings
    that another middleware made for one provider are left out where the call goes to another; retries happen before
    the first chunk only, so nothing is streamed twice; inside a conversation the route stays unless a change pays for
    the cache it throws away. Calls that a middleware makes on its own (a summary, say) are governed when its model is
    guarded, and metered when the run has a ``CostCallbackHandler``.

    A refused budget is a ``ModelError`` that is not retryable: ``ModelRetryMiddleware`` lets it through at once.
    ``ModelFallbackMiddleware`` is the one place where it does not end a run by itself: it tries its other models after
    any error, and each of them is refused in turn.

    Args:
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
        pinned: As of ``guard``.
    """

    _lock = ForkSafeLock()

    def __init__(self, pipeline: PipelineSource | None = None, *, pinned: bool = False) -> None:
        super().__init__()
        self._pinned = pinned
        self.pipeline = CostPipeline.resolve(pipeline)
        self.handler = CostCallbackHandler(self.pipeline)
        """Meters what is not guarded, while a model or a tool of the agent runs."""
        self._guarded: dict[int, tuple[ref[BaseChatModel], BaseChatModel]] = {}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | AIMessage:
        """Call the guarded model."""
        with self._around(request):
            return handler(request.override(model=self._guard(request.model)))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | AIMessage:
        """Call the guarded model."""
        with self._around(request):
            return await handler(request.override(model=self._guard(request.model)))

    def _guard(self, model: BaseChatModel) -> BaseChatModel:
        # what can only be metered is heard by the handler, and stays the very object that it is
        if is_guarded(model) or not (is_configurable(model) or provider_of(model)):
            return model
        with self._lock:
            # agents make a new request per step with the same model: guard it once, so that its clients are kept
            entry = self._guarded.get(id(model))
            if entry is None or entry[0]() is not model:
                entry = self._guarded[id(model)] = (ref(model), guard(model, self.pipeline, pinned=self._pinned))
            return entry[1]

    @contextmanager
    def _around(self, request: ModelRequest[Any]) -> Iterator[None]:
        """Name the conversation, and listen for models that a middleware further in, or a tool, puts beside ours."""
        agent_runs.note(request.runtime, self.handler)
        info = getattr(request.runtime, "execution_info", None)
        thread = getattr(info, "thread_id", None)
        with listening(self.handler):
            if thread is None or current_context().conversation is not None:
                yield
            else:
                with cost_context(conversation=thread):
                    yield
