"""JSON schema checks, as far as a cheap look allows: they catch an answer that cannot be used.

A full validator would be a dependency, and a pass would still not prove that an answer is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WRAPPERS = ("json_schema", "schema", "function", "input_schema", "parameters")
"""Keys under which requests keep the schema of an answer or of a tool's arguments, outermost first."""
_DEPTH = 32  # references may be recursive
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def text_matches_schema(schema: str | Mapping[str, object], text: str) -> bool:
    """Return whether a text is JSON that matches a schema, bare or as a request carries it."""
    try:
        value = json.loads(text)
        rules = json.loads(schema) if isinstance(schema, str) and schema else schema
    except ValueError:
        return False
    return matches_schema(inner_schema(rules), value)


def asks_for_json(schema: str) -> bool:
    """Return whether an output format asks for more than plain text."""
    return bool(schema) and not schema.startswith('{"type":"text"')


def inner_schema(rules: object) -> object:
    """Return the schema inside a ``response_format``, an ``output_format`` or a tool's definition, or a bare one."""
    for name in _WRAPPERS:
        if isinstance(rules, Mapping) and "properties" not in rules and isinstance(rules.get(name), Mapping):
            rules = rules[name]
    return rules


def matches_schema(rules: object, value: object) -> bool:
    """Return whether a parsed value matches a bare schema.

    Reads type, enum, const, properties, required, additionalProperties (where ``false``), items, anyOf, oneOf (as
    anyOf), allOf and references into the schema itself. Other keywords are ignored.
    """
    return _matches(rules, value, rules, _DEPTH)


def _matches(rules: object, value: object, root: object, depth: int) -> bool:
    if not isinstance(rules, Mapping) or depth == 0:
        return True
    if "$ref" in rules:
        return _matches(_resolve(rules["$ref"], root), value, root, depth - 1)
    types = rules.get("type")
    if types is not None and not any(_has_type(value, name) for name in ([types] if isinstance(types, str) else types)):
        return False
    if ("enum" in rules and value not in rules["enum"]) or ("const" in rules and value != rules["const"]):
        return False
    parts = [[part] for part in rules.get("allOf") or ()] + [
        rules[name] for name in ("anyOf", "oneOf") if name in rules
    ]
    if not all(any(_matches(choice, value, root, depth - 1) for choice in choices) for choices in parts):
        return False
    if isinstance(value, list):
        return all(_matches(rules.get("items"), item, root, depth - 1) for item in value)
    return not isinstance(value, Mapping) or _object_matches(rules, value, root, depth)


def _object_matches(rules: Mapping[str, Any], value: Mapping[str, object], root: object, depth: int) -> bool:
    known = rules.get("properties") or {}
    if any(name not in value for name in rules.get("required") or ()):
        return False
    if rules.get("additionalProperties") is False and any(name not in known for name in value):
        return False
    return all(_matches(known.get(name), item, root, depth - 1) for name, item in value.items())


def _resolve(reference: object, root: object) -> object:
    """Return the target of ``#/$defs/Name``; ``None``, which matches anything, for a reference elsewhere."""
    found = root
    for step in str(reference).removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _has_type(value: object, name: object) -> bool:
    if isinstance(value, bool) and name != "boolean":  # a bool is an int in Python, not in JSON
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(str(name), (object,)))
