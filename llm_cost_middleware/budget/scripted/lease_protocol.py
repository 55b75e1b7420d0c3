"""Parcels of leases on a server: one step each. No I/O, as in ``protocol``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from llm_cost_middleware.budget.rules import BudgetIndex, ReservationRecord
from llm_cost_middleware.budget.rules.leases import Parcel, ParcelEntry, ParcelHold, Shipped
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import MAX_STALE, CommandFlow, Script
from llm_cost_middleware.errors import LedgerUnavailableError


class AccountChange(NamedTuple):
    """What a parcel's calls change in one cell of an account, and where it warns."""

    name: str
    cell: int
    first: int
    warns: str
    settled: int
    pending: int


class HoldChange(NamedTuple):
    """What a block is to hold, and where it is counted."""

    id: str
    amount: int
    ttl: int
    scopes: str
    created: int
    postings: tuple[tuple[str, int], ...]
    """Name and cell of each account."""


class LeaseProtocol:
    """The part of ``ScriptedProtocol`` that takes in parcels."""

    _known: tuple[str, BudgetIndex]
    _recent: OrderedDict[str, ReservationRecord]
    ask_record: Callable[[str], CommandFlow[Any]]
    _record: Callable[[Any], ReservationRecord | None]
    _time: Callable[[], int | str]
    _note_server_time: Callable[[int], int]
    _refresh_budgets: Callable[[int, list[bytes]], None]
    _stale_too_often: Callable[[], LedgerUnavailableError]

    def shipping_script(
        self, entries: list[ParcelEntry], accounts: list[AccountChange], holds: list[HoldChange], head: list[Any]
    ) -> Script:
        """Return the step that takes a parcel in.

        Args:
            entries: Its calls.
            accounts: What they change, added up.
            holds: Its blocks.
            head: The injected time, ms, or an empty string; the version of the budgets.
        """
        raise NotImplementedError

    def ship(self, parcel: Parcel) -> CommandFlow[Shipped]:
        """See ``SupportsLeases``."""
        entries, known = list(parcel.entries), set[str]()
        blocks, gone = [], frozenset(hold.id for hold in parcel.holds if hold.ttl)
        for hold in parcel.holds:
            record = self._recent.get(hold.id)
            if record is None:
                record = self._record((yield from self.ask_record(hold.id)))
            if record is not None:
                blocks.append((hold, record))
                gone -= {hold.id}
        for _ in range(MAX_STALE):
            version, index = self._known
            changes = [_hold_change(hold, record, index) for hold, record in blocks]
            step = self.shipping_script(entries, _account_changes(entries, index), changes, [self._time(), version])
            answer, *facts = yield step
            if answer == b"done":
                now, lost, *crossed = facts
                for hold in parcel.holds:
                    if not hold.ttl:
                        self._recent.pop(hold.id, None)
                names = gone | frozenset(lost.decode().split())
                told = encoding.read_crossed(b",".join(crossed).decode())
                return Shipped(self._note_server_time(int(now)), frozenset(known), names, told)
            if answer == b"taken":  # in, already
                ids = {name.decode() for name in facts}
                known |= ids
                entries = [entry for entry in entries if entry.id not in ids]
            else:
                self._refresh_budgets(*facts)
        raise self._stale_too_often()


def _account_changes(entries: list[ParcelEntry], index: BudgetIndex) -> list[AccountChange]:
    sums: dict[tuple[str, int], list[Any]] = {}
    for entry in entries:
        settled, pending = entry.settled, entry.pending
        for posting in index.posting_plan(entry.scopes, entry.created).postings:
            name = encoding.account_name(posting.scope, posting.window)
            found = sums.get((name, posting.cell))
            if found is None:
                warns = ",".join(str(int(warn)) for warn in posting.warns)
                found = sums[name, posting.cell] = [posting.first_cell, warns, 0, 0]
            found[2] += settled
            found[3] += pending
    # In one order for all: a database locks them one after the other.
    return [AccountChange(*key, *change) for key, change in sorted(sums.items())]


def _hold_change(hold: ParcelHold, record: ReservationRecord, index: BudgetIndex) -> HoldChange:
    postings = index.posting_plan(record.scopes, record.created).postings
    places = tuple((encoding.account_name(posting.scope, posting.window), posting.cell) for posting in postings)
    return HoldChange(hold.id, int(hold.amount), hold.ttl, " ".join(record.scopes), record.created, places)
