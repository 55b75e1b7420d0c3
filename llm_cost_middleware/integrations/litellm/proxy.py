"""The LiteLLM proxy's instances, named by dotted path in its ``config.yaml``: ``governor`` and ``classifier``.

::

    litellm_settings:
      callbacks: ["llm_cost_middleware.integrations.litellm.proxy.governor"]

They read the configuration in ``LLM_COST_CONFIG``. Money is set aside before a request leaves, and settled when its
answer, its stream or its error is in. Budgets are kept by the proxy's own identity: its key (alias, else hash), user,
team and tags become the scopes ``key:``, ``user:``, ``team:`` and ``tag:``; what a client says of itself under
``metadata.llm_cost`` counts only where it cannot evade them (``tags``, ``site``, ``conversation``, ``item_count``,
``max_cost``). One attempt a request: LiteLLM's retries and fallbacks are switched off for it, and so is the repetition
of its HTTP client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from functools import cached_property
from typing import Any, Self

from llm_cost_middleware.extras import needed_for

with needed_for("the callback of the LiteLLM proxy"):  # looked for before the modules that import it in their turn
    from litellm.integrations.custom_logger import CustomLogger

from llm_cost_middleware.context import METADATA_KEY, cost_context
from llm_cost_middleware.errors import LLMCostError, UnsupportedRequestError
from llm_cost_middleware.integrations.litellm.convert import GOVERNED, RESENDING, RouterCall, read_call
from llm_cost_middleware.integrations.litellm.entry_points import named_deployments
from llm_cost_middleware.integrations.litellm.flights import Flight, Flights
from llm_cost_middleware.integrations.litellm.groups import Groups, target_of
from llm_cost_middleware.integrations.litellm.refusals import refusal_of
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import Endpoint, ModelRef

_log = logging.getLogger(__name__)
_ENDPOINTS: Mapping[str, Endpoint] = {
    "completion": "chat.completions",
    "acompletion": "chat.completions",
    "responses": "responses",
    "aresponses": "responses",
    "anthropic_messages": "messages",
    "aanthropic_messages": "messages",
}
_FREE = frozenset(
    {"moderation", "amoderation", "aget_responses", "adelete_responses", "acancel_responses", "alist_input_items",
     "acount_tokens", "afile_list", "afile_content", "acreate_file", "aretrieve_batch", "alist_batches"}
)  # fmt: skip
_MAY_SAY = frozenset({"tags", "site", "conversation", "item_count", "max_cost"})
_TARGET = "llm_cost_target"
_METADATA = ("metadata", "litellm_metadata")
_MARKER = "auto_router/complexity_router"
_OFF: Mapping[str, Any] = {"num_retries": 0, "disable_fallbacks": True}


class Governor(CustomLogger):  # type: ignore[misc]  # LiteLLM is not typed
    """The proxy's callback: sets money aside before a request, settles it after.

    Args:
        pipeline: ``None``: the default one, opened with the first request.
    """

    def __init__(self, pipeline: CostPipeline | None = None) -> None:
        super().__init__()
        self.name = "llm-cost-governor"
        self._given = pipeline
        self._groups: Groups | None = None

    @cached_property
    def pipeline(self) -> CostPipeline:
        """The pipeline."""
        return self._given if self._given is not None else CostPipeline.default()

    @cached_property
    def _flights(self) -> Flights:
        return Flights(self.pipeline)

    # --- before ----------------------------------------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Route, set money aside, and write the attempt into the request. Raises the HTTP error of a refusal."""
        del cache
        kind = getattr(call_type, "value", call_type)
        endpoint = _ENDPOINTS.get(kind)
        try:
            if endpoint is None:
                if kind not in _FREE:
                    self.pipeline.ungoverned(f"the proxy's {kind}", "use chat completions, responses or messages")
                return data
            with cost_context(**_identity(user_api_key_dict, data)):
                call, routed = self._read(endpoint, data)
            if call is None:
                return data
            flight = await self._admit(call, routed=routed)
        except LLMCostError as error:
            raise refusal_of(error, now=self.pipeline.clock.now()) from error
        sent = call.rendered(flight.held.attempt)
        bucket = next(name for name in _METADATA if GOVERNED in sent.get(name, {}))
        sent[bucket]["llm_cost_scopes"] = list(call.request.context.scopes)
        if routed:
            sent[bucket][_TARGET] = sent["model"]
            sent["model"] = data["model"]
        for name in RESENDING:
            data.pop(name, None)
        data.update(sent)
        return data

    def _read(self, endpoint: Endpoint, data: dict[str, Any]) -> tuple[RouterCall | None, bool]:
        from litellm.proxy.proxy_server import llm_router

        if llm_router is None:
            raise UnsupportedRequestError(
                "a request to a proxy without a model_list", "write one: llm-cost litellm-config"
            )
        if self._groups is None or self._groups.router is not llm_router:
            self._groups = Groups(llm_router, self.pipeline.catalogue)
        self._groups.refresh()
        model = str(data.get("model") or "")
        entries = named_deployments(llm_router, model)
        routed = any(str(entry["litellm_params"].get("model")).startswith(_MARKER) for entry in entries)
        group = None if routed else self._groups.find(model)
        if not routed and group is None:
            if entries:
                self.pipeline.ungoverned(f"model group {model!r}", "it is served by a platform with prices of its own")
            return None, False
        for name in _METADATA:
            if isinstance(data.get(name), dict) and isinstance(data[name].get(METADATA_KEY), Mapping):
                said = data[name][METADATA_KEY]
                data[name] = {**data[name], METADATA_KEY: {key: said[key] for key in said if key in _MAY_SAY}}
        call = read_call(
            endpoint,
            data,
            group=group,
            groups=self._groups,
            defaults=group.defaults if group is not None else {},
            own_timeout=True,
            switches=_OFF,
        )
        return call, routed

    async def _admit(self, call: RouterCall, *, routed: bool) -> Flight:
        request = call.request
        if routed:
            prepared = self.pipeline.prepare(request, providers=call.providers)
            if prepared is None:
                raise UnsupportedRequestError(
                    "a routing policy that looks at the budget", "the proxy routes before it reserves: use another"
                )
            request = request._replace(provider=prepared.target.provider, model=prepared.target.model)
        if request.max_tokens is None:
            limits = self.pipeline.catalogue.limits(request.provider, request.model)
            configured = self.pipeline.config.output.default_max_tokens
            cap = configured if isinstance(configured, int) else limits.default_output
            request = request._replace(max_tokens=min(cap, limits.max_output or cap))
        return await self._flights.admit(call, request)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> None:
        """The last look before a request leaves: it must be the one that money was set aside for."""
        del call_type
        flight = self._flights.get(kwargs)
        if flight is None:
            return
        target = target_of(kwargs)
        expected = flight.held.attempt.target
        group = flight.call.group
        if group is None or not (group.mixed or group.alias):
            _check(target, expected)
        flight.leave()

    # --- after -----------------------------------------------------------------------------------------------------

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> None:
        """Settle a whole answer."""
        del user_api_key_dict
        flight = self._flights.take(data)
        if flight is not None:
            await self._flights.settle(flight, flight.call.read(flight.held.attempt, response))
            self._flights.landed(flight)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Pass a stream on, and settle it however it is left: at its end, broken, or by a client that went away."""
        del user_api_key_dict
        flight = self._flights.take(request_data)
        if flight is None:
            async for chunk in response:
                yield chunk
            return
        stream = flight.watch(response)
        try:
            async for chunk in stream:
                yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            self._flights.abandon(flight, stream.reading())  # nothing may be awaited any more
            raise
        except BaseException as error:
            await self._flights.fail(flight, error)
            raise
        await self._flights.settle(flight, stream.reading())

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Give the money back where nothing was billed; else book it."""
        del user_api_key_dict, traceback_str
        flight = self._flights.take(request_data)
        if flight is not None:
            await self._flights.fail(flight, original_exception)

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, **_: Any
    ) -> dict[str, str] | None:
        """What a call cost (or may cost, while its stream runs), and what remains of its tightest budget, in USD."""
        del user_api_key_dict, response
        return await self._flights.headers(data)


