"""``/__sim__/``: the simulator's own endpoints, for clients in other processes and other languages.

``GET bill`` and ``GET requests`` read; ``POST script``, ``POST clock``, ``POST batches``, ``POST
responder`` and ``POST reset`` change.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from .bill import by_model
from .faults import Exchange, Fault, Match
from .pace import BatchPace
from .responders import BUILT_IN

if TYPE_CHECKING:
    from .simulator import Simulator


def add_admin(app: web.Application, sim: "Simulator") -> None:
    """Add the endpoints to an application."""

    async def bill(_: web.Request) -> web.Response:
        lines = sim.bill.lines
        total = sum(line.cost_nanousd for line in lines)
        rows = [asdict(line) for line in lines]
        return web.json_response({"total_nanousd": total, "by_model": by_model(lines), "lines": rows})

    async def requests(_: web.Request) -> web.Response:
        kept = [_redacted(exchange) for exchange in sim.requests]
        return web.json_response({"count": sim.request_count, "requests": kept})

    async def script(request: web.Request) -> web.Response:
        order = await request.json()
        sim.script(Fault(**order["fault"]), times=order.get("times", 1), match=matcher(order))
        return web.json_response({"pending": sim.pending_faults})

    async def clock(request: web.Request) -> web.Response:
        order = await request.json()
        if "set" in order:
            sim.clock.set(order["set"])
        sim.clock.advance(order.get("advance", 0))
        return web.json_response({"now": sim.clock.now()})

    async def batches(request: web.Request) -> web.Response:
        sim.batch_pace = BatchPace(**await request.json())
        return web.json_response(asdict(sim.batch_pace))

    async def responder(request: web.Request) -> web.Response:
        name = (await request.json())["name"]
        if name not in BUILT_IN:
            return web.json_response({"error": f"no responder named {name!r}: {', '.join(BUILT_IN)}"}, status=400)
        sim.responder = BUILT_IN[name]
        return web.json_response({"name": name})

    async def reset(_: web.Request) -> web.Response:
        sim.reset()
        return web.json_response({})

    app.router.add_get("/__sim__/bill", bill)
    app.router.add_get("/__sim__/requests", requests)
    app.router.add_post("/__sim__/script", script)
    app.router.add_post("/__sim__/clock", clock)
    app.router.add_post("/__sim__/batches", batches)
    app.router.add_post("/__sim__/responder", responder)
    app.router.add_post("/__sim__/reset", reset)


def matcher(order: Mapping[str, Any]) -> Match | None:
    """Return a match by plain data: ``path`` (its ending), ``model``, ``provider``; all that are given must fit."""
    path, model, provider = order.get("path"), order.get("model"), order.get("provider")
    if path is None and model is None and provider is None:
        return None

    def match(exchange: Exchange) -> bool:
        asked = exchange.body.get("model") if isinstance(exchange.body, dict) else None
        return (
            (path is None or exchange.path.endswith(path))
            and (model is None or asked == model)
            and (provider is None or exchange.provider == provider)
        )

    return match


_SECRET = frozenset({"authorization", "x-api-key"})


def _redacted(exchange: Exchange) -> dict[str, Any]:
    row = asdict(exchange)
    row["headers"] = {name: value for name, value in exchange.headers.items() if name not in _SECRET}
    return row
