"""Azure OpenAI: deployments in the path, ``api-version``, its gateway's errors and the reports of its content filter.

Rules, with their sources (learn.microsoft.com, Azure OpenAI: REST reference, deployment types, content filtering):

- ``POST /openai/deployments/NAME/chat/completions?api-version=…``, so ``embeddings``; responses go to the resource,
  ``/openai/responses?api-version=…``, and their ``model`` is the deployment, as it is everywhere under ``/openai/v1/``,
  which needs no version. The key stands in ``api-key``, or a token in ``authorization``. Without a version the gateway
  answers 404 ``Resource not found``, for an unknown deployment 404 ``DeploymentNotFound``.
- A stream of chat begins with a chunk without choices, which reports what the filter found in the prompt.
- ``stream_options`` are unknown to versions before 2024-09-01-preview (Azure/azure-rest-api-specs 29157).
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
from .faults import Exchange
from .manners import Manners
from .openai import chat_reply
from .openai.dialects import CHAT
from .reading import Dialect, Frame, Reading, Reply
from .refusals import Refusal
from .tokens import Tokenizer

NAME = "azure"
_WITH_STREAM_OPTIONS = "2024-09-01"
_VERSION_1 = "/openai/v1/"
_SAFE = {category: {"filtered": False, "severity": "safe"} for category in ("hate", "self_harm", "sexual", "violence")}


def gateway_error(status: int, code: str, message: str) -> Refusal:
    """Return an error of the gateway."""
    return Refusal(status, {"error": {"code": code, "message": message}})


@dataclass(frozen=True, slots=True)
class AzureManners(Manners):
    """Keys and headers of Azure's gateway."""

    def authenticate(self, request: web.Request, exchange: Exchange, raw: bytes) -> str:
        """Look for a key or a token; caches are kept apart by it."""
        del raw
        key = exchange.headers.get("api-key") or exchange.headers.get("authorization", "").removeprefix("Bearer ")
        if not key.strip():
            message = "Access denied due to invalid subscription key or wrong API endpoint."
            raise gateway_error(401, "401", message)
        if not request.query.get("api-version") and not request.path.startswith(_VERSION_1):
            raise gateway_error(404, "404", "Resource not found")
        return key


def add_azure(app: web.Application, frontend: HttpFrontend, dialects: Iterable[Dialect]) -> None:
    """Add the routes of the platform to an application, for the provider's endpoints."""
    frontend.services.add(AzureManners("openai", NAME))
    for dialect in dialects:
        deployed = "/openai/" if dialect.endpoint == "responses" else "/openai/deployments/{deployment}/"
        handler = frontend.endpoint(partial(_deployed, dialect), NAME)
        for root in (deployed, _VERSION_1):
            app.router.add_post(f"{root}{dialect.endpoint}", handler)


def _deployed(dialect: Dialect, request: web.Request) -> Dialect:
    fixed, version = request.match_info.get("deployment"), request.query.get("api-version", "")

    def read(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
        place, _, model = str(fixed or body.get("model")).rpartition("--")
        known = catalogue().get(model)
        if known is None or known.provider != "openai":
            message = "The API deployment for this resource does not exist. If you created the deployment within the "
            raise gateway_error(404, "DeploymentNotFound", message + "last 5 minutes, please wait and try again.")
        if "stream_options" in body and fixed and version[: len(_WITH_STREAM_OPTIONS)] < _WITH_STREAM_OPTIONS:
            raise gateway_error(400, "BadRequest", "Unrecognized request argument supplied: stream_options")
        reading = dialect.read({**body, "model": model}, headers, rule, index)
        return replace(reading, geo=_geo(place, model))

    made = replace(dialect, read=read)
    return replace(made, reply=_reply, frames=_frames) if dialect.endpoint == CHAT.endpoint else made


def _geo(place: str, model: str) -> str:
    """What a place is on the bill."""
    if place in {"", "global"}:
        return ""
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
