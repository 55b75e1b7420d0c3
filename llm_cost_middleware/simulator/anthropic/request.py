"""Reads and checks requests to ``/v1/messages`` as the provider does, and lays out their prompt."""

import json
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.simulator.answers import SimRequest, ToolSpec, Turn, call_text
from llm_cost_middleware.simulator.catalogue import SimModel, catalogue
from llm_cost_middleware.simulator.fields import is_count, unknown
from llm_cost_middleware.simulator.prompts import Prompt, Segments, canonical
from llm_cost_middleware.simulator.reading import Reading
from llm_cost_middleware.simulator.refusals import Refusal, anthropic_error
from llm_cost_middleware.simulator.rules import rule_book
from llm_cost_middleware.simulator.tokens import ATTACHMENT, Tokenizer

from .cache_control import check_marks
from .checks import bad_request, check_messages, check_system, check_tools

_KNOWN = frozenset(
    {
        "betas",
        "billing_policy",
        "cache_control",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "max_tokens",
        "mcp_servers",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "thread",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user_profile_id",
        "workspace_id",
    }
)
_COUNT_KNOWN = _KNOWN - {"max_tokens", "stream", "metadata", "service_tier"}
_TIERS = {"fast": "fast", "standard": "standard", None: "standard"}


def read_messages(
    body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int, *, counting: bool = False
) -> Reading:
    """Validate a request to ``messages`` (or, `counting`, to ``count_tokens``).

    Raises:
        Refusal: 400 or 404 in the provider's words.
    """
    model = _model(body)
    if extra := unknown(body, _COUNT_KNOWN if counting else _KNOWN):
        raise bad_request(f"{extra}: Extra inputs are not permitted")
    check_messages(body)
    check_tools(body)
    check_system(body)
    check_marks(body)
    if not counting:
        _limits(body, model)
    prompt = prompt_blocks(body, rule)
    if prompt.tokens > model.window:
        raise bad_request(f"prompt is too long: {prompt.tokens} tokens > {model.window} maximum")
    config = body.get("output_config") or {}
    form = config.get("format") or body.get("output_format") or {}
    choice = body.get("tool_choice") or {}
    thinking = (body.get("thinking") or {}).get("type") in {"enabled", "adaptive"}
    request = SimRequest(
        provider="anthropic",
        endpoint="messages",
        model=model.id,
        requested_model=body["model"],
        body=body,
        headers=headers,
        turns=tuple(_turns(body)),
        tools=tuple(
            ToolSpec(tool["name"], tool["input_schema"]) for tool in body.get("tools") or () if "input_schema" in tool
        ),
        tool_choice=choice.get("name") or choice.get("type") or "auto",
        parallel_tools=not choice.get("disable_parallel_tool_use", False),
        schema=form.get("schema"),
        max_tokens=body.get("max_tokens"),
        stream=bool(body.get("stream")),
        thinking=thinking,
        input_tokens=prompt.tokens,
        index=index,
    )
    return Reading(
        request,
        model,
        prompt,
        tier=_TIERS[body.get("speed")],
        geo=body.get("inference_geo") or "" if model.geo else "",
    )


def _model(body: Mapping[str, Any]) -> SimModel:
    name = body.get("model")
    if not isinstance(name, str):
        raise _required("model")
    model = catalogue().get(name)
    if model is None or model.provider != "anthropic":
        raise anthropic_error(404, f"model: {name}")
    return model


def _required(field: str) -> Refusal:
    return bad_request(f"{field}: Field required")


def _limits(body: Mapping[str, Any], model: SimModel) -> None:
    if "max_tokens" not in body:
        raise _required("max_tokens")
    limit, most = body["max_tokens"], model.max_output
    if not is_count(limit):
        raise bad_request("max_tokens: Input should be a valid integer greater than or equal to 0")
    if limit > most:
        raise bad_request(
            f"max_tokens: {limit} > {most}, which is the maximum allowed number of output tokens for {model.id}"
        )
    temperature = body.get("temperature")
    if temperature is not None and not 0 <= temperature <= 1:
        raise bad_request("temperature: range: 0..1")
    speed = body.get("speed")
    if speed not in _TIERS or _TIERS[speed] not in model.rates:
        raise bad_request(f"speed: '{speed}' is not supported for {model.id}")
    if body.get("inference_geo") and not model.geo:
        raise bad_request(f"inference_geo: not supported for {model.id}")
    broken = rule_book("anthropic").check(body, model.id, "messages", called=body["model"])
    if broken is not None:
        raise bad_request(broken.message)
    _check_thinking(body, limit)


