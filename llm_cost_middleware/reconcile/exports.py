"""Exports of providers as lines: a day, a model, a tier, and tokens or an amount.

Read are, as JSON (a page of the API, a list of pages, or one page a line) and as CSV (or TSV) of the consoles:

- Anthropic's usage report of messages and its cost report, whose amounts are cents as decimal text
  (``platform.claude.com/docs/en/api/admin/usage_report`` and ``…/cost_report``);
- OpenAI's usage of completions and embeddings, and its costs
  (``platform.openai.com/docs/api-reference/usage``; the types of its SDK, ``openai.types.admin.organization``).

What a report was not grouped by is ``None``: such a line is compared with the sum of all of that day.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from llm_cost_middleware.errors import ConfigurationError

_DAY_S = 86_400
_STANDARD = "standard"
_FORMS = (
    "must be an export of Anthropic (usage report, cost report) or OpenAI (usage of completions or embeddings, costs), "
    "as JSON of their API or CSV of their consoles; llm-cost help reconcile says which columns"
)


@dataclass(frozen=True, slots=True)
class ProviderLine:
    """What a provider says of one day."""

    provider: Literal["anthropic", "openai"]
    day: int
    """Its first second since the Unix epoch, UTC."""
    model: str | None = None
    tier: str | None = None
    """``standard``, ``batch``, ``flex``, ``priority``."""
    project: str | None = None
    """A project or a workspace, by id or name."""
    tokens: Mapping[str, int] | None = None
    """By bucket of ``TokenUsage``; a bucket that the report does not tell apart is missing. ``None``: a cost."""
    requests: int | None = None
    usd: Decimal | None = None
    """US dollars; ``None``: usage."""
    item: str = ""
    """What a cost is for, in the provider's words."""
    bucket: str | None = field(default=None, compare=False)
    """The bucket that a cost is for, where it says so."""


