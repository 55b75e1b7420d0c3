"""Requests of the proxy that are under way: admitted, their money set aside, not yet settled."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_cost_middleware.integrations.litellm.convert import GOVERNED, RouterCall
from llm_cost_middleware.integrations.litellm.streams import ChatStream, EventStream, result
from llm_cost_middleware.integrations.litellm.usage import extra
from llm_cost_middleware.integrations.litellm.workarounds import SingleSend, begin_single_send
from llm_cost_middleware.lifecycle.external import ExternalCall
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.request import CallRequest
from llm_cost_middleware.usage import UsageReport

_log = logging.getLogger(__name__)
_METADATA = ("metadata", "litellm_metadata")
_REMEMBERED = 10_000
NOTHING_LEFT = UsageReport(unbilled=True, complete=True, warnings=("nothing was sent",))


@dataclass(slots=True, eq=False)
class Flight:
    """One request."""

    call: RouterCall
    held: ExternalCall
    underway: SingleSend | None = None
    """Set when it leaves for the provider."""

    def leave(self) -> None:
        """It leaves now, from this task: once."""
        self.underway = begin_single_send()

    def watch(self, response: Any) -> Watched:
        """Its stream, read as it passes."""
        return Watched(self, response)


class Flights:
    """The requests under way, by the id that rides in LiteLLM's metadata."""

    def __init__(self, pipeline: CostPipeline) -> None:
        self._pipeline = pipeline
        self._blocking = pipeline.ledger.blocks
        self._flights: dict[str, Flight] = {}
        self._costs: OrderedDict[str, str] = OrderedDict()

    async def admit(self, call: RouterCall, request: CallRequest) -> Flight:
        """Set its money aside. Raises as a call does."""
        held = await self._run(lambda: self._pipeline.authorize(request))
        flight = self._flights[held.attempt.call_id] = Flight(call, held)
        return flight

    def get(self, data: Mapping[str, Any]) -> Flight | None:
        """The flight of a request."""
        return self._flights.get(_id_in(data))

    def take(self, data: Mapping[str, Any]) -> Flight | None:
        """The flight of a request, to be ended by the caller: only the first gets it."""
        flight = self._flights.pop(_id_in(data), None)
        if flight is not None and flight.underway is not None:
            flight.underway.over = True
        return flight

    async def settle(self, flight: Flight, reading: UsageReport) -> None:
        """Book an answer; one that did not end is booked at its reservation."""
        known = reading if reading.complete or reading.unbilled else UsageReport(warnings=reading.warnings)
        await self._run(lambda: flight.held.settle(known))

    async def fail(self, flight: Flight, error: BaseException) -> None:
        """End a flight with its error: what never left costs nothing."""
        if flight.underway is None:
            await self._run(lambda: flight.held.settle(NOTHING_LEFT))
        else:
            await self._run(lambda: flight.held.fail(error))

    def abandon(self, flight: Flight, reading: UsageReport) -> None:
        """Settle without awaiting: the task is being cancelled, and every await in it would be, too."""
        known = reading if reading.complete else UsageReport(warnings=("the client went away",))
        if self._blocking:
            asyncio.get_running_loop().run_in_executor(None, flight.held.settle, known)
        else:
            flight.held.settle(known)

    def landed(self, flight: Flight) -> None:
        """Remember what a flight cost, for the headers of its answer."""
        call_id = flight.held.attempt.call_id
        for record in reversed(self._pipeline.records()[-64:]):
            if record.call_id == call_id:
                self._costs[call_id] = f"{record.cost_usd:f}"
                break
        while len(self._costs) > _REMEMBERED:
            self._costs.popitem(last=False)

    async def headers(self, data: Mapping[str, Any]) -> dict[str, str] | None:
        """What a call cost, and what remains, as headers."""
        call_id = _id_in(data)
        flight, cost = self._flights.get(call_id), self._costs.pop(call_id, None)
        headers = {} if cost is None else {"x-llm-cost-usd": cost}
        scopes = flight.call.request.context.scopes if flight is not None else _scopes_in(data)
        available = await self._run(lambda: self._pipeline.ledger.available(scopes))
        if available is not None:
            headers["x-llm-cost-remaining-usd"] = f"{available.usd:f}"
        return headers or None

    async def _run(self, work: Callable[[], Any]) -> Any:
        """A ledger in a file or on a server is asked off the event loop; what was begun is finished."""
        return await asyncio.shield(asyncio.to_thread(work)) if self._blocking else work()


class Watched:
    """A proxy's stream: yields what its client is to get, and remembers what was said of usage."""

    def __init__(self, flight: Flight, response: Any) -> None:
        self._flight, self._response = flight, response
        opened = result(flight.call, flight.held.attempt, response)
        assert isinstance(opened, ChatStream | EventStream)  # noqa: S101 - only streams get here
        self._opened = opened
        self._seen: list[Any] = []
        self._watching = isinstance(opened, ChatStream) and not hasattr(response, "chunks")

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._remembering() if self._watching else aiter(self._opened)

    async def _remembering(self) -> AsyncIterator[Any]:
        """Another callback stands between: only what reaches this one can be read."""
        asked = bool((self._flight.call.arguments.get("stream_options") or {}).get("include_usage"))
        async for chunk in self._response:
            usage = extra(chunk, "usage") if hasattr(chunk, "__pydantic_extra__") else None
            if usage is not None or (chunk.choices and chunk.choices[0].finish_reason):
                self._seen.append(chunk)
            if usage is None or asked:
                yield chunk

    def reading(self) -> UsageReport:
        """What the stream has said so far."""
        if self._watching:
            from llm_cost_middleware.integrations.litellm.usage import read_chunks

            return self._flight.call.priced(read_chunks(self._seen, self._flight.held.attempt.target.provider))
        return self._opened.reading()


def _id_in(data: Mapping[str, Any]) -> str:
    for name in _METADATA:
        found = data.get(name)
        if isinstance(found, Mapping) and GOVERNED in found:
            return str(found[GOVERNED])
    return ""


def _scopes_in(data: Mapping[str, Any]) -> tuple[str, ...]:
    for name in _METADATA:
        found = data.get(name)
        if isinstance(found, Mapping) and "llm_cost_scopes" in found:
            return tuple(found["llm_cost_scopes"])
    return ()