def _check_thinking(body: Mapping[str, Any], limit: int) -> None:
    thinking = body.get("thinking") or {}
    if thinking.get("type") not in {"enabled", "adaptive"}:
        return
    if thinking["type"] == "enabled":
        budget: Any = thinking.get("budget_tokens")
        if not is_count(budget, 1024):
            raise bad_request("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= limit:
            raise bad_request("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if (body.get("tool_choice") or {}).get("type") in {"any", "tool"}:
        raise bad_request("Thinking may not be enabled when tool_choice forces tool use.")


def prompt_blocks(body: Mapping[str, Any], rule: Tokenizer) -> Prompt:
    """Return the prompt as blocks in the order tools, system, messages.

    What invalidates only a part of the cache is folded into the bytes of that part: speed, web search and citations
    from the system on; tool choice, thinking, effort and the presence of images from the messages on.
    """
    segments = Segments(rule)
    # A deferred tool is no part of the prompt until a search finds it.
    tools = [tool for tool in body.get("tools") or () if not tool.get("defer_loading")]
    if tools:
        segments.open(rule.tool_prompt, "tools")
    for tool in tools:
        data = canonical(tool)
        segments.add(data, rule.size(len(data)), _ttl(tool))
    system = body.get("system") or []
    text = json.dumps(body["messages"])
    searching = any(str(tool.get("type", "")).startswith("web_search") for tool in tools)
    citing = '"citations"' in text
    segments.open(0, f"system|{body.get('speed')}|{searching}|{citing}")
    for block in [{"type": "text", "text": system}] if isinstance(system, str) else system:
        segments.text(block["text"], _ttl(block))
    config = (body.get("output_config") or {}).get("effort")
    images = '"type": "image"' in text
    segments.open(0, json.dumps([body.get("tool_choice"), body.get("thinking"), config, images], sort_keys=True))
    for message in body["messages"]:
        segments.open(rule.message, message["role"])
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            _block(segments, block, rule)
    if top := body.get("cache_control"):
        segments.mark_last(_ttl({"cache_control": top}))
    return segments.prompt(rule.priming)


def _block(segments: Segments, block: Mapping[str, Any], rule: Tokenizer) -> None:
    ttl = _ttl(block)
    if block["type"] == "text":
        segments.text(block["text"], ttl)
        return
    if block["type"] == "tool_result" and isinstance(block.get("content"), list):
        ttl = ttl or next((_ttl(part) for part in block["content"] if _ttl(part)), "")
    data = canonical(block)
    segments.add(data, _tokens(block, rule, len(data)), ttl)


def _tokens(block: Mapping[str, Any], rule: Tokenizer, size: int) -> int:
    match block["type"]:
        case "image":
            return rule.image
        case "text":
            return rule.text(block["text"])
        case "document":
            return _document(block, rule)
        case "search_result":
            return _texts(block, ("title", "source"), rule) + _parts(block["content"], rule)
        case "container_upload":
            return ATTACHMENT
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            return rule.text(block["name"]) + rule.text(json.dumps(block["input"], ensure_ascii=False))
        case "tool_result":
            return _parts(block.get("content") or "", rule)
        case "thinking":
            return rule.text(block["thinking"])
        case _:
            return rule.size(size)


def _ttl(block: Mapping[str, Any]) -> str:
    control = block.get("cache_control")
    return (control.get("ttl") or "5m") if control else ""


def _turns(body: Mapping[str, Any]) -> list[Turn]:
    system = body.get("system") or []
    turns = [Turn("system", block["text"]) for block in ([{"text": system}] if isinstance(system, str) else system)]
    for message in body["messages"]:
        content = message["content"]
        role = message["role"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "text":
                turns.append(Turn(role, block["text"]))
            elif block["type"] == "tool_use":
                turns.append(Turn("call", call_text(block["name"], block["input"])))
            elif block["type"] == "tool_result":
                parts = block.get("content") or ""
                turns.append(
                    Turn("result", parts if isinstance(parts, str) else "".join(part.get("text", "") for part in parts))
                )
    return turns


def _document(block: Mapping[str, Any], rule: Tokenizer) -> int:
    """A document of text costs its text; a file has pages that nobody counts here."""
    head, source = _texts(block, ("title", "context"), rule), block["source"]
    match source.get("type"):
        case "text":
            return head + rule.text(source["data"])
        case "content":
            return head + _parts(source["content"], rule)
        case _:
            return ATTACHMENT


def _texts(block: Mapping[str, Any], names: tuple[str, ...], rule: Tokenizer) -> int:
    return sum(rule.text(block[name]) for name in names if isinstance(block.get(name), str))


def _parts(content: Any, rule: Tokenizer) -> int:
    if isinstance(content, str):
        return rule.text(content)
    return sum(_tokens(part, rule, len(canonical(part))) for part in content)
