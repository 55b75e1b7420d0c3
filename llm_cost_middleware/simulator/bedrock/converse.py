"""``converse`` and ``converse-stream``: one shape for every model, here translated to Anthropic's Messages.

Shapes from the service model: ``messages`` and ``system`` of content blocks (exactly one member each), ``cachePoint``
blocks after what they cache, ``inferenceConfig``, ``toolConfig``, ``additionalModelRequestFields`` for what only the
model knows. Usage excludes what was read from or written to the cache (User Guide, "Prompt caching": "the total input
is the sum of inputTokens, cacheReadInputTokens and cacheWriteInputTokens").
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.simulator.reading import Reading
from llm_cost_middleware.simulator.tokens import Tokenizer

from .errors import invalid
from .invoke import as_served, check_tier
from .models import Served

_KNOWN = frozenset(
    {
        "messages", "system", "inferenceConfig", "toolConfig", "guardrailConfig", "additionalModelRequestFields",
        "promptVariables", "additionalModelResponseFieldPaths", "requestMetadata", "performanceConfig", "serviceTier",
        "outputConfig", "projectIdentifier",
    }
)  # fmt: skip
_SAMPLING = {
    "maxTokens": "max_tokens",
    "temperature": "temperature",
    "topP": "top_p",
    "stopSequences": "stop_sequences",
}
_TTLS = ("5m", "1h")


def read(
    body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int, served: Served, *, stream: bool
) -> Reading:
    """Validate a body.

    Raises:
        Refusal: In Bedrock's words, or in the model's.
    """
    extra = next((key for key in body if key not in _KNOWN), None)
    if extra:
        raise invalid(f"Unknown parameter in input: {extra}")
    check_tier(
        (body.get("serviceTier") or {}).get("type", "default"),
        (body.get("performanceConfig") or {}).get("latency", "standard"),
    )
    return as_served(_messages(body, served.model.max_output), headers, rule, index, served, stream=stream)


def _messages(body: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A body of Anthropic's Messages."""
    own: dict[str, Any] = {"max_tokens": most}  # left out, it is the model's own limit
    for key, value in (body.get("inferenceConfig") or {}).items():
        if key not in _SAMPLING:
            raise invalid(f"Unknown parameter in inferenceConfig: {key}")
        own[_SAMPLING[key]] = value
    if own["max_tokens"] == 0:
        raise invalid("Value 0 at 'inferenceConfig.maxTokens' failed to satisfy constraint: minimum 1")
    if system := body.get("system"):
        own["system"] = _blocks(system, "system")
    own["messages"] = [
        {"role": message["role"], "content": _blocks(message["content"], f"messages.{at}.content")}
        for at, message in enumerate(body.get("messages") or ())
    ]
    if tools := body.get("toolConfig"):
        own |= _tools(tools)
    if schema := (((body.get("outputConfig") or {}).get("textFormat") or {}).get("structure") or {}).get("jsonSchema"):
        own["output_config"] = {"format": {"type": "json_schema", "schema": json.loads(schema["schema"])}}
    for key, value in (body.get("additionalModelRequestFields") or {}).items():
        if key in own and key != "tool_choice":
            raise invalid(f"The additional field {key} conflicts with an existing field.")
        if key not in {"anthropic_beta", "anthropic_version"}:
            own[key] = value
    return own


def _blocks(content: list[Mapping[str, Any]], where: str) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for at, block in enumerate(content):
        if len(block) != 1:
            raise invalid(f"{where}.{at}: exactly one member of the content block must be set")
        ((kind, value),) = block.items()
        if kind == "cachePoint":
            if not made:
                raise invalid(f"{where}.{at}: a cachePoint must follow the content that it caches")
            made[-1]["cache_control"] = _mark(value)
        else:
            made.append(_block(kind, value, f"{where}.{at}"))
    return made


def _mark(point: Mapping[str, Any]) -> dict[str, Any]:
    if point.get("type") != "default" or point.get("ttl", "5m") not in _TTLS or set(point) - {"type", "ttl"}:
        raise invalid("cachePoint: type must be default, and ttl one of 5m, 1h")
    return {"type": "ephemeral", "ttl": point.get("ttl", "5m")}


def _block(kind: str, value: Any, where: str) -> dict[str, Any]:
    match kind:
        case "text":
            return {"type": "text", "text": value}
        case "toolUse":
            return {"type": "tool_use", "id": value["toolUseId"], "name": value["name"], "input": value["input"]}
        case "toolResult":
            result = {"type": "tool_result", "tool_use_id": value["toolUseId"], "content": list(_results(value))}
            return result | ({"is_error": True} if value.get("status") == "error" else {})
        case "image":
            data = value["source"]["bytes"]
            kind = f"image/{value['format']}"
            return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
        case "document":
            data = value["source"]["bytes"]
            return {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
        case "reasoningContent":
            text = value["reasoningText"]
            return {"type": "thinking", "thinking": text["text"], "signature": text.get("signature", "")}
        case _:
            raise invalid(f"{where}: {kind} is not supported by the model")


def _results(value: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for part in value["content"]:
        ((kind, inner),) = part.items()
        yield {"type": "text", "text": json.dumps(inner)} if kind == "json" else _block(kind, inner, "toolResult")


def _tools(config: Mapping[str, Any]) -> dict[str, Any]:
    tools: list[dict[str, Any]] = []
    for at, tool in enumerate(config["tools"]):
        if "cachePoint" in tool:
            if not tools:
                raise invalid(f"toolConfig.tools.{at}: a cachePoint must follow the tools that it caches")
            tools[-1]["cache_control"] = _mark(tool["cachePoint"])
            continue
        spec = tool["toolSpec"]
        made = {"name": spec["name"], "input_schema": spec["inputSchema"]["json"]}
        tools.append(made | {key: spec[key] for key in ("description", "strict") if key in spec})
    own: dict[str, Any] = {"tools": tools}
    match config.get("toolChoice"):
        case {"tool": {"name": name}}:
            own["tool_choice"] = {"type": "tool", "name": name}
        case {"any": _}:
            own["tool_choice"] = {"type": "any"}
        case {"auto": _}:
            own["tool_choice"] = {"type": "auto"}
    return own
