"""The routes of the runtime, and of Mantle, which speaks Anthropic's Messages under Bedrock's keys and model ids."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from llm_cost_middleware.simulator.anthropic import elsewhere
from llm_cost_middleware.simulator.anthropic.dialect import MESSAGES
from llm_cost_middleware.simulator.app import HttpFrontend
from llm_cost_middleware.simulator.faults import Exchange, Fault
from llm_cost_middleware.simulator.manners import Manners
from llm_cost_middleware.simulator.reading import Dialect, Frame, Ids, Reading, Reply
from llm_cost_middleware.simulator.refusals import Refusal, anthropic_error
from llm_cost_middleware.simulator.tokens import Tokenizer

from . import converse, converse_reply, errors, invoke, models, signing

NAME, MANTLE = "bedrock", "bedrock-mantle"
Read = Callable[..., Reading]


@dataclass(frozen=True, slots=True)
class BedrockManners(Manners):
    """Keys, headers and errors of the runtime."""

    def authenticate(self, request: web.Request, exchange: Exchange, raw: bytes) -> str:
        """Check the signature or the bearer token; the region is what the model is looked for in."""
        caller = signing.check(
            request.method, str(request.url.origin()) + request.raw_path, exchange.headers, raw, NAME
        )
        return f"{caller.key}@{caller.region}"

    def refusal(self, fault: Fault) -> Refusal:
        """Return a scripted error: by its name, or by its status."""
        if fault.preset in errors.STATUSES:
            refusal = errors.aws_error(fault.preset, fault.message)
        else:
            refusal = errors.of_status(fault.code or 429, fault.message)
        if fault.body is not None:
            refusal.body = fault.body
        refusal.headers = {**refusal.headers, **fault.headers}
        return refusal

    def worded(self, refusal: Refusal) -> Refusal:
        """Return the model's own refusal as the runtime words it."""
        return errors.worded(refusal)

    def headers(self, ids: Ids, took_s: float) -> Mapping[str, str]:
        """Return the id of the request; there are no limits among the headers."""
        del took_s
        return {"x-amzn-requestid": ids.new("", 32)}

    @property
    def id_header(self) -> str:
        """Return AWS's name for it."""
        return "x-amzn-requestid"


@dataclass(frozen=True, slots=True)
class MantleManners(Manners):
    """Anthropic's words, Bedrock's keys."""

    def authenticate(self, request: web.Request, exchange: Exchange, raw: bytes) -> str:
        """Check the signature, which names a service of its own, or the bearer token."""
        url = str(request.url.origin()) + request.raw_path
        try:
            caller = signing.check(request.method, url, exchange.headers, raw, MANTLE)
        except Refusal as refusal:
            raise anthropic_error(403, refusal.body["message"]) from refusal
        return f"{caller.key}@{caller.region}"


@dataclass(slots=True)
class BedrockAccount:
    """What stands behind the ARNs of an account; may be changed at any time."""

    arns: dict[str, str] = field(default_factory=dict)
    """The model id behind an application inference profile or provisioned throughput."""


def add_bedrock(app: web.Application, frontend: HttpFrontend, account: BedrockAccount) -> None:
    """Add the routes of the platform to an application."""
    frontend.services.add(BedrockManners("anthropic", NAME, stream_type="application/vnd.amazon.eventstream"))
    frontend.services.add(MantleManners("anthropic", MANTLE))

    def at(path: str, make: Callable[[str, str], Dialect], served_by: str = NAME) -> None:
        def dialect(request: web.Request) -> Dialect:
            model_id = unquote(request.raw_path.partition("?")[0].split("/model/")[-1].rpartition("/")[0])
            return make(model_id, _region(request.headers.get("authorization", "")))

        app.router.add_post(path, frontend.endpoint(dialect, served_by))

    def runtime(
        read: Read, reply: Callable[[Reply], dict[str, Any]], frames: Callable[[Reply, int], Iterator[Frame]],
        endpoint: str, *, stream: bool,
    ) -> Callable[[str, str], Dialect]:  # fmt: skip
        def make(model_id: str, region: str) -> Dialect:
            def checked(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
                served = models.find(model_id, region, account.arns)
                return read(body, headers, rule, index, served, stream=stream)

            return Dialect("anthropic", endpoint, "msg_bdrk_01", 22, checked, reply, frames, invoke.error_frame)

        return make

    for path, stream in (("invoke", False), ("invoke-with-response-stream", True)):
        make = runtime(invoke.read, elsewhere.reply, invoke.frames, path, stream=stream)
        at("/model/{model:.+}/" + path, make)
    for path, stream in (("converse", False), ("converse-stream", True)):
        make = runtime(converse.read, converse_reply.reply, converse_reply.frames, path, stream=stream)
        at("/model/{model:.+}/" + path, make)
    at("/anthropic/v1/messages", partial(_mantle, account), MANTLE)


def _mantle(account: BedrockAccount, _: str, region: str) -> Dialect:
    def read(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
        try:
            served = models.find(str(body.get("model")), region, account.arns)
        except Refusal as refusal:
            raise anthropic_error(404, f"model: {body.get('model')}") from refusal
        return invoke.as_served(body, headers, rule, index, served, stream=bool(body.get("stream")))

    return Dialect(
        "anthropic", "messages", "msg_bdrk_01", 22, read, MESSAGES.reply, MESSAGES.frames, MESSAGES.error_frame
    )


def _region(authorization: str) -> str:
    """The region in the scope of a signature; empty without one."""
    parts = authorization.split("/")
    return parts[2] if authorization.startswith("AWS4-") and len(parts) > 3 else ""  # noqa: PLR2004 - key/day/region/…
