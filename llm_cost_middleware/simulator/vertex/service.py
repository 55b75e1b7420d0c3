"""The routes of Vertex: ``rawPredict`` and ``streamRawPredict`` of a model at a place, and ``count-tokens``."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from llm_cost_middleware.simulator.anthropic import elsewhere
from llm_cost_middleware.simulator.anthropic.dialect import MESSAGES
from llm_cost_middleware.simulator.app import HttpFrontend
from llm_cost_middleware.simulator.faults import Exchange, Fault
from llm_cost_middleware.simulator.manners import Manners
from llm_cost_middleware.simulator.reading import Dialect, Ids, Reading
from llm_cost_middleware.simulator.refusals import Refusal, default_refusal
from llm_cost_middleware.simulator.tokens import Tokenizer

from . import errors, models, predict

NAME = "vertex"
_MODELS = "/v1/projects/{project}/locations/{place}/publishers/anthropic/models/"


@dataclass(frozen=True, slots=True)
class VertexManners(Manners):
    """Tokens, headers and errors of Google's front."""

    def authenticate(self, request: web.Request, exchange: Exchange, raw: bytes) -> str:
        """Look for a bearer token; caches are kept apart by project and place."""
        del raw
        scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not token.strip():
            raise errors.google_error("UNAUTHENTICATED", listed=_streams(request))
        return f"{request.match_info['project']}@{request.match_info['place']}"

    def refusal(self, fault: Fault) -> Refusal:
        """Return a scripted error: by its name, or by its status; a named preset of the provider's in its words."""
        if fault.preset in errors.STATUSES:
            refusal = errors.google_error(fault.preset, fault.message, listed=fault.clean)
        elif fault.preset == "overloaded":  # the model's own
            refusal = default_refusal("anthropic", 529)
        elif fault.preset:  # out of money, too large: a quota like any other
            refusal = errors.google_error("RESOURCE_EXHAUSTED")
        else:
            refusal = errors.of_status(fault.code, fault.message)
        if fault.body is not None:
            refusal.body = fault.body
        refusal.headers = {**refusal.headers, **fault.headers}
        return refusal

    def headers(self, ids: Ids, took_s: float) -> Mapping[str, str]:
        """Return the id of the request; there are no limits among the headers."""
        del took_s
        return {"request-id": ids.new("req_vrtx_011C", 20)}


def add_vertex(app: web.Application, frontend: HttpFrontend) -> None:
    """Add the routes of the platform to an application."""
    manners = frontend.services.add(VertexManners("anthropic", NAME))
    app.router.add_post(_MODELS + "count-tokens:rawPredict", partial(_count, frontend, manners))
    app.router.add_post(
        _MODELS + r"{model:[^/:]+}:{verb:rawPredict|streamRawPredict}", frontend.endpoint(_dialect, NAME)
    )


def _dialect(request: web.Request) -> Dialect:
    asked = request.match_info

    def read(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
        served = models.find(asked["model"], asked["place"], asked["project"], listed=_streams(request))
        return predict.read(body, headers, rule, index, served)

    return Dialect(
        "anthropic", "messages", "msg_vrtx_01", 22, read, elsewhere.reply, predict.frames, MESSAGES.error_frame
    )


_COUNTING = Dialect(
    "anthropic", "messages/count_tokens", "", 0, predict.read_counting, elsewhere.reply, predict.frames,
    MESSAGES.error_frame,
)  # fmt: skip


async def _count(frontend: HttpFrontend, manners: Manners, request: web.Request) -> web.StreamResponse:
    exchange, body = await frontend.receive(request, "anthropic", served_by=NAME)
    fault = frontend.fault_for(exchange)
    try:
        if fault is not None and fault.kind == "status":
            raise manners.refusal(fault)
        key = manners.authenticate(request, exchange, b"")
        frontend.counting.take(key)
        reading = frontend.engine.read(_COUNTING, body, exchange.headers, exchange.index)
    except Refusal as refusal:
        return frontend.refuse(refusal, exchange)
    return frontend.respond(exchange, {"input_tokens": frontend.counting.told(reading.prompt.tokens)})


def _streams(request: web.Request) -> bool:
    return request.match_info.get("verb") == "streamRawPredict"
