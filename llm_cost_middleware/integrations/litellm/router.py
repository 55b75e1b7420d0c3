"""``CostAwareRouter``: stands in for a ``litellm.Router`` whose calls are routed, held, retried once and booked."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import litellm

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.host import ainvoke, invoke
from llm_cost_middleware.integrations.litellm import entry_points
from llm_cost_middleware.integrations.litellm.arguments import RESENDING, check_placing, check_timeouts
from llm_cost_middleware.integrations.litellm.batches import ask_all, ask_each, ask_fastest
from llm_cost_middleware.integrations.litellm.chat import Chat
from llm_cost_middleware.integrations.litellm.clients import with_sending_client
from llm_cost_middleware.integrations.litellm.config import router_config
from llm_cost_middleware.integrations.litellm.convert import OTHER_PLATFORM, SHADOW_ADVICE, RouterCall
from llm_cost_middleware.integrations.litellm.errors import ERRORS
from llm_cost_middleware.integrations.litellm.fallbacks import FallbackWalk, Hop, adrive, check_blocked, drive, tell
from llm_cost_middleware.integrations.litellm.owner import (
    UNSAID,
    OwnerRetries,
    OwnerSettings,
    adeployments_of,
    deployments_of,
)
from llm_cost_middleware.integrations.litellm.stand_in import StandIn
from llm_cost_middleware.integrations.litellm.streams import require_fastapi
from llm_cost_middleware.integrations.litellm.workarounds import single_send
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource
from llm_cost_middleware.request import Endpoint

_log = logging.getLogger(__name__)
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _described(method: _Method) -> _Method:
    """Give a method the signature that LiteLLM's has in this version, for those who read it before they call."""
    if (theirs := getattr(litellm.Router, method.__name__, None)) is not None:
        method.__signature__ = inspect.signature(theirs)  # type: ignore[attr-defined]  # what inspect looks for
    return method


