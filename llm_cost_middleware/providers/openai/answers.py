"""Usage of OpenAI's responses to disjoint buckets.

Rules of the bill, each of which was seen in recorded traffic:

* ``prompt_tokens`` (``input_tokens``) includes what was read from and written to the cache, and audio.
* Reasoning is inside the output count.
* A chat stream carries usage only where ``stream_options.include_usage`` asked for it; a stream that fails ends in
  zeros, which say nothing. An error as its first event says as little: it opened with status 200, and no provider
  says that such a stream is free.
* Input and output are always counted (an embedding's output is what its total leaves); the other counts may be left
  out, and are zero then.
* A background response carries no usage until it is finished, and then as often as it is retrieved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import structs

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport, without_zero_input
from llm_cost_middleware.wire import (
    as_mapping,
    count_group,
    field_reader,
    refuse_odd,
    required_count,
    str_or_none,
    texts_or_none,
    token_count,
    token_counts,
)

_NAME = "openai"
_UNFINISHED = frozenset({"queued", "in_progress"})
_COUNTS = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_FREE_COUNTS = frozenset({"response.input_tokens"})


def read_answer(response: Any) -> UsageReport:
    """One whole answer, as JSON or as the SDK's object. Raises ``UnreadableUsageError``."""
    get = field_reader(response)
    kind, error, usage = get("object"), get("error"), as_mapping(get("usage"))
    model, response_id, tier = texts_or_none(get, "model", "id", "service_tier")
    if get("custom_id") is not None and (get("response") is not None or error is not None):
        return read_batch((response,))
    if kind == "batch":
        return UsageReport(warnings=("a batch's status carries no bill: its results do",))
    if error is not None and not usage:
        # A failed response may have been billed; an error in a response's place never is.
        in_its_place = kind is None and response_id is None
        return UsageReport(error=describe(error), unbilled=in_its_place, model=model, response_id=response_id)
    if type(kind) is str and kind in _FREE_COUNTS:
        return UsageReport(unbilled=True, complete=True, warnings=("a count of tokens is not billed",))
    if not usage:
        if get("usage") is None and kind is None and any(get(name) is not None for name in _COUNTS):
            return bill(
                as_mapping(response), model=model, response_id=response_id, service_tier=tier, finish=None, error=None,
                tool_calls=None,
            )  # fmt: skip
        return structs.replace(_without_usage(get), model=model, response_id=response_id, service_tier=tier)
    choices = get("choices")
    finish = _finish(choices) if choices else _status(get)
    return bill(
        usage,
        model=model,
        response_id=response_id,
        service_tier=tier,
        finish=finish,
        error=describe(error) if error is not None else None,
        tool_calls=_tool_calls(get("output"), get("tools")),
    )


def _without_usage(get: Any) -> UsageReport:
    status = get("status")
    unfinished = type(status) is str and status in _UNFINISHED
    note = f"the response is {status}: its usage comes with the retrieved one" if unfinished else "no usage in it"
    return UsageReport(
        finish_reason=_finish(get("choices")) or str_or_none(status),
        pending=unfinished,
        warnings=(note if unfinished else "the response carries no usage",),
    )


def bill(
    usage: Mapping[str, Any],
    *,
    model: str | None,
    response_id: str | None,
    service_tier: str | None,
    finish: str | None,
    error: str | None,
    tool_calls: Mapping[str, int] | None,
) -> UsageReport:
    """A usage object with what stands around it in its answer. Raises ``UnreadableUsageError``."""
    refuse_odd(usage, _NAME)
    bucketed, doubts = _bucket(usage)
    reading = UsageReport(
        items=(BilledItem(bucketed),),
        model=model,
        response_id=response_id,
        service_tier=service_tier,
        complete=error is None,
        finish_reason=finish,
        error=error,
        tool_calls=tool_calls,
        doubts=doubts,
    )
    return without_zero_input(reading)


