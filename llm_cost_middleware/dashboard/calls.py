"""Single calls: the dearest and the slowest with the sentence of their decision, refusals, money that is not sure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from llm_cost_middleware.budget.backend import Journal, SupportsOverview
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules.largest import Measure, SupportsLargest, largest_rows, measured
from llm_cost_middleware.budget.rules.overview import unsure_rows
from llm_cost_middleware.dashboard.view import View
from llm_cost_middleware.dashboard.words import readable, usd, when
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.metering import Memo, decode_memo
from llm_cost_middleware.metering.refused import REFUSAL, read_refusal
from llm_cost_middleware.reports import Selection
from llm_cost_middleware.reports.query import OF_MEMO
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decision_log import newest

_LISTED = 6
_REFUSALS_READ = 20_000
_APART_S = 120.0
"""Seconds that a decision may lie from the reservation of its call: machines' clocks differ."""
_NO_MEMO = Memo("", 0, None)


def calls(ledger: Ledger, view: View) -> dict[str, Any]:
    """Return the calls worth a look, as JSON has them."""
    selection = Selection(view.asked)
    found = {by: _largest(ledger, view, selection, by) for by in ("amount", "duration")}
    decisions = _decisions(ledger.journal, [row for rows in found.values() for row in rows])
    return {
        "dear": [_call(row, view, decisions) for row in found["amount"]],
        "slow": [_call(row, view, decisions) for row in found["duration"]],
        "refusals": _refusals(ledger.journal, view, selection),
        "unsure": _unsure(ledger, view, selection),
    }


def _span(view: View) -> tuple[int | None, int | None]:
    since, until = (None if at is None else round(at * 1000) for at in (view.asked.since, view.asked.until))
    return since, until


def _largest(ledger: Ledger, view: View, selection: Selection, by: Measure) -> list[Row]:
    backend, (since, until) = ledger.backend, _span(view)

    def wanted(row: Row) -> bool:
        return selection.takes(row) and measured(row, by) > 0

    if isinstance(backend, SupportsLargest):
        return backend.largest(by, _LISTED, since, until, wanted)
    return largest_rows(lambda: backend.rows(since, None), by, _LISTED, since=since, until=until, wanted=wanted)


def _memo(row: Row) -> Memo:
    try:
        return decode_memo(row.memo)
    except ValueError:  # of another program, or of a newer version
        return _NO_MEMO


def _decisions(journal: Journal | None, rows: Iterable[Row]) -> dict[str, RoutingDecision]:
    """The decisions of some calls, by the id of the call; each is looked for about the time of its reservation."""
    found: dict[str, RoutingDecision] = {}
    for row in rows:
        call = _memo(row).call_id
        if journal is None or not call or call in found:
            continue
        for line in journal.read("decision", row.reserved_at - _APART_S):
            if line.at > row.reserved_at + _APART_S:
                break
            if line.id == call:
                try:
                    found[call] = RoutingDecision.from_json(line.data)
                except ConfigurationError:  # damaged, or of a newer version: the call is shown without its sentence
                    break
    return found


def _call(row: Row, view: View, decisions: dict[str, RoutingDecision]) -> dict[str, Any]:
    memo = _memo(row)
    decision = decisions.get(memo.call_id)
    return {
        "id": row.id,
        "call": memo.call_id or None,
        "at": when(row.reserved_at, view.asked.zone),
        "model": _model(row, memo),
        "cost_usd": usd(row.amount_nanousd),
        "seconds": None if row.kind != "settle" else round(row.at - row.reserved_at, 3),
        "status": row.status,
        "who": _who(row.scopes),
        "why": None if decision is None else decision.explain(),
    }


def _model(row: Row, memo: Memo) -> str | None:
    named = (scope for scope in row.scopes if scope.startswith("model:"))
    return (
        str(memo.target).removeprefix("/")
        if memo.target is not None
        else next((readable(one)[len("model:") :] for one in named), None)
    )


def _who(scopes: Iterable[str]) -> list[str]:
    """What tells a call apart from others: its scopes but for those that every call has."""
    return [readable(one) for one in scopes if not one.startswith(("model:", "provider:", "platform:")) and ":" in one]


def _refusals(journal: Journal | None, view: View, selection: Selection) -> list[dict[str, Any]] | None:
    """The newest refusals; ``None`` where the storage keeps no journal, so that nothing is known of any."""
    if journal is None:
        return None
    since, until = view.asked.since, view.asked.until
    found: list[dict[str, Any]] = []
    for line in islice(newest(journal, REFUSAL), _REFUSALS_READ):
        if since is not None and line.at < since - _APART_S:
            break
        told = read_refusal(line.data)
        in_time = (since is None or line.at >= since) and (until is None or line.at < until)
        if told is not None and in_time and selection.takes_refusal(told, line.at):
            found.append({
                "at": when(line.at, view.asked.zone), "model": str(told.target), "wanted_usd": usd(told.wanted_nanousd),
                "budget": readable(told.scope), "who": _who(told.scopes),
            })  # fmt: skip
            if len(found) == _LISTED:
                break
    return found


def _unsure(ledger: Ledger, view: View, selection: Selection) -> list[dict[str, Any]] | None:
    """The dearest attempts whose cost is not sure; ``None`` where filters ask what their rows do not say."""
    if any(found.dimension in OF_MEMO for found in view.asked.where):
        return None
    backend, (since, until) = ledger.backend, _span(view)
    rows = backend.unsure_rows() if isinstance(backend, SupportsOverview) else unsure_rows(backend.rows(since, None))
    kept = [
        row for row in rows
        if (since is None or row.reserved_at * 1000 >= since) and (until is None or row.reserved_at * 1000 < until)
        and row.status != "estimated" and selection.takes(row)
    ]  # fmt: skip
    kept.sort(key=lambda row: (-row.amount_nanousd, row.seq))
    return [
        {"id": row.id, "at": when(row.reserved_at, view.asked.zone), "status": row.status, "who": _who(row.scopes),
         "cost_usd": usd(row.amount_nanousd)}
        for row in kept[:_LISTED]
    ]  # fmt: skip
