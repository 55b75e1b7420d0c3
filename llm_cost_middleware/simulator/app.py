"""HTTP frontend: receives, runs into faults, answers, streams, and notices who left."""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from . import odd_usage
from .anthropic.counting import CountingRules
from .catalogue import ProviderName
from .engine import ServedRequest, ServingEngine
from .faults import Exchange, Fault, FaultScript
from .manners import Services
from .reading import Dialect, Frame, Reading
from .refusals import Refusal
from .tiers import Service, TierMarket

_FOREVER_S = 3_600.0
_UNREAD_S = 0.1  # a reset overtakes what the client has not read yet: give it this long


class HttpFrontend:
    """Request handlers over one engine."""

    def __init__(
        self,
        engine: ServingEngine,
        faults: FaultScript,
        *,
        latency_s: float,
        keep_bodies: bool,
        keep: int | None,
        chunk_chars: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.engine = engine
        self.faults = faults
        self.latency_s = latency_s
        self.sleep = sleep
        self.keep_bodies = keep_bodies
        self.chunk_chars = chunk_chars
        self.counting = CountingRules()
        self.tiers = TierMarket()
        self.services = Services()
        self.exchanges: deque[Exchange] = deque(maxlen=keep)
        self.count = 0

    def endpoint(
        self, dialect: Dialect | Callable[[web.Request], Dialect], served_by: str = ""
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Return the handler of an endpoint that answers in JSON or in events.

        Args:
            dialect: The endpoint, or what makes it of the request (a model that is named in the path, say).
            served_by: The name of a platform's manners; empty for the provider itself.
        """

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._serve(dialect if isinstance(dialect, Dialect) else dialect(request), request, served_by)

        return handle

    async def receive(
        self, request: web.Request, provider: ProviderName, *, parse: bool = True, served_by: str = ""
    ) -> tuple[Exchange, Any]:
        """Log a request and parse its body (None when it is no JSON)."""
        body = None
        if parse and (raw := await request.read()):
            with suppress(ValueError):
                body = json.loads(raw)
        self.count += 1
        headers = {name.lower(): value for name, value in request.headers.items()}
        now = self.engine.clock.now()
        exchange = Exchange(self.count, provider, request.method, request.path, headers, body, now, served_by=served_by)
        self.exchanges.append(exchange)
        return exchange, body

    def fault_for(self, exchange: Exchange) -> Fault | None:
        """Return the scripted fault that this request runs into; its body is not needed in the log after that."""
        fault = self.faults.take(exchange)
        if not self.keep_bodies:
            exchange.body = None
        return fault

    async def _serve(self, dialect: Dialect, request: web.Request, served_by: str) -> web.StreamResponse:
        exchange, body = await self.receive(request, dialect.provider, served_by=served_by)
        manners = self.services.of(exchange)
        fault = self.fault_for(exchange)
        try:
            charged = fault is not None and fault.kind == "status" and manners.charges(fault)
            if fault is not None and fault.kind == "status" and not charged:
                raise manners.refusal(fault)
            # Unbilled: the connection is lost before the provider did any work, so nothing is answered or cached.
            if fault is not None and fault.kind in {"hang", "reset"} and not fault.billed:
                return await self.drop(request, exchange, fault)
            key = manners.authenticate(request, exchange, await request.read())
            reading = self.engine.read(dialect, body, exchange.headers, exchange.index)
            failure = _failure(dialect, fault)
            service = self._service(reading, body, exchange)
            served = self.engine.begin(dialect, reading, key, tier=service.tier, billed=failure is None)
            served.out = served.out._replace(failure=failure)
        except Refusal as refusal:
            return self.refuse(refusal, exchange)
        exchange.request_id = served.out.answer_id
        if charged and fault is not None:  # it was worked on
            served.close("failed")
            return self.refuse(manners.refusal(fault), exchange)
        if fault is not None and fault.kind in {"hang", "reset"}:
            self.engine.started(served)
            served.close("disconnected")
            return await self.drop(request, exchange, fault)
        try:
            await self._wait(service, fault)
            self.engine.started(served)
            if reading.request.stream and service.refusal is None:
                return await self._stream(dialect, request, exchange, served, fault)
        except (asyncio.CancelledError, ConnectionError):
            # The client left. A JSON answer was produced in full all the same; of a stream, what was sent so far.
            if served.entry.outcome == "open":
                whole = None if not reading.request.stream else served.entry.produced
                served.close("disconnected", whole)
            raise
        if service.refusal is not None:
            served.close("failed")
            return self.refuse(service.refusal, exchange)
        return await self._json(dialect, request, exchange, served, fault)

    def _service(self, reading: Reading, body: Any, exchange: Exchange) -> Service:
        """How a valid request is served at its tier. Raises ``Refusal`` where it is refused and not charged."""
        service = Service(reading.tier)
        if exchange.provider == "openai":
            service = self.tiers.serve(reading, body, exchange.index)
        exchange.took_s = service.wait_s
        if service.refusal is not None and not service.billed:
            raise service.refusal
        return service

    async def _wait(self, service: Service, fault: Fault | None) -> None:
        seconds = self.latency_s + (fault.delay_s if fault else 0.0) + service.wait_s * self.tiers.pace
        if seconds:
            await self.sleep(seconds)

    async def _json(
        self, dialect: Dialect, request: web.Request, exchange: Exchange, served: ServedRequest, fault: Fault | None
    ) -> web.StreamResponse:
        kind = fault.kind if fault else ""
        if kind == "no_usage":
            served.out = served.out._replace(usage=False)
        reply = dialect.reply(served.out)
        if fault is not None and kind == "odd_usage":
            reply = odd_usage.in_body(reply, fault.body)
        served.close("cut" if kind == "cut" else "complete")
        whole = self.respond(exchange, reply)
        return await self._cut_short(request, whole, clean=bool(fault and fault.clean)) if kind == "cut" else whole

    async def _stream(
        self, dialect: Dialect, request: web.Request, exchange: Exchange, served: ServedRequest, fault: Fault | None
    ) -> web.StreamResponse:
        entry = served.entry
        kind = fault.kind if fault else ""
        if kind in {"no_usage", "bare_delta"}:
            served.out = served.out._replace(usage=kind != "no_usage", bare_delta=kind == "bare_delta")
        response = web.StreamResponse(headers=self._headers(exchange, self.services.of(exchange).stream_type))
        exchange.status = 200
        await response.prepare(request)
        ending = kind in {"cut", "error_event", "stall"}
        frames = dialect.frames(served.out, self.chunk_chars)
        sent = 0
        upcoming: Frame | None = next(frames)
        try:
            while upcoming is not None:
                if ending and fault is not None and sent >= fault.after:
                    return await self._break_off(dialect, request, response, served, fault)
                if fault is not None and fault.per_chunk_s:
                    await asyncio.sleep(fault.per_chunk_s)
                frame, upcoming = upcoming, next(frames, None)
                entry.produced = frame.produced
                if upcoming is None:
                    entry.outcome = "complete"  # before the client can have read the end
                odd = fault is not None and kind == "odd_usage"
                await response.write(odd_usage.in_event(frame.data, fault.body) if odd and fault else frame.data)
                sent += 1
            await response.write_eof()
        except ConnectionError:  # the client has closed it, as it may
            if entry.outcome == "open":
                served.close("disconnected", entry.produced)
        return response

    async def _break_off(
        self, dialect: Dialect, request: web.Request, response: web.StreamResponse, served: ServedRequest, fault: Fault
    ) -> web.StreamResponse:
        served.entry.outcome = "failed" if fault.kind == "error_event" else "cut"
        if fault.kind == "stall":
            await asyncio.sleep(_FOREVER_S)
        if fault.kind == "error_event":
            await response.write(dialect.error_frame(fault.preset, fault.message))
        if fault.kind == "cut" and not fault.clean:
            await asyncio.sleep(_UNREAD_S)
            hard_close(request)
            return response
        await response.write_eof()
        return response

    @staticmethod
    async def _cut_short(request: web.Request, whole: web.Response, *, clean: bool) -> web.StreamResponse:
        """Send half of a JSON body that was announced in full, then reset the connection or just end it."""
        body = whole.body if isinstance(whole.body, bytes) else b""
        response = web.StreamResponse(headers=whole.headers)
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        await asyncio.sleep(_UNREAD_S)
        if clean and request.transport is not None:
            request.transport.close()
        else:
            hard_close(request)
        return response

    async def drop(self, request: web.Request, exchange: Exchange, fault: Fault) -> web.StreamResponse:
        """Lose the connection before an answer, at once or after a long silence."""
        exchange.status = 0
        if fault.kind == "hang":
            await asyncio.sleep(_FOREVER_S)
        hard_close(request)
        return web.Response()

    def respond(self, exchange: Exchange, body: Any) -> web.Response:
        """Return a JSON answer with the provider's headers."""
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return self.respond_raw(exchange, data, "application/json")

    def respond_raw(self, exchange: Exchange, data: bytes, kind: str) -> web.Response:
        """Bytes of a content type with the provider's headers."""
        exchange.status = 200
        return web.Response(body=data, headers=self._headers(exchange, kind))

    def refuse(self, refusal: Refusal, exchange: Exchange) -> web.Response:
        """Return an error answer with the provider's headers."""
        manners = self.services.of(exchange)
        refusal = manners.worded(refusal)
        exchange.status = refusal.status
        headers = self._headers(exchange, "application/json")
        data, kind = refusal.payload(headers[manners.id_header])
        headers |= {"content-type": kind, **refusal.headers}
        return web.Response(body=data, status=refusal.status, headers=headers)

    def _headers(self, exchange: Exchange, kind: str) -> dict[str, str]:
        return {"content-type": kind, **self.services.of(exchange).headers(self.engine.ids, exchange.took_s)}


def _failure(dialect: Dialect, fault: Fault | None) -> Mapping[str, str] | None:
    if fault is None or fault.kind != "failed" or dialect.endpoint != "responses":
        return None
    return {"code": fault.preset, "message": fault.message or ""}


def called(headers: Mapping[str, str]) -> ProviderName:
    """Return the provider that a request is meant for, by its headers."""
    return "anthropic" if "anthropic-version" in headers or "x-api-key" in headers else "openai"


def hard_close(request: web.Request) -> None:
    """Drop the connection with a TCP reset instead of an orderly end."""
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # A linger time of zero turns the close into a reset: the client sees a broken connection, not an end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
