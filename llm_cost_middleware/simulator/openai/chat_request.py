"""Reads and checks requests to ``/v1/chat/completions``."""

import json
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.simulator.answers import SimRequest, ToolSpec, Turn, call_text
from llm_cost_middleware.simulator.fields import is_count, unknown
from llm_cost_middleware.simulator.prompts import Prompt, Segments, canonical
from llm_cost_middleware.simulator.reading import Reading
from llm_cost_middleware.simulator.tokens import ATTACHMENT, Tokenizer

from . import checks

_KNOWN = frozenset(
    {
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_PARTS = frozenset({"text", "image_url", "input_audio", "refusal", "audio", "file"})
_MAX_CHOICES = 128


def read_chat(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
    """Validate a request.

    Raises:
        Refusal: 400 or 404 in the provider's words.
    """
    if extra := unknown(body, _KNOWN):
        raise checks.bad_request(f"Unrecognized request argument supplied: {extra}")
    model = checks.find_model(body, "chat/completions")
    checks.check_foreign(body)
    _check_messages(body)
    _check_tools(body)
    checks.check_temperature(body)
    checks.check_effort(body.get("reasoning_effort"), "reasoning_effort")
    checks.check_rules(body, model, "chat/completions")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise checks.bad_request("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    checks.check_limit(body, "max_tokens", model)
    checks.check_limit(body, "max_completion_tokens", model)
    checks.check_cache_options(body, model)
    if body.get("stream_options") is not None and not body.get("stream"):
        raise checks.bad_request(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    choices: Any = 1 if body.get("n") is None else body["n"]
    if not is_count(choices, 1) or choices > _MAX_CHOICES:
        raise checks.bad_request(f"Invalid 'n': {choices}.", param="n", code="integer_below_min_value")
    tier = checks.tier_of(body, model)
    prompt = prompt_blocks(body, rule)
    if prompt.tokens > model.window:
        raise checks.bad_request(
            f"This model's maximum context length is {model.window} tokens. However, your messages resulted in "
            f"{prompt.tokens} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    form = body.get("response_format") or {}
    limit = body.get("max_completion_tokens")
    request = SimRequest(
        provider="openai",
        endpoint="chat/completions",
        model=model.id,
        requested_model=body["model"],
        body=body,
        headers=headers,
        turns=tuple(turns(body["messages"])),
        tools=tuple(
            ToolSpec(tool["function"]["name"], tool["function"].get("parameters") or {})
            for tool in body.get("tools") or ()
            if tool["type"] == "function"
        ),
        tool_choice=_choice(body.get("tool_choice")),
        parallel_tools=body.get("parallel_tool_calls") is not False,
        schema=(form.get("json_schema") or {}).get("schema"),
        json_mode=form.get("type") == "json_object",
        max_tokens=limit if limit is not None else body.get("max_tokens"),
        n=choices,
        stream=bool(body.get("stream")),
        reasoning_tokens=checks.EFFORT_TOKENS.get(body.get("reasoning_effort") or "none", 0),
        input_tokens=prompt.tokens,
        index=index,
    )
    options = body.get("prompt_cache_options") or {}
    return Reading(
        request,
        model,
        prompt,
        salt=(body.get("prompt_cache_key") or "",),
        tier=tier,
        explicit_only=options.get("mode") == "explicit",
        lifetime=checks.lifetime_of(body, model),
        extra={"usage": (body.get("stream_options") or {}).get("include_usage", False)},
    )


def _check_messages(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    if messages is None:
        raise checks.missing("messages")
    if not isinstance(messages, list) or not messages:
        complaint = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise checks.bad_request(complaint, param="messages", code="empty_array")
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        _check_content(message, where)
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                raise checks.bad_request(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    param=f"{where}.role",
                )
            open_calls.discard(message["tool_call_id"])
            continue
        _all_answered(open_calls, where)
        open_calls = {call["id"] for call in message.get("tool_calls") or ()}
    _all_answered(open_calls, f"messages[{len(messages)}]")


def _check_content(message: Mapping[str, Any], where: str) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise checks.bad_request(f"Invalid value: '{role}'.", param=f"{where}.role", code="invalid_value")
    silent = role == "assistant" and any(
        message.get(key) for key in ("tool_calls", "refusal", "function_call", "audio")
    )
    if content is None and not silent:
        complaint = "Invalid value for 'content': expected a string, got null."
        raise checks.bad_request(complaint, param=f"{where}.content", code="invalid_type")
    if content is not None and not isinstance(content, str | list):
        raise checks.bad_request(
            f"Invalid type for '{where}.content': expected one of a string or array of objects, but got an object "
            "instead.",
            param=f"{where}.content",
            code="invalid_type",
        )
    for number, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type")
        if kind is None:
            raise checks.missing(f"{where}.content[{number}].type")
        if kind not in _PARTS:
            raise checks.bad_request(
                f"Invalid value: '{kind}'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', "
                "'audio', and 'file'.",
                param=f"{where}.content[{number}].type",
                code="invalid_value",
            )


def _all_answered(open_calls: set[str], where: str) -> None:
    if open_calls:
        missing = ", ".join(sorted(open_calls))
        raise checks.bad_request(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {missing}",
            param=where,
        )


def _check_tools(body: Mapping[str, Any]) -> None:
    for at, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") == "function" and "name" not in (tool.get("function") or {}):
            raise checks.missing(f"tools[{at}].function.name")
        if tool.get("type") not in {"function", "custom"}:
            raise checks.bad_request(
                f"Invalid value: '{tool.get('type')}'.", param=f"tools[{at}].type", code="invalid_value"
            )
    if body.get("tool_choice") is not None and not body.get("tools"):
        raise checks.bad_request(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.",
            param="tool_choice",
        )
    if body.get("parallel_tool_calls") is not None and not body.get("tools"):
        complaint = (
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified."
        )
        raise checks.bad_request(complaint, param="parallel_tool_calls")


def _choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str((choice.get("function") or choice.get("custom") or {}).get("name") or "any")
    return "any" if choice == "required" else choice or "auto"


def prompt_blocks(body: Mapping[str, Any], rule: Tokenizer) -> Prompt:
    """Return the prompt as blocks in the order response schema, tools, messages."""
    segments = Segments(rule)
    for section in ("response_format", "tools"):
        value = body.get(section)
        if value and value != {"type": "text"}:
            segments.open(0, section)
            data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            segments.add(data, rule.size(len(data)))
    for message in body["messages"]:
        segments.open(rule.message + (1 if message.get("name") else 0), f"{message['role']}|{message.get('name', '')}")
        content = message.get("content")
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
            _part(segments, part, rule)
        for call in message.get("tool_calls") or ():
            function = call.get("function") or call.get("custom") or {}
            segments.text(f"{function.get('name', '')}{function.get('arguments', function.get('input', ''))}")
    return segments.prompt(rule.priming)


def _part(segments: Segments, part: Mapping[str, Any], rule: Tokenizer) -> None:
    ttl = "30m" if part.get("prompt_cache_breakpoint") else ""
    match part["type"]:
        case "text":
            segments.text(part["text"], ttl)
        case "refusal":
            segments.text(part["refusal"], ttl)
        case "image_url":
            segments.add(canonical(part), rule.image, ttl)
        case _:
            segments.add(canonical(part), ATTACHMENT, ttl)


def turns(messages: list[Mapping[str, Any]]) -> list[Turn]:
    """Return the conversation in neutral form."""
    found: list[Turn] = []
    for message in messages:
        role = {"developer": "system", "tool": "result", "function": "result"}.get(message["role"], message["role"])
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content)
        if content or role == "result":
            found.append(Turn(role, content or ""))
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            found.append(Turn("call", call_text(function.get("name", ""), function.get("arguments", ""))))
    return found
