"""Reductions of reservations, one step each. No I/O, as in ``protocol``."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from llm_cost_middleware.budget.model import Reduction
from llm_cost_middleware.budget.rules import BudgetIndex, ReservationRecord, apply_reduction, reduction
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import MAX_STALE, CommandFlow, Script
from llm_cost_middleware.errors import LedgerUnavailableError


class ReductionProtocol:
    """The part of ``ScriptedProtocol`` that gives back what is held too much."""

    _known: tuple[str, BudgetIndex]
    _recent: OrderedDict[str, ReservationRecord]
    ask_record: Callable[[str], CommandFlow[Any]]
    _keys: Callable[[str, Any], list[str]]
    _record: Callable[[Any], ReservationRecord | None]
    _script_arguments: Callable[..., Any]
    _time: Callable[[], int | str]
    _refresh_budgets: Callable[[int, list[bytes]], None]
    _stale_too_often: Callable[[], LedgerUnavailableError]

    def reduce(self, amounts: Sequence[tuple[str, int]]) -> CommandFlow[tuple[Reduction, ...]]:
        """See ``SupportsReduction``; each in a step of its own."""
        made = []
        for id_, amount in amounts:
            made.append((yield from self._reduce(id_, int(amount))))
        return tuple(made)

    def _reduce(self, id_: str, amount: int) -> CommandFlow[Reduction]:
        record = self._recent.get(id_)
        if record is None:
            record = self._record((yield from self.ask_record(id_)))
        writer = os.urandom(8).hex()  # if its reply is lost, it is sent again
        for _ in range(MAX_STALE):
            made = reduction(record, id_, amount)
            if record is None or not made.released_nanousd:
                return made
            version, index = self._known
            laid = self._script_arguments(record.scopes, index.posting_plan(record.scopes, record.created))
            args = [
                self._time(), version, id_, record.created, record.amount, int(made.amount_nanousd),
                -int(made.released_nanousd), " ".join(record.scopes), writer,
            ]  # fmt: skip
            answer, *facts = yield Script("reduce", self._keys(id_, laid), args + laid.warns)
            fields = encoding.hash_fields(facts[0]) if answer == b"known" else {}
            if answer == b"done" or fields.get(b"reducer") == writer.encode():
                if (recent := self._recent.get(id_)) is not None:  # else it was resolved meanwhile
                    apply_reduction(recent, made)
                return made
            if answer == b"known":
                record = self._record(fields)
            else:
                self._refresh_budgets(*facts)
        raise self._stale_too_often()
