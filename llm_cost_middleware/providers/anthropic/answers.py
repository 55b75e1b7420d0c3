"""Usage of Anthropic's responses to disjoint buckets.

Rules of the bill, each of which was seen in recorded traffic:

* ``input_tokens`` excludes cached and written tokens.
* The split of ``cache_creation`` by TTL may sum to less than ``cache_creation_input_tokens``: the total is billed, the
  residue is five-minute cache. Older responses carry no split at all.
* ``iterations`` are the bill where one of them is not a plain message: compactions, advisor and fallback messages
  stand outside the top-level usage, the latter two at a model of their own.
* In a stream, ``message_delta`` repeats cumulative counts and wins over ``message_start`` wherever it has a value.
  An error as the first event (``overloaded_error`` was recorded so, after status 200) says nothing of the bill.
* Input and output are always counted; the other counts may be left out, and are zero then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport, without_zero_input
from llm_cost_middleware.wire import (
    as_mapping,
    count_group,
    field_reader,
    refuse_odd,
    required_count,
    str_or_none,
    token_count,
    token_counts,
)

_NAME = "anthropic"
_ERROR = "error"
_COUNTS = ("output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation", "iterations")
"""Fields of a usage that a count of tokens, which is free, does not have."""


def read_answer(response: Any) -> UsageReport:
    """One whole answer, as JSON or as the SDK's object. Raises ``UnreadableUsageError``."""
    get = field_reader(response)
    kind = get("type")
    error = get("error")
    if kind == _ERROR or (error is not None and get("usage") is None):
        # an error in an answer's place never is billed; one that stands inside an answer may be
        return UsageReport(error=describe(error), unbilled=kind == _ERROR or get("id") is None)
    if get("result") is not None and get("custom_id") is not None:
        return read_batch((response,))
    if kind == "message_batch":
        return UsageReport(warnings=("a batch's status carries no usage: its results do",))
    usage = as_mapping(get("usage"))
    if not usage:
        if get("usage") is None and (type(get("input_tokens")) is int or get("output_tokens") is not None):
            return _bare(response, get)
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


def _bare(response: Any, get: Callable[[str], Any]) -> UsageReport:
    """A usage without an answer around it, or the free count of a request's tokens, which has its input alone."""
    if get("id") is None and all(get(name) is None for name in _COUNTS):
        return UsageReport(unbilled=True, complete=True, warnings=("a count of tokens is not billed",))
    model = str_or_none(get("model"))
    return bill(as_mapping(response), model=model, response_id=None, finish=None, complete=True, looped=None)


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
    refuse_odd(usage, _NAME)
    items, notes, doubts = _items(usage)
    tier = str_or_none(usage.get("service_tier"))
    reading = UsageReport(
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
        doubts=doubts,
    )
    return without_zero_input(reading)


class _Bucketed(NamedTuple):
    usage: TokenUsage
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def _items(usage: Mapping[str, Any]) -> tuple[tuple[BilledItem, ...], tuple[str, ...], tuple[str, ...]]:
    """The billed items of a usage object, its iterations where it has some; what to note of them, and to doubt."""
    searches, ran = 0, usage.get("server_tool_use")
    if ran is not None:
        ran = count_group(ran, _NAME, "server_tool_use")
        searches = token_count(ran.get("web_search_requests"), _NAME, "web_search_requests")
    iterations = usage.get("iterations")
    if not iterations:
        bucketed, notes, doubts = _bucket(usage, searches)
        return (BilledItem(bucketed),), notes, doubts
    # iterations may run on other models (an advisor, a fallback), each at its own price
    if not isinstance(iterations, list | tuple):
        raise UnreadableUsageError(_NAME, "iterations is no list of usages")
    items: list[BilledItem] = []
    found: list[_Bucketed] = []
    for raw in iterations:
        entry = count_group(raw, _NAME, "an iteration")
        kind = str_or_none(entry.get("type")) or "message"
        found.append(_bucket(entry, 0))
        items.append(BilledItem(found[-1].usage, model=str_or_none(entry.get("model")), kind=kind))
    if searches:
        # Searches are counted for the whole response; they cost the same whichever iteration made them.
        first = items[0]
        items[0] = BilledItem(first.usage + TokenUsage(web_searches=searches), model=first.model, kind=first.kind)
    return (
        tuple(items),
        tuple(dict.fromkeys(note for one in found for note in one.notes)),
        tuple(dict.fromkeys(doubt for one in found for doubt in one.doubts)),
    )


