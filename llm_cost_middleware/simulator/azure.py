"""Azure OpenAI: deployments in the path, ``api-version``, its gateway's errors and the reports of its content filter.

Rules, with their sources (learn.microsoft.com, Azure OpenAI: REST reference, deployment types, content filtering):

- ``POST /openai/deployments/NAME/chat/completions?api-version=…``, so ``embeddings``; responses go to the resource,
  ``/openai/responses?api-version=…``, and their ``model`` is the deployment, as it is everywhere under ``/openai/v1/``,
  which needs no version. The key stands in ``api-key``, or a token in ``authorization``. Without a version the gateway
  answers 404 ``Resource not found``, for an unknown deployment 404 ``DeploymentNotFound``.
- Errors of the gateway are its own (``_ERRORS``, ``filtered``). A 429 says when to come again in ``retry-after`` and
  ``retry-after-ms``; a request that is larger than its deployment's allowance of a minute is told to wait a day.
- What the service has worked on is billed even if it answers with an error, as a prompt that the content filter stops
  or an answer that takes too long ("Plan to manage costs", HTTP error response code and billing status).
- A stream of chat begins with a chunk without choices, which reports what the filter found in the prompt.
- ``stream_options`` are unknown to versions before 2024-09-01-preview (Azure/azure-rest-api-specs 29157).
- A request may ask for the tiers ``auto``, ``default`` and ``priority`` ("Enable priority processing", at the request
  level). ``flex`` and ``scale`` are on none of its price lists: whether it refuses or ignores them is said nowhere, and
  a refusal is the stricter reading.
- Deployments in a data zone or a region cost a tenth more than the global ones; of GPT-6 outside the United States a
  fifth, in Azure Government three eighths (LiteLLM's map: ``azure/eu/…``, ``azure/apac/…``, ``azure/us-gov/…``). Here
  a deployment is named after its model, with its place before it where it has one: ``eu--gpt-5-mini``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aiohttp import web

from .app import HttpFrontend
from .catalogue import catalogue
from .faults import Exchange, Fault
from .manners import Manners
from .openai import chat_reply
from .openai.dialects import CHAT
from .reading import Dialect, Frame, Ids, Reading, Reply
from .refusals import Refusal, default_refusal, openai_error
from .tokens import Tokenizer

NAME = "azure"
_WITH_STREAM_OPTIONS = "2024-09-01"
_VERSION_1 = "/openai/v1/"
_UNSOLD = frozenset({"flex", "scale"})
_SAFE = {category: {"filtered": False, "severity": "safe"} for category in ("hate", "self_harm", "sexual", "violence")}


_BUSY = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token "
    "rate limit of your current OpenAI S0 pricing tier. Please retry after {} seconds. Please go here: "
    "https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."
)
_ERRORS: Mapping[str, tuple[int, str, str]] = {
    "401": (401, "401", "Access denied due to invalid subscription key or wrong API endpoint."),
    "403": (403, "403", "Out of call volume quota. Quota will be replenished in 2.12:00:00."),
    "404": (404, "404", "Resource not found"),
    "DeploymentNotFound": (404, "DeploymentNotFound", "The API deployment for this resource does not exist."),
    "408": (408, "Timeout", "The operation was timeout."),
    "429": (429, "429", _BUSY.format(1)),
    "too large": (429, "429", _BUSY.format(86_400)),
    "500": (500, "InternalServerError", "Backend returned unexpected response. Please contact Microsoft for help."),
    "503": (503, "ServiceUnavailable", "The service is temporarily unable to process your request."),
}  # fmt: skip
"""The gateway's errors as users have quoted them: ``SciSharp/BotSharp`` 386 (401), ``Ironclad/rivet`` 344 (408),
``jasonacox/TinyLLM`` 17 and ``microsoft/sample-app-aoai-chatGPT`` 406 (429)."""
_NAMES = {"Timeout": "408", "overloaded": "503", "out_of_money": "403", "request_too_large": "too large"}
_LIMITED = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "0"}


def gateway_error(name: str) -> Refusal:
    """Return an error of the gateway, by its status or its code."""
    status, code, message = _ERRORS[name]
    return Refusal(status, {"error": {"code": code, "message": message}})


def filtered() -> Refusal:
    """Return the error for a prompt that the content filter stops (learn.microsoft.com, content filtering)."""
    error = {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry. To learn more about our content filtering policies please read our "
        "documentation: https://go.microsoft.com/fwlink/?linkid=2198766",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": {**_SAFE, "violence": {"filtered": True, "severity": "medium"}},
        },
    }
    return Refusal(400, {"error": error})


@dataclass(frozen=True, slots=True)
class AzureManners(Manners):
    """Keys and headers of Azure's gateway."""

    def authenticate(self, request: web.Request, exchange: Exchange, raw: bytes) -> str:
        """Look for a key or a token; caches are kept apart by it."""
        del raw
        key = exchange.headers.get("api-key") or exchange.headers.get("authorization", "").removeprefix("Bearer ")
        if not key.strip():
            raise gateway_error("401")
        if not request.query.get("api-version") and not request.path.startswith(_VERSION_1):
            raise gateway_error("404")
        return key

    def refusal(self, fault: Fault) -> Refusal:
        """Return a scripted error: by its code, or by its status; where the gateway has no words, in the provider's."""
        name = _NAMES.get(fault.preset, fault.preset) or str(fault.code)
        if name == "content_filter":
            refusal = filtered()
        elif name in _ERRORS:
            refusal = gateway_error(name)
            if fault.message is not None:
                refusal.body["error"]["message"] = fault.message
        else:
            refusal = default_refusal("openai", fault.code)
        if fault.body is not None:
            refusal.body = fault.body
        told: dict[str, str] = {}
        if refusal.status == 429 and not fault.headers.keys() & {"retry-after", "retry-after-ms"}:  # noqa: PLR2004 - of HTTP
            wait = 86_400 if name == "too large" else 1
            told = {"retry-after": str(wait), "retry-after-ms": str(1_000 * wait), **_LIMITED}
        refusal.headers = {**refusal.headers, **told, **fault.headers}
        return refusal

    def charges(self, fault: Fault) -> bool:
        """Return whether it was worked on: the filter's refusals and timeouts are billed (see the sources)."""
        return self.refusal(fault).status == 408 or fault.preset == "content_filter"  # noqa: PLR2004 - of HTTP

    def headers(self, ids: Ids, took_s: float) -> Mapping[str, str]:
        """Return the headers of the gateway, and what is left of the deployment's allowance."""
        del took_s
        return {
            "apim-request-id": ids.new("", 32),
            "x-request-id": ids.new("", 32),
            "x-ms-region": "Sweden Central",
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-limit-tokens": "500000",
            "x-ratelimit-remaining-requests": "499",
            "x-ratelimit-remaining-tokens": "499000",
        }


