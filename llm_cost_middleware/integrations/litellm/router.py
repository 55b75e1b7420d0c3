"""``CostAwareRouter``: a ``litellm.Router`` whose calls are routed, held against budgets, retried once and booked."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import litellm
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.litellm.booking import book_ungoverned
from llm_cost_middleware.integrations.litellm.callbacks import forget_when_dropped
from llm_cost_middleware.integrations.litellm.config import router_config
from llm_cost_middleware.integrations.litellm.convert import RouterCall, read_call
from llm_cost_middleware.integrations.litellm.groups import Groups
from llm_cost_middleware.integrations.litellm.once import sent_once
from llm_cost_middleware.integrations.litellm.streams import TellingWhatCame, result
from llm_cost_middleware.integrations.litellm.ungoverned import UNGOVERNED
from llm_cost_middleware.lifecycle import AsyncGovernedStream, GovernedStream
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import Attempt, Endpoint

_log = logging.getLogger(__name__)
_OFF: Mapping[str, Any] = {"num_retries": 0, "disable_fallbacks": True}
_ASYNC_APIS: Mapping[str, Endpoint] = {
    "aresponses": "responses",
    "anthropic_messages": "messages",
    "aanthropic_messages": "messages",
}
_RETRYING = ("num_retries", "fallbacks", "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks",
             "retry_policy", "model_group_retry_policy", "enable_weighted_failover")  # fmt: skip


class CostAwareRouter(litellm.Router):  # type: ignore[misc]  # LiteLLM is not typed
    """A drop-in for ``litellm.Router``.

    ``completion``, ``acompletion``, ``responses``, ``aresponses``, ``anthropic_messages`` and their streams are
    governed. The routed name goes to the cheapest model of the configured tiers that is good enough and has a
    deployment here; any other name is a group of the ``model_list``, called as it is. Retries and fallbacks are the
    pipeline's, LiteLLM's own are off; balancing and cooldowns between the deployments of a group are LiteLLM's. Prices
    of a deployment's own are honoured; an answer from LiteLLM's cache costs nothing.

    A call says more about itself with ``metadata={"llm_cost": {"user": "42"}}`` or inside ``cost_context(...)``;
    neither reaches the provider. Embeddings, images, audio, text completions, other platforms and the rest of
    LiteLLM's surface are not governed: they are booked where LiteLLM knows a price, and reported, refused or let
    through as ``on_ungoverned`` says.

    Args:
        model_list: LiteLLM's own list of deployments; or a ``litellm.Router`` to govern, whose deployments, clients and
            cooldowns are shared; or a ``CostConfig`` or ``CostPipeline``, whose tiers become the list.
        pipeline: A pipeline, a configuration for a new one, or ``None`` for the default.
        routed: The model name that is routed.
        **options: As of ``litellm.Router``.

    Raises:
        ConfigurationError: There is no configuration, or it cannot be used.
    """

    def __init__(
        self,
        model_list: Any = None,
        *,
        pipeline: CostPipeline | CostConfig | None = None,
        routed: str = "smart",
        **options: Any,
    ) -> None:
        if isinstance(model_list, CostConfig | CostPipeline):
            model_list, pipeline = None, model_list
        self.pipeline = CostPipeline.resolve(pipeline)
        self.routed = routed
        if isinstance(model_list, litellm.Router):
            self.__dict__.update({name: value for name, value in vars(model_list).items() if name not in vars(self)})
        else:
            for name in _RETRYING:
                if options.pop(name, None):
                    _log.warning("%s is ignored: retries and fallbacks are those of the pipeline's [retry]", name)
            if model_list is None:
                model_list = router_config(self.pipeline.config)["model_list"]
                for entry in model_list:  # the pipeline times every attempt, within its deadline
                    del entry["litellm_params"]["timeout"]
            super().__init__(model_list=model_list, num_retries=0, **options)
            forget_when_dropped(self)
        self._groups = Groups(self, self.pipeline.catalogue)
        self._govern_attributes()

    # --- the governed entry points ---------------------------------------------------------------------------------

    def completion(self, model: str, messages: list[Any], **kwargs: Any) -> Any:
        """As ``litellm.Router.completion``; raises ``BudgetExceededError`` before it sends what does not fit."""
        return self._run("chat.completions", super().completion, {"model": model, "messages": messages, **kwargs})

    async def acompletion(self, model: str, messages: list[Any], stream: bool = False, **kwargs: Any) -> Any:
        """As ``litellm.Router.acompletion``; raises as ``completion`` does."""
        arguments = {"model": model, "messages": messages, "stream": stream, **kwargs}
        return await self._arun("chat.completions", super().acompletion, arguments)

    async def schedule_acompletion(self, model: str, messages: list[Any], priority: int, **kwargs: Any) -> Any:
        """As ``litellm.Router.schedule_acompletion``."""
        if "original_function" in kwargs:  # called by acompletion, which is governed
            return await super().schedule_acompletion(model=model, messages=messages, priority=priority, **kwargs)
        return await self.acompletion(model, messages, priority=priority, **kwargs)

    def _govern_attributes(self) -> None:
        """What LiteLLM keeps in attributes of the instance: the other APIs, and everything that is not governed."""
        self.chat = _Chat(self)
        self.responses = partial(self._run_named, "responses", getattr(self, "responses"))  # noqa: B009 - LiteLLM sets it
        for name, endpoint in _ASYNC_APIS.items():
            setattr(self, name, partial(self._arun_named, endpoint, getattr(self, name)))
        for name, advice in UNGOVERNED.items():
            method = getattr(self, name, None)
            if method is not None:
                passing = self._apass if inspect.iscoroutinefunction(method) else self._pass
                setattr(self, name, partial(passing, method, name, advice))

    # --- one call --------------------------------------------------------------------------------------------------

    def _run_named(self, endpoint: Endpoint, method: Any, model: str, **kwargs: Any) -> Any:
        return self._run(endpoint, method, {"model": model, **kwargs})

    async def _arun_named(self, endpoint: Endpoint, method: Any, model: str, **kwargs: Any) -> Any:
        if endpoint == "messages" and kwargs.get("stream"):
            _require_fastapi()
        return await self._arun(endpoint, method, {"model": model, **kwargs})

    def _run(self, endpoint: Endpoint, method: Any, arguments: dict[str, Any]) -> Any:
        call = self._read(endpoint, arguments, {"num_retries": 0} if endpoint == "responses" else _OFF)
        if call is None:
            return method(**arguments)
        sent: list[Any] = []

        def send(attempt: Attempt) -> Any:
            arguments = call.rendered(attempt)
            with TellingWhatCame():
                sent[:] = [method(**arguments)]
            return result(call, attempt, sent[0])

        return _deliver(self.pipeline.run(call.request, send, providers=call.providers), sent)

    async def _arun(self, endpoint: Endpoint, method: Any, arguments: dict[str, Any]) -> Any:
        call = self._read(endpoint, arguments, _OFF)
        if call is None:
            return await method(**arguments)
        sent: list[Any] = []

        async def send(attempt: Attempt) -> Any:
            arguments = call.rendered(attempt)
            with TellingWhatCame(), sent_once():
                sent[:] = [await method(**arguments)]
            return result(call, attempt, sent[0])

        return _deliver(await self.pipeline.arun(call.request, send, providers=call.providers), sent)

    def _read(self, endpoint: Endpoint, arguments: Mapping[str, Any], switches: Mapping[str, Any]) -> RouterCall | None:
        """The call; ``None`` where it goes to a platform that is not governed."""
        model = arguments["model"]
        self._groups.refresh()
        group = None if model == self.routed else self._groups.find(model)
        if model != self.routed and group is None:
            if self.get_model_list(model_name=model):
                self.pipeline.ungoverned(
                    f"model group {model!r}", "it is served by a platform with prices of its own; call it elsewhere"
                )
            return None  # LiteLLM says itself what is wrong with a name that it does not know
        defaults = {**self.default_litellm_params, **(group.defaults if group is not None else {})}
        timed = self._explicit_timeout is not None or self.stream_timeout is not None
        return read_call(
            endpoint,
            arguments,
            group=group,
            groups=self._groups,
            defaults=defaults,
            own_timeout=timed or (group is not None and group.own_timeout),
            switches=switches,
        )

    def _completion(self, model: str, messages: list[Any], **kwargs: Any) -> Any:
        """LiteLLM's single attempt. Its synchronous way out overwrites what stood behind an error: the status."""
        try:
            return super()._completion(model, messages, **kwargs)
        except Exception as error:
            if error.__cause__ is None:
                error.__cause__ = error.__context__
            raise

    def _completion_streaming_iterator(self, model_response: Any, *args: Any, **kwargs: Any) -> Any:
        """Show the provider's own chunks on LiteLLM's outer stream, as its asynchronous twin does."""
        stream = super()._completion_streaming_iterator(model_response, *args, **kwargs)
        stream.chunks = model_response.chunks
        return stream

    # --- what is not governed --------------------------------------------------------------------------------------

    def _pass(self, method: Any, name: str, advice: str, *args: Any, **kwargs: Any) -> Any:
        self.pipeline.ungoverned(f"Router.{name}", advice)
        answer = method(*args, **kwargs)
        book_ungoverned(self.pipeline, answer, kwargs)
        return answer

    async def _apass(self, method: Any, name: str, advice: str, *args: Any, **kwargs: Any) -> Any:
        self.pipeline.ungoverned(f"Router.{name}", advice)
        answer = await method(*args, **kwargs)
        await asyncio.to_thread(book_ungoverned, self.pipeline, answer, kwargs)
        return answer


