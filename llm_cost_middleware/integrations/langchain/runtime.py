"""The runtime of a guarded model: its pipeline, its target models, and the route of each call."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.context import METADATA_KEY, current_context, read_context
from llm_cost_middleware.errors import ConfigurationError, LLMCostError, NoEligibleModelError
from llm_cost_middleware.event_loops import other_loop
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.host import ainvoke, invoke
from llm_cost_middleware.integrations.langchain.call import GuardedCall, RenderedCall
from llm_cost_middleware.integrations.langchain.convert import read_call
from llm_cost_middleware.integrations.langchain.render import is_portable
from llm_cost_middleware.integrations.langchain.run_scopes import with_metadata
from llm_cost_middleware.integrations.langchain.snapshots import Snapshot, own_copy
from llm_cost_middleware.integrations.langchain.targets import TargetModels, plain_class
from llm_cost_middleware.integrations.langchain.told import atold, atold_at_end, told, told_at_end
from llm_cost_middleware.lifecycle import RoutedCall
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import CallRequest, CallResult

if TYPE_CHECKING:
    from langchain_core.outputs import ChatGenerationChunk, ChatResult

ROUTE_KEY = "llm_cost_route"
"""The argument that carries the route from the entry of a call to its sending, past traces and the LLM cache."""
_INSTANCES = 32


class RouteArgument(str):
    """Where a call goes, as text for traces and cache keys, with what its sending needs.

    A ``str``, because LangChain writes the arguments of a call into traces and into the keys of its LLM cache.
    """

    __slots__ = ("asked", "call", "error", "metadata", "providers", "request")

    metadata: Mapping[str, Any] | None
    asked: Snapshot | None
    """What was read; ``None`` with ``request``."""
    request: CallRequest | None
    """``None``: not routed ahead, because several prompts share the arguments."""
    providers: frozenset[str]
    call: RoutedCall | None
    """The call, already routed; ``None`` where that would have blocked an event loop: its policy asks the ledger."""
    error: LLMCostError | None
    """Deferred: raised at send time, so that it appears in the model's own trace run."""

    @classmethod
    def create(
        cls,
        metadata: Mapping[str, Any] | None,
        asked: Snapshot | None = None,
        request: CallRequest | None = None,
        providers: frozenset[str] = frozenset(),
        call: RoutedCall | None = None,
        error: LLMCostError | None = None,
    ) -> RouteArgument:
        """A route that reads as its target."""
        route = cls(call.target if call is not None else "")
        route.metadata, route.asked, route.request, route.providers, route.call, route.error = (
            metadata, asked, request, providers, call, error,
        )  # fmt: skip
        return route


class TargetCache:
    """The target models of guarded models, by instance and by settings. Safe between threads."""

    _lock = ForkSafeLock()

    def __init__(self, pipeline: CostPipeline) -> None:
        self._pipeline, self._config = pipeline, pipeline.config
        self._by_id: dict[int, tuple[weakref.ref[Any], TargetModels]] = {}
        self._by_settings: OrderedDict[Any, TargetModels] = OrderedDict()

    def get(self, model: Any) -> TargetModels:
        """The targets of this very instance: a copy with other settings has others."""
        if (config := self._pipeline.config) is not self._config:  # it was reloaded: other deployments, perhaps
            self._follow(config)
        entry = self._by_id.get(id(model))
        if entry is not None and entry[0]() is model:
            return entry[1]
        key = _settings_of(model)
        with self._lock:
            targets = self._by_settings.get(key)
            if targets is None:
                targets = self._by_settings[key] = TargetModels(own_copy(model), self._pipeline)
                if len(self._by_settings) > _INSTANCES:
                    self._by_settings.popitem(last=False)
            # an id may be used again once the model is gone, so the entry goes with it
            self._by_id[id(model)] = (weakref.ref(model, partial(_forget, self._by_id, id(model))), targets)
        return targets

    def _follow(self, config: CostConfig) -> None:
        with self._lock:
            self._by_id, self._by_settings, self._config = {}, OrderedDict(), config

    def forget(self, model: Any) -> None:
        """The settings of ``model`` have changed."""
        self._by_id.pop(id(model), None)


