"""Slices on a server: the steps of calls that they pay for, each in one with what it changes in the slices' holds.

No I/O, as in ``protocol``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from llm_cost_middleware.budget.model import LIFETIME, Receipt, Reduction, Reservation, RowStatus, Verb
from llm_cost_middleware.budget.rules import BudgetIndex, SliceSums, slice_budget, slices_of
from llm_cost_middleware.budget.rules.slices import ended
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import CommandFlow, Script
from llm_cost_middleware.budget.scripted.protocol import ScriptedProtocol

T = TypeVar("T")
SUFFIX = "+slices"
"""Ends the name of a step that slices pay for."""
_SCOPES_AT = {"resolve": 14, "reduce": 7}
"""Where a step has the scopes of its id among its arguments."""
_KEPT = 10_000


class SliceHold(NamedTuple):
    """A slice, and where what it holds is counted."""

    id: str
    limit: int
    account: str
    """Of its own scope."""
    cell: int
    scopes: tuple[str, ...]
    created: int
    postings: tuple[tuple[str, int], ...]
    """Account and cell of each sum that has its hold."""


class SlicedProtocol(ScriptedProtocol):
    """The verbs of a ledger that pays out of slices."""

    slices = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._holders: OrderedDict[str, tuple[tuple[str, ...], int]] = OrderedDict()

    def within(self, step: Script, slices: list[SliceHold], draw: dict[str, int] | None) -> Script:
        """Return a step with what it changes in the holds of slices, the outermost first.

        Args:
            step: That of the call.
            slices: What the call is paid out of.
            draw: ``amount`` and ``ttl`` (ms) of a reserve; its reply is ``ended`` with settled and pending where the
                innermost slice holds nothing any more.
        """
        raise NotImplementedError

    def reserve(
        self, id_: str, amount: int, scopes: tuple[str, ...], ttl: int, memo: bytes, *, fresh: bool
    ) -> CommandFlow[Reservation]:
        """See ``Backend``."""
        flow = super().reserve(id_, amount, scopes, ttl, memo, fresh=fresh)
        return self._sliced(flow, slices_of(scopes), {"amount": int(amount), "ttl": ttl})

    def resolve(
        self, verb: Verb, id_: str, amount: int, *, scopes: tuple[str, ...] = (), status: RowStatus, memo: bytes = b""
    ) -> CommandFlow[Receipt]:
        """See ``Backend``."""
        return self._sliced(super().resolve(verb, id_, amount, scopes=scopes, status=status, memo=memo))

    def reduce(self, amounts: Sequence[tuple[str, int]]) -> CommandFlow[tuple[Reduction, ...]]:
        """See ``SupportsReduction``."""
        return self._sliced(super().reduce(amounts))

    def sweep(self, *, charge: bool, limit: int) -> CommandFlow[int]:
        """See ``Backend``."""
        return self._sliced(super().sweep(charge=charge, limit=limit))

    def _refresh_budgets(self, now: int, flat: list[bytes]) -> None:
        super()._refresh_budgets(now, flat)
        self._holders.clear()  # the name of a person in their scopes may have been replaced

    def _sliced(
        self, flow: CommandFlow[T], slices: tuple[str, ...] = (), draw: dict[str, int] | None = None
    ) -> CommandFlow[T]:
        reply: Any = None
        while True:
            try:
                command = flow.send(reply)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # what the flow returned
            if isinstance(command, Script):
                place = _SCOPES_AT.get(command.name)
                found = slices if place is None else slices_of(command.args[place].split(" "))
                if found and command.name in {"reserve", *_SCOPES_AT}:
                    holds = yield from self._holds(found)
                    command = self.within(command, holds, draw if command.name == "reserve" else None)
            reply = yield command
            if draw is not None and reply[0] == b"ended":
                raise ended(slices[-1], SliceSums(int(reply[1]), int(reply[2])), draw["amount"])

    def _holds(self, slices: tuple[str, ...]) -> CommandFlow[list[SliceHold]]:
        index: BudgetIndex = self._known[1]
        holds = []
        for scope in slices:
            scopes, created = yield from self._holder(scope)
            postings = index.posting_plan(scopes, created).postings if scopes else ()
            own = index.posting_plan((scope,), created).postings[0]
            budget = slice_budget(scope)
            limit = int(budget.limit_nanousd) if budget else 0
            counted = [(encoding.account_name(posting.scope, posting.window), posting.cell) for posting in postings]
            name = encoding.account_name(scope, LIFETIME)
            holds.append(SliceHold(scope, limit, name, own.cell, scopes, created, tuple(counted)))
        return holds

    def _holder(self, scope: str) -> CommandFlow[tuple[tuple[str, ...], int]]:
        """In which scopes a slice holds, and since when. None where there is no such slice."""
        known = self._holders.get(scope)
        if known is None:
            record = self._record((yield from self.ask_record(scope)))
            known = (record.scopes, record.created) if record is not None else ((), 0)
            if record is not None:
                self._holders[scope] = known
                if len(self._holders) > _KEPT:
                    self._holders.popitem(last=False)
        return known
