"""The stages of a call: each owns its state and the lock around it. No stage calls another while it holds its lock.

``route`` chooses a model, ``cache`` plans its prompt cache, ``price`` quotes an attempt and prices its answer,
``counts`` knows what the provider counted, ``health`` decides on waits and retries, ``record`` keeps records and
notifies observers, ``decisions`` logs, ``waiting`` holds the calls that wait for money, ``deferred``
remembers whose bills come later, ``drift`` watches the promise of learned policies, ``spool`` keeps what the ledger
could not take, ``lanes`` chooses between service tiers for calls that can wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.lifecycle.deferred import DeferredBills
from llm_cost_middleware.lifecycle.spool import Spool
from llm_cost_middleware.lifecycle.stages.cache import CacheStage
from llm_cost_middleware.lifecycle.stages.counts import ProviderCounts
from llm_cost_middleware.lifecycle.stages.decisions import DecisionRecorder
from llm_cost_middleware.lifecycle.stages.drift import DriftStage
from llm_cost_middleware.lifecycle.stages.health import HealthStage
from llm_cost_middleware.lifecycle.stages.lanes import LaneStage
from llm_cost_middleware.lifecycle.stages.price import PriceStage
from llm_cost_middleware.lifecycle.stages.record import CallRecorder
from llm_cost_middleware.lifecycle.stages.route import RouteStage
from llm_cost_middleware.lifecycle.state import CallReport, RoutedCall
from llm_cost_middleware.lifecycle.waiting import WaitingCalls


@dataclass(slots=True)
class Stages:
    """One of each, in the order in which a call meets them. The pipeline makes them."""

    # No named tuple: forty of its fields are read in every call, and a slot costs a quarter.

    route: RouteStage
    cache: CacheStage
    price: PriceStage
    health: HealthStage
    record: CallRecorder
    decisions: DecisionRecorder
    counts: ProviderCounts
    waiting: WaitingCalls
    deferred: DeferredBills
    drift: DriftStage
    spool: Spool | None
    lanes: LaneStage

    def notes(self, report: CallReport) -> Notes | None:
        """What is to be written with the money of a call; ``None`` where the storage cannot."""
        if not self.decisions.rides:
            return None
        return Notes(report.lines, self.cache.take_unsaved())

    def noted(self, report: CallReport, notes: Notes | None) -> None:
        """A call was settled, or the ledger did not answer: what was not written with it is written later."""
        if notes is None:
            return
        if notes.written:
            del report.lines[: len(notes.lines)]
        elif notes.change is not None:
            self.cache.keep_unsaved(notes.change)

    @property
    def logs_in_memory(self) -> bool:
        """Whether nothing that is written down of a call leaves this process, so that writing it waits for nothing."""
        return self.decisions.in_memory and self.cache.in_memory and self.drift.in_memory

    def has_log(self, call: RoutedCall, report: CallReport) -> bool:
        """Whether anything of a call that has ended is left to be written down."""
        return not self.decisions.rides or self.decisions.unwritten(call, report) or self.drift.due

    def write_log(self, call: RoutedCall, report: CallReport) -> None:
        """Write down what a call was beside its money, as far as it did not ride with it. May block."""
        self.decisions.record(call, report)
        if not (self.decisions.rides or self.cache.in_memory):
            self.cache.save()
        if self.drift.due:
            self.drift.look()
