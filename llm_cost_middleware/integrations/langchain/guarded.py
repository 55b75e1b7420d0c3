"""``guard``: a copy of a chat model that is governed, of a dynamic subclass of the user's own class.

Everything LangChain does with the model keeps working, because it still is one: ``isinstance``, ``profile``,
``bind_tools``, structured output, fallbacks, configurable fields, copies, traces, the LLM cache. The route is decided
where a call enters and travels on as an argument; the sending happens in the documented override points, through model
objects of the targets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.config import ensure_config

from llm_cost_middleware.errors import ConfigurationError, LLMCostError
from llm_cost_middleware.integrations.langchain.batch_lane import Batch, ready_answer
from llm_cost_middleware.integrations.langchain.bedrock_messages import MessagesGuard, guard_messages, speaks_messages
from llm_cost_middleware.integrations.langchain.configurable import (
    ConfigurableGuard,
    guard_configurable,
    is_configurable,
)
from llm_cost_middleware.integrations.langchain.converse import ConverseGuard, guard_converse, speaks_converse
from llm_cost_middleware.integrations.langchain.embeddings import guard_embeddings
from llm_cost_middleware.integrations.langchain.errors import ERRORS, RetryOn, except_refusals
from llm_cost_middleware.integrations.langchain.metered import metered_only
from llm_cost_middleware.integrations.langchain.runtime import ROUTE_KEY, GuardRuntime, RouteArgument, check_loop
from llm_cost_middleware.integrations.langchain.structured import check_of, in_one_piece
from llm_cost_middleware.integrations.langchain.targets import plain_class, provider_of
from llm_cost_middleware.integrations.langchain.vertex import VertexGuard, guard_vertex, speaks_vertex
from llm_cost_middleware.nesting import wrapped_client
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.sdk_clients.client import is_governed
from llm_cost_middleware.sdk_clients.single_attempt import client_of

if TYPE_CHECKING:
    from langchain_core.messages import AIMessageChunk, BaseMessage
    from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
    from langchain_core.runnables import Runnable


Model = TypeVar("Model", bound=BaseChatModel)
Guardable = TypeVar("Guardable", bound=BaseChatModel | Embeddings)
if TYPE_CHECKING:
    _Model = BaseChatModel
else:
    _Model = object  # the user's own class takes this place


def guard(
    model: Guardable,
    pipeline: PipelineSource | None = None,
    *,
    pinned: bool = False,
    escalate_on_parse_failure: bool = False,
) -> Guardable:
    """A copy of ``model`` whose every call is routed, held against the budgets, retried, cached and booked.

    Args:
        model: A ``ChatAnthropic``, ``ChatOpenAI``, ``AzureChatOpenAI`` or, of Claude, a ``ChatBedrockConverse``,
            ``ChatAnthropicBedrock``, ``ChatAnthropicMantle`` or ``ChatAnthropicVertex``, or a subclass of one, or what
            ``init_chat_model`` makes of ``configurable_fields``; or ``OpenAIEmbeddings`` or Azure's, which are never
            routed. It is not changed. A guarded model is guarded anew: its pipeline is replaced.
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
        pinned: Govern the model, but never route it to another; so it is where the configuration has neither
            ``[[tiers]]`` nor ``[routing]``. One call is pinned by ``model=`` among its arguments.
        escalate_on_parse_failure: Ask a model of the next tier where structured output does not parse. Every answer is
            booked either way.

    Returns:
        A model of a subclass of the user's class. What a call says of itself stands in
        ``config={"metadata": {"llm_cost": {"user": "42"}}}``, or around it in ``cost_context(...)``.

    A refusal, such as a ``BudgetExceededError``, is also LangChain's ``ModelError`` and not retryable: neither
    ``with_retry`` of the model nor ``ModelRetryMiddleware`` nor LangGraph's default tries again. Fallbacks are the one
    place where LangChain does not let an error end a call: ``with_fallbacks`` and ``ModelFallbackMiddleware`` go on to
    the next model after any error, so guard that one as well; it is then refused in turn.

    Raises:
        ConfigurationError: It is no chat model, or there is no configuration.
        UnsupportedRequestError: A class of another maker or transport, and ``on_ungoverned`` is ``deny``;
            otherwise such a model is metered, as by ``CostCallbackHandler``.
    """
    if is_configurable(model):
        again: Any = partial(guard, pipeline=CostPipeline.resolve(pipeline), pinned=pinned)
        made: Guardable = guard_configurable(model, partial(again, escalate_on_parse_failure=escalate_on_parse_failure))
        return made
    if isinstance(model, Embeddings):
        return guard_embeddings(model, CostPipeline.resolve(pipeline))
    if not isinstance(model, BaseChatModel):
        raise ConfigurationError(f"expected a chat model or embeddings, not {type(model).__qualname__}", key="model")
    pipeline = CostPipeline.resolve(pipeline)
    if speaks_converse(model, pipeline):
        return guard_converse(model, pipeline, pinned=pinned)
    if speaks_vertex(model):
        return guard_vertex(model, pipeline, pinned=pinned)
    if speaks_messages(model, pipeline):
        return guard_messages(model, pipeline, pinned=pinned)
    if provider_of(model) is None:
        return metered_only(model, pipeline)
    for name in _CLIENTS:
        owner = client_of(getattr(model, name, None))
        if owner is not None and is_governed(owner) and wrapped_client(owner, pipeline) is None:
            # guarded, it would send past the budgets of that ledger
            raise ConfigurationError("its client is governed on another ledger: give the model a plain one", key=name)
    return _attach(model, GuardRuntime(pipeline, pinned=pinned, escalates=escalate_on_parse_failure))


def _attach(model: Model, runtime: GuardRuntime, **update: Any) -> Model:
    """A copy of a plain or a guarded model, of a new subclass of the user's class that holds ``runtime``."""
    plain = plain_class(model)
    kind = type(plain)(plain.__name__, (GuardMixin, plain), _namespace(plain))
    kind._llm_cost = runtime  # noqa: SLF001 - in the class body pydantic would take it for a field
    guarded = model.model_copy(update=update)
    object.__setattr__(guarded, "__class__", kind)
    return guarded


