"""The LiteLLM proxy's instances, named by dotted path in its ``config.yaml``: ``governor`` and ``classifier``.

::

    litellm_settings:
      callbacks: ["llm_cost_middleware.integrations.litellm.proxy.governor"]

They read the configuration in ``LLM_COST_CONFIG``. Money is set aside before a request leaves, and settled when its
answer, its stream or its error is in. Budgets are kept by what the proxy authenticated: its key (alias, else hash),
user and team become the scopes ``key:``, ``user:`` and ``team:``, and its tags, with up to 32 of the client's, ``tag:``
(``identity``). The retries and fallbacks of the proxy's router are its owner's, and each attempt has a reservation of
its own; what a client says of them is taken out, and the repetition of LiteLLM's HTTP client is switched off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from llm_cost_middleware.extras import needed_for

with needed_for("the callback of the LiteLLM proxy"):  # looked for before the modules that import it in their turn
    from litellm import BadRequestError

from llm_cost_middleware.capabilities.fitting import fit
from llm_cost_middleware.capabilities.thinking import changes_for_cap, default_cap
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import LLMCostError, UnsupportedRequestError
from llm_cost_middleware.events import AttributesIgnored
from llm_cost_middleware.integrations.litellm.arguments import METADATA, RESENDING, SINGLE_ATTEMPT
from llm_cost_middleware.integrations.litellm.convert import OTHER_PLATFORM, SHADOW_ADVICE, RouterCall
from llm_cost_middleware.integrations.litellm.entry_points import named_deployments
from llm_cost_middleware.integrations.litellm.groups import Groups
from llm_cost_middleware.integrations.litellm.identity import identify, take_claims
from llm_cost_middleware.integrations.litellm.last_look import LastLook
from llm_cost_middleware.integrations.litellm.pending import PendingRequest
from llm_cost_middleware.integrations.litellm.proxy_kinds import (
    GOVERNED_KINDS,
    kind_of,
    several,
)
from llm_cost_middleware.integrations.litellm.refusals import refusal_of
from llm_cost_middleware.integrations.litellm.usage import settle_retrieved
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import Endpoint, ModelRef

_log = logging.getLogger(__name__)
_MARKER = "auto_router/complexity_router"


class ProxyBudgetCallback(LastLook):
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

    # --- before ----------------------------------------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Route, set money aside, and write the attempt into the request. Raises the HTTP error of a refusal."""
        del cache
        kind = kind_of(call_type)
        endpoint = GOVERNED_KINDS.get(kind)
        claims = take_claims(data)  # of every request: an id in one that is not governed would end somebody else's hold
        try:
            caller = identify(user_api_key_dict, data, claims, self.pipeline.config)
            for found in caller.ignored:
                self.pipeline.emit(AttributesIgnored("", self.pipeline.clock.now(), *found))
            self.serve(caller.attributes)
            if endpoint is None:
                await self.let_wait(kind, data)
                return data
            with cost_context(**caller.attributes):
                if names := several(endpoint, data):
                    await self._check_several(names, endpoint, data)
                    return data
                call, routed = self._read(endpoint, data)
            if call is None:  # the last look is the first that knows what it reaches
                return data
            pending = await self.admit(call, routed=routed)
        except LLMCostError as error:
            raise refusal_of(error, now=self.pipeline.clock.now()) from error
        try:
            sent = call.write(pending.held.attempt)
        except Exception as error:
            # the id is not in the request yet: no other hook could find the hold to end it
            await self._pending.cancel(pending)
            unreadable = UnsupportedRequestError("this request", f"it cannot be read: {error}")
            raise refusal_of(unreadable, now=self.pipeline.clock.now()) from error
        if routed:
            pending.routed_to, sent["model"] = sent["model"], data["model"]
        # how often a request is sent is for the owner of the proxy to say, not for its clients
        for name in (*RESENDING, *SINGLE_ATTEMPT, *call.changes):  # what is changed and not left out is written again
            data.pop(name, None)
        data.update({name: value for name, value in sent.items() if name not in SINGLE_ATTEMPT})
        pending.note_written(sent)
        return data

    def _read(self, endpoint: Endpoint, data: dict[str, Any]) -> tuple[RouterCall | None, bool]:
        groups, model = self.groups_now(), str(data.get("model") or "")
        served = groups.refresh()
        entries = named_deployments(groups.router, model)
        routed = endpoint != "embeddings" and any(
            str(entry["litellm_params"].get("model")).startswith(_MARKER) for entry in entries
        )
        try:
            group = None if routed else groups.find(model, data)
        except BadRequestError:  # the router does not know the name; the proxy may
            return None, False
        if not routed and group is None:
            self.refuse(f"model {model!r}", OTHER_PLATFORM)
            return None, False
        call = RouterCall(
            endpoint,
            data,
            group=group,
            groups=served,
            defaults=group.defaults if group is not None else {},
            own_timeout=True,  # the proxy's own settings time its requests
            asynchronous=True,
        )
        call.belong_to(self.pipeline)
        if call.shadowed:
            self.pipeline.ungoverned(f"the silent_model of model group {model!r}", SHADOW_ADVICE, leaves=False)
        return call, routed

    async def _check_several(self, names: Sequence[str], endpoint: Endpoint, data: dict[str, Any]) -> None:
        """See that all requests that the proxy makes of one fit their budgets together; each is held as it leaves.

        Otherwise LiteLLM would answer, with HTTP 200, a list that has refusals in it.
        """
        if data.get("stream"):
            raise UnsupportedRequestError(f"a stream of {len(names)} models", "ask for each by itself")
        admitted: list[PendingRequest] = []
        try:
            for name in names:
                call, routed = self._read(endpoint, {**data, "model": name})
                if call is not None:
                    admitted.append(await self.admit(call, routed=routed))
        finally:
            for pending in admitted:
                await self._pending.cancel(pending)

    async def admit(self, call: RouterCall, *, routed: bool) -> PendingRequest:
        """See ``LastLook``."""
        request = call.request
        if routed:
            prepared = self.pipeline.prepare(request, providers=call.providers)
            if prepared is None:
                raise UnsupportedRequestError(
                    "a routing policy that looks at the budget", "the proxy routes before it reserves: use another"
                )
            call.changes = fit(request, prepared.target).changes
            request = request._replace(provider=prepared.target.provider, model=prepared.target.model)
        bare = request.is_bare(ModelRef(request.provider, request.model)) or request.has_odd_cap
        if request.max_tokens is None and not bare:
            limits = self.pipeline.catalogue.limits(request.provider, request.model)
            configured = self.pipeline.config.output.default_max_tokens
            # the answer is bounded by what was set aside only where the request names that cap
            cap = default_cap(request, limits, configured if isinstance(configured, int) else None, call.changes)
            target = ModelRef(request.provider, request.model)
            call.changes = changes_for_cap(request, target, cap, call.changes) or call.changes
            request = request._replace(max_tokens=cap)
        return await self._pending.admit(call, request)

    def groups_now(self) -> Groups:
        """See ``LastLook``."""
        from litellm.proxy.proxy_server import llm_router

        if llm_router is None:
            raise UnsupportedRequestError(
                "a request to a proxy without a model_list", "write one: llm-cost litellm-config"
            )
        if self._groups is None or self._groups.router is not llm_router:
            self._groups = Groups(llm_router, self.pipeline.catalogue, lambda: self.pipeline.config.platforms)
        return self._groups

    def decided(self, arguments: Mapping[str, Any]) -> str | None:
        """The model group that a routed request goes to; ``None``: it is not routed, or not governed."""
        pending = self._pending.get(arguments)
        return None if pending is None else pending.routed_to

    # --- after -----------------------------------------------------------------------------------------------------

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> None:
        """Settle a whole answer."""
        del user_api_key_dict
        pending = self._pending.pop(data)
        if pending is None:
            await asyncio.to_thread(settle_retrieved, self.pipeline, response)
        else:
            await self._pending.settle(pending, pending.call.read_usage(pending.held.attempt, response))
            self._pending.remember_cost(pending)

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Pass a stream on, and settle it however it is left: at its end, broken, or by a client that went away."""
        del user_api_key_dict
        pending = self._pending.pop_stream(request_data, response)
        if pending is None:
            async for chunk in response:
                yield chunk
            return
        stream = pending.observe(response)
        try:
            async for chunk in stream:
                yield chunk
        except (asyncio.CancelledError, GeneratorExit):
            self._pending.abandon(pending, stream.reading())  # nothing may be awaited any more
            raise
        except BaseException as error:
            await self._pending.fail(pending, error)
            raise
        await self._pending.settle(pending, stream.reading())

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Give the money back where nothing was billed; else book it."""
        del user_api_key_dict, traceback_str
        pending = self._pending.pop(request_data)
        if pending is not None:
            await self._pending.fail(pending, original_exception)

    async def async_post_call_response_headers_hook(
        self, data: dict[str, Any], user_api_key_dict: Any, response: Any, **_: Any
    ) -> dict[str, str] | None:
        """What a call cost (or may cost, while its stream runs), and what remains of its tightest budget, in USD."""
        del user_api_key_dict, response
        return await self._pending.headers(data)


class Classifier:
    """The classifier of LiteLLM's complexity router: names the tier, which is a model, that the callback decided on."""

    def __init__(self, governor: ProxyBudgetCallback) -> None:
        self._governor = governor

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # LiteLLM copies its model_list, this instance with it

    async def classify(self, context: Any) -> str | None:
        """The tier of a request. ``None``: the callback has not decided."""
        decided = self._governor.decided({METADATA[0]: context.metadata})
        if decided is not None:
            return decided
        _log.warning("the classifier runs without the governor: nothing is held and nothing is booked")
        return None


governor = ProxyBudgetCallback()
classifier = Classifier(governor)
