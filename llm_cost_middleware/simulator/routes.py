"""Routes of the HTTP application, and the handlers of everything beside the endpoints of dialects."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .anthropic.batches import MessageBatches
from .anthropic.dialect import COUNT_TOKENS, MESSAGES
from .app import HttpFrontend, called
from .azure import NAME as AZURE
from .azure import add_azure
from .azure import batched as batched_at_azure
from .bedrock.service import BedrockAccount, add_bedrock
from .catalogue import ProviderName
from .faults import Exchange
from .openai.batches import OpenAIBatches
from .openai.dialects import CHAT
from .openai.embeddings import EMBEDDINGS
from .openai.responses import Responses
from .refusals import Refusal, anthropic_error, openai_error
from .vertex.service import add_vertex

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Work = Callable[[web.Request, Exchange, Any, str], Any]  # request, exchange, parsed body, key -> JSON or bytes

MAX_BODY = 260 * 2**20


def application(
    frontend: HttpFrontend, add_more: Callable[[web.Application], None], *, bedrock: BedrockAccount
) -> web.Application:
    """Return the aiohttp application over one frontend; `add_more` adds routes before the one that catches all."""
    engine = frontend.engine
    responses = Responses()
    message_batches = MessageBatches(engine)
    dialects = (CHAT, responses.dialect, EMBEDDINGS)
    batches = OpenAIBatches(engine, {f"/v1/{dialect.endpoint}": dialect for dialect in dialects})
    app = web.Application(client_max_size=MAX_BODY)

    def plain(method: str, path: str, provider: ProviderName, work: Work, served_by: str = "") -> None:
        app.router.add_route(method, path, _plain(frontend, provider, work, served_by))

    for dialect in (MESSAGES, *dialects):
        app.router.add_post(f"/v1/{dialect.endpoint}", frontend.endpoint(dialect))

    def count(_: web.Request, exchange: Exchange, body: Any, key: str) -> Any:
        frontend.counting.take(key)
        reading = engine.read(COUNT_TOKENS, body, exchange.headers, exchange.index)
        return {"input_tokens": frontend.counting.told(reading.prompt.tokens)}

    def count_input(_: web.Request, exchange: Exchange, body: Any, _key: str) -> Any:
        reading = engine.read(responses.dialect, body, exchange.headers, exchange.index)
        return {"object": "response.input_tokens", "input_tokens": reading.prompt.tokens}

    plain("POST", "/v1/messages/count_tokens", "anthropic", count)
    plain("POST", "/v1/responses/input_tokens", "openai", count_input)

    plain(
        "POST",
        "/v1/messages/batches",
        "anthropic",
        lambda request, exchange, body, key: message_batches.create(
            body, exchange.headers, key, str(request.url.origin()), request.content_length or 0
        ),
    )
    plain("GET", "/v1/messages/batches", "anthropic", lambda request, *_: message_batches.listed(*_page(request)))
    plain(
        "POST",
        "/v1/messages/batches/{id}/cancel",
        "anthropic",
        lambda request, *_: message_batches.cancel(request.match_info["id"]),
    )
    plain(
        "GET",
        "/v1/messages/batches/{id}",
        "anthropic",
        lambda request, *_: message_batches.get(request.match_info["id"]),
    )
    plain(
        "GET",
        "/v1/messages/batches/{id}/results",
        "anthropic",
        lambda request, *_: message_batches.results(request.match_info["id"]),
    )

    def files_and_batches(root: str, batches: OpenAIBatches, served_by: str = "") -> None:
        def add(method: str, path: str, work: Work) -> None:
            plain(method, root + path, "openai", work, served_by)

        add("POST", "batches", lambda _, exchange, body, key: batches.create(body, exchange.headers, key))
        add("GET", "batches", lambda request, *_: batches.listed(*_page(request)))
        add("POST", "batches/{id}/cancel", lambda request, *_: batches.cancel(request.match_info["id"]))
        add("GET", "batches/{id}", lambda request, *_: batches.get(request.match_info["id"]))
        add("GET", "files/{id}", lambda request, *_: batches.file(request.match_info["id"]))
        add("GET", "files/{id}/content", lambda request, *_: batches.content(request.match_info["id"]))
        app.router.add_post(f"{root}files", _upload(frontend, batches, served_by))

    files_and_batches("/v1/", batches)
    at_azure = OpenAIBatches(engine, batched_at_azure(dialects))
    for root in ("/openai/", "/openai/v1/"):
        files_and_batches(root, at_azure, AZURE)

    for root, served_by in (("/v1/", ""), ("/openai/", AZURE), ("/openai/v1/", AZURE)):
        one = f"{root}responses/{{id}}"
        app.router.add_get(one, _fetch(frontend, responses, served_by))
        plain("DELETE", one, "openai", lambda request, *_: responses.delete(request.match_info["id"]), served_by)
        cancel = f"{one}/cancel"
        plain("POST", cancel, "openai", lambda request, *_: responses.cancel(request.match_info["id"]), served_by)

    add_azure(app, frontend, dialects)
    add_bedrock(app, frontend, bedrock)
    add_vertex(app, frontend)
    add_more(app)
    app.router.add_route("*", "/{path:.*}", _unknown(frontend))
    return app


def _plain(frontend: HttpFrontend, provider: ProviderName, work: Work, served_by: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        exchange, body = await frontend.receive(request, provider, served_by=served_by)
        manners = frontend.services.of(exchange)
        fault = frontend.fault_for(exchange)
        try:
            if fault is not None and fault.kind == "status":
                raise manners.refusal(fault)
            lost = fault is not None and fault.kind in {"hang", "reset"}
            if fault is not None and lost and not fault.billed:
                return await frontend.drop(request, exchange, fault)
            result = work(request, exchange, body, manners.authenticate(request, exchange, b""))
            if fault is not None and lost:  # it was done, and nobody hears of it
                return await frontend.drop(request, exchange, fault)
        except Refusal as refusal:
            return frontend.refuse(refusal, exchange)
        if isinstance(result, bytes):
            return frontend.respond_raw(exchange, result, "application/x-jsonl")
        return frontend.respond(exchange, result)

    return handle


def _page(request: web.Request) -> tuple[str | None, str | None]:
    return request.query.get("after_id") or request.query.get("after"), request.query.get("limit")


def _fetch(frontend: HttpFrontend, responses: Responses, served_by: str) -> Handler:
    """Return a stored response, as JSON or (``?stream=true``) as the events that built it up; free."""

    async def handle(request: web.Request) -> web.StreamResponse:
        exchange, _ = await frontend.receive(request, "openai", served_by=served_by)
        try:
            frontend.services.of(exchange).authenticate(request, exchange, b"")
            body = responses.get(request.match_info["id"])
        except Refusal as refusal:
            return frontend.refuse(refusal, exchange)
        if request.query.get("stream") != "true":
            return frontend.respond(exchange, body)
        events = b"".join(frame.data for frame in responses.events(body, frontend.chunk_chars))
        return frontend.respond_raw(exchange, events, "text/event-stream; charset=utf-8")

    return handle


def _upload(frontend: HttpFrontend, batches: OpenAIBatches, served_by: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        exchange, _ = await frontend.receive(request, "openai", parse=False, served_by=served_by)
        try:
            frontend.services.of(exchange).authenticate(request, exchange, b"")
        except Refusal as refusal:
            return frontend.refuse(refusal, exchange)
        form = await request.post()
        file = form.get("file")
        if not isinstance(file, web.FileField):
            return frontend.refuse(openai_error(400, "'file' is a required property", param="file"), exchange)
        try:
            kept = batches.upload(file.filename, str(form.get("purpose", "")), file.file.read())
        except Refusal as refusal:
            return frontend.refuse(refusal, exchange)
        return frontend.respond(exchange, kept)

    return handle


def _unknown(frontend: HttpFrontend) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        provider = called(request.headers)
        exchange, _ = await frontend.receive(request, provider)
        if provider == "anthropic":
            return frontend.refuse(anthropic_error(404, "Not found"), exchange)
        message = f"Invalid URL ({request.method} {request.path})"
        return frontend.refuse(openai_error(404, message, kind="invalid_request_error"), exchange)

    return handle
