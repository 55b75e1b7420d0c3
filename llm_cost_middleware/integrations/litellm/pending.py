"""Requests of the proxy that are pending: admitted, their money set aside, not yet settled."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from llm_cost_middleware.host import ObservedStream, attach_billed_usage
from llm_cost_middleware.integrations.litellm.arguments import LOGGING, METADATA
from llm_cost_middleware.integrations.litellm.convert import RouterCall
from llm_cost_middleware.integrations.litellm.proxy_kinds import INNER_KINDS
from llm_cost_middleware.integrations.litellm.signed_ids import governed_call_id
from llm_cost_middleware.integrations.litellm.workarounds import SingleSend, begin_single_send
from llm_cost_middleware.lifecycle.external import ExternalCall
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import CallRequest
from llm_cost_middleware.usage import NOT_SENT, UsageReport
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

_REMEMBERED = 10_000
"""Costs that wait for their headers, at most."""
_RECENT = 64
"""Records among which the one that was just booked is looked for."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One request."""

    call: RouterCall
    held: ExternalCall
    routed_to: str | None = None
    """The model group that was decided on; ``None``: the request names its group itself."""
    kind: str = ""
    """As LiteLLM names it, set when it leaves."""
    late: bool = False
    """Its money was set aside at the last look, which no hook of the proxy knows of."""
    logging: Any = None
    """Of a late one, LiteLLM's object for its logging."""
    sent: SingleSend | None = None
    """Set when it leaves for the provider."""
    written: Mapping[str, Any] = field(default_factory=dict)
    """What was written into it for the model that its money was set aside for."""
    caps: Mapping[str, Any] = field(default_factory=dict)
    """The output cap among it, by its field."""

    def note_written(self, sent: Mapping[str, Any]) -> None:
        """Keep what ``unwritten`` takes out again."""
        given, kept = self.call.arguments, ("model", *METADATA)
        changed = {name: value for name, value in sent.items() if name not in kept and given.get(name) != value}
        self.written = {**dict.fromkeys(self.call.changes), **changed}
        self.caps = {name: sent[name] for name in OUTPUT_CAP_FIELDS if sent.get(name) is not None}

    def capped(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments under the output cap that money was set aside for.

        LiteLLM's router writes the most that a model gives over it, unless ``max_tokens_from_tier_model`` is off.
        """
        found = {name: arguments[name] for name in OUTPUT_CAP_FIELDS if arguments.get(name) is not None}
        if self.routed_to is None or self.sent is not None or found == self.caps:
            return arguments
        return {**{name: value for name, value in arguments.items() if name not in OUTPUT_CAP_FIELDS}, **self.caps}

    def unwritten(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of another attempt, perhaps at another model, as the client meant them."""
        given = self.call.arguments
        plain = {name: value for name, value in arguments.items() if name not in self.written}
        return plain | {name: given[name] for name in self.written if name in given}

    def covers(self, kind: str) -> bool:
        """Whether a request that leaves now is this one; a second one of the kind is another."""
        if self.sent is None:
            return True
        return not self.sent.over and kind in INNER_KINDS.get(self.kind, ())

    @property
    def scopes(self) -> tuple[str, ...]:
        """The budget scopes that it was admitted under."""
        return self.call.request.context.scopes

    def mark_sent(self, kind: str) -> None:
        """It leaves now, from this task: once."""
        if self.sent is None:
            self.kind, self.sent = kind, begin_single_send()

    def observe(self, stream: Any) -> ObservedStream:
        """Its stream, read as it passes."""
        return self.call.observe(self.held.attempt, stream)


class PendingRequests:
    """The pending requests, by the id that rides in LiteLLM's metadata."""

    def __init__(self, pipeline: CostPipeline) -> None:
        self._pipeline = pipeline
        self._blocking = pipeline.ledger.blocks
        self._pending: dict[str, PendingRequest] = {}
        self._by_logging: dict[int, PendingRequest] = {}
        """Late ones that stream, by the id of that object, which each keeps alive."""
        self._done: OrderedDict[str, tuple[str | None, tuple[str, ...]]] = OrderedDict()
        """What a request cost and its scopes, until its headers are asked for."""

    async def admit(self, call: RouterCall, request: CallRequest) -> PendingRequest:
        """Set its money aside. Raises as a call does."""
        held = await self._pipeline.aauthorize(request, counter=call.counter)
        pending = self._pending[held.attempt.call_id] = PendingRequest(call, held)
        return pending

    def mark_late(self, pending: PendingRequest, logging: Any) -> None:
        """Note that its money was set aside at the last look."""
        pending.late, pending.logging = True, logging
        if pending.call.request.stream:
            self._by_logging[id(logging)] = pending

    def end_with_task(self, pending: PendingRequest) -> None:
        """Book a request whose task is cancelled, as those too late of several are: LiteLLM tells that to no hook."""

        def ended(task: asyncio.Task[Any]) -> None:
            if task.cancelled() and self._end(pending.held.attempt.call_id) is not None:
                self.abandon(pending, UsageReport())

        if (task := asyncio.current_task()) is not None:
            task.add_done_callback(ended)

    def get(self, data: Mapping[str, Any]) -> PendingRequest | None:
        """The pending request of a call's arguments."""
        return self._pending.get(governed_call_id(data) or "")

    def pop(self, data: Mapping[str, Any]) -> PendingRequest | None:
        """The pending request, to be ended by the caller: only the first gets it."""
        return self._end(governed_call_id(data) or "")

    def pop_stream(self, data: Mapping[str, Any], stream: Any) -> PendingRequest | None:
        """As ``pop``, for a stream; of a late request it is told by LiteLLM's object for the logging of it."""
        loggings = (data.get(LOGGING), getattr(stream, "logging_obj", None))
        late = next((found for each in loggings if (found := self._by_logging.get(id(each))) is not None), None)
        return self.pop(data) if late is None else self._end(late.held.attempt.call_id)

    def _end(self, call_id: str) -> PendingRequest | None:
        pending = self._pending.pop(call_id, None)
        if pending is not None:
            self._by_logging.pop(id(pending.logging), None)
            if pending.sent is not None:
                pending.sent.over = True
        return pending

    async def settle(self, pending: PendingRequest, reading: UsageReport) -> None:
        """Book an answer; one that did not end is booked at its reservation."""
        # counts of a stream that broke off are below its bill
        known = reading if reading.complete or reading.unbilled else UsageReport(warnings=reading.warnings)
        await self.run(lambda: pending.held.settle(known))

    async def settle_estimated(self, pending: PendingRequest, reading: UsageReport) -> None:
        """As ``settle``, by counts that LiteLLM may have filled in."""
        noted = structs.replace(reading, warnings=(*reading.warnings, "counted by LiteLLM"))
        await self.run(lambda: pending.held.settle(structs.replace(noted, complete=False) if noted.items else noted))

    async def fail(self, pending: PendingRequest, error: BaseException) -> None:
        """End a request with its error: what was never sent costs nothing."""
        if pending.sent is None or pending.call.is_made_up(None):
            await self.run(lambda: pending.held.settle(NOT_SENT))
        else:
            attempt = pending.held.attempt
            if isinstance(error, Exception):
                attach_billed_usage(error, pending.call.billed_usage(attempt, error))
            await self.run(lambda: pending.held.fail(error))

    async def cancel(self, pending: PendingRequest) -> None:
        """End a request that was admitted and never handed on: it costs nothing."""
        self._pending.pop(pending.held.attempt.call_id, None)
        await self.run(lambda: pending.held.settle(NOT_SENT))

    def abandon(self, pending: PendingRequest, reading: UsageReport) -> None:
        """Settle without awaiting: the task is being cancelled, and every await in it would be, too."""
        known = reading if reading.complete else UsageReport(warnings=("the client went away",))
        if self._blocking:
            asyncio.get_running_loop().run_in_executor(None, pending.held.settle, known)
        else:
            pending.held.settle(known)

    def remember_cost(self, pending: PendingRequest) -> None:
        """Keep what a request cost, for the headers of its answer."""
        call_id, cost = pending.held.attempt.call_id, None
        for record in reversed(self._pipeline.records()[-_RECENT:]):
            if record.call_id == call_id:
                cost = f"{record.cost_usd:f}"
                break
        self._done[call_id] = cost, pending.scopes
        # LiteLLM does not ask for the headers of every answer: the rest must not pile up
        while len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)

    async def headers(self, data: Mapping[str, Any]) -> dict[str, str] | None:
        """What a call cost, and what remains, as headers."""
        call_id = governed_call_id(data) or ""
        pending = self._pending.get(call_id)
        cost, scopes = self._done.pop(call_id, (None, pending.scopes if pending is not None else ()))
        headers = {} if cost is None else {"x-llm-cost-usd": cost}
        available = await self.run(lambda: self._pipeline.ledger.available(scopes))
        if available is not None:
            headers["x-llm-cost-remaining-usd"] = f"{available.usd:f}"
        if headers and call_id:
            headers["x-llm-cost-call-id"] = call_id
        return headers or None

    async def run(self, work: Callable[[], Any]) -> Any:
        """A ledger in a file or on a server is asked off the event loop; what was begun is finished."""
        return await asyncio.shield(asyncio.to_thread(work)) if self._blocking else work()