def _bucket(usage: Mapping[str, Any]) -> tuple[TokenUsage, tuple[str, ...]]:
    """One usage object, of either API, to buckets. The names differ, the meaning does not."""
    chat = "prompt_tokens" in usage or "completion_tokens" in usage
    inputs, outputs = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    total_in, made = required_count(usage.get(inputs), _NAME, inputs), usage.get(outputs)
    if made is None and chat and outputs not in usage and usage.get("total_tokens") == total_in:
        made = 0  # of an embedding, whose usage has no output in it
    total_out = required_count(made, _NAME, outputs)
    within = count_group(usage.get(f"{inputs}_details"), _NAME, f"{inputs}_details")
    without = count_group(usage.get(f"{outputs}_details"), _NAME, f"{outputs}_details")
    cached, audio, written = token_counts(within, _NAME, "cached_tokens", "audio_tokens", "cache_write_tokens")
    audio_cached = 0
    if cached and audio:
        details = count_group(within.get("cached_tokens_details"), _NAME, "cached_tokens_details")
        audio_cached = token_count(details.get("audio_tokens"), _NAME, "audio_tokens")
        audio_cached = min(audio_cached, cached, audio)
    half_day = 0  # the rest of the writes lives thirty minutes
    if written:
        by_ttl = count_group(within.get("cache_write_tokens_details"), _NAME, "cache_write_tokens_details")
        half_day = min(token_count(by_ttl.get("ttl_12h_tokens"), _NAME, "ttl_12h_tokens"), written)
    audio_out, reasoning = token_counts(without, _NAME, "audio_tokens", "reasoning_tokens")
    # the totals include their parts, whereas buckets are disjoint
    plain = total_in - cached - written - (audio - audio_cached)
    output = max(total_out - audio_out, 0)
    doubts: tuple[str, ...] = ()
    if plain < 0 or audio_out > total_out:
        doubts = ("the parts of a count exceed it: the parts are billed",)
    return TokenUsage(
        uncached_input=max(plain, 0),
        cache_read=cached - audio_cached,
        cache_write_30m=written - half_day,
        cache_write_12h=half_day,
        output=output,
        reasoning=min(reasoning, output),
        audio_input=audio - audio_cached,
        audio_cache_read=audio_cached,
        audio_output=audio_out,
    ), doubts


def read_batch(lines: Iterable[Any]) -> UsageReport:
    """Result lines of a batch: every answered one is an item at its own model."""
    items: list[BilledItem] = []
    errors: list[str] = []
    notes: list[str] = []
    doubts: list[str] = []
    calls: dict[str, int] = {}
    last = UsageReport()
    for line in lines:
        get = field_reader(line)
        if get("response") is None and get("custom_id") is None:
            return UsageReport(warnings=("a list that is no batch's results",))
        body = field_reader(get("response"))("body")
        if body is None:
            errors.append(describe(get("error")))
            continue
        # a body is no line: else lines inside lines could go on for as long as the text
        one = UsageReport() if field_reader(body)("custom_id") is not None else read_answer(body)
        if one.error:
            errors.append(one.error)
        if not one.items and not one.unbilled:
            raise UnreadableUsageError(_NAME, "a batch's result without a usage")
        doubts.extend(one.doubts)
        if one.items:
            last = one
            items.extend(BilledItem(i.usage, model=one.model, kind=i.kind) for i in one.items)
            for kind, uses in (one.tool_calls or {}).items():
                calls[kind] = calls.get(kind, 0) + uses
        notes.extend(one.warnings)
    return UsageReport(
        items=tuple(items),
        model=last.model,
        response_id=last.response_id,
        service_tier=last.service_tier,
        batch=True,
        complete=True,
        finish_reason=last.finish_reason,
        error="; ".join(dict.fromkeys(errors)) or None,
        unbilled=bool(errors) and not items,
        tool_calls=calls or None,
        warnings=tuple(dict.fromkeys(notes)),
        doubts=tuple(dict.fromkeys(doubts)),
    )


def _finish(choices: Any) -> str | None:
    if not isinstance(choices, list | tuple):
        return None
    for choice in choices:
        reason = str_or_none(field_reader(choice)("finish_reason"))
        if reason:
            return reason
    return None


def _status(get: Any) -> str | None:
    """``completed``, ``incomplete`` …: with its reason where there is one."""
    return str_or_none(field_reader(get("incomplete_details"))("reason")) or str_or_none(get("status"))


def _tool_calls(output: Any, tools: Any) -> Mapping[str, int] | None:
    """Items of the provider's own tools, by type. Only searches count among web search actions: pages are free.

    A search that failed counts: nothing says that it is free. The answer repeats the tools of its request, and with
    them which version of the search it was, which its items do not tell.
    """
    if not isinstance(output, list | tuple):
        return None
    calls: dict[str, int] = {}
    search = SEARCH
    for item in output:
        get = field_reader(item)
        kind = get("type")
        if type(kind) is not str or kind not in _FEE_TYPES:
            continue
        if kind == SEARCH:
            if (field_reader(get("action"))("type") or "search") != "search":
                continue
            if search == SEARCH and isinstance(tools, list | tuple):
                search = search_fee(field_reader(tool)("type") for tool in tools)
            kind = search
        calls[kind] = calls.get(kind, 0) + 1
    return calls or None


def search_fee(tools: Iterable[Any]) -> str:
    """The kind of fee of a web search, by the types of the tools that the request offered."""
    preview = any(type(kind) is str and kind.startswith("web_search_preview") for kind in tools)
    return "web_search_preview_call" if preview else SEARCH


SEARCH = "web_search_call"
_FEE_TYPES = frozenset(
    {
        SEARCH,
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "shell_call",
        "mcp_call",
        "computer_call",
    }
)


def describe(error: Any) -> str:
    """An error in the provider's own words: its kind and its message."""
    get = field_reader(error)
    kind, message = str_or_none(get("code")) or str_or_none(get("type")), str_or_none(get("message"))
    return ": ".join(part for part in (kind, message) if part) or (error if isinstance(error, str) else "error")