def add_azure(app: web.Application, frontend: HttpFrontend, dialects: Iterable[Dialect]) -> None:
    """Add the routes of the platform to an application, for the provider's endpoints."""
    frontend.services.add(AzureManners("openai", NAME))
    for dialect in dialects:
        deployed = "/openai/" if dialect.endpoint == "responses" else "/openai/deployments/{deployment}/"
        handler = frontend.endpoint(partial(_deployed, dialect), NAME)
        for root in (deployed, _VERSION_1):
            app.router.add_post(f"{root}{dialect.endpoint}", handler)


def batched(dialects: Iterable[Dialect]) -> dict[str, Dialect]:
    """Return what a line of a batch may call, by its ``url``; its ``model`` is the deployment."""
    return {f"{root}/{dialect.endpoint}": _named(dialect) for dialect in dialects for root in ("", "/v1")}


def _deployed(dialect: Dialect, request: web.Request) -> Dialect:
    return _named(dialect, request.match_info.get("deployment"), request.query.get("api-version", ""))


def _named(dialect: Dialect, fixed: str | None = None, version: str = "") -> Dialect:
    """Return an endpoint whose requests name a deployment, or go to a fixed one."""

    def read(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
        place, _, model = str(fixed or body.get("model")).rpartition("--")
        known = catalogue().get(model)
        if known is None or known.provider != "openai":
            raise gateway_error("DeploymentNotFound")
        if "stream_options" in body and fixed and version[: len(_WITH_STREAM_OPTIONS)] < _WITH_STREAM_OPTIONS:
            error = "Unrecognized request argument supplied: stream_options"
            raise openai_error(400, error, kind="invalid_request_error")
        if body.get("service_tier") in _UNSOLD:
            error = f"Invalid value: '{body['service_tier']}'. Supported values are: 'auto', 'default', and 'priority'."
            raise openai_error(
                400, error, kind="invalid_request_error", code="invalid_value", param="service_tier"
            )  # fmt: skip
        reading = dialect.read({**body, "model": model}, headers, rule, index)
        return replace(reading, geo=factor_at(place, model))

    made = replace(dialect, read=read)
    return replace(made, reply=_reply, frames=_frames) if dialect.endpoint == CHAT.endpoint else made


def factor_at(place: str, model: str) -> str:
    """What a place is on the bill, as ``BillLine.geo``; of embeddings the price list knows no cheaper global one."""
    if place in {"", "global"}:
        return "regional" if model.startswith("text-embedding-") else ""
    if place == "provisioned":
        return place
    if "gov" in place:
        return "government"
    american = place.rstrip("0123456789").endswith("us")  # us, eastus2, westus
    return "abroad" if model.startswith("gpt-6") and not american else "regional"


def _reply(out: Reply) -> dict[str, Any]:
    body = chat_reply.completion(out)
    return {**body, "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": _SAFE}]}


def _frames(out: Reply, size: int) -> Iterator[Frame]:
    found = [{"prompt_index": 0, "content_filter_results": _SAFE}]
    chunk = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": found}
    for at, frame in enumerate(chat_reply.frames(out, size)):
        if at == 0:
            yield frame._replace(data=b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")
        yield frame
