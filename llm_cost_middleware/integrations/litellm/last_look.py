"""The last look at a request of the proxy before it leaves, which sees every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from litellm import BadRequestError
from litellm.integrations.custom_logger import CustomLogger

from llm_cost_middleware.context import cost_context, current_context
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.integrations.litellm.arguments import (
    LOGGING,
    METADATA,
    SINGLE_EMBEDDING,
    each_metadata,
)
from llm_cost_middleware.integrations.litellm.booking import PassingCalls, UngovernedCall
from llm_cost_middleware.integrations.litellm.convert import RouterCall
from llm_cost_middleware.integrations.litellm.deployments import target_of
from llm_cost_middleware.integrations.litellm.groups import Groups
from llm_cost_middleware.integrations.litellm.identity import identify, is_key, written_identity
from llm_cost_middleware.integrations.litellm.pending import PendingRequest, PendingRequests
from llm_cost_middleware.integrations.litellm.proxy_kinds import (
    CARRYING_KINDS,
    DIRECT_KINDS,
    FREE_KINDS,
    GOVERNED_KINDS,
    WRAPPED_KINDS,
    kind_of,
)
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import EMPTY, ModelRef
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

_ADVICE = "use chat completions, responses, messages or embeddings"
_caller: ContextVar[Mapping[str, Any]] = ContextVar("llm_cost_caller", default=EMPTY)
"""Whose request a task serves, as attributes of ``cost_context``."""
_under_way: ContextVar[PendingRequest | None] = ContextVar("llm_cost_under_way", default=None)
"""The request that this task sends: LiteLLM may make another of it on the way, without the id in its metadata."""


class LastLook(CustomLogger):  # type: ignore[misc]  # LiteLLM is not typed
    """Lets a request leave with its own reservation, or with a row that says that it has none, or not at all."""

    @property
    def pipeline(self) -> CostPipeline:
        """The pipeline."""
        raise NotImplementedError

    def groups_now(self) -> Groups:
        """What the names of the proxy's router reach."""
        raise NotImplementedError

    async def admit(self, call: RouterCall, *, routed: bool) -> PendingRequest:
        """Set the money of a call aside. Raises as a call does."""
        raise NotImplementedError

    @cached_property
    def _pending(self) -> PendingRequests:
        return PendingRequests(self.pipeline)

    @cached_property
    def _passing(self) -> PassingCalls:
        return PassingCalls()

    def serve(self, caller: Mapping[str, Any]) -> None:
        """Note whose request this task serves from here on."""
        _caller.set(caller)
        _under_way.set(None)

    def refuse(self, what: str, advice: str) -> None:
        """Refuse where that is configured; what is let pass is reported at the last look."""
        if self.pipeline.config.on_ungoverned == "deny":
            self.pipeline.ungoverned(what, advice)

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any) -> dict[str, Any] | None:
        """The last look before a request leaves: with its own reservation, or with a row, or not at all."""
        kind = kind_of(call_type)
        pending = self._pending.get(kwargs) or _under_way.get()
        if pending is not None and pending.covers(kind):
            _check(self._target(kwargs), pending, kwargs)
            capped = pending.capped(kwargs)
            pending.mark_sent(kind)
            _under_way.set(pending)
            if GOVERNED_KINDS.get(kind) == "embeddings":  # whoever copied the request on its way
                return {**capped, **SINGLE_EMBEDDING}
            return None if capped is kwargs else capped
        try:
            self._keep_inside(kind)
            if kind in FREE_KINDS:
                return None
            return await self._look_late(kind, kwargs)
        except LLMCostError as error:
            # of a status that LiteLLM sends to no other deployment
            raise BadRequestError(message=str(error), model=str(kwargs.get("model")), llm_provider="") from error

    def _target(self, arguments: Mapping[str, Any]) -> ModelRef | None:
        return target_of(arguments, self.pipeline.config.platforms)

    async def _look_late(self, kind: str, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Set money aside for what only now is known, or let it pass."""
        before = _under_way.get()
        if before is not None and before.kind == kind:  # LiteLLM's router tries again, or falls back
            kwargs = before.unwritten(kwargs)
        endpoint = GOVERNED_KINDS.get(kind)
        if endpoint is None and kind in WRAPPED_KINDS and self._target(kwargs) is not None:
            return None
        group = None if endpoint is None else self.groups_now().deployed(kwargs)
        if endpoint is None or group is None:
            await self._let_pass(kind, kwargs, kwargs.get("litellm_call_id"))
            return None
        with cost_context(**self._caller_of(kwargs)):
            call = RouterCall(
                endpoint,
                kwargs,
                group=group,
                groups=self.groups_now().served,
                defaults=group.defaults,
                own_timeout=True,
                asynchronous=True,
            )
        pending = await self.admit(call, routed=False)
        written = call.write(pending.held.attempt)
        changed = (*METADATA, *OUTPUT_CAP_FIELDS, *call.changes, *SINGLE_EMBEDDING)
        sent = {name: value for name, value in kwargs.items() if name not in call.changes}
        sent |= {name: written[name] for name in changed if name in written}
        self._pending.mark_late(pending, kwargs.get(LOGGING))
        self._pending.end_with_task(pending)
        pending.mark_sent(kind)
        _under_way.set(pending)
        return sent

    def _caller_of(self, kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Whose request it is; of one that no hook saw before, what LiteLLM wrote of its key."""
        if (known := _caller.get()) is not EMPTY:
            return known
        key = next((found for each in each_metadata(kwargs) if is_key(found := each.get("user_api_key_auth"))), None)
        return identify(key, {}, {}, self.pipeline.config).attributes if key is not None else written_identity(kwargs)

    async def let_wait(self, kind: str, data: dict[str, Any]) -> None:
        """A request that is not governed: refused, let pass now, or looked at again before it leaves."""
        self._keep_inside(kind)
        if kind in FREE_KINDS or kind in WRAPPED_KINDS:
            return
        if kind in DIRECT_KINDS:
            await self._let_pass(kind, data, getattr(data.get(LOGGING), "litellm_call_id", None))
        else:
            self.refuse(f"the proxy's {kind}", _ADVICE)

    def _keep_inside(self, kind: str) -> None:
        if kind in CARRYING_KINDS:
            self.pipeline.keep_inside(f"the proxy's {kind}", None)

    async def _let_pass(self, kind: str, arguments: Mapping[str, Any], request_id: Any) -> None:
        name = str(arguments.get("model") or "")
        target = self._target({**arguments, "model": name}) if name else None
        with cost_context(**self._caller_of(arguments)):
            context = current_context()
        call = await self._pending.run(
            lambda: UngovernedCall(
                self.pipeline, f"the proxy's {kind}", _ADVICE, target=target or ModelRef("", name), context=context
            )
        )
        self._passing.add(request_id, call)

    async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
        """Correct the row of what was let pass, where LiteLLM names a price; settle a late stream in a wrapping."""
        del start_time, end_time
        passing = self._passing.pop(kwargs.get("litellm_call_id"))
        if passing is not None:
            await self._pending.run(lambda: passing.book(kwargs.get("response_cost")))
        params = kwargs.get("litellm_params") or EMPTY
        pending = self._pending.get(params)
        # a stream that LiteLLM wraps for another API passes no hook of its own; what is left of it is charged in time
        if pending is not None and pending.late and pending.call.request.stream:
            self._pending.pop(params)
            await self._pending.settle_estimated(pending, pending.call.read_usage(pending.held.attempt, response_obj))

    async def async_post_call_success_deployment_hook(self, request_data: Any, response: Any, call_type: Any) -> None:
        """Settle an answer whose money was set aside at the last look."""
        pending = self._pending.get(request_data)
        if pending is not None and pending.late and pending.kind == kind_of(call_type):
            self._pending.pop(request_data)
            await self._pending.settle(pending, pending.call.read_usage(pending.held.attempt, response))

    async def async_post_call_failure_deployment_hook(
        self, request_data: Any, exception: Exception, call_type: Any, fallback_depth: int | None = None
    ) -> None:
        """End an attempt with its error; the router may make another, which is set money aside for at the last look."""
        del fallback_depth
        pending = self._pending.get(request_data)
        if pending is not None and pending.kind == kind_of(call_type):
            self._pending.pop(request_data)
            await self._pending.fail(pending, exception)


def _check(target: ModelRef | None, pending: PendingRequest, arguments: Mapping[str, Any]) -> None:
    """Refuse what the money was not set aside for."""
    group, expected = pending.call.group, pending.held.attempt.target
    if target not in ((group.alternatives if group is not None else ()) or (expected,)):
        raise BadRequestError(
            message=f"money was set aside for {expected}, and {target} was about to be called",
            model=str(arguments.get("model")),
            llm_provider="",
        )
