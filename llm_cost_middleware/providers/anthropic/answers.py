"""Usage of Anthropic's responses to disjoint buckets.

Rules of the bill, each of which was seen in recorded traffic:

* ``input_tokens`` excludes cached and written tokens.
* The split of ``cache_creation`` by TTL may sum to less than ``cache_creation_input_tokens``: the total is billed, the
  residue is five-minute cache. Older responses carry no split at all.
* ``iterations`` are the bill where one of them is not a plain message: compactions, advisor and fallback messages
  stand outside the top-level usage, the latter two at a model of their own.
* In a stream, ``message_delta`` repeats cumulative counts and wins over ``message_start`` wherever it has a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport
from llm_cost_middleware.wire import as_mapping, field_reader, str_or_none, token_count

_NAME = "anthropic"
_ERROR = "error"


def read_answer(response: Any) -> UsageReport:
    """One whole answer, as JSON or as the SDK's object. Raises ``UnreadableUsageError``."""
    get = field_reader(response)
    kind = get("type")
    error = get("error")
    if kind == _ERROR or (error is not None and get("usage") is None):
        return UsageReport(error=describe(error), unbilled=True)
    if get("result") is not None and get("custom_id") is not None:
        return read_batch((response,))
    if kind == "message_batch":
        return UsageReport(warnings=("a batch's status carries no usage: its results do",))
    usage = as_mapping(get("usage"))
    if not usage:
        if type(get("input_tokens")) is int and get("id") is None:
            return UsageReport(unbilled=True, complete=True, warnings=("a count of tokens is not billed",))
        return UsageReport(model=str_or_none(get("model")), warnings=("the response carries no usage",))
    finish = str_or_none(get("stop_reason"))
    return bill(
        usage,
        model=str_or_none(get("model")),
        response_id=str_or_none(get("id")),
        finish=finish,
        complete=True,
        looped=server_loop(get("content"), usage),
    )


def bill(
    usage: Mapping[str, Any],
    *,
    model: str | None,
    response_id: str | None,
    finish: str | None,
    complete: bool,
    looped: Mapping[str, int] | None,
    error: str | None = None,
) -> UsageReport:
    """A usage object with what stands around it in its answer. Raises ``UnreadableUsageError``."""
    items, notes = _items(usage)
    tier = str_or_none(usage.get("service_tier"))
    return UsageReport(
        items=items,
        model=model,
        response_id=response_id,
        service_tier=tier,
        speed=str_or_none(usage.get("speed")),
        geo=str_or_none(usage.get("inference_geo")),
        batch=tier == "batch",
        complete=complete,
        finish_reason=finish,
        error=error,
        tool_calls=looped,
        warnings=notes,
    )


def _items(usage: Mapping[str, Any]) -> tuple[tuple[BilledItem, ...], tuple[str, ...]]:
    """The billed items of a usage object: its iterations where they say more than the top level."""
    searches, ran = 0, usage.get("server_tool_use")
    if ran is not None:
        searches = token_count(as_mapping(ran).get("web_search_requests"), _NAME, "web_search_requests")
    iterations = usage.get("iterations")
    # iterations may run on other models (an advisor, a fallback), each at its own price
    entries = []
    if iterations and isinstance(iterations, list | tuple):
        entries = [entry for raw in iterations if (entry := as_mapping(raw))]
    if not entries:
        bucketed, notes = _bucket(usage, searches)
        return (BilledItem(bucketed),), notes
    items: list[BilledItem] = []
    collected: list[str] = []
    for entry in entries:
        kind = str_or_none(entry.get("type")) or "message"
        bucketed, notes = _bucket(entry, 0)
        items.append(BilledItem(bucketed, model=str_or_none(entry.get("model")), kind=kind))
        collected.extend(notes)
    if searches:
        # Searches are counted for the whole response; they cost the same whichever iteration made them.
        first = items[0]
        items[0] = BilledItem(first.usage + TokenUsage(web_searches=searches), model=first.model, kind=first.kind)
    return tuple(items), tuple(dict.fromkeys(collected))


