"""Kinds of memos by number: a row says of which kind its memo is, and its counts, so that SQL can add them up."""

from __future__ import annotations

import sqlite3

from llm_cost_middleware.budget.tallies import MOST_COUNTS, Tally

COUNTS = tuple(f"count_{number}" for number in range(1, MOST_COUNTS + 1))
_NONE: tuple[int | None, ...] = (None,) * (1 + MOST_COUNTS)
_MOST_KINDS = 10_000
"""Whose models are named at random must not fill the table: the memos of further kinds are read one by one."""


class MemoKinds:
    """The kinds that this process has met. Used inside of transactions of the writer."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def clear(self) -> None:
        """Forget them: a transaction was rolled back."""
        self._known = {}

    def columns(self, db: sqlite3.Connection, tally: Tally | None) -> tuple[int | None, ...]:
        """Return the columns of a row: the number of the kind, then the counts."""
        if tally is None:
            return _NONE
        number = self._known.get(tally.kind)
        if number is None:
            number = self._number(db, tally.kind)
            if number is None:
                return _NONE
            self._known[tally.kind] = number
        return (number, *tally.counts, *_NONE[len(tally.counts) + 1 :])

    def _number(self, db: sqlite3.Connection, kind: str) -> int | None:
        found = db.execute("SELECT id FROM memo_kind WHERE data = ?", (kind,)).fetchone()
        if found is None:
            made = db.execute(
                "INSERT INTO memo_kind (data) SELECT ? WHERE (SELECT count(*) FROM memo_kind) < ? RETURNING id",
                (kind, _MOST_KINDS),
            )
            found = made.fetchone()
        return None if found is None else int(found[0])