class Classifier:
    """The classifier of LiteLLM's complexity router: names the tier, which is a model, that the governor decided on."""

    def __init__(self, governor: Governor) -> None:
        self._governor = governor

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # LiteLLM copies its model_list, this instance with it

    async def classify(self, context: Any) -> str | None:
        """The tier of a request. Without the governor's word, the policy's."""
        decided = context.metadata.get(_TARGET)
        if decided is not None:
            return str(decided)
        _log.warning("the classifier runs without the governor: nothing is held and nothing is booked")
        return None


def _check(target: ModelRef | None, expected: ModelRef) -> None:
    if target is not None and target != expected:
        from litellm import BadRequestError

        raise BadRequestError(
            message=f"money was set aside for {expected}, and {target} was about to be called",
            model=target.model,
            llm_provider=target.provider,
        )


def _identity(key: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """The budget scopes of who calls, as the proxy knows it."""
    said: dict[str, Any] = {
        "key": getattr(key, "key_alias", None) or getattr(key, "token", None),
        "user": getattr(key, "user_id", None) or getattr(key, "end_user_id", None),
        "team": getattr(key, "team_alias", None) or getattr(key, "team_id", None),
    }
    tags = [
        tag
        for name in _METADATA
        if isinstance(found := data.get(name), Mapping)
        for tag in found.get("tags") or ()
        if isinstance(tag, str) and tag
    ]
    return {name: value for name, value in said.items() if value} | (
        {"tags": list(dict.fromkeys(tags))} if tags else {}
    )


governor = Governor()
classifier = Classifier(governor)
