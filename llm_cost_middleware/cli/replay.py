"""``llm-cost replay``: bill and quality of past calls under another policy."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.chart import ChartPoint, chart
from llm_cost_middleware.cli.decisions import QualityOption, measured_by, open_log
from llm_cost_middleware.cli.loading import ConfigOption, JsonOption, LedgerOption, err, out
from llm_cost_middleware.config.sections import DEFAULT_TIERS, read_tiers
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.routing.learning.replay import Estimate, ReplayedSite
from llm_cost_middleware.routing.learning.replay import replay as replay_log
from llm_cost_middleware.routing.learning.survey import survey
from llm_cost_middleware.routing.policy import RoutingPolicy


def replay(
    policy: Annotated[Path, typer.Option("--policy", "-p", help="A configuration whose \\[routing] is to be tried.")],
    log: Annotated[Path | None, typer.Argument(help="An exported log; default: the ledger's own.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a chart of cost and quality by site (SVG).")] = None,
    measure: QualityOption = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Replay the decision log under another policy: bill and quality, by call site, with intervals. No call is made."""
    tried = read_routing(policy)
    with open_log(log, config, ledger) as entries:
        held = survey(track(entries, "reading the log", total=None, console=err, transient=True))
        source = measure or held.source
        with err.status(f"replaying {held.calls:,} calls"):
            rows = replay_log(entries, tried, source)
    if as_json:
        out.print_json(json.dumps([asdict(row) for row in rows]))
    else:
        _show(rows)
        tables.say(measured_by(source, held))
    if plot is not None:
        plot.write_text(_drawn(rows), encoding="utf-8")
        err.print(f"wrote {plot}")


def read_routing(path: Path) -> RoutingPolicy:
    """Read the ``[routing]`` of a configuration file, with its tiers; a ``policy_file`` is relative to it.

    Raises:
        ConfigurationError: Not TOML, or no usable ``[routing]``.
    """
    # Not ``CostConfig.from_toml``: a policy to try may stand in a file with nothing else that is valid.
    try:
        document: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot be read: {error}", key=str(path)) from None
    tiers = read_tiers(document["tiers"]) if "tiers" in document else DEFAULT_TIERS
    return RoutingPolicy.from_mapping(
        document.get("routing", {}), tiers, read_file=lambda name: (path.parent / name).read_text(encoding="utf-8")
    )


def _show(rows: list[ReplayedSite]) -> None:
    columns = [
        *tables.names("site"),
        *tables.figures("calls", "moved", "paid", "would be", "saved", "quality", "would be", "guessed"),
    ]
    lines = []
    for row in rows:
        after = Estimate(*(max(part, 0.0) / 1e9 for part in row.after_nanousd))  # no bill is negative
        before = row.paid_nanousd / 1e9
        lines.append([
            row.site, f"{row.calls:,}", f"{row.moved:,}", currency.average(before),
            f"{currency.average(after.value)} ({currency.average(after.low)} to {currency.average(after.high)})",
            f"{1 - after.value / before:z.0%}" if before else "-", _quality(row.quality_before),
            _quality(row.quality_after), f"{row.unsupported:.0%}",
        ])  # fmt: skip
    last = lines.pop() if len(lines) > 1 else None
    tables.show(columns, lines, title="replayed: before → after, 95 % intervals", total=last)


def _quality(estimate: Estimate | None) -> str:
    return (
        "-" if estimate is None else f"{estimate.value:.3f} ({max(estimate.low, 0):.3f} to {min(estimate.high, 1):.3f})"
    )


def _drawn(rows: list[ReplayedSite]) -> str:
    points = []
    for row in rows[:-1] or rows:  # the last row is the total
        if row.quality_before is not None and row.quality_after is not None and row.calls:
            before, after = (
                currency.scaled(nano / row.calls / 1e9) for nano in (row.paid_nanousd, row.after_nanousd.value)
            )
            points.append(ChartPoint(before, row.quality_before.value, f"{row.site} before", hollow=True))
            points.append(ChartPoint(after, row.quality_after.value, f"{row.site} after"))
    return chart("cost and quality by site", f"{currency.unit()}, a call", "quality", points=points)
