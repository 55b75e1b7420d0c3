"""Oracle: the sums that every scope must have, computed from the raw rows alone.

It shares no code with ``budget.rules``: windows are compared by labels of local time, not by their first second, and
sums are computed anew each time.
"""

# ruff: noqa: S101 - asserts are what a test is made of

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from llm_cost_middleware.budget.backend import Snapshot
from llm_cost_middleware.budget.model import Budget, Row


def same_window(budget: Budget | None, then: int, now: int) -> bool:
    """Return whether money of ``then`` counts at ``now`` (both ms) in the window of a budget."""
    if budget is None or budget.window == "none":
        return True
    if budget.window[-1] == "s" and budget.window[0].isdigit():
        length = int(budget.window[:-1]) * 1000
        slot = (length + 59) // 60
        return then // slot >= (now - length) // slot
    return _label(budget, then) == _label(budget, now)


def windows_before(budget: Budget, now: int) -> tuple[int, int]:
    """Return when the calendar window before that of ``now`` began, and when it ended (ms)."""

    def began(moment: int) -> int:
        low, high = moment - 33 * 86_400_000, moment  # no calendar window is longer
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if same_window(budget, middle, moment) else (middle, high)
        return high

    end = began(now)
    return began(end - 1), end


def _label(budget: Budget, at: int) -> tuple[object, ...]:
    local = datetime.fromtimestamp(at // 1000, UTC).astimezone(ZoneInfo(budget.timezone))
    match budget.window:
        case "hour":
            return local.date(), local.hour, local.utcoffset()
        case "day":
            return (local.date(),)
        case "week":
            return tuple(local.isocalendar())[:2]
        case _:
            return local.year, local.month


def sums(rows: Iterable[Row], budget: Budget | None, scope: str, now: int) -> tuple[int, int]:
    """Return settled and pending nano-dollars of a scope under a budget at ``now`` (ms), from the ordered rows."""
    held: dict[str, int] = {}
    spent: dict[str, int] = {}
    created: dict[str, int] = {}
    for row in rows:
        if scope not in row.scopes:
            continue
        if row.kind == "reserve" or (row.kind == "reduce" and row.id in held):
            held[row.id] = row.amount_nanousd
        else:
            held.pop(row.id, None)
            spent[row.id] = row.amount_nanousd
        created.setdefault(row.id, round((row.reserved_at if row.kind == "carried" else row.at) * 1000))
    return (
        sum(amount for id_, amount in spent.items() if same_window(budget, created[id_], now)),
        sum(amount for id_, amount in held.items() if same_window(budget, created[id_], now)),
    )


def audit(snapshot: Snapshot, rows: list[Row]) -> None:
    """Compare every figure of a snapshot with the sums of the raw rows.

    Raises:
        AssertionError: They differ, an id was charged twice, or ``global`` carries less than its disjoint parts.
    """
    # An id has one reserve or one booking, whatever was sent twice.
    reserved = [row.id for row in rows if row.kind in {"reserve", "book"}]
    assert len(reserved) == len(set(reserved)), "an id was reserved or booked twice"
    booked = set()
    for account in snapshot.totals:
        budget = snapshot.budget_index.for_scope(account.scope).get(account.window)
        want = sums(rows, budget, account.scope, snapshot.now)
        got = account.settled, account.pending
        assert got == want, f"{account.scope} in {account.window}: {got}, but the rows say {want}"
        booked.add(account.scope)
    # A sum that is not listed could be wrong unseen.
    missing = {scope for row in rows for scope in row.scopes} - booked
    assert not missing, f"booked, but not in the snapshot: {missing}"
    lifetime = {account.scope: account for account in snapshot.totals if account.window == "none"}
    users = [account for scope, account in lifetime.items() if scope.startswith("user:")]
    if (
        users
        and "global" in lifetime
        and all(sum(scope.startswith("user:") for scope in row.scopes) <= 1 for row in rows)
    ):
        top = lifetime["global"]
        assert top.settled >= sum(account.settled for account in users), "users spent more than global"
        assert top.pending >= sum(account.pending for account in users), "users hold more than global"
