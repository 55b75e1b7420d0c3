"""Accounts of a ledger in memory, and the cells of time that keep their sums."""

from __future__ import annotations

from llm_cost_middleware.budget.rules import AccountPosting

NEVER = 2**63
"""A sum that no account comes to."""


class Cell:
    """Sums of one account in one stretch of time."""

    __slots__ = ("account", "index", "pending", "settled")

    def __init__(self, account: Account, index: int) -> None:
        self.account, self.index = account, index
        self.settled = self.pending = 0


class Account:
    """One scope in one window: its cells, the settled sum from which on a warning is due, the cell that last warned."""

    __slots__ = ("cells", "key", "seen", "warn_threshold", "warned")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key, self.warn_threshold, self.warned, self.seen = key, NEVER, -1, 0
        self.cells: dict[int, Cell] = {}

    def cell(self, index: int) -> Cell:
        """Return the cell of a stretch of time."""
        return self.cells.get(index) or self.cells.setdefault(index, Cell(self, index))

    def counted(self, posting: AccountPosting) -> tuple[int, int]:
        """Return settled and pending in the window of a posting."""
        if not posting.rolling:
            cell = self.cells.get(posting.cell)
            return (cell.settled, cell.pending) if cell else (0, 0)
        counted = [cell for index, cell in self.cells.items() if index >= posting.first_cell]
        return sum(cell.settled for cell in counted), sum(cell.pending for cell in counted)


def carried(account: Account | None, posting: AccountPosting) -> int:
    """What the limit of an account has from the window before."""
    if posting.carry is None:
        return 0
    return posting.carry.unused(*(account.counted(posting.preceding()) if account else (0, 0)))