class _Chat:
    """``router.chat.completions.create`` with nothing remembered from one call to the next."""

    def __init__(self, router: CostAwareRouter) -> None:
        self._router = router
        self._defaults = dict(router.default_litellm_params)
        self._asynchronous = bool(self._defaults.pop("acompletion", False))

    @property
    def completions(self) -> Self:
        """As the OpenAI client's."""
        return self

    def create(self, messages: list[Any], model: str | None = None, **kwargs: Any) -> Any:
        """A completion; awaitable where the router's ``default_litellm_params`` say ``acompletion``."""
        arguments = {**self._defaults, **kwargs}
        arguments["model"] = model or arguments.get("model")
        method = self._router.acompletion if self._asynchronous else self._router.completion
        return method(messages=messages, **arguments)


class GovernedStreamWrapper(CustomStreamWrapper):  # type: ignore[misc]  # LiteLLM is not typed
    """LiteLLM's stream class, so that code which asks for it is content; it settles however it is left."""

    def __init__(self, inner: CustomStreamWrapper, governed: Any) -> None:
        self.__dict__.update(vars(inner))
        self.completion_stream = self._governed = governed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return next(self._governed)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._governed)

    def close(self) -> None:
        """Walk away: close the connection and settle."""
        self._governed.close()

    async def aclose(self) -> None:
        """Walk away: close the connection and settle."""
        await self._governed.aclose()


def _deliver(answer: Any, sent: list[Any]) -> Any:
    if isinstance(answer, GovernedStream | AsyncGovernedStream) and isinstance(sent[0], CustomStreamWrapper):
        return GovernedStreamWrapper(sent[0], answer)
    return answer


def _require_fastapi() -> None:
    """LiteLLM imports it only after the request was sent and billed."""
    from importlib.util import find_spec

    from llm_cost_middleware.errors import MissingExtraError

    if find_spec("fastapi") is None:
        raise MissingExtraError("a stream of anthropic_messages through LiteLLM", "proxy")