def is_guarded(model: object) -> bool:
    """Whether ``model`` came out of ``guard``."""
    return isinstance(model, GuardMixin | ConverseGuard | VertexGuard | MessagesGuard | ConfigurableGuard)


def _namespace(plain: Any) -> dict[str, Any]:
    # a native source of events would go past the override points
    native = [name for name in ("_stream_chat_model_events", "_astream_chat_model_events") if hasattr(plain, name)]
    return {
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        "_llm_cost_plain": staticmethod(lambda: plain),
        **{name: property(lambda _: None) for name in native},
    }


class GuardMixin(_Model):
    """The part of a guarded model that is ours. The user's class follows it in the method resolution order."""

    _llm_cost: GuardRuntime

    # --- entries: the route is decided here ----------------------------------------------------------------------

    def generate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """RouteArgument, then as LangChain does."""
        if ready_answer(kwargs) is None:
            kwargs[ROUTE_KEY] = self._route_prompts(messages, _call_kwargs(kwargs, stop), may_block=True)
        return super().generate(messages, stop, callbacks, **kwargs)

    async def agenerate(
        self, messages: list[list[BaseMessage]], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """RouteArgument, then as LangChain does."""
        if ready_answer(kwargs) is None:
            kwargs[ROUTE_KEY] = self._route_prompts(messages, _call_kwargs(kwargs, stop))
        return await super().agenerate(messages, stop, callbacks, **kwargs)

    def stream(
        self,
        input: Any,  # noqa: A002 - LangChain's name
        config: Any = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """RouteArgument, then as LangChain does."""
        config = ensure_config(config)
        kwargs[ROUTE_KEY] = self._route_input(input, config, _call_kwargs(kwargs, stop), may_block=True)
        return super().stream(input, config, stop=stop, **kwargs)

    def astream(
        self,
        input: Any,  # noqa: A002 - LangChain's name
        config: Any = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """RouteArgument, then as LangChain does."""
        config = ensure_config(config)
        kwargs[ROUTE_KEY] = self._route_input(input, config, _call_kwargs(kwargs, stop))
        return super().astream(input, config, stop=stop, **kwargs)

    def stream_events(self, input: Any, config: Any = None, *, version: Any = "v2", **kwargs: Any) -> Any:  # noqa: A002
        """RouteArgument version 3, which streams by itself; the others come through ``stream``."""
        if version == "v3":
            config = ensure_config(config)
            kwargs[ROUTE_KEY] = self._route_input(input, config, kwargs, may_block=True)
        return super().stream_events(input, config, version=version, **kwargs)

    def astream_events(self, input: Any, config: Any = None, *, version: Any = "v2", **kwargs: Any) -> Any:  # noqa: A002
        """RouteArgument version 3, which streams by itself; the others come through ``astream``."""
        if version == "v3":
            config = ensure_config(config)
            kwargs[ROUTE_KEY] = self._route_input(input, config, kwargs)
        return super().astream_events(input, config, version=version, **kwargs)

    def batch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """As LangChain does, after a look at the price.

        Args:
            inputs: What to answer.
            config: As everywhere.
            return_exceptions: Answer what fits, and return the refusals: without it, a batch that is expected to cost
                more than the budgets have left is refused before its first call.
            **kwargs: ``progress=True`` shows a progress bar on standard error; ``anyway=True`` starts a batch that is
                expected not to fit: each call is held on its own. The rest goes to the model. Inputs whose metadata
                says ``{"llm_cost": {"patience": "24h"}}`` go as batches of the provider where that pays;
                ``batch_timeout`` is how long that blocks.

        Raises:
            BudgetExceededError: It does not fit; nothing was sent.
            BatchPendingError: The batch was not answered within ``batch_timeout``; it names it.
        """
        given = Batch.of(self._llm_cost, self, inputs, config, kwargs, return_exceptions=return_exceptions)
        return given.run(super().invoke, super().batch)

    async def abatch(
        self, inputs: list[Any], config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> list[Any]:
        """``batch`` on an event loop."""
        check_loop(may_block=False)
        given = Batch.of(self._llm_cost, self, inputs, config, kwargs, return_exceptions=return_exceptions)
        return await given.arun(super().ainvoke, super().abatch)

    def _route_prompts(
        self, prompts: Sequence[Sequence[BaseMessage]], kwargs: dict[str, Any], *, may_block: bool = False
    ) -> RouteArgument:
        check_loop(may_block=may_block)
        metadata = kwargs.get("metadata")
        if len(prompts) != 1:
            return RouteArgument.create(metadata)  # each is routed when it is sent
        arguments = {name: value for name, value in kwargs.items() if name not in _RUN}
        return self._llm_cost.route(self, prompts[0], arguments, metadata, stream=False, may_block=may_block)

    def _route_input(
        self, given: Any, config: Any, kwargs: dict[str, Any], *, may_block: bool = False
    ) -> RouteArgument:
        check_loop(may_block=may_block)
        messages = self._convert_input(given).to_messages()
        metadata = config.get("metadata")
        return self._llm_cost.route(self, messages, kwargs, metadata, stream=True, may_block=may_block)

    # --- sending -------------------------------------------------------------------------------------------------

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        del run_manager  # a target must not open a run of its own
        runtime = self._llm_cost
        if (ready := ready_answer(kwargs)) is not None:
            return ready
        try:
            return runtime.generate(runtime.call(self, messages, _call_kwargs(kwargs, stop), stream=False))
        except LLMCostError as refusal:
            ERRORS.raised(refusal)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        del run_manager
        runtime = self._llm_cost
        if (ready := ready_answer(kwargs)) is not None:
            return ready
        try:
            return await runtime.agenerate(runtime.call(self, messages, _call_kwargs(kwargs, stop), stream=False))
        except LLMCostError as refusal:
            ERRORS.raised(refusal)

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        try:
            call = self._llm_cost.call(self, messages, _call_kwargs(kwargs, stop), stream=True)
            parsed = call.streamed_answer
            with self._llm_cost.stream(call) as chunks:
                for chunk in chunks:
                    if parsed is not None:
                        parsed.observe(chunk)
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            for chunk in parsed.last_chunks() if parsed is not None else ():
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except LLMCostError as refusal:
            ERRORS.raised(refusal)

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            call = self._llm_cost.call(self, messages, _call_kwargs(kwargs, stop), stream=True)
            parsed = call.streamed_answer
            async with await self._llm_cost.astream(call) as chunks:
                async for chunk in chunks:
                    if parsed is not None:
                        parsed.observe(chunk)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            for chunk in parsed.last_chunks() if parsed is not None else ():
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        except LLMCostError as refusal:
            ERRORS.raised(refusal)

    def with_structured_output(
        self, schema: Any = None, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[Any, Any]:
        """As the user's class does; a guard that escalates asks again, a tier up, where the answer does not parse."""
        if not self._llm_cost.escalates:
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        check = check_of(super().with_structured_output(schema, **kwargs))
        # a stream cannot be taken back once its first chunk is out: what is to be checked comes in one piece
        model: Any = _attach(self, self._llm_cost.checking(check), disable_streaming=True)
        chain = super(GuardMixin, model).with_structured_output(schema, include_raw=include_raw, **kwargs)
        return in_one_piece(chain)

    def with_retry(self, *, retry_if_exception_type: RetryOn = (Exception,), **kwargs: Any) -> Runnable[Any, Any]:
        """As LangChain does, but a refusal is not retried."""
        return super().with_retry(retry_if_exception_type=except_refusals(retry_if_exception_type), **kwargs)

    def get_num_tokens_from_messages(self, messages: Any, *args: Any, **kwargs: Any) -> int:
        """As the user's class does; one that asks the provider sends nothing outside ``[routing] regions``."""
        if (provider := provider_of(self)) == "anthropic":
            self._llm_cost.pipeline.keep_inside("get_num_tokens_from_messages", ModelRef(provider, ""))
        return super().get_num_tokens_from_messages(messages, *args, **kwargs)

    def _should_stream(self, **kwargs: Any) -> bool:
        return ready_answer(kwargs) is None and super()._should_stream(**kwargs)

    # --- what LangChain asks of a model --------------------------------------------------------------------------

    # LangChain asks for both in every call, the first one twice. Without arguments the answer is always the same: kept,
    # it takes 0.3 µs instead of 4.5 and 5.3.

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        if stop is not None or len(kwargs) != (ROUTE_KEY in kwargs):
            return super()._get_invocation_params(stop=stop, **kwargs)
        targets = self._llm_cost.targets(self)
        if targets.params is None:
            targets.params = super()._get_invocation_params()
        return {**targets.params, **kwargs}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        route = kwargs.pop(ROUTE_KEY, None)
        targets = self._llm_cost.targets(self)
        params: Any
        if stop is not None or kwargs:
            params = super()._get_ls_params(stop=stop, **kwargs)
        else:
            if targets.ls_params is None:
                targets.ls_params = super()._get_ls_params()
            params = {**targets.ls_params}
        if isinstance(route, RouteArgument) and route.call is not None:  # traces show who answers
            params["ls_provider"], params["ls_model_name"] = route.call.target
        return params

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._llm_cost.target_cache.forget(self)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        memo = {} if memo is None else memo
        for name in _CLIENTS:  # clients hold locks, which nobody can copy: copies share them
            if (client := getattr(self, name, None)) is not None:
                memo[id(client)] = client
        return super().__deepcopy__(memo)

    def __reduce__(self) -> Any:
        raise TypeError(
            "a guarded model holds clients and a ledger: pickle the plain model, and guard it where it runs"
        )


for _asked in (GuardMixin._generate, GuardMixin._agenerate):  # noqa: SLF001 - our own
    # LangChain asks for the signature in every call; read once it takes 0.8 µs instead of 15 (CPython 3.11).
    _asked.__dict__["__signature__"] = signature(_asked)


def _call_kwargs(kwargs: dict[str, Any], stop: list[str] | None) -> dict[str, Any]:
    """The arguments of a call, its stop sequences among them."""
    return kwargs if stop is None else {**kwargs, "stop": stop}


_CLIENTS = ("client", "async_client", "root_client", "root_async_client", "http_client", "http_async_client")
_RUN = frozenset({"tags", "metadata", "run_name", "run_id"})
