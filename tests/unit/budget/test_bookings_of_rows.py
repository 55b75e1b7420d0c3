"""What ids cost, read from rows: the memo of a hold stays that of its end."""

from __future__ import annotations

import pytest

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.rules.bookings import bookings


@pytest.mark.parametrize("reduced", [False, True])
def test_an_end_without_a_memo_has_that_of_its_hold_also_after_a_reduction(reduced):
    with Ledger.open("memory://") as ledger:
        held = ledger.reserve("1", memo=b"of the hold")
        if reduced:
            assert ledger.reduce(held.id, "0.5").released_nanousd
        ledger.settle(held.id, "0.2")
        (booking,) = bookings(ledger.rows)
    assert (booking.memo, booking.amount) == (b"of the hold", 200_000_000)
