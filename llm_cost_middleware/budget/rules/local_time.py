"""The offset of local time, for storages that add rows up by SQL."""

from __future__ import annotations

from collections.abc import Callable

from llm_cost_middleware.budget.rules.rollup import DAY


def local_offset(offset: Callable[[int], int] | None, first: int, last: int) -> str:
    """Return local time less UTC of a row's ``created``, as an expression of SQL: it changes once or twice a year.

    Args:
        offset: It at a moment, ms both; ``None``: UTC.
        first: A moment that no row was reserved before, ms.
        last: One that none was reserved after.
    """
    if offset is None:
        return "0"
    changes = []
    before, at = offset(first), first
    while at < last:
        at, earlier = min(at + DAY, last), at
        after = offset(at)
        if after != before:
            low, high = earlier, at  # the moment of the change lies between
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            changes.append(f"WHEN created < {high} THEN {before}")
            before = after
    return f"CASE {' '.join(changes)} ELSE {before} END" if changes else str(before)
