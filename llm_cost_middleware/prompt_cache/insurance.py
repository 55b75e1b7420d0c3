"""Insurance of cache writes: what they may risk, so that no traffic makes caching expensive.

Writes that come to nothing may cost as much as caching has saved, and beyond that one hundredth of all input, or the
price of 1.4 prompts of usual size to begin with. A write is charged with the part of its price that evidence does not
cover: with the odds, proven by returns that were seen, that it will be read. Until it is read or has expired it is not
lost, so the covered part is lent back for as long. Where evidence covers all but a tenth, a write needs no allowance.
But what came back once may still not come back twice: whatever covers a write, no more than a fifth of all input is out
before it was read, or the price of twelve prompts to begin with.
"""

from __future__ import annotations

from typing import NamedTuple

_INSURED_SHARE = 100
"""Writes that come to nothing may cost one part in so many of all input, beyond what caching has saved."""
_FIRST_PER_CENT = 140
"""Writes may cost so many hundredths of a prompt of usual size from the first call on: one per cent of 140 calls."""
_TRUSTED_PER_CENT, _TRUSTED_FIRST = 20, 12
"""Writes may cost so many hundredths of all input before any of it was read, or so many prompts of usual size."""
_SLOT_S = 60.0
"""Loans that end within so many seconds of each other are one sum."""


class Loan(NamedTuple):
    """The covered part of the price of a write that has not been read yet."""

    slot: int
    """When it ends, in slots since the clock's zero."""
    amount: int
    """Pico-dollars."""


class WriteInsurance:
    """Balance of savings and writes, in pico-dollars. Mutable; its owner holds the lock."""

    def __init__(self) -> None:
        self.saved = 0
        """What caching has saved less what it has cost."""
        self.input_cost = 0
        """What all input would have cost uncached."""
        self.calls = 0
        """Answered calls."""
        self.lent: dict[int, int] = {}
        """What is lent on writes that nobody has read yet, by the slot in which they expire."""
        self._held = 0

    def allowance(self, prompt_cost: int, now: float) -> int:
        """Return the most that a request's writes may put at risk."""
        this = int(now / _SLOT_S)
        for slot in [slot for slot in self.lent if slot <= this]:
            del self.lent[slot]
        usual = self.input_cost // self.calls if self.calls else prompt_cost
        share = max(self.input_cost // _INSURED_SHARE, min(usual, prompt_cost) * _FIRST_PER_CENT // 100)
        return self.saved + sum(self.lent.values()) - self._held + share

    def trust(self, prompt_cost: int) -> int:
        """Return the most that a request's writes may cost, however much of it evidence covers."""
        usual = self.input_cost // self.calls if self.calls else prompt_cost
        return self.saved + max(self.input_cost * _TRUSTED_PER_CENT // 100, usual * _TRUSTED_FIRST)

    def hold(self, risk: int) -> None:
        """Take a risk from the allowance until its outcome is known: concurrent calls must not take it twice."""
        self._held += risk

    def release(self, risk: int) -> None:
        """Give a held risk back."""
        self._held -= risk

    def book(self, saving: int, input_cost: int) -> None:
        """Book what an answered call has saved (negative: paid for writes), and what its input cost uncached."""
        self.saved += saving
        self.input_cost += input_cost
        self.calls += 1

    def lose(self, risk: int) -> None:
        """Book what was risked on an attempt that may have been billed, and of which nothing more is known."""
        self.saved -= risk

    def lend(self, amount: int, until: float) -> Loan:
        """Lend the covered part of a write until it expires."""
        loan = Loan(int(until / _SLOT_S), amount)
        self.lent[loan.slot] = self.lent.get(loan.slot, 0) + amount
        return loan

    def repay(self, loan: Loan) -> None:
        """End a loan: the write was read."""
        if loan.slot in self.lent:
            self.lent[loan.slot] -= loan.amount
