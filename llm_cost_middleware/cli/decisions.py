"""``llm-cost decisions``: the model of each call, and the reason."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer
from msgspec import structs

from llm_cost_middleware.budget.backend import Journal
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.cli.loading import ConfigOption, LedgerOption, SinceOption, err, moment_of, open_ledger, out
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.metering.refused import REFUSAL, RefusedCall, read_refusal
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decision_log import MIN_FEEDBACK_CALLS, DecisionLog, LoggedCall, QualitySource
from llm_cost_middleware.routing.learning.survey import LogSurvey
from llm_cost_middleware.routing.policy import PolicyKind
from llm_cost_middleware.routing.signals import SIGNAL_TEXT

QualityOption = Annotated[
    QualitySource | None,
    typer.Option(
        "--measure", help="Measure quality by the feedback of the application, or by the absence of failures."
    ),
]

_BEGINNING_ALIKE = 20
"""Calls that are explained at most, where an id is given by its beginning."""
_WIDE = 140
"""Terminal columns from which reasons are shown beside the calls."""


def decisions(
    call: Annotated[str | None, typer.Argument(help="Explain this call (an id, or how one begins).")] = None,
    site: Annotated[str | None, typer.Option(help="Only this call site; a glob.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model; a glob such as openai/*.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only decisions of this policy, such as learned.")] = None,
    outcome: Annotated[str | None, typer.Option(help="Only calls with this outcome, such as truncated.")] = None,
    since: SinceOption = None,
    last: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 20,
    log: Annotated[Path | None, typer.Option(help="An exported log instead of the ledger's.")] = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    *,
    jsonl: Annotated[bool, typer.Option("--jsonl", "--json", help="Export all that is found as JSON lines.")] = False,
) -> None:
    """Show, filter and explain routing decisions."""
    moment = moment_of(since, "--since")
    refused: dict[str, RefusedCall] = {}
    if jsonl:
        with open_log(log, config, ledger, moment) as entries:
            for entry in tables.counted(entries, "reading decisions"):
                if _wanted(entry, call, site, model, policy, outcome):
                    print(entry.to_json())  # noqa: T201 - not ``out``: rich would wrap and colour the lines
        return
    if log is None and outcome is None:
        with open_ledger(config, ledger) as opened:
            journal = _journal_of(opened)
            found = _newest(DecisionLog(journal), call, last, moment, (site, model, policy))
            refused = _refusals(journal, found) if call is not None else {}
    else:
        with open_log(log, config, ledger, moment) as entries:
            read = tables.counted(entries, "reading decisions")
            wanted = (entry for entry in read if _wanted(entry, call, site, model, policy, outcome))
            found = list(wanted if call is not None else deque(wanted, maxlen=last))
    if call is not None:
        # A full id wins over the calls whose ids merely begin with it.
        for entry in [entry for entry in found if entry.decision.call_id == call] or found:
            _explain(entry, refused.get(entry.decision.call_id))
        if not found:
            err.print(f"no decision begins with {call}", highlight=False, markup=False)
            raise typer.Exit(1)
        return
    if not found:
        tables.empty(
            "no decisions.", "They are kept for calls of a pipeline on this ledger; look at --since and filters."
        )
        _tell_nearest(policy, outcome)
        return
    wide = out.width >= _WIDE or not out.is_terminal
    _show(found[-last:], wide=wide)
    if not wide:
        tables.say("why: llm-cost decisions CALL, or a wider terminal")


def _tell_nearest(policy: str | None, outcome: str | None) -> None:
    """Say which word was probably meant by a filter that lets nothing through."""
    for option, word, known in (("--policy", policy, get_args(PolicyKind)), ("--outcome", outcome, tuple(SIGNAL_TEXT))):
        if word is not None and word not in known and (near := get_close_matches(word, known, n=1)):
            tables.say(f"{option} {word}: did you mean {near[0]}?")


def _newest(
    log: DecisionLog,
    call: str | None,
    last: int,
    since: float | None,
    filters: tuple[str | None, str | None, str | None],
) -> list[LoggedCall]:
    """Return the last decisions wanted, read from the newest on and no further: a log may hold millions."""

    def wanted(decision: RoutingDecision) -> bool:
        return _wanted(LoggedCall(decision), None, *filters, None)

    if call is None:
        return log.last(last, wanted, since=since)
    exact = log.last(1, lambda decision: decision.call_id == call and wanted(decision), since=since, call=call)
    return exact or log.last(_BEGINNING_ALIKE, wanted, since=since, call=call)


def _show(found: Sequence[LoggedCall], *, wide: bool) -> None:
    """Print a row per call; on a narrow terminal without expectations and reasons."""
    columns = [*tables.names("when", "call", whole=True), *tables.names("site", "model"), *tables.figures("paid")]
    columns += [*tables.figures("quality"), *tables.names("seen")]
    if wide:
        columns += [*tables.figures("expected"), *tables.names("policy", "why")]
    rows = []
    for entry in found:
        decision, settled, expected = entry.decision, entry.settlement, entry.decision.expected_nanousd
        cells = [
            tables.when(decision.at), decision.call_id, decision.site, decision.target.model,
            currency.amount(settled.cost_nanousd if settled else None),
            "-" if entry.quality is None else f"{entry.quality:.2f}",
            ", ".join(outcome.name for outcome in entry.outcomes),
        ]  # fmt: skip
        rows.append([*cells, *((currency.amount(expected), decision.policy, decision.reason) if wide else ())])
    filled = [i for i in range(len(columns)) if any(row[i] not in {"", "-"} for row in rows)]
    title = f"decisions: the last {len(found)}, local time"
    tables.show([columns[i] for i in filled], [[row[i] for i in filled] for row in rows], title=title)


@contextmanager
def open_log(
    log: Path | None, config: Path | None, ledger: str | None, since: float | None = None
) -> Iterator[Iterable[LoggedCall]]:
    """Yield the decisions for a command: from an exported file, else from the ledger's journal. Read anew at each use.

    Raises:
        ConfigurationError: Not an exported log, or a ledger without a journal.
    """
    if log is not None:
        log.open("rb").close()  # a file that is missing is told here
        yield _Reading(partial(_read, log, since))
        return
    with open_ledger(config, ledger) as opened:
        yield _Reading(partial(DecisionLog(_journal_of(opened)).read, since))


class _Reading:
    """A log of any length: every use reads it from its beginning."""

    def __init__(self, read: Callable[[], Iterator[LoggedCall]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[LoggedCall]:
        return self._read()


def _journal_of(ledger: Ledger) -> Journal:
    if ledger.journal is None:
        raise ConfigurationError("this ledger keeps no journal, so no decisions were remembered", key="ledger.url")
    return ledger.journal


def _read(log: Path, since: float | None) -> Iterator[LoggedCall]:
    # errors="replace": one damaged line is reported as such, with its number, instead of as a decoding error.
    with log.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = LoggedCall.from_json(line)
            except ConfigurationError as error:
                raise ConfigurationError(str(error), key=f"{log.name} line {number}") from None
            if since is None or entry.decision.at >= since:
                yield entry


def measured_by(source: QualitySource, held: LogSurvey) -> str:
    """By what quality is measured here, in one sentence."""
    count = held.rated
    if source is QualitySource.FEEDBACK:
        return f"quality is what the application reported of {count:,} calls"
    if source is QualitySource.SHADOW:
        return f"quality is that an answer says what the stronger model's says, on {held.paired:,} calls both answered"
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


def _refusals(journal: Journal, found: Sequence[LoggedCall]) -> dict[str, RefusedCall]:
    """The refusals for want of money among calls of which nothing was booked."""
    unsettled = {entry.decision.call_id: entry.decision.at for entry in found if entry.settlement is None}
    lines = journal.read(REFUSAL, min(unsettled.values())) if unsettled else ()
    read = {line.id: read_refusal(line.data) for line in lines if line.id in unsettled}
    return {call_id: refusal for call_id, refusal in read.items() if refusal is not None}


def _explain(entry: LoggedCall, refused: RefusedCall | None) -> None:
    out.print(entry.decision.explain(), highlight=False, markup=False)
    if refused is not None:
        wanted = currency.exact(refused.wanted_nanousd)
        out.print(f"  refused: {wanted} did not fit {refused.scope}; not sent", highlight=False, markup=False)
    for outcome in entry.outcomes:
        meaning = SIGNAL_TEXT.get(outcome.name)
        line = f"  {outcome.name}: {outcome.score:g}{f' - {meaning}' if meaning else ''}"
        out.print(line, highlight=False, markup=False)
    features = json.dumps({key: value for key, value in structs.asdict(entry.decision.features).items() if value})
    out.print(f"  site {entry.decision.site}, features {features}", highlight=False, markup=False)
