"""The report as a page that stands alone: totals by model, with a bar for each model's share."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from llm_cost_middleware.cli import currency
from llm_cost_middleware.cli.totals import Totals
from llm_cost_middleware.money import NanoUSD


def page(totals: Totals, title: str) -> str:
    """Return a self-contained HTML page: the table, with a bar for each model's share."""
    # ``or NanoUSD(1)``: free calls alone would otherwise divide by zero.
    most = max((total.cost_nanousd for total in totals.values()), default=NanoUSD(1)) or NanoUSD(1)
    rows = []
    for name in sorted(totals, key=lambda name: -totals[name].cost_nanousd):
        line, share = _line(name, totals), totals[name].cost_nanousd * 100 // most
        cells = "".join(f"<td>{line[key]:,}</td>" for key in _FIELDS if key.endswith("tokens") or key == "calls")
        bar = f'<div class="bar" style="width:{share}%"></div>'
        cost = currency.exact(totals[name].cost_nanousd)
        rows.append(f"<tr><th>{escape(name)}</th>{cells}<td>{cost}</td><td class=share>{bar}</td></tr>")
    whole = NanoUSD(sum(total.cost_nanousd for total in totals.values()))
    template = Template(files("llm_cost_middleware.cli").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(title),
        total=currency.exact(whole),
        calls=f"{sum(total.calls for total in totals.values()):,}",
        rows="\n".join(rows) or "<tr><td colspan=8>nothing was booked yet</td></tr>",
        unit=escape(currency.unit()),
        made=datetime.now(UTC).isoformat(sep=" ", timespec="minutes"),
    )


_FIELDS = (
    "model", "calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd",
)  # fmt: skip


def _line(name: str, totals: Totals) -> dict[str, Any]:
    total = totals[name]
    usage = total.usage
    values = (usage.input_tokens, usage.cache_read, usage.cache_write, usage.output_tokens)
    return dict(zip(_FIELDS, (name, total.calls, *values, f"{total.cost_nanousd.usd:f}"), strict=True))
