"""Counts that are none: what gateways and local servers put in place of a usage, or leave out of it."""

import json
from collections.abc import Mapping
from typing import Any

_INPUT, _OUTPUT = ("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")
_PART, _GROUPS = ("cached_tokens", "cache_read_input_tokens"), ("prompt_tokens_details", "input_tokens_details")
_HOLDERS = ("response", "message")
GONE = "gone"


def in_body(body: Any, counts: Mapping[str, Any]) -> Any:
    """Return a copy of an answer, or of an event, whose usage has these counts in place of its own."""
    if not isinstance(body, Mapping):
        return body
    changed = dict(body)
    for name in _HOLDERS:
        if isinstance(body.get(name), Mapping):
            changed[name] = in_body(body[name], counts)
    if isinstance(usage := body.get("usage"), Mapping):
        changed["usage"] = _odd(usage, counts)
    return changed


def in_event(data: bytes, counts: Mapping[str, Any]) -> bytes:
    """Return a server-sent event with these counts in place of its own."""
    lines = data.split(b"\n")
    for at, line in enumerate(lines):
        if line.startswith(b"data: {") and b'"usage"' in line:
            lines[at] = b"data: " + json.dumps(in_body(json.loads(line[6:]), counts)).encode()
    return b"\n".join(lines)


def _odd(usage: Mapping[str, Any], counts: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(usage)
    for name in _GROUPS:
        if isinstance(usage.get(name), Mapping):
            changed[name] = _odd(usage[name], counts)
    for what, names in (("input", _INPUT), ("output", _OUTPUT), ("part", _PART)):
        for name in names if what in counts else ():
            if name in changed:
                changed[name] = counts[what]
                if counts[what] == GONE:
                    del changed[name]
    return changed
