"""Ctrl-C at any line of a step of the ledger in memory: the step was taken, or it was not, in every scope."""

from __future__ import annotations

import linecache
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from llm_cost_middleware.budget.backends import memory
from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.budget.rules import transitions
from llm_cost_middleware.budget.rules.slices import slice_scope
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.testing.oracle import audit

WALKED = (str(Path(memory.__file__).parent), transitions.__file__)
SCOPES = ("user:a", "team:t")
SLICE = slice_scope("child", NanoUSD(200_000_000), "a1")


class Step:
    """A ledger that was used a little, the same each time, and what is done with it next."""

    def __init__(self, name):
        self.clock = FakeClock()
        self.ledger = Ledger(MemoryBackend(self.clock), clock=self.clock)
        self.name = name
        for budget in (
            Budget("global", "1", warn_at=0.01),
            Budget("user:*", "0.5", "day"),
            Budget("team:t", "0.9", "3600s"),
        ):
            self.ledger.set_budget(budget)
        self.ledger.reserve("0.2", SCOPES, id=SLICE)
        for each in ("open", "other", "late", "right"):
            self.ledger.reserve("0.01", SCOPES, id=each, ttl=60 if each == "late" else 900)
        self.ledger.reserve("0.01", (*SCOPES, SLICE), id="within")
        self.ledger.reserve("0", SCOPES, id="nothing")
        self.ledger.settle("right", "0.005")
        self.clock.advance(100)
        if name != "expire":
            self.ledger.sweep()

    def take(self):
        return getattr(self, self.name)()

    def reserve(self):
        self.ledger.reserve("0.02", SCOPES, id="new")

    def reserve_a_new_scope(self):
        self.ledger.reserve("0.02", ("user:b", "site:s"), id="new")

    def reserve_in_a_slice(self):
        self.ledger.reserve("0.02", (*SCOPES, SLICE), id="new")

    def refuse(self):
        with suppress(BudgetExceededError):
            self.ledger.reserve("0.8", SCOPES, id="new")

    def settle(self):
        self.ledger.settle("open", "0.015")

    def settle_in_a_slice(self):
        self.ledger.settle("within", "0.015")

    def settle_a_hold_of_nothing(self):
        self.ledger.settle("nothing", "0.003")

    def settle_late(self):
        self.ledger.settle("late", "0.004")

    def void(self):
        self.ledger.void("open")

    def void_late(self):
        self.ledger.void("late")

    def reconcile(self):
        self.ledger.reconcile("right", "0.006")

    def book(self):
        self.ledger.book("0.03", SCOPES, id="new")

    def expire(self):
        self.ledger.sweep()

    def reduce(self):
        self.ledger.reduce("open", "0.001")

    def reduce_in_a_slice(self):
        self.ledger.reduce("within", "0.001")

    def set_budget(self):
        self.ledger.set_budget(Budget("team:*", "0.8", "day"))

    def set_another_zone(self):
        self.ledger.set_budget(Budget("user:*", "0.5", "day", timezone="Asia/Tokyo"))

    def remove_budget(self):
        with suppress(Exception):  # the second time there is none
            self.ledger.remove_budget("team:t", "3600s")

    @property
    def sums(self):
        """Every sum that the ledger has; all of them must be those of its rows."""
        seen = self.ledger._backend.read(None)
        audit(seen, list(self.ledger.rows()))
        return {
            total.scope + " " + total.window: (total.settled, total.pending)
            for total in seen.totals
            if any((total.settled, total.pending))
        }


STEPS = [name for name in vars(Step) if not name.startswith("_") and name not in ("take", "sums")]


def _is_passed_over(frame):
    """Where an error that is raised for a line passes by the handlers around it, as one of a signal does not.

    At ``with`` and ``try`` nothing is called; a comprehension is a part of its function since Python 3.12.
    """
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return line.startswith(("with ", "try:")) or (" for " in line and line.endswith(("}", "]", ")")))


def interrupted(step, at):
    """Take a step with an interrupt at one of its lines; return how many lines it came to."""
    lines = 0

    def trace(frame, event, _):
        nonlocal lines
        if event == "line" and frame.f_code.co_filename.startswith(WALKED) and not _is_passed_over(frame):
            lines += 1
            if lines == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        step.take()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("name", STEPS)
def test_an_interrupt_at_any_line_of_a_step_leaves_all_of_it_or_nothing(name):
    whole = Step(name)
    before = whole.sums
    count = interrupted(whole, 0)
    after = whole.sums
    assert count > 5
    for at in range(1, count + 1):
        step = Step(name)
        assert interrupted(step, at) == at
        assert step.sums in (before, after), f"line {at} of {count}"
        step.take()
        assert step.sums == after, f"the second go after line {at} of {count}"
