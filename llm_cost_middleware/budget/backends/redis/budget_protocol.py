"""The verbs over budgets in Redis: counted without a lock, written in one script. No I/O, as in ``protocol``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_cost_middleware.budget.backend import BudgetStep
from llm_cost_middleware.budget.backends.redis import encoding
from llm_cost_middleware.budget.backends.redis.commands import CommandFlow, RedisCommand, RedisScript
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import (
    Amended,
    BudgetChange,
    BudgetIndex,
    backfill_start,
    budget_changes,
    rebuild_totals,
    scope_matches,
)
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LedgerUnavailableError

_TRIES = 1000  # other processes append rows while these are counted
_Stream = list[tuple[bytes, dict[bytes, bytes]]]


class BudgetProtocol:
    """The part of ``RedisProtocol`` that keeps budgets and their register."""

    _clock: Clock | None
    _known: tuple[str, BudgetIndex]
    _now: Callable[[], int]
    key: Callable[[str], str]
    read_block: Callable[[int], CommandFlow[_Stream]]
    _note_server_time: Callable[[int], int]
    _refresh_budgets: Callable[[int, list[bytes]], None]
    _stale_too_often: Callable[[], LedgerUnavailableError]

    def set_budget(self, budget: Budget) -> CommandFlow[None]:
        """See ``Backend``."""

        def step(document: bytes, budgets: tuple[Budget, ...], _: int) -> Amended | None:
            return Amended(document, (*(known for known in budgets if known.key != budget.key), budget))

        yield from self._amend(step)

    def remove_budget(self, scope: str, window: str) -> CommandFlow[bool]:
        """See ``Backend``."""

        def step(document: bytes, budgets: tuple[Budget, ...], _: int) -> Amended | None:
            return Amended(document, tuple(known for known in budgets if known.key != (scope, window)))

        return (yield from self._amend(step))

    def amend(self, decide: BudgetStep) -> CommandFlow[None]:
        """See ``SupportsRegister``."""
        yield from self._amend(decide)

    def register(self) -> CommandFlow[bytes]:
        """See ``SupportsRegister``."""
        return (yield RedisCommand(("HGET", self.key("budgets"), encoding.REGISTER))) or b""

    def _amend(self, decide: BudgetStep) -> CommandFlow[bool]:
        """Do what ``decide`` says; return whether it changed anything. What is counted meanwhile is counted again."""
        stream: _Stream = []
        for _ in range(_TRIES):
            if self._clock is None:
                seconds, micros = yield RedisCommand(("TIME",))
                self._note_server_time(int(seconds) * 1000 + int(micros) // 1000)
            fields = yield RedisCommand(("HGETALL", self.key("budgets")))
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
                last = encoding.row_number(stream[-1][0]) if stream else 0
                while block := (yield from self.read_block(last)):
                    stream += block
                    last = encoding.row_number(block[-1][0])
                args[1] = str(last)
                filled = yield from self._refilled(moved, BudgetIndex(amended.budgets), stream)
                for name, cells in filled.items():
                    keys.append(self.key(f"a:{name}"))
                    flat = [part for field in cells.items() for part in field]
                    args += name, len(flat), *flat
            answer, *_ = yield RedisScript("amend", keys, args)
            if answer == b"done":
                return True
        raise self._stale_too_often()

    def _refilled(
        self, moved: list[BudgetChange], index: BudgetIndex, stream: _Stream
    ) -> CommandFlow[dict[str, dict[str, int]]]:
        """Compute the accounts to rewrite under changed budgets, and their sums."""
        names = yield RedisCommand(("SMEMBERS", self.key("accounts")))
        accounts = [encoding.parse_account(name.decode()) for name in names]
        filled: dict[str, dict[str, int]] = {}
        for change in moved:
            pattern, window = change.key
            for scope, its_window in accounts:
                if its_window == window and scope_matches(pattern, scope):
                    filled[encoding.account_name(scope, window)] = {}
        for change in moved:
            pattern, window = change.key
            deltas = encoding.read_deltas(stream, backfill_start(window, change.timezone, self._now()))
            for scope, sums in rebuild_totals(deltas, pattern, window, index).items():
                fields: dict[str, int] = {}
                filled[encoding.account_name(scope, window)] = fields
                for cell, (settled, pending) in sums.items():
                    fields[f"{cell}:s"], fields[f"{cell}:p"] = settled, pending
        return filled