def _bucket(usage: Mapping[str, Any], searches: int) -> _Bucketed:
    if "prompt_tokens" in usage or "completion_tokens" in usage:  # the OpenAI-compatible endpoint: no cache in it
        return _Bucketed(
            TokenUsage(
                uncached_input=required_count(usage.get("prompt_tokens"), _NAME, "prompt_tokens"),
                output=required_count(usage.get("completion_tokens"), _NAME, "completion_tokens"),
            )
        )
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    short = long = 0
    split, total = usage.get("cache_creation"), usage.get("cache_creation_input_tokens")
    if split is not None:
        split = count_group(split, _NAME, "cache_creation")
        short, long = token_counts(split, _NAME, "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    if total is not None:
        written = token_count(total, _NAME, "cache_creation_input_tokens")
        if written != short + long:
            note = f"cache writes are split as {short + long:,} but total {written:,}: the total is billed"
            if written < short + long:
                doubts = (note,)
            elif split:
                notes = (note,)
            long = min(long, written)
            short = written - long
    output = required_count(usage.get("output_tokens"), _NAME, "output_tokens")
    reasoning, details = 0, usage.get("output_tokens_details")
    if details is not None:
        details = count_group(details, _NAME, "output_tokens_details")
        reasoning = min(token_count(details.get("thinking_tokens"), _NAME, "thinking_tokens"), output)
    usage_of_it = TokenUsage(
        uncached_input=required_count(usage.get("input_tokens"), _NAME, "input_tokens"),
        cache_read=token_count(usage.get("cache_read_input_tokens"), _NAME, "cache_read_input_tokens"),
        cache_write_5m=short,
        cache_write_1h=long,
        output=output,
        reasoning=reasoning,
        web_searches=searches,
    )
    return _Bucketed(usage_of_it, notes, doubts)


_LOOP_FROM = 100_000  # below every long-context threshold a loop of internal turns changes no price


def server_loop(content: Any, usage: Mapping[str, Any]) -> Mapping[str, int] | None:
    """The provider-side tools that ran, whose internal turns are summed into one input count."""
    calls, ran = {}, usage.get("server_tool_use")
    if ran is not None:
        calls = {name: uses for name, uses in as_mapping(ran).items() if type(uses) is int and uses > 0}
    inputs = usage.get("input_tokens")
    if not calls and isinstance(content, list | tuple) and type(inputs) is int and inputs >= _LOOP_FROM:
        runs = sum(1 for block in content if field_reader(block)("type") == "server_tool_use")
        calls = {"server_tool_use": runs} if runs else {}
    return calls or None


def read_batch(lines: Iterable[Any]) -> UsageReport:
    """Result lines of a message batch: every succeeded one is an item at its own model."""
    items: list[BilledItem] = []
    errors: list[str] = []
    notes: list[str] = []
    doubts: list[str] = []
    last = UsageReport()
    for line in lines:
        get = field_reader(line)
        if get("result") is None and get("custom_id") is None:
            return UsageReport(warnings=("a list that is no batch's results",))
        result = field_reader(get("result"))
        if result("type") != "succeeded":
            errors.append(describe(field_reader(result("error"))("error") or result("error") or result("type")))
            continue
        message = result("message")
        # a message is no line: else lines inside lines could go on for as long as the text
        last = UsageReport() if field_reader(message)("custom_id") is not None else read_answer(message)
        if not last.items:
            raise UnreadableUsageError(_NAME, "a batch's result without a usage")
        doubts.extend(last.doubts)
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
        doubts=tuple(dict.fromkeys(doubts)),
    )


def describe(error: Any) -> str:
    """An error in the provider's own words: its kind and its message."""
    get = field_reader(error)
    kind, message = str_or_none(get("type")), str_or_none(get("message"))
    return ": ".join(part for part in (kind, message) if part) or (error if isinstance(error, str) else "error")
