"""Texts that can wait: answered in batches of the provider, gone on with after a crash."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_cost_middleware.batches import BatchPendingError, Collected
from llm_cost_middleware.batches.lane import BatchWork, Wishes
from llm_cost_middleware.batches.steps import Steps, Wait, arun, run
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.natural_values import read_patience, read_seconds
from llm_cost_middleware.request import CallRequest
from llm_cost_middleware.routing.batch_lane import WINDOW_S

if TYPE_CHECKING:
    from llm_cost_middleware.patterns.process import PatternCall
    from llm_cost_middleware.patterns.progress_file import BatchLine, ProgressFile

Tell = Callable[[int, int], object]
_PAUSE_S, _SLOWER, _LONGEST_S = 5.0, 1.5, 300.0


class Patient(NamedTuple):
    """How long somebody can wait, and block."""

    patience_s: float
    timeout_s: float | None = None

    @classmethod
    def read(cls, patience: Any, timeout: Any) -> Patient | None:
        """Read what a caller says; ``None`` where nothing waits. Raises ``ConfigurationError``."""
        found = read_patience(patience, "patience")
        timeout_s = None if timeout is None else read_seconds(timeout, "timeout")
        return None if found is None else cls(found, timeout_s)

    def quoted(self, request: CallRequest) -> CallRequest:
        """A request as it is quoted: at the batch price, where its answer can wait for one."""
        if self.patience_s < WINDOW_S:
            return request
        return request._replace(params={**request.params, "batch": True})

    def run(
        self, call: PatternCall, items: list[str], file: ProgressFile | None, tell: Tell, most: int | None
    ) -> tuple[str, dict[int, Any]]:  # fmt: skip
        """Answer texts; returns the id of their batch, and outcomes and errors by place."""
        work = _Work(self, call, items, file, tell, most)
        return run(
            work.steps(), call.pipeline.clock, lambda at, wait: work.counted(call.send(work.text(at), wait_s=wait))
        )

    async def arun(
        self, call: PatternCall, items: list[str], file: ProgressFile | None, tell: Tell, most: int | None
    ) -> tuple[str, dict[int, Any]]:  # fmt: skip
        """``run`` on an event loop."""
        work = _Work(self, call, items, file, tell, most)

        async def send(at: int, wait: float | None) -> CallOutcome:
            return work.counted(await call.asend(work.text(at), wait_s=wait))

        return await arun(work.steps(), call.pipeline.clock, send)


@dataclass(slots=True)
class _Work:
    """The texts on their way. ``places`` are those that are sent now."""

    patient: Patient
    call: PatternCall
    items: list[str]
    file: ProgressFile | None
    tell: Tell
    most: int | None
    """Nano-dollars that may be spent; batches are held within it."""
    places: list[int] = field(default_factory=list)
    called: int = 0
    """Nano-dollars that ordinary calls have cost."""
    batches: BatchWork | None = None

    def text(self, at: int) -> str:
        """The text to send, while money is left: the first call that passes the limit is the last."""
        if self.most is not None and self.batches is not None:
            spent = self.called + self.batches.spent
            if spent > self.most:
                raise BudgetExceededError(NanoUSD(spent).usd, NanoUSD(self.most).usd)
        return self.items[self.places[at]]

    def counted(self, answer: CallOutcome) -> CallOutcome:
        """Count what an ordinary call has cost."""
        self.called += sum(record.cost_nanousd for record in answer.records)
        return answer

    def steps(self) -> Steps[tuple[str, dict[int, Any]]]:
        pipeline, timeout_s, found, batch_id = self.call.pipeline, self.patient.timeout_s, dict[int, Any](), ""
        until = None if timeout_s is None else pipeline.clock.monotonic() + timeout_s
        done = set(self.file.done) if self.file is not None else set[int]()
        for line in self.file.batches if self.file is not None else ():
            batch_id = line.batch_id
            found |= yield from self._earlier(line, done, until)
        self.places = [at for at in range(len(self.items)) if at not in done and at not in found]
        if not self.places:
            return batch_id, found
        batch_id = f"b{os.urandom(6).hex()}"
        if self.file is not None:
            self.file.begin(batch_id, self.places)
        left = None if until is None else max(until - pipeline.clock.monotonic(), 0.0)
        wishes = Wishes(
            self.patient.patience_s, left, partial=True, run=batch_id, progress=self._told(len(found)), most=self.most
        )
        items = [self.call.batch_item(self.items[at]) for at in self.places]
        self.batches = pipeline.batch_work(items, wishes)
        answers = yield from self.batches.steps()
        for at, one in zip(self.places, answers.results, strict=True):
            found[at] = one.outcome if one.outcome is not None else one.error
        return answers.batch_id, found

    def _told(self, before: int) -> Tell:
        return lambda done, total: self.tell(before + done, before + total)

    def _earlier(self, line: BatchLine, done: set[int], until: float | None) -> Steps[dict[int, Any]]:
        """What a batch of an earlier run has brought, by place. What it lacks is sent again."""
        pipeline, clock, pause = self.call.pipeline, self.call.pipeline.clock, _PAUSE_S
        if all(place in done for place in line.places) or not pipeline.knows_batch(line.batch_id):
            return {}
        while True:
            collected: Collected = yield from pipeline.collecting_steps(line.batch_id, self.call.plain)
            if not collected.pending:
                break
            left = None if until is None else until - clock.monotonic()
            if left is not None and left <= 0:
                raise BatchPendingError(line.batch_id, collected.pending, len(line.places))
            yield Wait(pause if left is None else min(pause, left))
            pause = min(pause * _SLOWER, _LONGEST_S)
        found: dict[int, Any] = {}
        for at, response in collected.responses.items():
            place, record = line.places[at], collected.records[at]
            if place not in done:
                request = self.call.request(self.items[place])._replace(model=record.model, model_pinned=True)
                decision = pipeline.decision_of(request)._replace(lane="batch")
                found[place] = CallOutcome(response, record.call_id, decision, (record,))
        for at, error in collected.errors.items():
            if not error.may_be_sent_again and line.places[at] not in done:
                found[line.places[at]] = error
        return found