def _bucket(usage: Mapping[str, Any], searches: int) -> tuple[TokenUsage, tuple[str, ...]]:
    if "prompt_tokens" in usage:  # the OpenAI-compatible endpoint, which reports no cache
        return TokenUsage(
            uncached_input=token_count(usage.get("prompt_tokens"), _NAME, "prompt_tokens"),
            output=token_count(usage.get("completion_tokens"), _NAME, "completion_tokens"),
        ), ()
    notes: tuple[str, ...] = ()
    short = long = 0
    split, total = usage.get("cache_creation"), usage.get("cache_creation_input_tokens")
    if split is not None:
        split = as_mapping(split)
        short = token_count(split.get("ephemeral_5m_input_tokens"), _NAME, "ephemeral_5m_input_tokens")
        long = token_count(split.get("ephemeral_1h_input_tokens"), _NAME, "ephemeral_1h_input_tokens")
    if total is not None:
        written = token_count(total, _NAME, "cache_creation_input_tokens")
        if written != short + long:
            if split:
                notes = (f"cache writes are split as {short + long:,} but total {written:,}: the total is billed",)
            long = min(long, written)
            short = written - long
    output = token_count(usage.get("output_tokens"), _NAME, "output_tokens")
    reasoning, details = 0, usage.get("output_tokens_details")
    if details is not None:
        reasoning = min(token_count(as_mapping(details).get("thinking_tokens"), _NAME, "thinking_tokens"), output)
    return TokenUsage(
        uncached_input=token_count(usage.get("input_tokens"), _NAME, "input_tokens"),
        cache_read=token_count(usage.get("cache_read_input_tokens"), _NAME, "cache_read_input_tokens"),
        cache_write_5m=short,
        cache_write_1h=long,
        output=output,
        reasoning=reasoning,
        web_searches=searches,
    ), notes


_LOOP_FROM = 100_000  # below every long-context threshold a loop of internal turns changes no price


def server_loop(content: Any, usage: Mapping[str, Any]) -> Mapping[str, int] | None:
    """The provider-side tools that ran, whose internal turns are summed into one input count."""
    calls, ran = {}, usage.get("server_tool_use")
    if ran is not None:
        calls = {name: uses for name, uses in as_mapping(ran).items() if type(uses) is int and uses > 0}
    if not calls and isinstance(content, list | tuple) and (usage.get("input_tokens") or 0) >= _LOOP_FROM:
        runs = sum(1 for block in content if field_reader(block)("type") == "server_tool_use")
        calls = {"server_tool_use": runs} if runs else {}
    return calls or None


def read_batch(lines: Iterable[Any]) -> UsageReport:
    """Result lines of a message batch: every succeeded one is an item at its own model."""
    items: list[BilledItem] = []
    errors: list[str] = []
    notes: list[str] = []
    last = UsageReport()
    for line in lines:
        get = field_reader(line)
        if get("result") is None and get("custom_id") is None:
            return UsageReport(warnings=("a list that is no batch's results",))
        result = field_reader(get("result"))
        if result("type") != "succeeded":
            errors.append(describe(field_reader(result("error"))("error") or result("error") or result("type")))
            continue
        last = read_answer(result("message"))
        items.extend(BilledItem(i.usage, model=i.model or last.model, kind=i.kind) for i in last.items)
        notes.extend(last.warnings)
    return UsageReport(
        items=tuple(items),
        model=last.model,
        response_id=last.response_id,
        service_tier=last.service_tier,
        geo=last.geo,
        batch=True,
        complete=True,
        finish_reason=last.finish_reason,
        error="; ".join(dict.fromkeys(errors)) or None,
        unbilled=bool(errors) and not items,
        warnings=tuple(dict.fromkeys(notes)),
    )


def describe(error: Any) -> str:
    """An error in the provider's own words: its kind and its message."""
    get = field_reader(error)
    kind, message = str_or_none(get("type")), str_or_none(get("message"))
    return ": ".join(part for part in (kind, message) if part) or (error if isinstance(error, str) else "error")
