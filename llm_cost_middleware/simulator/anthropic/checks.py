"""What the Messages API refuses, in its own words."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llm_cost_middleware.simulator.refusals import Refusal, anthropic_error

_MAX_MARKS = 4
_TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
_TEXT_KEYS = frozenset({"type", "text", "cache_control", "citations"})
_TOOL_KEYS = frozenset(
    "type name description input_schema cache_control strict eager_input_streaming defer_loading allowed_callers "
    "input_examples".split()
)
_FOREIGN = ("prompt_cache_key", "prompt_cache_breakpoint")
_UNMARKABLE = frozenset({"thinking", "redacted_thinking"})


def _bad(message: str) -> Refusal:
    return anthropic_error(400, message)


def check_messages(body: Mapping[str, Any]) -> None:
    """Roles, content blocks and the pairing of tool calls with their results."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise _bad("messages: Field required" if messages is None else "messages: Input should be a valid list")
    if not messages:
        raise _bad("messages: at least one message is required")
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        where = f"messages.{at}"
        role = message.get("role")
        if role not in {"user", "assistant"}:
            raise _bad(
                f'messages: Unexpected role "{role}". The Messages API accepts a top-level `system` parameter, '
                'not "system" as an input message role.'
            )
        content = message.get("content")
        if isinstance(content, str):
            blocks: list[Any] = [{"type": "text", "text": content}]
        elif isinstance(content, list):
            blocks = content
        else:
            raise _bad(f"{where}.content: Field required")
        last = at == len(messages) - 1
        if not blocks and not (last and role == "assistant"):
            raise _bad(
                f"{where}: all messages must have non-empty content except for the optional final assistant message"
            )
        for number, block in enumerate(blocks):
            _check_block(block, f"{where}.content.{number}")
        if (
            last
            and role == "assistant"
            and blocks
            and str(blocks[-1].get("text", "")) != str(blocks[-1].get("text", "")).rstrip()
        ):
            raise _bad("messages: final assistant content cannot end with trailing whitespace")
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if missing := [call for call in open_calls if call not in results]:
            raise _bad(
                f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
                "message."
            )
        if stray := [call for call in results if call not in open_calls]:
            raise _bad(
                f"{where}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {stray[0]}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    if open_calls:
        raise _bad(
            f"messages.{len(messages) - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(open_calls)}."
        )


_NEEDED = {
    "text": ("text",),
    "image": ("source",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking", "signature"),
}


def _check_block(block: Any, where: str) -> None:
    if not isinstance(block, dict) or "type" not in block:
        raise _bad(f"{where}: Input should be a valid dictionary with a `type`")
    kind = block["type"]
    for key in _NEEDED.get(kind, ()):
        if key not in block:
            raise _bad(f"{where}.{kind}.{key}: Field required")
    if kind == "text":
        extra = next((key for key in block if key not in _TEXT_KEYS), None)
        if extra:
            raise _bad(f"{where}.text.{extra}: Extra inputs are not permitted")
        if not block["text"]:
            if block.get("cache_control"):
                raise _bad(f"{where}.text: cache_control cannot be set for empty text blocks")
            raise _bad("messages: text content blocks must be non-empty")
    for foreign in _FOREIGN:
        if foreign in block:
            raise _bad(f"{where}.{kind}.{foreign}: Extra inputs are not permitted")
    if kind == "tool_result" and isinstance(block.get("content"), list):
        for number, part in enumerate(block["content"]):
            _check_block(part, f"{where}.tool_result.content.{number}")


def check_tools(body: Mapping[str, Any]) -> None:
    """Tool definitions, tool choice and the system prompt's blocks."""
    tools = body.get("tools") or []
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or "name" not in tool:
            raise _bad(f"tools.{at}.custom.name: Field required" if isinstance(tool, dict) else f"tools.{at}: invalid")
        if tool.get("type", "custom") != "custom":
            continue
        if "input_schema" not in tool:
            raise _bad(f"tools.{at}.custom.input_schema: Field required")
        if not _TOOL_NAME.match(tool["name"]):
            raise _bad(f"tools.{at}.custom.name: String should match pattern '{_TOOL_NAME.pattern}'")
        extra = next((key for key in tool if key not in _TOOL_KEYS), None)
        if extra:
            raise _bad(f"tools.{at}.custom.{extra}: Extra inputs are not permitted")
    names = [tool["name"] for tool in tools]
    if len(set(names)) != len(names):
        raise _bad("tools: Tool names must be unique.")
    choice = body.get("tool_choice")
    if choice and choice.get("type") == "tool" and choice.get("name") not in names:
        raise _bad(f"tool_choice.tool: Tool '{choice.get('name')}' not found in provided tools")
    if choice and choice.get("type") in {"any", "tool"} and not tools:
        raise _bad("tool_choice: tool_choice may only be specified while providing tools.")
    system = body.get("system")
    if isinstance(system, list):
        for at, block in enumerate(system):
            if not isinstance(block, dict) or block.get("type") != "text" or "text" not in block:
                raise _bad(f"system.{at}: Input should be a text block")
            if not block["text"]:
                if block.get("cache_control"):
                    raise _bad(f"system.{at}: cache_control cannot be set for empty text blocks")
                raise _bad("system: text content blocks must be non-empty")
            extra = next((key for key in block if key not in _TEXT_KEYS), None)
            if extra:
                raise _bad(f"system.{at}.{extra}: Extra inputs are not permitted")
    elif system is not None and not isinstance(system, str):
        raise _bad("system: Input should be a valid string or list")


def check_marks(body: Mapping[str, Any]) -> None:
    """At most four marks, well formed, on blocks that can carry one, the longer lifetime first."""
    lifetimes: list[str] = []
    unmarked_end = True
    for where, block in _markable(body):
        control = block.get("cache_control")
        unmarked_end = control is None
        if control is None:
            continue
        if block.get("type") in _UNMARKABLE:
            raise _bad(f"{where}.{block['type']}.cache_control: Extra inputs are not permitted")
        lifetimes.append(_lifetime(control, where))
    if body.get("cache_control") is not None:
        lifetime = _lifetime(body["cache_control"], "")
        if unmarked_end:
            lifetimes.append(lifetime)
    if len(lifetimes) > _MAX_MARKS:
        raise _bad(f"A maximum of {_MAX_MARKS} blocks with cache_control may be provided. Found {len(lifetimes)}.")
    if lifetimes != sorted(lifetimes):  # "1h" sorts before "5m"
        raise _bad(
            "cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note "
            "that blocks are processed in the following order: `tools`, `system`, `messages`."
        )


def _lifetime(control: Any, where: str) -> str:
    at = f"{where}.cache_control" if where else "cache_control"
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise _bad(f"{at}.type: Input should be 'ephemeral'")
    extra = next((key for key in control if key not in {"type", "ttl"}), None)
    if extra:
        raise _bad(f"{at}.ephemeral.{extra}: Extra inputs are not permitted")
    lifetime = control.get("ttl") or "5m"
    if lifetime not in {"5m", "1h"}:
        raise _bad(f"{at}.ephemeral.ttl: Input should be '5m' or '1h'")
    return str(lifetime)


def _markable(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for at, tool in enumerate(body.get("tools") or ()):
        yield f"tools.{at}", tool
    if isinstance(body.get("system"), list):
        for at, block in enumerate(body["system"]):
            yield f"system.{at}", block
    for at, message in enumerate(body["messages"]):
        if not isinstance(message["content"], list):
            yield f"messages.{at}.content", {}
            continue
        for number, block in enumerate(message["content"]):
            where = f"messages.{at}.content.{number}"
            if block["type"] == "tool_result" and isinstance(block.get("content"), list):
                for part_at, part in enumerate(block["content"]):
                    yield f"{where}.tool_result.content.{part_at}", part
            yield where, block
