"""Whether a value fits a JSON schema, as far as a cheap look can tell: it catches an answer that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WRAPPERS = ("json_schema", "schema", "function", "input_schema", "parameters")
"""Where requests of either provider keep the schema of an answer or of a tool's arguments, outermost first."""
_DEPTH = 32
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int,),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip


def satisfies(schema: str | Mapping[str, Any], text: str) -> bool:
    """Whether a text is JSON that fits a schema, bare or as it stands in a request. A pass is no proof: ``fits``."""
    try:
        value = json.loads(text)
        rules = json.loads(schema) if isinstance(schema, str) and schema else schema
    except ValueError:
        return False
    return fits(unwrap(rules), value)


def asks_for_json(schema: str) -> bool:
    """Whether an output format is more than the wish for plain text."""
    return bool(schema) and not schema.startswith('{"type":"text"')


def unwrap(rules: Any) -> Any:
    """The schema inside a ``response_format``, an ``output_format`` or a tool's definition; a bare one as it is."""
    for name in _WRAPPERS:
        if isinstance(rules, Mapping) and "properties" not in rules and isinstance(rules.get(name), Mapping):
            rules = rules[name]
    return rules


def fits(rules: Any, value: Any) -> bool:
    """Whether a parsed value fits a bare schema.

    Reads type, enum, const, properties, required, additionalProperties (where ``false``), items, anyOf, oneOf (as
    anyOf), allOf and references into the schema itself. What else a schema says is not looked at.
    """
    return _fits(rules, value, rules, _DEPTH)


def _fits(rules: Any, value: Any, root: Any, depth: int) -> bool:
    if not isinstance(rules, Mapping) or depth == 0:
        return True
    if "$ref" in rules:
        return _fits(_referred(rules["$ref"], root), value, root, depth - 1)
    types = rules.get("type")
    if types is not None and not any(_is(value, name) for name in ([types] if isinstance(types, str) else types)):
        return False
    if ("enum" in rules and value not in rules["enum"]) or ("const" in rules and value != rules["const"]):
        return False
    parts = [[part] for part in rules.get("allOf") or ()] + [
        rules[name] for name in ("anyOf", "oneOf") if name in rules
    ]
    if not all(any(_fits(choice, value, root, depth - 1) for choice in choices) for choices in parts):
        return False
    if isinstance(value, list):
        return all(_fits(rules.get("items"), item, root, depth - 1) for item in value)
    return not isinstance(value, Mapping) or _object_fits(rules, value, root, depth)


def _object_fits(rules: Mapping[str, Any], value: Mapping[str, Any], root: Any, depth: int) -> bool:
    known = rules.get("properties") or {}
    if any(name not in value for name in rules.get("required") or ()):
        return False
    if rules.get("additionalProperties") is False and any(name not in known for name in value):
        return False
    return all(_fits(known.get(name), item, root, depth - 1) for name, item in value.items())


def _referred(reference: object, root: Any) -> Any:
    """What ``#/$defs/Name`` points at; nothing, which anything fits, where it points elsewhere."""
    found = root
    for step in str(reference).removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _is(value: object, name: object) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(str(name), (object,)))
