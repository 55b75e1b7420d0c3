"""``CostMiddleware``: agents of ``create_agent``, steered and metered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, Self
from weakref import ref

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelResponse
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.messages import AIMessage
from langgraph.types import Command

from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.call_ids import BOOKED_KEY
from llm_cost_middleware.context import cost_context, current_context
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.events import RunawaySuspected
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.integrations.langchain.agent_runs import agent_runs
from llm_cost_middleware.integrations.langchain.callback import CostCallbackHandler, listening
from llm_cost_middleware.integrations.langchain.configurable import is_configurable
from llm_cost_middleware.integrations.langchain.endings import (
    OnExceeded,
    aended,
    ended,
    read_on_exceeded,
    refused_tool,
)
from llm_cost_middleware.integrations.langchain.guarded import guard, is_guarded
from llm_cost_middleware.integrations.langchain.notices import read_tell_model, with_notice
from llm_cost_middleware.integrations.langchain.of_platforms import is_of_platform
from llm_cost_middleware.integrations.langchain.plain_clients import PlainClientsOfTools
from llm_cost_middleware.integrations.langchain.run_scopes import runs
from llm_cost_middleware.integrations.langchain.runaway import OnRunaway, read_on_runaway, sign_of_runaway
from llm_cost_middleware.integrations.langchain.targets import provider_of
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource

if TYPE_CHECKING:
    from langchain.agents.middleware import ModelRequest, ToolCallRequest
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import ToolMessage

_RUN = "llm_cost_run"
"""In the state of an agent: the run that it belongs to, for whoever resumes it."""


class RunState(AgentState[Any]):
    """The state of an agent, with what keeps a resumed run the same run."""

    llm_cost_run: NotRequired[Annotated[str, PrivateStateAttr]]


class CostMiddleware(AgentMiddleware[Any, Any]):
    """Routes, holds, retries, caches and books the model calls of an agent, and meters the models inside its tools.

    Everything that an invocation of the agent starts spends from one ``run:``, sub-agents, tools and branches included,
    whichever host sends it; ``thread:`` is LangGraph's thread and ``agent:`` the agent's name. A resume keeps the run.

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
        on_exceeded: What a refused budget does. ``"raise"``: it is raised. ``"end"``: the agent stops at this step with
            a message that says what was spent and what is missing; state, partial results and checkpoint are kept, and
            the thread goes on once there is money. A tool in which the money ends gives back an error as its result.
            Or a function of the refusal and the state: it returns the last message, or ``None`` to raise.
        on_runaway: What an agent does that calls the same tools with the same arguments again and again, or whose every
            step costs more than the one before: ``"warn"`` tells of it by a ``RunawaySuspected``, ``"end"`` ends softly
            as well. ``None``: nobody looks.
        repeats: How many such steps in a row it takes; twice as many for growing cost.
        tell_model: Share of its money (0.2, or ``"20%"``) below which a run's model is told what is left and to
            conclude: in a block behind the request, which is neither stored nor cached. ``None``: it is not told.

    Raises:
        ConfigurationError: ``on_exceeded`` or ``on_runaway`` is something else, or as for ``guard``.
    """

    _lock = ForkSafeLock()
    state_schema = RunState

    def __new__(cls, *args: Any, on_exceeded: Any = "raise", **kwargs: Any) -> Self:
        """Return a middleware that hears tool calls too where the agent may end softly.

        Those who wrap tool calls give an agent without tools a node for them, so nobody else does.
        """
        del args, kwargs
        return super().__new__(SoftCostMiddleware if cls is CostMiddleware and on_exceeded != "raise" else cls)  # type: ignore[return-value]  # a subclass

    def __init__(
        self,
        pipeline: PipelineSource | None = None,
        *,
        pinned: bool = False,
        on_exceeded: OnExceeded = "raise",
        on_runaway: OnRunaway = None,
        repeats: int = 3,
        tell_model: float | str | None = None,
    ) -> None:
        super().__init__()
        self._pinned, self._on_exceeded = pinned, read_on_exceeded(on_exceeded)
        self._on_runaway, self._repeats = read_on_runaway(on_runaway, repeats)
        self._tell_below = read_tell_model(tell_model)
        self.pipeline = CostPipeline.resolve(pipeline)
        self.handler = CostCallbackHandler(self.pipeline)
        """Meters what is not guarded, while a model or a tool of the agent runs."""
        self._guarded: dict[int, tuple[ref[BaseChatModel], BaseChatModel]] = {}
        self._plain_clients = PlainClientsOfTools(self.pipeline)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any] | AIMessage:
        """Call the guarded model."""
        with self._around(request):
            if (last := self._runs_away(request)) is not None:
                return last
            try:
                left = None if self._tell_below is None else self.pipeline.left_of_run(current_context().scopes)
                answer = handler(self._prepared(request, left))
            except BudgetExceededError as refusal:
                return ended(refusal, request.state, self._on_exceeded)
            return _keeping_run(request, answer)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any] | AIMessage:
        """Call the guarded model."""
        with self._around(request):
            if (last := self._runs_away(request)) is not None:
                return last
            try:
                left = None if self._tell_below is None else await self._left()
                answer = await handler(self._prepared(request, left))
            except BudgetExceededError as refusal:
                return await aended(refusal, request.state, self._on_exceeded)
            return _keeping_run(request, answer)

    async def _left(self) -> Headroom | None:
        scopes = current_context().scopes
        if self.pipeline.ledger_blocks:
            return await asyncio.to_thread(self.pipeline.left_of_run, scopes)
        return self.pipeline.left_of_run(scopes)

    def _prepared(self, request: ModelRequest[Any], left: Headroom | None) -> ModelRequest[Any]:
        """The request at its guarded model; where money is short, with a word to it."""
        model = self._guard(request.model)
        if left is None or self._tell_below is None or left.share >= self._tell_below:
            return request.override(model=model)
        return request.override(model=model, messages=with_notice(request.messages, left))

    def _runs_away(self, request: ModelRequest[Any]) -> AIMessage | None:
        """Tell of an agent that runs away; the message that it ends with, where it is to end."""
        if self._on_runaway is None:
            return None
        reason = sign_of_runaway(request.state.get("messages") or (), self._repeats)
        if reason is None:
            return None
        scopes, ends = current_context().scopes, self._on_runaway == "end"
        scope = next((scope for kind in ("run:", "agent:") for scope in scopes if scope.startswith(kind)), "")
        self.pipeline.emit(RunawaySuspected("", self.pipeline.clock.now(), scope, reason, ends))
        told = {"ended": "runaway", "scope": scope, "reason": reason}
        return AIMessage(f"I stopped here: {reason}.", response_metadata={BOOKED_KEY: told}) if ends else None

    def _guard(self, model: BaseChatModel) -> BaseChatModel:
        # what can only be metered is heard by the handler, and stays the very object that it is
        known = is_configurable(model) or provider_of(model) or is_of_platform(model, self.pipeline)
        if is_guarded(model) or not known:
            return model
        with self._lock:
            # agents make a new request per step with the same model: guard it once, so that its clients are kept
            entry = self._guarded.get(id(model))
            if entry is None or entry[0]() is not model:
                # an agent may make a model for each step: those that are gone leave
                self._guarded = {key: known for key, known in self._guarded.items() if known[0]() is not None}
                entry = self._guarded[id(model)] = (ref(model), guard(model, self.pipeline, pinned=self._pinned))
            return entry[1]

    @contextmanager
    def _around(self, request: ModelRequest[Any]) -> Iterator[None]:
        """Name the conversation, and listen for models that a middleware further in, or a tool, puts beside ours."""
        agent_runs.note(request.runtime, self.handler)
        self._plain_clients.look(request.tools)
        if isinstance(run := request.state.get(_RUN), str):
            runs.adopt(request.runtime, run)
        info = getattr(request.runtime, "execution_info", None)
        thread = getattr(info, "thread_id", None)
        with listening(self.handler):
            if thread is None or current_context().conversation is not None:
                yield
            else:
                with cost_context(conversation=thread):
                    yield


class SoftCostMiddleware(CostMiddleware):
    """A ``CostMiddleware`` whose agent may end softly: made by it where ``on_exceeded`` says so."""

    @property
    def name(self) -> str:
        """The name of this middleware in graphs and traces."""
        return "CostMiddleware"

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolMessage | Command[Any]]
    ) -> ToolMessage | Command[Any]:
        """Run the tool; where the money ends in it, that is its result."""
        try:
            return handler(request)
        except BudgetExceededError as refusal:
            return refused_tool(refusal, request.tool_call)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """Run the tool; where the money ends in it, that is its result."""
        try:
            return await handler(request)
        except BudgetExceededError as refusal:
            return refused_tool(refusal, request.tool_call)


def _keeping_run(
    request: ModelRequest[Any], answer: ModelResponse[Any]
) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
    """The answer; where the state is kept, with the run that it belongs to, once a run.

    What it cost goes to whoever streams ``custom``.
    """
    stamp = next((message.response_metadata.get(BOOKED_KEY) for message in answer.result), None)
    if stamp:
        request.runtime.stream_writer({BOOKED_KEY: dict(stamp)})
    info = getattr(request.runtime, "execution_info", None)
    if info is None or info.thread_id is None:
        return answer
    run = runs.of(request.runtime)
    if run is None or request.state.get(_RUN) == run:
        return answer
    return ExtendedModelResponse(answer, Command(update={_RUN: run}))
