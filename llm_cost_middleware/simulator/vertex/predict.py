"""Bodies of ``rawPredict``: Anthropic's Messages, less what Google does not serve.

Rules, with their sources:

- ``anthropic_version`` stands in the body and is ``vertex-2023-10-16``, or the date of the provider's own API, which
  its SDK sends from 2.0 on; ``model`` is no field ("Claude on Vertex AI").
- Betas: the list of LiteLLM's ``anthropic_beta_headers_config.json`` for ``vertex_ai``; in the header or as
  ``anthropic_beta`` in the body (the SDK sends the one, langchain-google-vertexai the other).
- ``output_format`` is refused at the top, and pictures are sent as base64 only (LiteLLM's
  ``sanitize_vertex_anthropic_output_params`` and ``inline_remote_image_urls``).
- Service tiers, fast mode, ``inference_geo``, containers, MCP servers, the web fetch and code execution tools and web
  search with dynamic filtering are the provider's own ("Features overview", availability).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llm_cost_middleware.simulator.anthropic import reply as messages
from llm_cost_middleware.simulator.anthropic.checks import bad_request
from llm_cost_middleware.simulator.anthropic.elsewhere import usage_elsewhere
from llm_cost_middleware.simulator.anthropic.request import read_messages
from llm_cost_middleware.simulator.reading import Frame, Reading, Reply
from llm_cost_middleware.simulator.tokens import Tokenizer

from .models import Served

VERSIONS = ("vertex-2023-10-16", "2023-06-01", "2026-10-21")
BETAS = frozenset({
    "compact-2026-01-12", "computer-use-2025-01-24", "computer-use-2025-11-24", "context-1m-2025-08-07",
    "context-management-2025-06-27", "dangerous-tool-use-2026-09-03", "inline-tools-2026-09-15",
    "interleaved-thinking-2025-05-14", "per-turn-control-2026-07-01", "thinking-binding-controls-2026-08-01",
    "thinking-display-updates-2026-08-18", "tool-search-tool-2025-10-19", "web-search-2025-03-05",
})  # fmt: skip
"""Those that are served."""
_PROVIDERS_OWN = (
    "model", "betas", "container", "fallbacks", "inference_geo", "mcp_servers", "output_format", "service_tier",
    "speed", "user_profile_id",
)  # fmt: skip
_TOOLS_ELSEWHERE = ("web_fetch", "code_execution", "mcp_toolset", "web_search_2026")
_ADDED = frozenset({"anthropic_version", "anthropic_beta"})


def read(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int, served: Served) -> Reading:
    """Validate a body of a message.

    Raises:
        Refusal: In the model's words.
    """
    own = _checked(body, headers)
    return replace(read_messages({**own, "model": served.model.id}, headers, rule, index), geo=served.geo)


def read_counting(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
    """Validate a body of ``count-tokens``, where the model stands in the body.

    Raises:
        Refusal: In the model's words.
    """
    name = body.get("model")
    if not isinstance(name, str):
        raise bad_request("model: Field required")
    own = _checked({key: value for key, value in body.items() if key != "model"}, headers)
    model = name.removesuffix("@default").replace("@", "-")
    return read_messages({**own, "model": model}, headers, rule, index, counting=True)


def _checked(body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    """The body without what Google adds to the Messages API."""
    version = body.get("anthropic_version")
    if version not in VERSIONS:
        raise bad_request(
            "anthropic_version: Field required"
            if version is None
            else f"anthropic_version: Input should be '{VERSIONS[0]}'"
        )
    if extra := next((key for key in _PROVIDERS_OWN if key in body), None):
        raise bad_request(f"{extra}: Extra inputs are not permitted")
    asked = [*headers.get("anthropic-beta", "").split(","), *(body.get("anthropic_beta") or ())]
    if foreign := [beta.strip() for beta in asked if beta.strip() and beta.strip() not in BETAS]:
        raise bad_request(
            f"Unexpected value(s) {', '.join(f'`{b}`' for b in foreign)} for the `anthropic-beta` header."
        )
    for at, tool in enumerate(body.get("tools") or ()):
        if str(tool.get("type", "")).startswith(_TOOLS_ELSEWHERE):
            raise bad_request(
                f"tools.{at}: Input tag '{tool['type']}' found using 'type' does not match any of the expected tags"
            )
    _check_pictures(body.get("messages"))
    return {key: value for key, value in body.items() if key not in _ADDED}


def _check_pictures(messages_: Any) -> None:
    for message in messages_ if isinstance(messages_, list) else ():
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            source = block.get("source")
            if isinstance(source, dict) and source.get("type") in {"url", "file"}:
                raise bad_request(f"messages: {source['type']} sources are not supported")


def frames(out: Reply, size: int) -> Iterator[Frame]:
    """Yield the events of the model's own stream."""
    for frame in messages.frames(out, size):
        yield frame._replace(data=_started(frame.data)) if frame.data.startswith(b"event: message_start") else frame


def _started(data: bytes) -> bytes:
    event = json.loads(data.partition(b"data: ")[2])
    if "usage" in event["message"]:
        event["message"]["usage"] = usage_elsewhere(event["message"]["usage"])
    return b"event: message_start\ndata: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"
