"""Slices: a part of the money that is left, set aside for one child and what it starts.

A slice is a hold in its parents' scopes, whose id is its own scope. Everything that it pays for is booked in the scopes
of the call, those of the parents and of the slice among them, and the hold is what of the limit is not booked:

    held = limit - (settled + pending of the slice's scope), and never below zero

So a call of the slice moves money from the hold to a hold of its own: the parents' sums stay, no other call can come
between, and what it did not need goes back to the slice. The limit stands in the name, so that whoever is handed the
scope knows it, in another process too. Ended, or expired, the hold is released: what is left returns to the parents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, Protocol, runtime_checkable

from llm_cost_middleware.budget.model import LIFETIME, Budget, make_scope
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD

SLICE = "slice"
"""The kind of their scopes."""
_FORM = re.compile(r"slice:.*~(\d{1,16})~[0-9a-f]+\Z")
_NAME_BYTES = 150


@runtime_checkable
class SupportsSlices(Protocol):
    """Ability of a backend to pay for calls out of slices; it has no verb of its own.

    A reserve whose scopes name a slice takes its amount out of the slice's hold in the same atomic step, or is refused;
    whatever changes what such a call holds or cost sets the holds of its slices right, the innermost first.
    """

    @property
    def slices(self) -> bool:
        """True."""
        ...


class SliceSums(NamedTuple):
    """Sums of a slice's own scope."""

    settled: int
    pending: int


def slice_scope(name: str, limit: NanoUSD, unique: str) -> str:
    """Make the scope of a new slice. Raises ``InvalidScopeError``."""
    short = name.encode()[:_NAME_BYTES].decode(errors="ignore")
    return make_scope(SLICE, f"{short}~{int(limit)}~{unique}")


@lru_cache(maxsize=16_384)
def slice_budget(scope: str) -> Budget | None:
    """Return the limit of a slice as the budget that it is; ``None`` for other scopes."""
    match = _FORM.match(scope)
    return Budget(scope, NanoUSD(int(match[1])), LIFETIME, warn_at=None) if match else None


def slices_of(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return the slices among scopes, the innermost last."""
    return tuple(scope for scope in scopes if scope.startswith("slice:") and slice_budget(scope) is not None)


def held_by(scope: str, sums: SliceSums) -> int:
    """Return what the hold of a slice must be."""
    budget = slice_budget(scope)
    return max(budget.limit_nanousd - sum(sums), 0) if budget is not None else 0


def ended(scope: str, sums: SliceSums, requested: int) -> BudgetExceededError:
    """Return the refusal of a call whose slice has ended, or never was in this ledger."""
    budget = slice_budget(scope)
    limit = budget.limit_nanousd if budget is not None else 0
    left = max(limit - sum(sums), 0)
    return BudgetExceededError(
        NanoUSD(sums.settled).usd,
        NanoUSD(limit).usd,
        scope=scope,
        settled=NanoUSD(sums.settled).usd,
        pending=NanoUSD(sums.pending).usd,
        requested=NanoUSD(requested).usd,
        kept=NanoUSD(left).usd,
        window=LIFETIME,
        advice="the slice has ended: what it had left is its parents' again",
    )
