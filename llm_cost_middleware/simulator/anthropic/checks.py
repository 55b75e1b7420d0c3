"""Request checks of the Messages API, with its error messages."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llm_cost_middleware.simulator.refusals import Refusal, anthropic_error

_TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,128}$")
_TEXT_KEYS = frozenset({"type", "text", "cache_control", "citations"})
_TOOL_KEYS = frozenset(
    {
        "type",
        "name",
        "description",
        "input_schema",
        "cache_control",
        "strict",
        "eager_input_streaming",
        "defer_loading",
        "allowed_callers",
        "input_examples",
    }
)
_FOREIGN = ("prompt_cache_key", "prompt_cache_breakpoint")
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("source",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking", "signature"),
}


def bad_request(message: str) -> Refusal:
    """Return a refusal with status 400."""
    return anthropic_error(400, message)


def check_messages(body: Mapping[str, Any]) -> None:
    """Roles, content blocks and the pairing of tool calls with their results."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        raise bad_request("messages: Field required" if messages is None else "messages: Input should be a valid list")
    if not messages:
        raise bad_request("messages: at least one message is required")
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        blocks = _blocks(message, f"messages.{at}", last=at == len(messages) - 1)
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        _check_pairs(open_calls, results, at)
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
    _check_pairs(open_calls, (), len(messages))


def _blocks(message: Mapping[str, Any], where: str, *, last: bool) -> list[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role not in {"user", "assistant"}:
        raise bad_request(
            f'messages: Unexpected role "{role}". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.'
        )
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise bad_request(f"{where}.content: Field required")
    for number, block in enumerate(content):
        _check_block(block, f"{where}.content.{number}")
    ends = last and role == "assistant"
    if not content and not ends:
        raise bad_request(
            f"{where}: all messages must have non-empty content except for the optional final assistant message"
        )
    if content and ends and str(content[-1].get("text", ""))[-1:].isspace():
        raise bad_request("messages: final assistant content cannot end with trailing whitespace")
    return content


def _check_pairs(calls: Sequence[str], results: Collection[str], at: int) -> None:
    if missing := [call for call in calls if call not in results]:
        raise bad_request(
            f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
            "next message."
        )
    if stray := [call for call in results if call not in calls]:
        raise bad_request(
            f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {stray[0]}. Each "
            "`tool_result` block must have a corresponding `tool_use` block in the previous message."
        )


def _check_block(block: Any, where: str) -> None:
    if not isinstance(block, dict) or "type" not in block:
        raise bad_request(f"{where}: Input should be a valid dictionary with a `type`")
    kind = block["type"]
    for key in _NEEDED.get(kind, ()):
        if key not in block:
            raise bad_request(f"{where}.{kind}.{key}: Field required")
    for key in _FOREIGN:
        if key in block:
            raise bad_request(f"{where}.{kind}.{key}: Extra inputs are not permitted")
    if kind == "text":
        _check_text(block, f"{where}.text", "messages")
    if kind == "tool_result" and isinstance(block.get("content"), list):
        for number, part in enumerate(block["content"]):
            _check_block(part, f"{where}.tool_result.content.{number}")


def _check_text(block: Mapping[str, Any], where: str, section: str) -> None:
    _only(block, _TEXT_KEYS, where)
    if not block["text"]:
        if block.get("cache_control"):
            raise bad_request(f"{where}: cache_control cannot be set for empty text blocks")
        raise bad_request(f"{section}: text content blocks must be non-empty")
    if section == "messages" and block["text"].isspace():  # home-assistant/core 175637 quotes the 400
        raise bad_request("messages: text content blocks must contain non-whitespace text")


def _only(value: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise bad_request(f"{where}.{key}: Extra inputs are not permitted")


def check_tools(body: Mapping[str, Any]) -> None:
    """Tool definitions and tool choice."""
    tools = body.get("tools") or []
    for at, tool in enumerate(tools):
        _check_tool(tool, f"tools.{at}.custom")
    names = [tool["name"] for tool in tools]
    if len(set(names)) != len(names):
        raise bad_request("tools: Tool names must be unique.")
    choice = body.get("tool_choice") or {}
    if choice.get("type") in {"any", "tool"} and not tools:
        raise bad_request("tool_choice: tool_choice may only be specified while providing tools.")
    if choice.get("type") == "tool" and choice.get("name") not in names:
        raise bad_request(f"tool_choice.tool: Tool '{choice.get('name')}' not found in provided tools")


def _check_tool(tool: Mapping[str, Any], where: str) -> None:
    if "name" not in tool:
        raise bad_request(f"{where}.name: Field required")
    if tool.get("type", "custom") != "custom":
        return
    if "input_schema" not in tool:
        raise bad_request(f"{where}.input_schema: Field required")
    if not _TOOL_NAME.match(tool["name"]):
        raise bad_request(f"{where}.name: String should match pattern '{_TOOL_NAME.pattern}'")
    _only(tool, _TOOL_KEYS, where)


def check_system(body: Mapping[str, Any]) -> None:
    """Return the system prompt: a text, or text blocks."""
    system = body.get("system")
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise bad_request("system: Input should be a valid string or list")
    for at, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text" or "text" not in block:
            raise bad_request(f"system.{at}: Input should be a text block")
        _check_text(block, f"system.{at}", "system")
