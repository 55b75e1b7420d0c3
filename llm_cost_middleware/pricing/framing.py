"""What OpenAI adds to the texts of a request, as its bills show it: close to the truth, and no bound.

Messages: three tokens and one for the role, and three at the end (OpenAI's cookbook, "How to count tokens with
tiktoken"). Tools are shown to the model as TypeScript, which takes fewer tokens than their JSON; constants are from
3,473 recorded requests, of which their sum was below one in thirty-four. Some requests carry hidden instructions of
several hundred tokens that no request shows: ``tokenizer.count_tokens`` allows for them, this does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.request import CallRequest

_CALL = 5
"""Tokens around a tool call or its result."""
_TOOLS = {("chat.completions", False): 9, ("chat.completions", True): 88, ("responses", False): 9}
"""Tokens around the definitions of tools, by endpoint and whether the model reasons."""
_RESPONSES_REASONING = 7
SCHEMA_PERCENT = 85
"""Tokens of an output schema as it is shown, of a hundred of its JSON: 91 at most, 70 in the middle."""
_SHOWN = frozenset({
    "type", "properties", "required", "description", "items", "enum", "anyOf", "oneOf", "default",
    "additionalProperties", "title", "$schema", "strict", "name", "parameters", "input_schema",
})  # fmt: skip
"""Keys of a schema that are shown in the TypeScript form, or, as bills show, not at all."""
_HEAD, _TAIL = "namespace functions {\n\n", "} // namespace functions"


def close_overhead(request: CallRequest) -> int:
    """Return the tokens that a request has beside its texts and definitions."""
    reasons = request.model.startswith(("gpt-5", "o1", "o3", "o4")) and "chat" not in request.model
    count = 2 + 6 * len(request.messages) if reasons else 3 + 4 * len(request.messages)
    for message in request.messages:
        count += max(len(message.parts) - 1, 0)
        count += _CALL * sum(part.kind in ("tool_use", "tool_result") for part in message.parts)
    if request.tools:
        count += _TOOLS.get((request.endpoint, reasons), _RESPONSES_REASONING)
    return count


def shown_tools(request: CallRequest) -> str | None:
    """Return the definitions of a request's tools as the model sees them; ``None`` if one is no plain function."""
    if not request.tools:
        return ""
    shown = []
    for tool in request.tools:
        try:
            data = json.loads(tool.text)
        except ValueError:
            return None
        data = data.get("function", data) if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or "name" not in data:
            return None
        if data.get("type") not in (None, "function") and "input_schema" not in data:
            return None  # a custom tool's grammar, a namespace's tools: how they are shown is not published
        shown.append(_function(data))
    return f"{_HEAD}{''.join(shown)}{_TAIL}"


def _function(data: Mapping[str, Any]) -> str:
    about = f"// {data['description']}\n" if data.get("description") else ""
    schema = data.get("parameters") or data.get("input_schema") or {}
    taken = f"_: {{\n{_properties(schema)}}}" if schema.get("properties") else ""
    about += _rest(data) + _rest(schema)
    return f"{about}type {data['name']} = ({taken}) => any;\n\n"


def _properties(schema: Mapping[str, Any]) -> str:
    needed, lines = set(schema.get("required") or ()), []
    for name, value in (schema.get("properties") or {}).items():
        about = value if isinstance(value, Mapping) else {}
        if about.get("description"):
            lines.append(f"// {about['description']}\n")
        default = f" // default: {about['default']}" if "default" in about else ""
        lines.append(_rest(about))
        lines.append(f"{name}{'' if name in needed else '?'}: {_kind(about)},{default}\n")
    return "".join(lines)


def _rest(schema: Mapping[str, Any]) -> str:
    """What no published form has a place for (``pattern``, ``$defs``, limits): counted as it was written."""
    rest = {key: value for key, value in schema.items() if key not in _SHOWN}
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping) and extra:
        rest["additionalProperties"] = extra
    return f"// {json.dumps(rest, ensure_ascii=False)}\n" if rest else ""


def _inner(schema: Any) -> str:
    """A schema inside another, with what is said of it: it is no property, whose line would say so."""
    if not isinstance(schema, Mapping):
        return "any"
    about = f"// {schema['description']}\n" if schema.get("description") else ""
    return f"{about}{_rest(schema)}{_kind(schema)}"


def _kind(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "any"
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " | ".join(_inner(value) for value in schema[several])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_kind({**schema, "type": one}) for one in kind)
    if kind == "array":
        return f"{_inner(schema.get('items'))}[]"
    if kind == "object":
        return f"{{\n{_properties(schema)}}}" if schema.get("properties") else "object"
    return "number" if kind == "integer" else str(kind or "any")