def read_export(path: str | Path) -> list[ProviderLine]:
    """Read an export.

    Raises:
        ConfigurationError: It cannot be read, or is none of those that are known; an unfinished page says so.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}", key="export") from None
    try:
        found = list(_of_json(text) if text.lstrip()[:1] in {"{", "["} else _of_table(text))
    except (KeyError, TypeError, AttributeError, InvalidOperation, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise ConfigurationError(f"{path} {error.args[0].removeprefix('export: ')}", key="export") from None
        raise ConfigurationError(f"{path} {_FORMS}: {error!r}", key="export") from None
    return found


# --- JSON ------------------------------------------------------------------------------------------------------------


def _of_json(text: str) -> Iterator[ProviderLine]:
    pages = _pages(text)
    for number, page in enumerate(pages):
        if not isinstance(page, Mapping) or not isinstance(page.get("data"), list):
            raise ConfigurationError(_FORMS, key="export")
        if page.get("has_more") and number == len(pages) - 1:
            raise ConfigurationError(
                "is not the whole report: its last page says that there are more (has_more). Fetch them by next_page, "
                "and put all pages into one list", key="export",
            )  # fmt: skip
        for stretch in page["data"]:
            day = _day(stretch["starting_at"] if "starting_at" in stretch else stretch["start_time"])
            for result in stretch["results"]:
                yield _of_result(day, result)


def _pages(text: str) -> list[Any]:
    try:
        found = json.loads(text, parse_float=Decimal)
    except ValueError:
        found = [json.loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip()]
    return found if isinstance(found, list) else [found]


def _of_result(day: int, result: Mapping[str, Any]) -> ProviderLine:
    kind = result.get("object", "")
    if kind == "organization.costs.result":
        amount = result.get("amount") or {}
        return _openai_cost(day, amount.get("value"), amount.get("currency"), result)
    if kind in {"organization.usage.completions.result", "organization.usage.embeddings.result"}:
        return _openai_usage(day, result)
    if kind:
        raise ConfigurationError(f"holds {kind}, which has no counts of tokens; {_FORMS}", key="export")
    if "amount" in result:
        if str(result.get("currency", "USD")).upper() != "USD":
            raise ConfigurationError(f"is in {result['currency']}, not in US dollars", key="export")
        return ProviderLine(
            "anthropic", day, result.get("model"), _tier(result.get("service_tier")), result.get("workspace_id"),
            usd=Decimal(result["amount"]) / 100, item=result.get("description") or result.get("cost_type") or "",
        )  # fmt: skip
    written = result.get("cache_creation") or {}
    return ProviderLine(
        "anthropic", day, result.get("model"), _tier(result.get("service_tier")), result.get("workspace_id"), {
            "uncached_input": int(result["uncached_input_tokens"]),
            "cache_read": int(result.get("cache_read_input_tokens") or 0),
            "cache_write_5m": int(written.get("ephemeral_5m_input_tokens") or 0),
            "cache_write_1h": int(written.get("ephemeral_1h_input_tokens") or 0),
            "output": int(result["output_tokens"]),
            "web_searches": int((result.get("server_tool_use") or {}).get("web_search_requests") or 0),
        },
    )  # fmt: skip


def _openai_usage(day: int, result: Mapping[str, Any]) -> ProviderLine:
    batch, tier = result.get("batch"), _tier(result.get("service_tier"))
    if isinstance(batch, str):
        batch = {"true": True, "false": False}.get(batch.strip().lower())
    if batch:
        tier = "batch"
    cached, audio = _count(result, "input_cached_tokens"), _count(result, "input_audio_tokens")
    audio_cached, audio_out = _count(result, "input_cached_audio_tokens"), _count(result, "output_audio_tokens")
    half, long = _count(result, "input_cache_write_30m_tokens"), _count(result, "input_cache_write_12h_tokens")
    if not half and not long:  # older reports do not tell the lifetimes apart: half an hour is what is had unasked
        half = _count(result, "input_cache_write_tokens")
    # input_tokens counts cached and written ones and audio too, output_tokens audio
    tokens = {
        "uncached_input": int(result["input_tokens"]) - cached - half - long - audio,
        "cache_read": cached - audio_cached, "cache_write_30m": half, "cache_write_12h": long,
        "output": _count(result, "output_tokens") - audio_out, "audio_input": audio, "audio_cache_read": audio_cached,
        "audio_output": audio_out,
    }  # fmt: skip
    requests = result.get("num_model_requests")
    return ProviderLine(
        "openai", day, result.get("model") or None, tier, result.get("project_id") or None, tokens,
        None if requests in {None, ""} else int(requests),
    )  # fmt: skip


def _openai_cost(day: int, value: Any, currency: Any, result: Mapping[str, Any]) -> ProviderLine:
    if str(currency or "usd").lower() != "usd":
        raise ConfigurationError(f"is in {currency}, not in US dollars", key="export")
    item = str(result.get("line_item") or "")
    # «gpt-5-mini-2025-08-07, cached input»: the model, then what of it
    model, comma, what = item.partition(", ")
    return ProviderLine(
        "openai", day, model if comma else None, None, result.get("project_id") or None,
        usd=Decimal(str(value or 0)), item=item, bucket=what or None,
    )  # fmt: skip


def _count(result: Mapping[str, Any], name: str) -> int:
    return int(result.get(name) or 0)


# --- tables of the consoles ------------------------------------------------------------------------------------------


def _of_table(text: str) -> Iterator[ProviderLine]:
    head = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in head else ",")
    names = set(rows.fieldnames or ())
    if {"usage_date_utc", "model_version", "usage_output_tokens"} <= names:
        yield from map(_claude_usage, rows)
    elif {"usage_date_utc", "cost_usd"} <= names:
        yield from map(_claude_cost, rows)
    elif {"start_time", "amount_value"} <= names:
        yield from (
            _openai_cost(_day(row["start_time"]), row["amount_value"], row.get("amount_currency"), row)
            for row in rows
            if row["amount_value"]  # a day without a cost has a line all the same
        )
    elif {"start_time", "input_tokens", "num_model_requests"} <= names:
        yield from (_openai_usage(_day(row["start_time"]), row) for row in rows if row["input_tokens"])
    else:
        raise ConfigurationError(_FORMS, key="export")


def _claude_usage(row: Mapping[str, Any]) -> ProviderLine:
    return ProviderLine(
        "anthropic", _day(row["usage_date_utc"]), row["model_version"] or None, _tier(row.get("usage_type")),
        row.get("workspace") or None, {
            "uncached_input": _count(row, "usage_input_tokens_no_cache"),
            "cache_read": _count(row, "usage_input_tokens_cache_read"),
            "cache_write_5m": _count(row, "usage_input_tokens_cache_write_5m"),
            "cache_write_1h": _count(row, "usage_input_tokens_cache_write_1h"),
            "output": _count(row, "usage_output_tokens"), "web_searches": _count(row, "web_search_count"),
        },
    )  # fmt: skip


def _claude_cost(row: Mapping[str, Any]) -> ProviderLine:
    return ProviderLine(
        "anthropic", _day(row["usage_date_utc"]), row.get("model") or None, _tier(row.get("usage_type")),
        row.get("workspace") or None, usd=Decimal(row["cost_usd"] or 0),
        item=row.get("token_type") or row.get("cost_type") or "",
    )  # fmt: skip


def _tier(given: object) -> str | None:
    """The tier by one name: OpenAI's word for the standard one is ``default``."""
    if not isinstance(given, str) or not given.strip():
        return None
    word = given.strip().lower()
    return _STANDARD if word in {"default", "auto", "on_demand"} else word


def _day(moment: object) -> int:
    """The UTC day of a moment: seconds since the epoch, or ISO 8601."""
    if isinstance(moment, int) or (isinstance(moment, str) and moment.strip().isdigit()):
        return int(moment) // _DAY_S * _DAY_S
    found = datetime.fromisoformat(str(moment).strip())
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return int(found.timestamp()) // _DAY_S * _DAY_S


def days_of(lines: Iterable[ProviderLine]) -> tuple[int, int]:
    """The first day of some lines, and the moment after their last."""
    days = [line.day for line in lines]
    return min(days), max(days) + _DAY_S
