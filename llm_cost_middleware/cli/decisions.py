"""``llm-cost decisions``: the model of each call, and the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, as_utc, open_ledger, out
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import format_usd
from llm_cost_middleware.routing.decision_log import MIN_FEEDBACK_CALLS, DecisionLog, LoggedCall, QualitySource
from llm_cost_middleware.routing.signals import SIGNAL_TEXT

QualityOption = Annotated[
    QualitySource | None,
    typer.Option(
        "--measure", help="Measure quality by the feedback of the application, or by the absence of failures."
    ),
]

_WIDE = 140
"""Terminal columns from which reasons are shown beside the calls."""


def decisions(
    call: Annotated[str | None, typer.Argument(help="Explain this call (an id, or how one begins).")] = None,
    site: Annotated[str | None, typer.Option(help="Only this call site; a glob.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model; a glob such as openai/*.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only decisions of this policy, such as learned.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only calls with this outcome, such as truncated.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only from this UTC time on.")] = None,
    last: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 20,
    log: Annotated[Path | None, typer.Option(help="An exported log instead of the ledger's.")] = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    *,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Export every decision found as JSON lines.")] = False,
) -> None:
    """Show, filter and explain routing decisions."""
    moment = as_utc(since).timestamp() if since else None
    with open_log(log, config, ledger, moment) as entries:
        # Filtered while reading: a log may hold millions of decisions, of which a few are wanted.
        found = [entry for entry in entries if _wanted(entry, call, site, model, policy, outcome)]
    if jsonl:
        for entry in found:
            print(entry.to_json())  # noqa: T201 - not ``out``: rich would wrap and colour the lines
        return
    if call is not None:
        # A full id wins over the calls whose ids merely begin with it.
        for entry in [entry for entry in found if entry.decision.call_id == call] or found:
            _explain(entry)
        if not found:
            out.print(f"no decision begins with {call}")
        return
    out.print(_table(found[-last:], wide=out.width >= _WIDE))
    if out.width < _WIDE:
        out.print("why: llm-cost decisions CALL, or a wider terminal", highlight=False)


def _table(found: Sequence[LoggedCall], *, wide: bool) -> Table:
    """Return a table with a row per call; on a narrow terminal without the columns that would be cut."""
    table = Table(title=f"decisions: the last {len(found)}", padding=(0, 1 if wide else 0))
    for name in ("when", "call"):
        table.add_column(name, no_wrap=True)
    for name in ("site", "model"):
        table.add_column(name, overflow="fold")
    for name in ("paid", "quality"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("seen", overflow="fold")
    if wide:
        table.add_column("expected", justify="right", no_wrap=True)
        table.add_column("policy", no_wrap=True)
        table.add_column("why")
    for entry in found:
        decision, settled = entry.decision, entry.settlement
        cells = [
            f"{datetime.fromtimestamp(decision.at, UTC):%m-%d %H:%M}",
            escape(decision.call_id),
            escape(decision.site),
            escape(str(decision.target) if wide else decision.target.model),
            format_usd(settled.cost_nanousd) if settled else "-",
            "-" if entry.quality is None else f"{entry.quality:.2f}",
            escape(", ".join(outcome.name for outcome in entry.outcomes)),
        ]
        expected = decision.expected_nanousd
        more = [format_usd(expected) if expected is not None else "-", decision.policy, escape(decision.reason)]
        table.add_row(*cells, *(more if wide else ()))
    return table


@contextmanager
def open_log(
    log: Path | None, config: Path | None, ledger: str | None, since: float | None = None
) -> Iterator[Iterator[LoggedCall]]:
    """Yield the decisions for a command: from an exported file, else from the ledger's journal.

    Raises:
        ConfigurationError: Not an exported log, or a ledger without a journal.
    """
    if log is not None:
        # errors="replace": one damaged line is reported as such, with its number, instead of as a decoding error.
        with log.open(encoding="utf-8", errors="replace") as lines:
            yield _read(log, lines, since)
        return
    with open_ledger(config, ledger) as opened:
        if opened.journal is None:
            raise ConfigurationError("this ledger keeps no journal, so no decisions were remembered", key="ledger.url")
        yield DecisionLog(opened.journal).read(since)


def _read(log: Path, lines: Iterator[str], since: float | None) -> Iterator[LoggedCall]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = LoggedCall.from_json(line)
        except ConfigurationError as error:
            raise ConfigurationError(str(error), key=f"{log.name} line {number}") from None
        if since is None or entry.decision.at >= since:
            yield entry


def measured_by(source: QualitySource, entries: Sequence[LoggedCall]) -> str:
    """By what quality is measured here, in one sentence."""
    count = sum(entry.feedback is not None for entry in entries)
    if source is QualitySource.FEEDBACK:
        return f"quality is what the application reported of {count:,} calls"
    if source is QualitySource.SHADOW:
        both = sum(entry.shadow is not None for entry in entries)
        return f"quality is that an answer says what the stronger model's says, on {both:,} calls that both answered"
    few = f"; feedback was given on {count:,}, and {MIN_FEEDBACK_CALLS} are enough to measure by" if count else ""
    return f"quality is that a finished call shows no visible failure{few}"


def _wanted(
    entry: LoggedCall, call: str | None, site: str | None, model: str | None, policy: str | None, outcome: str | None
) -> bool:
    decision = entry.decision
    return (
        (call is None or decision.call_id.startswith(call))
        and (site is None or fnmatchcase(decision.site, site))
        and (model is None or fnmatchcase(str(decision.target), model) or fnmatchcase(decision.target.model, model))
        and (policy is None or decision.policy == policy)
        and (outcome is None or any(found.name == outcome for found in entry.outcomes))
    )


def _explain(entry: LoggedCall) -> None:
    out.print(entry.decision.explain(), highlight=False, markup=False)
    for outcome in entry.outcomes:
        meaning = SIGNAL_TEXT.get(outcome.name)
        line = f"  {outcome.name}: {outcome.score:g}{f' - {meaning}' if meaning else ''}"
        out.print(line, highlight=False, markup=False)
    features = json.dumps({key: value for key, value in entry.decision.features._asdict().items() if value})
    out.print(f"  site {entry.decision.site}, features {features}", highlight=False, markup=False)
