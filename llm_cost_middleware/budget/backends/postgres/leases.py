"""Parcels of leases as arguments of PostgreSQL's function: a column each."""

from __future__ import annotations

import json
from typing import Any

from llm_cost_middleware.budget.rules.leases import ParcelEntry
from llm_cost_middleware.budget.scripted.lease_protocol import AccountChange, HoldChange
from llm_cost_middleware.budget.tallies import MOST_COUNTS, Tally, tally_of

SHIP_TYPES = (
    "bigint text text[] text[] text[] bigint[] bigint[] bigint[] text[] bytea[]"
    " text[] bigint[] bigint[] bigint[] bigint[] bigint[] text[] bigint[] bigint[] text[] bigint[] bigint[] jsonb"
)
LONGEST_KIND = 500  # characters: an index of PostgreSQL takes about 2,700 bytes


def shipped_columns(entries: list[ParcelEntry], accounts: list[AccountChange], holds: list[HoldChange]) -> list[Any]:
    """Return the arguments of a parcel, after the time and the version of the budgets."""
    tallies = [tally_of(entry.memo) if entry.kind == "book" else None for entry in entries]
    told = [None if one is None or len(one.kind) > LONGEST_KIND else one for one in tallies]
    return [
        [entry.kind for entry in entries],
        [entry.id for entry in entries],
        [" ".join(entry.scopes) for entry in entries],
        [int(entry.amount) for entry in entries],
        [entry.created for entry in entries],
        [entry.expires for entry in entries],
        [entry.status for entry in entries],
        [entry.memo for entry in entries],
        [one and one.kind for one in told],
        *([_count(one, place) for one in told] for place in range(MOST_COUNTS)),
        *([change[column] for change in accounts] for column in range(6)),
        json.dumps([hold._asdict() for hold in holds]),
    ]


def _count(tally: Tally | None, place: int) -> int | None:
    return tally.counts[place] if tally is not None and place < len(tally.counts) else None