class CostAwareRouter(StandIn):
    """Holds a ``litellm.Router`` and stands in for it.

    ``completion``, ``acompletion``, ``responses``, ``aresponses``, ``anthropic_messages``, their streams, the batch
    methods, ``embedding`` and ``aembedding`` are governed. The routed name goes to the cheapest model of the configured
    tiers that is good enough and has a deployment here (an embedding is never routed); any other name is a group of the
    ``model_list``, called as it is. Retries and fallbacks are those that the request, else the router sets in LiteLLM's
    own words (``num_retries``, ``retry_policy``, ``fallbacks`` and so on), else those of ``[retry]``: made here, each
    attempt with a reservation at the price of its own group. Balancing and cooldowns between the deployments of a group
    are LiteLLM's. Prices of a deployment's own are honoured; an answer from LiteLLM's cache costs nothing.

    A budget that refuses ends the call: it is no reason to fall back. If no fallback answers, the error of the first
    group is raised, with a note for each of the others.

    A call is described further with ``metadata={"llm_cost": {"user": "42"}}`` or inside ``cost_context(...)``;
    neither reaches the provider. Images, audio, text completions, other platforms and the rest of
    LiteLLM's surface are not governed: they are booked where LiteLLM knows a price, and reported, refused or let
    through as ``on_ungoverned`` sets.

    Every other attribute is read, set and deleted on the router that is held. ``isinstance(router, litellm.Router)`` is
    true by the ``__class__`` of its instances, as with a mock that has a ``spec``; it is no subclass, which LiteLLM
    refuses from 1.110 on. A copy holds a copy of the router, and can no more be pickled than that.

    Args:
        model_list: LiteLLM's own list of deployments; or a ``litellm.Router`` to hold, which is not changed; or a
            ``CostConfig`` or ``CostPipeline``, whose tiers become the list.
        *positional: As of ``litellm.Router``.
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
        routed: The model name that is routed.
        **options: As of ``litellm.Router``.

    Raises:
        ConfigurationError: There is no configuration, or it cannot be used.
    """

    def __init__(
        self,
        model_list: Any = None,
        *positional: Any,
        pipeline: PipelineSource | None = None,
        routed: str = "smart",
        **options: Any,
    ) -> None:
        if isinstance(model_list, CostPipeline | CostConfig | Mapping | str | os.PathLike):
            model_list, pipeline = None, model_list
        if positional and isinstance(positional[0], CostPipeline | CostConfig):  # where every other door takes it
            pipeline, positional = positional[0], positional[1:]
        pipeline = CostPipeline.resolve(pipeline)
        given = isinstance(model_list, litellm.Router)
        held = model_list if given else _built(pipeline.config, model_list, positional, options)
        super().__init__(held, pipeline, given=given)
        said = options.get("num_retries") is not None
        vars(self).update(routed=routed, _unsaid_retries=None if said else UNSAID)

    # --- the governed entry points ---------------------------------------------------------------------------------

    @_described
    def completion(self, model: str, messages: list[Any], **kwargs: Any) -> Any:
        """As ``litellm.Router.completion``; raises ``BudgetExceededError`` before it sends what does not fit."""
        return self._run("completion", "chat.completions", {"model": model, "messages": messages, **kwargs})

    @_described
    async def acompletion(self, model: str, messages: list[Any], stream: bool = False, **kwargs: Any) -> Any:
        """As ``litellm.Router.acompletion``; raises as ``completion`` does."""
        arguments = {"model": model, "messages": messages, "stream": stream, **kwargs}
        return await self._arun("acompletion", "chat.completions", arguments)

    @_described
    async def schedule_acompletion(
        self, model: str, messages: list[Any], priority: int | None = None, stream: bool = False, **kwargs: Any
    ) -> Any:
        """As ``litellm.Router.schedule_acompletion``."""
        return await self.acompletion(model, messages, stream, priority=priority, **kwargs)

    @_described
    def responses(self, custom_llm_provider: str | None = None, client: Any = None, **kwargs: Any) -> Any:
        """As ``litellm.Router.responses``; raises as ``completion`` does."""
        return self._run("responses", "responses", _given(custom_llm_provider, client, kwargs))

    @_described
    async def aresponses(self, custom_llm_provider: str | None = None, client: Any = None, **kwargs: Any) -> Any:
        """As ``litellm.Router.aresponses``; raises as ``completion`` does."""
        return await self._arun("aresponses", "responses", _given(custom_llm_provider, client, kwargs))

    @_described
    async def anthropic_messages(
        self, custom_llm_provider: str | None = None, client: Any = None, **kwargs: Any
    ) -> Any:
        """As ``litellm.Router.anthropic_messages``; raises as ``completion`` does."""
        if kwargs.get("stream"):
            require_fastapi()
        return await self._arun("anthropic_messages", "messages", _given(custom_llm_provider, client, kwargs))

    aanthropic_messages = anthropic_messages

    @_described
    def embedding(self, model: str, input: Any, is_async: bool | None = None, **kwargs: Any) -> Any:  # noqa: A002 - as LiteLLM has it
        """As ``litellm.Router.embedding``; raises as ``completion`` does."""
        del is_async  # which says nothing there
        return self._run("embedding", "embeddings", {"model": model, "input": input, **kwargs})

    @_described
    async def aembedding(self, model: str, input: Any, is_async: bool | None = None, **kwargs: Any) -> Any:  # noqa: A002 - as above
        """As ``litellm.Router.aembedding``; raises as ``completion`` does."""
        del is_async
        return await self._arun("aembedding", "embeddings", {"model": model, "input": input, **kwargs})

    @_described
    async def abatch_completion(self, models: list[str], messages: list[Any], **kwargs: Any) -> list[Any]:
        """As ``litellm.Router.abatch_completion``: an error, a refusal too, stands in its answer's place."""
        return await ask_all(self.acompletion, models, messages, kwargs)

    @_described
    async def abatch_completion_one_model_multiple_requests(
        self, model: str, messages: list[Any], **kwargs: Any
    ) -> list[Any]:
        """As ``litellm.Router``'s: an error, a refusal too, stands in its answer's place."""
        return await ask_each(self.acompletion, model, messages, kwargs)

    @_described
    async def abatch_completion_fastest_response(
        self, model: str, messages: list[Any], stream: bool = False, **kwargs: Any
    ) -> Any:
        """As ``litellm.Router``'s. Each model of ``"a, b"`` is set money aside for; those too late are booked, too."""
        names = [name.strip() for name in model.split(",")]
        return await ask_fastest(self.acompletion, names, messages, {"stream": stream, **kwargs})

    async def call(self, op: str, request: Mapping[str, Any]) -> Any:
        """As ``litellm.Router.call`` of 1.110: the method of that name."""
        answer = getattr(self, op)(**request)
        return await answer if inspect.isawaitable(answer) else answer

    @cached_property
    def chat(self) -> Chat:
        """``chat.completions.create`` as of the OpenAI client."""
        return Chat(self, entry_points.default_parameters(self._held))

    # --- one call --------------------------------------------------------------------------------------------------

    def _run(self, name: str, endpoint: Endpoint, arguments: dict[str, Any]) -> Any:
        method = getattr(self._held, name)

        def ask(hop: Hop) -> Any:
            retries = self._retries(hop)
            call = self._read(endpoint, hop.arguments, retries, asynchronous=False)
            if call is None:
                sent = _ungoverned(hop.arguments, name)
                return self._pass(method, f"model {sent['model']!r}", OTHER_PLATFORM, **sent)

            def send(rendered: dict[str, Any]) -> Any:
                try:
                    answer = method(**{**rendered, "model": retries.name_of_next(rendered["model"])})
                    check_blocked(answer, hop.arguments, self._settings)
                except Exception:
                    retries.deployments = deployments_of(self._held, rendered["model"])
                    raise
                return answer

            return tell(invoke(self.pipeline, call, send), hop.depth, retries.failures)

        try:
            return drive(self._walk().steps(arguments), ask)
        except BudgetExceededError as refusal:
            ERRORS.raised(refusal)

    async def _arun(self, name: str, endpoint: Endpoint, arguments: dict[str, Any]) -> Any:
        method = getattr(self._held, name)

        async def ask(hop: Hop) -> Any:
            retries = self._retries(hop)
            call = self._read(endpoint, hop.arguments, retries, asynchronous=True)
            if call is None:
                sent = _ungoverned(hop.arguments, name)
                return await self._apass(method, f"model {sent['model']!r}", OTHER_PLATFORM, **sent)

            async def send(rendered: dict[str, Any]) -> Any:
                try:
                    with single_send():
                        answer = await method(**{**rendered, "model": retries.name_of_next(rendered["model"])})
                    check_blocked(answer, hop.arguments, self._settings)
                except Exception:
                    retries.deployments = await adeployments_of(self._held, rendered["model"])
                    raise
                return answer

            return tell(await ainvoke(self.pipeline, call, send), hop.depth, retries.failures)

        try:
            return await adrive(self._walk().steps(arguments), ask)
        except BudgetExceededError as refusal:
            ERRORS.raised(refusal)

    def _walk(self) -> FallbackWalk:
        clock, limit = self.pipeline.clock, self.pipeline.config.retry.deadline_s
        began = clock.monotonic()
        return FallbackWalk(self._settings, lambda: limit - (clock.monotonic() - began))

    def _settings(self) -> OwnerSettings:
        return OwnerSettings.of(self._held)

    def _retries(self, hop: Hop) -> OwnerRetries:
        return OwnerRetries(self._held, hop.arguments, self._unsaid_retries, hop.deadline_s)

    def _read(
        self, endpoint: Endpoint, arguments: Mapping[str, Any], retries: OwnerRetries, *, asynchronous: bool
    ) -> RouterCall | None:
        """The call; ``None`` where it cannot be told that all it reaches is governed."""
        model = arguments["model"]
        routed = model == self.routed and endpoint != "embeddings"  # whose model is never exchanged
        group = None if routed else self._groups.find(model, arguments)
        if not routed and group is None:
            return None
        arguments = with_sending_client(arguments, self.pipeline, endpoint, group, asynchronous=asynchronous)
        defaults = entry_points.default_parameters(self._held)
        check_timeouts("the router", entry_points.own_timeouts(self._held))
        own_timeout = entry_points.has_own_timeout(self._held) or (group is not None and group.own_timeout)
        served = self._groups.refresh() if group is None else self._groups.served
        reached = (group.target, *group.alternatives) if group is not None else served.groups
        check_placing({**defaults, **arguments}, (target.provider for target in reached))
        call = RouterCall(
            endpoint,
            arguments,
            group=group,
            groups=served,
            defaults={**defaults, **(group.defaults if group is not None else {})},
            own_timeout=own_timeout,
            asynchronous=asynchronous,
            retries=retries,
        )
        call.belong_to(self.pipeline)
        if call.shadowed:
            self.pipeline.ungoverned(f"the silent_model of model group {model!r}", SHADOW_ADVICE, leaves=False)
        return call


