"""The verbs over budgets: what they hold is counted first, and written in one step. No I/O, as in ``protocol``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from llm_cost_middleware.budget.backend import BudgetStep
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import (
    BudgetChange,
    BudgetIndex,
    EntryDelta,
    backfill_start,
    budget_changes,
    rebuild_totals,
    removing,
    scope_matches,
    setting,
)
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import CommandFlow, Script
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LedgerUnavailableError

_TRIES = 1000  # other processes append rows while these are counted


_Totals = dict[str, dict[int, list[int]]]


class Counted(NamedTuple):
    """Rows that changed budgets are to hold: up to which one they were read, and what they changed, by budget.

    ``whole``: all of them, else those alone that came since the last try.
    """

    last: str
    deltas: list[Iterable[EntryDelta]]
    whole: bool = True


class BudgetProtocol:
    """The part of ``ScriptedProtocol`` that keeps budgets and their register."""

    _clock: Clock | None
    _known: tuple[str, BudgetIndex]
    _now: Callable[[], int]
    key: Callable[[str], str]
    ask_time: Callable[[], CommandFlow[int]]
    ask_budgets: Callable[[], CommandFlow[dict[bytes, bytes]]]
    ask_accounts: Callable[[], CommandFlow[list[tuple[str, str]]]]
    _note_server_time: Callable[[int], int]
    _refresh_budgets: Callable[[int, list[bytes]], None]
    _stale_too_often: Callable[[], LedgerUnavailableError]

    def set_budget(self, budget: Budget) -> CommandFlow[None]:
        """See ``Backend``."""
        yield from self._amend(setting(budget))

    def remove_budget(self, scope: str, window: str) -> CommandFlow[bool]:
        """See ``Backend``."""
        return (yield from self._amend(removing((scope, window))))

    def amend(self, decide: BudgetStep) -> CommandFlow[None]:
        """See ``SupportsRegister``."""
        yield from self._amend(decide)

    def register(self) -> CommandFlow[bytes]:
        """See ``SupportsRegister``."""
        return (yield from self.ask_budgets()).get(encoding.REGISTER, b"")

    def ask_deltas(self, moved: list[BudgetChange], seen: list[Any]) -> CommandFlow[Counted]:
        """Ask what the rows changed that some budgets are to hold. ``seen`` is kept between the tries of one change."""
        raise NotImplementedError

    def _amend(self, decide: BudgetStep) -> CommandFlow[bool]:
        """Do what ``decide`` says; return whether it changed anything. What is booked meanwhile is counted as well.

        Between the last row that is read and the step lies no more than the sums of the rows since the try before:
        writers that never rest must leave a gap as long as that, once.
        """
        seen: list[Any] = []
        totals: list[_Totals] = []
        for _ in range(_TRIES):
            if self._clock is None:
                self._note_server_time((yield from self.ask_time()))
            fields = yield from self.ask_budgets()
            self._refresh_budgets(0, [part for pair in fields.items() for part in pair])
            (version, index), before = self._known, fields.get(encoding.REGISTER, b"")
            amended = decide(before, index.budgets, self._now())
            changes = budget_changes(index.budgets, amended.budgets) if amended is not None else ()
            if amended is None or (not changes and amended.document == before):
                return False
            keys = [self.key("budgets"), self.key("seq"), self.key("accounts")]
            args: list[Any] = [version, "", amended.document, len(changes)]
            for change in changes:
                facts = "" if change.after is None else encoding.encode_budget(change.after)
                args += encoding.account_name(*change.key), facts
            moved = [change for change in changes if change.moved]
            if moved:
                filled = yield from self._emptied(moved)
                counted = yield from self.ask_deltas(moved, seen)
                args[1] = counted.last
                _add_up(totals, moved, counted, BudgetIndex(amended.budgets))
                for name, cells in (filled | _fields(moved, totals)).items():
                    keys.append(self.key(f"a:{name}"))
                    flat = [part for field in cells.items() for part in field]
                    args += name, len(flat), *flat
            answer, *_ = yield Script("amend", keys, args)
            if answer == b"done":
                return True
            if answer == b"stale":  # rows may have been archived, too
                seen.clear()
        raise self._stale_too_often()

    def _counts_from(self, change: BudgetChange) -> int:
        """From which time on (ms) the rows are counted into a changed budget."""
        return backfill_start(change.key[1], change.timezone, self._now())

    def _emptied(self, moved: list[BudgetChange]) -> CommandFlow[dict[str, dict[str, int]]]:
        """Name the accounts of changed budgets, which are written anew."""
        accounts = yield from self.ask_accounts()
        return {
            encoding.account_name(scope, window): {}
            for change in moved
            for scope, window in accounts
            if window == change.key[1] and scope_matches(change.key[0], scope)
        }


def _add_up(totals: list[_Totals], moved: list[BudgetChange], counted: Counted, after: BudgetIndex) -> None:
    """Add what was counted to the sums of each budget."""
    if counted.whole:
        totals[:] = [{} for _ in moved]
    for total, change, deltas in zip(totals, moved, counted.deltas, strict=True):
        for scope, by_cell in rebuild_totals(deltas, *change.key, after).items():
            known = total.setdefault(scope, {})
            for cell, (settled, pending) in by_cell.items():
                sums = known.setdefault(cell, [0, 0])
                sums[0] += settled
                sums[1] += pending


def _fields(moved: list[BudgetChange], totals: list[_Totals]) -> dict[str, dict[str, int]]:
    """Return the sums of accounts as the step takes them."""
    filled = {}
    for change, total in zip(moved, totals, strict=True):
        for scope, by_cell in total.items():
            fields: dict[str, int] = {}
            for cell, (settled, pending) in by_cell.items():
                fields[f"{cell}:s"], fields[f"{cell}:p"] = settled, pending
            filled[encoding.account_name(scope, change.key[1])] = fields
    return filled
