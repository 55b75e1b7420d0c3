"""Built-in responders: functions that make the simulated model's answer."""

import json
import re
from collections.abc import Mapping
from typing import Any

from .answers import Answer, Responder, SimRequest, ToolCall, ToolSpec
from .schemas import example

_FILLER = "All work and no play makes a dull answer. "
_FILL_BYTES = 65_536
_ECHO_CHARS = 400


def echo(request: SimRequest) -> Answer:
    """Repeat the newest user text (its first 400 characters)."""
    return Answer(text="You said: " + (request.last_user_text[:_ECHO_CHARS] or "nothing"))


def fill(request: SimRequest) -> Answer:
    """Use exactly the output limit that was sent, in every choice; 256 tokens where none was sent.

    The text is as long as the limit up to 64 KiB; beyond that only the count is.
    """
    tokens = 256 if request.max_tokens is None else request.max_tokens
    size = min(4 * tokens, _FILL_BYTES)
    return Answer(text=(_FILLER * (size // len(_FILLER) + 1))[:size], stop="length", output_tokens=tokens)


def auto(request: SimRequest) -> Answer:
    """Do what a good model would: call a tool, obey a schema, sum up a tool's result, else echo."""
    if request.tools and request.tool_choice != "none":
        forced = request.tool_choice not in {"auto", "any"}
        if forced or request.tool_choice == "any" or not request.answers_tools:
            tool = _pick(request, forced=forced)
            return Answer(tool_calls=(ToolCall(tool.name, _arguments(tool.schema, request)),))
    if request.schema is not None:
        return Answer(text=json.dumps(_arguments(request.schema, request), ensure_ascii=False))
    if request.json_mode:
        keys = re.findall(r"[`'\"](\w+)[`'\"]", request.last_user_text) or ["answer"]
        return Answer(text=json.dumps({key: f"a {key}" for key in keys}))
    if request.answers_tools:
        return Answer(text=f"The tool says: {request.turns[-1].text[:_ECHO_CHARS]}")
    return echo(request)


def _pick(request: SimRequest, *, forced: bool) -> ToolSpec:
    if forced:
        return next((tool for tool in request.tools if tool.name == request.tool_choice), request.tools[0])
    text = request.last_user_text
    return next((tool for tool in request.tools if tool.name in text), request.tools[0])


def _arguments(schema: Mapping[str, Any], request: SimRequest) -> Mapping[str, Any]:
    value = example(schema, request.last_user_text)
    return value if isinstance(value, dict) else {"value": value}


BUILT_IN: Mapping[str, Responder] = {"echo": echo, "fill": fill, "auto": auto}
"""Responders by the name that the command line takes."""
