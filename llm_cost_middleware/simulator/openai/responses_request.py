"""Reads and checks requests to ``/v1/responses``."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_cost_middleware.simulator.answers import SimRequest, ToolSpec, Turn, call_text
from llm_cost_middleware.simulator.fields import unknown
from llm_cost_middleware.simulator.prompts import Prompt, Segments, canonical
from llm_cost_middleware.simulator.reading import Reading
from llm_cost_middleware.simulator.tokens import ATTACHMENT, Tokenizer

from . import checks

_KNOWN = frozenset(
    {
        "access_programs",
        "background",
        "background_options",
        "context_management",
        "conversation",
        "image",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "moderation",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
_MOVED = {
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
}
_PARTS = frozenset(
    {"input_text", "input_image", "output_text", "refusal", "input_file", "computer_screenshot", "summary_text"}
)
_LEAST_OUTPUT = 16


def read_response(
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    rule: Tokenizer,
    index: int,
    earlier: Sequence[Mapping[str, Any]],
) -> Reading:
    """Validate a request; `earlier` is what ``previous_response_id`` stands for.

    Raises:
        Refusal: 400 in the provider's words.
    """
    if extra := unknown(body, _KNOWN):
        if extra in _MOVED:
            raise checks.bad_request(
                f"Unsupported parameter: '{extra}'. In the Responses API, this parameter has moved to "
                f"'{_MOVED[extra]}'. Try again with the new parameter.",
                code="unsupported_parameter",
            )
        raise checks.unknown_parameter(extra)
    model = checks.find_model(body, "responses")
    if body.get("background") and body.get("store") is False:  # platform.openai.com, background mode: "Limits"
        raise checks.bad_request("Background mode requires 'store' to be true.", param="background")
    checks.check_foreign(body)
    items = [*earlier, *items_of(body)]
    _check_items(items)
    checks.check_limit(body, "max_output_tokens", model, _LEAST_OUTPUT)
    checks.check_temperature(body)
    reasoning = body.get("reasoning") or {}
    checks.check_effort(reasoning.get("effort"), "reasoning.effort")
    checks.check_rules(body, model, "responses")
    checks.check_cache_options(body, model)
    tier = checks.tier_of(body, model)
    prompt = prompt_blocks(body, items, rule)
    if prompt.tokens > model.window:
        raise checks.bad_request(
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            param="input",
            code="context_length_exceeded",
        )
    form = (body.get("text") or {}).get("format") or {}
    request = SimRequest(
        provider="openai",
        endpoint="responses",
        model=model.id,
        requested_model=body["model"],
        body=body,
        headers=headers,
        turns=tuple(_turns(body, items)),
        tools=tuple(
            ToolSpec(tool["name"], tool.get("parameters") or {})
            for tool in body.get("tools") or ()
            if tool["type"] == "function"
        ),
        tool_choice=_choice(body.get("tool_choice")),
        parallel_tools=body.get("parallel_tool_calls") is not False,
        schema=form.get("schema"),
        json_mode=form.get("type") == "json_object",
        max_tokens=body.get("max_output_tokens"),
        stream=bool(body.get("stream")),
        reasoning_tokens=checks.EFFORT_TOKENS.get(reasoning.get("effort") or "none", 0),
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
        extra={"items": items},
    )


def items_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the input as a list of items."""
    value = body.get("input")
    if value is None:
        raise checks.missing("input")
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    return list(value)


def _check_items(items: Sequence[Mapping[str, Any]]) -> None:
    calls: set[str] = set()
    answered: set[str] = set()
    for at, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "function_call":
            calls.add(item["call_id"])
        elif kind == "function_call_output":
            if item["call_id"] not in calls:
                raise checks.bad_request(
                    f"No tool call found for function call output with call_id {item['call_id']}.", param="input"
                )
            answered.add(item["call_id"])
        elif kind == "message":
            _check_content(item, at)
    if unanswered := calls - answered:
        raise checks.bad_request(f"No tool output found for function call {min(unanswered)}.", param="input")


def _check_content(item: Mapping[str, Any], at: int) -> None:
    content = item["content"]
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if part.get("type") not in _PARTS:
            raise checks.bad_request(
                f"Invalid value: '{part.get('type')}'. Supported values are: 'input_text', 'input_image', "
                "'output_text', 'refusal', 'input_file', 'computer_screenshot', and 'summary_text'.",
                param=f"input[{at}].content[{number}].type",
                code="invalid_value",
            )


def _choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str(choice.get("name") or "any")
    return "any" if choice == "required" else choice or "auto"


def prompt_blocks(body: Mapping[str, Any], items: Sequence[Mapping[str, Any]], rule: Tokenizer) -> Prompt:
    """Return the prompt as blocks in the order text format, tools, instructions, input."""
    segments = Segments(rule)
    form = (body.get("text") or {}).get("format") or {"type": "text"}
    for section, value in (("format", form if form != {"type": "text"} else None), ("tools", body.get("tools"))):
        if value:
            segments.open(0, section)
            data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            segments.add(data, rule.size(len(data)))
    if body.get("instructions"):
        segments.open(rule.message, "system")
        segments.text(body["instructions"])
    for item in items:
        segments.open(rule.message, f"{item.get('type', 'message')}|{item.get('role', '')}")
        _item(segments, item, rule)
    return segments.prompt(rule.priming)


def _item(segments: Segments, item: Mapping[str, Any], rule: Tokenizer) -> None:
    match item.get("type", "message"):
        case "message":
            content = item["content"]
            for part in [{"type": "input_text", "text": content}] if isinstance(content, str) else content:
                ttl = "30m" if part.get("prompt_cache_breakpoint") else ""
                text = part.get("text") or part.get("refusal")
                if text is not None:
                    segments.text(text, ttl)
                else:
                    segments.add(canonical(part), rule.image if part["type"] == "input_image" else ATTACHMENT, ttl)
        case "function_call":
            segments.text(f"{item['name']}{item['arguments']}")
        case "function_call_output":
            output = item["output"]
            segments.text(output if isinstance(output, str) else json.dumps(output, ensure_ascii=False))
        case "reasoning":
            segments.text("".join(part.get("text", "") for part in item.get("summary") or ()))
        case _:
            data = canonical(item)
            segments.add(data, rule.size(len(data)))


def _turns(body: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> list[Turn]:
    found = [Turn("system", body["instructions"])] if body.get("instructions") else []
    for item in items:
        match item.get("type", "message"):
            case "message":
                role = {"developer": "system"}.get(item["role"], item["role"])
                content = item["content"]
                if isinstance(content, list):
                    content = "".join(part.get("text", "") for part in content)
                if content:
                    found.append(Turn(role, content))
            case "function_call":
                found.append(Turn("call", call_text(item["name"], item["arguments"])))
            case "function_call_output":
                output = item["output"]
                if not isinstance(output, str):
                    output = "".join(part.get("text", "") for part in output)
                found.append(Turn("result", output))
    return found