def _given(custom_llm_provider: str | None, client: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a method that LiteLLM makes from one pattern; those that are ``None`` count as absent there."""
    if "model" not in kwargs:
        raise TypeError("the model is missing: call it with model=...")
    also = {"custom_llm_provider": custom_llm_provider, "client": client}
    return {**kwargs, **{name: value for name, value in also.items() if value is not None}}


def _ungoverned(arguments: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The arguments of a call that is LiteLLM's alone: it retries, and does not fall back, which is done here."""
    sent = {name: value for name, value in arguments.items() if name not in RESENDING}
    return sent if method == "responses" else {**sent, "disable_fallbacks": True, "max_fallbacks": 0}


def _built(config: CostConfig, model_list: Any, positional: Sequence[Any], options: dict[str, Any]) -> litellm.Router:
    """A plain router of LiteLLM's own arguments."""
    names = list(inspect.signature(litellm.Router).parameters)[1 : len(positional) + 1]
    if twice := [name for name in names if name in options]:
        raise TypeError(f"CostAwareRouter() got multiple values for argument {twice[0]!r}")
    options = {**dict(zip(names, positional, strict=True)), **options}
    if options.get("enable_weighted_failover"):
        _log.warning("enable_weighted_failover has no effect: give deployments that stand in for another a group")
    if model_list is None:
        model_list = router_config(config)["model_list"]
        for entry in model_list:  # the pipeline times every attempt, within its deadline
            entry["litellm_params"].pop("timeout", None)
    return litellm.Router(model_list=model_list, **options)
