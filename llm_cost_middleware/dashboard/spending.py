"""Where the money went: bars over time, the dearest of each dimension, what caching and routing saved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_cost_middleware.dashboard.view import View
from llm_cost_middleware.reports import Report, ReportRow
from llm_cost_middleware.reports.exports import plain
from llm_cost_middleware.reports.report import Sums

SHOWN = ("model", "team", "user", "site")
"""The dimensions that every page has, beside the one that money is stacked by."""
_STACKED, _LISTED, _SAVERS = 7, 10, 6


SAVING = frozenset({"model", "site"})
"""The dimensions that tell what was saved by whom."""


def spending(view: View, report: Report) -> dict[str, Any]:
    """Return bars, a list and totals by one dimension, as JSON has them.

    Args:
        view: What is shown.
        report: The answer by its dimension, with a line for each bar.
    """
    stretches = sorted({*view.stretches(), *(str(row.keys[0]) for row in report)})  # a clock may run ahead
    lines = _lines(report)
    return {
        **view.told(),
        "shown": SHOWN,
        "stretches": stretches,
        "total": _line(report.total),
        "dimensions": {view.by: {**_stack(report, lines, stretches), **_listed(lines)}},
        "notes": [note for note in report.notes if not note.startswith("a call with several")],  # the chart says it
    }


def listing(view: View, report: Report) -> dict[str, Any]:
    """Return a list by one dimension, from an answer without time: it costs a part of what bars cost."""
    return {"dimensions": {view.by: _listed(_lines(report))}}


def _lines(report: Report) -> list[ReportRow]:
    """A line for each name, the dearest first."""
    sums: dict[str | None, Sums] = {}
    for row in report:
        sums.setdefault(row.keys[-1], Sums(refused=_none_of(report))).add(row.sums)
    return sorted((ReportRow((name,), one) for name, one in sums.items()), key=_by_cost)


def _stack(report: Report, lines: list[ReportRow], stretches: list[str]) -> dict[str, Any]:
    paid = [line for line in lines if line.sums.cost_nanousd]
    kept = [line.keys[0] for line in paid[: _STACKED if len(paid) > _STACKED + 1 else _STACKED + 1]]
    place = {name: number for number, name in enumerate(kept)}
    at = {name: number for number, name in enumerate(stretches)}
    bars = [[0] * len(stretches) for _ in range(len(kept) + 1)]
    for row in report:
        bars[place.get(row.keys[1], len(kept))][at[str(row.keys[0])]] += row.sums.cost_nanousd
    rest = len(paid) - len(kept)
    return {
        "stack": [
            {"name": name, "usd": [_dollars(amount) for amount in bar]} for name, bar in zip(kept, bars, strict=False)
        ],
        "rest": {"count": rest, "usd": [_dollars(amount) for amount in bars[-1]]} if rest > 0 else None,
        "several": report.shared.sums.calls,
    }


def _listed(lines: list[ReportRow]) -> dict[str, Any]:
    listed = [line for line in lines if line.sums.cost_nanousd or line.sums.refused][:_LISTED]
    return {
        "names": len(lines),
        "top": [_line(line) for line in listed],
        "savers": [_line(line) for line in _savers(lines)],
    }


def _none_of(report: Report) -> int | None:
    """Refusals before any are counted; where the storage keeps no journal they are not known."""
    return None if report.total.sums.refused is None else 0


def _by_cost(line: ReportRow) -> tuple[int, int, str]:
    return -line.sums.cost_nanousd, -line.sums.calls, line.keys[0] or ""


def _savers(lines: Iterable[ReportRow]) -> list[ReportRow]:
    """Those for whom caching and routing saved most, or cost most."""

    def saved(line: ReportRow) -> int:
        return abs(line.sums.caching_picousd or 0) + abs(line.sums.routing_picousd or 0)

    return sorted((line for line in lines if saved(line)), key=saved, reverse=True)[:_SAVERS]


def _line(row: ReportRow) -> dict[str, Any]:
    told = {name: plain(value) for name, value in row.measures().items()}
    return {"name": row.keys[0] if row.keys else None, **told}


def _dollars(nano: int) -> float:
    """The height of a bar; no sum is made of it."""
    return nano / 1e9
