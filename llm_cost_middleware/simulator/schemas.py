"""Instance of a JSON schema, with values taken from a text where they fit."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_DEPTH = 12
_QUOTED = re.compile("[\"'`\u2018\u201c]([^\"'`\u2019\u201d]+)[\"'`\u2019\u201d]")
_FORMATS = {
    "date": "2026-11-23",
    "date-time": "2026-11-23T12:00:00Z",
    "time": "12:00:00",
    "email": "person@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}


def example(schema: Mapping[str, Any], text: str = "") -> Any:
    """Build a value that the schema accepts: numbers and quoted strings of the text first, plain defaults after."""
    words = _Words(text)
    return _value(schema, schema, words, "value", 0)


class _Words:
    """What a text offers: its numbers and its quoted strings, each handed out once, the last one for ever."""

    def __init__(self, text: str) -> None:
        self._numbers = _sticky(re.findall(r"-?\d+(?:\.\d+)?", text))
        self._quoted = _sticky(_QUOTED.findall(text))

    def number(self) -> float | None:
        found = next(self._numbers, None)
        return None if found is None else float(found)

    def quoted(self) -> str | None:
        return next(self._quoted, None)


def _sticky(items: list[str]) -> Iterator[str]:
    yield from items
    while items:
        yield items[-1]


def _value(schema: Mapping[str, Any], root: Mapping[str, Any], words: _Words, name: str, depth: int) -> Any:
    schema = _resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            options = [_resolve(option, root) for option in schema[union]]
            chosen = next((option for option in options if option.get("type") != "null"), options[0])
            return _value(chosen, root, words, name, depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            value = _value(part, root, words, name, depth + 1)
            merged |= value if isinstance(value, dict) else {}
        return merged
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    return _of_kind(kind, schema, root, words, name, depth)


def _of_kind(
    kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], words: _Words, name: str, depth: int
) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            wanted = (
                properties
                if depth < _DEPTH
                else {key: properties[key] for key in schema.get("required") or () if key in properties}
            )
            return {key: _value(item, root, words, key, depth + 1) for key, item in wanted.items()}
        case "array":
            count = max(int(schema.get("minItems", 1)), 0) if depth < _DEPTH else int(schema.get("minItems", 0))
            return [_value(schema.get("items") or {}, root, words, name, depth + 1) for _ in range(count)]
        case "integer" | "number":
            number = words.number()
            low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
            number = 1 if number is None else number
            number = number if low is None else max(number, low + ("exclusiveMinimum" in schema))
            number = number if high is None else min(number, high)
            return int(number) if kind == "integer" else number
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _string(schema, words, name)


def _string(schema: Mapping[str, Any], words: _Words, name: str) -> str:
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    text = words.quoted() or f"a {name}"
    text = text.ljust(int(schema.get("minLength", 0)), ".")
    return text[: int(schema["maxLength"])] if "maxLength" in schema else text


def _resolve(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(_DEPTH):
        ref = schema.get("$ref")
        if not isinstance(ref, str) or not ref.startswith("#"):
            break
        found: Any = root
        for step in ref.lstrip("#/").split("/"):
            found = found.get(step, {}) if step else found
        schema = found
    return schema