class GuardRuntime:
    """What a guarded model and all its copies share: the pipeline, the targets, and how calls are routed.

    Safe between threads and tasks.

    Args:
        pipeline: Governs the calls.
        pinned: Never route: every call goes to the model that it names.
        escalates: Structured output that does not parse goes up a tier.
    """

    def __init__(self, pipeline: CostPipeline, *, pinned: bool = False, escalates: bool = False) -> None:
        pinned = pinned or not pipeline.config.routes  # a budget alone changes no model
        self.pipeline, self.escalates, self._pinned = pipeline, escalates, pinned
        self.accept: Callable[[CallResult], bool] | None = None
        """Checks every answer; one that it rejects is asked again of a model a tier up."""
        self.target_cache = TargetCache(pipeline)
        self.targets = self.target_cache.get
        """The target models of a guarded model, several times a call: bound once."""

    def checking(self, accept: Callable[[CallResult], bool]) -> GuardRuntime:
        """A runtime with a check of answers, over the same targets: their clients hold connections."""
        runtime = copy(self)  # the check belongs to one chain, the guard to all of them
        runtime.accept = accept
        return runtime

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
        attributes = metadata.get(METADATA_KEY) if metadata else None
        if attributes is None and model.metadata:
            attributes = model.metadata.get(METADATA_KEY)
        context = read_context(attributes) if attributes else current_context()
        if metadata:
            context = with_metadata(context, metadata)
        # what only one provider understands must stay there, whatever the tiers say
        providers = targets.providers
        if arguments and len(providers) > 1 and not context.forced_model and not is_portable(arguments):
            providers = targets.own_provider
        request = read_call(targets.source, messages, arguments, context=context, stream=stream, pinned=self._pinned)
        if (terms := targets.clients.retry_terms) is not None:
            request = request._replace(retry_terms=terms)
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
    ) -> RouteArgument:
        """Decide where a call goes; not on an event loop where that would block it.

        What stands against the call is raised when it would be sent, inside its run.
        """
        asked = Snapshot.of(messages, arguments)
        request, providers = self.read(model, *asked, metadata, stream=stream)
        try:
            try:
                call = self.pipeline.prepare(request, providers=providers, may_block=may_block)
            except NoEligibleModelError:
                targets = self.targets(model)
                if providers is targets.providers and not targets.pinned_to_provider:
                    raise
                # only this provider understands the call, and no tier names a model of it: the user's own remains
                request = request._replace(model_pinned=True)
                call = self.pipeline.prepare(request, providers=providers, may_block=may_block)
        except LLMCostError as error:
            return RouteArgument.create(metadata, asked, request, providers, None, error)
        return RouteArgument.create(metadata, asked, request, providers, call)

    # --- send ----------------------------------------------------------------------------------------------------

    def call(
        self, model: Any, messages: Sequence[BaseMessage], call_kwargs: dict[str, Any], *, stream: bool
    ) -> GuardedCall:
        """A call that arrives to be sent, with the route that it carries.

        It is routed here if it carries none, or if what it asks for has changed meanwhile.

        Raises:
            LLMCostError: The error that routing deferred.
        """
        route = call_kwargs.pop(ROUTE_KEY, None)
        asked = route.asked if isinstance(route, RouteArgument) else None
        if asked is None or not asked.is_of(messages, call_kwargs):
            route = self.route(model, messages, call_kwargs, getattr(route, "metadata", None), stream=stream)
        if route.error is not None:
            raise route.error
        assert route.request is not None  # noqa: S101 - ``route`` has just read it
        assert route.asked is not None  # noqa: S101 - with it
        return GuardedCall(
            route.request, route.providers, route.call, self.targets(model), *route.asked,
            stream=stream, checked=self.accept is not None,
        )  # fmt: skip

    def generate(self, call: GuardedCall) -> ChatResult:
        """Govern a call whose answer comes in one piece."""
        send = RenderedCall.generate
        result: ChatResult = invoke(self.pipeline, call, send, prepared=call.prepared, accept=self.accept)
        return told(self.pipeline, call.request, result)

    async def agenerate(self, call: GuardedCall) -> ChatResult:
        """``generate``, on an event loop."""
        send = RenderedCall.agenerate
        result: ChatResult = await ainvoke(self.pipeline, call, send, prepared=call.prepared, accept=self.accept)
        return await atold(self.pipeline, call.request, result)

    def stream(self, call: GuardedCall) -> closing[Generator[ChatGenerationChunk]]:
        """Govern a call that streams."""
        governed = invoke(self.pipeline, call, RenderedCall.stream, prepared=call.prepared)
        return closing(told_at_end(self.pipeline, call.request, governed))

    async def astream(self, call: GuardedCall) -> aclosing[AsyncGenerator[ChatGenerationChunk]]:
        """``stream``, on an event loop."""
        governed = await ainvoke(self.pipeline, call, RenderedCall.astream, prepared=call.prepared)
        return aclosing(atold_at_end(self.pipeline, call.request, governed))


def _forget(table: dict[int, Any], at: int, _: object) -> None:
    table.pop(at, None)


def _settings_of(model: Any) -> Any:
    """A key that is equal for instances with equal settings."""
    held = (vars(model).get(name) for name in ("_client", "_async_client"))  # of ChatAnthropic: no fields
    settings = tuple((name, _key(getattr(model, name))) for name in sorted(model.model_fields_set))
    return plain_class(model), settings, *map(id, held)


def _key(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def check_loop(*, may_block: bool) -> None:
    """Check, before money is set aside, that a call which may not block runs on asyncio: LangChain knows no other loop.

    Raises:
        ConfigurationError: It runs on trio, where LangChain would fail after it was sent.
    """
    if not may_block and other_loop() is not None:
        raise ConfigurationError(
            "LangChain's asynchronous calls run on asyncio alone, and this is trio: call it in a thread"
        )
