"""The way of requests through batches: held, sent once, waited for, collected, and what was not answered sent again."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llm_cost_middleware.batches.apis import APIS
from llm_cost_middleware.batches.book import KnownBatch
from llm_cost_middleware.batches.collecting import Collecting, missing
from llm_cost_middleware.batches.errors import BatchItemError, BatchPendingError
from llm_cost_middleware.batches.limits import custom_id
from llm_cost_middleware.batches.planning import BatchItem, Division, Planned, divide
from llm_cost_middleware.batches.results import BatchAnswers, ItemResult
from llm_cost_middleware.batches.steps import SendEach, Steps, Wait, Work
from llm_cost_middleware.errors import BudgetExceededError, LedgerError
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.money import ZERO, NanoUSD, floor_nanousd
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.batch_lane import WINDOW_S

_log = logging.getLogger(__name__)
Unanswered = Literal["resend", "return"]
_FIRST_LOOK_S, _SLOWER, _LONGEST_PAUSE_S = 5.0, 1.5, 300.0
_MARGIN_S, _MARGIN_SHARE = 1_800.0, 0.1
"""Before the deadline a batch is cancelled, which may take ten minutes, and the rest is sent as ordinary calls."""
_TRIES = 5
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


@dataclass(slots=True)
class Wishes:
    """What the caller asked for."""

    patience_s: float | None
    timeout_s: float | None = None
    unanswered: Unanswered = "resend"
    partial: bool = False
    """What does not fit is left out; otherwise nothing is sent."""
    progress: Callable[[int, int], object] | None = None
    run: str = ""
    """The id of the work; drawn, where empty."""
    most: int | None = None
    """Nano-dollars that all batches together may hold, beside the budgets of the ledger."""


@dataclass(slots=True)
class Running:
    """A batch on its way, with the requests that are in it."""

    known: KnownBatch
    planned: list[Planned]
    client: Any
    looked_at: float = 0.0
    cancelled: bool = False


@dataclass(slots=True)
class BatchWork(Collecting):
    """One list of requests on its way through batches."""

    items: Sequence[BatchItem]
    wishes: Wishes
    currency: Any = None
    results: dict[int, ItemResult] = field(default_factory=dict)
    rounds: int = 0
    sent: list[Running] = field(default_factory=list)
    """Every batch that was held."""

    def steps(self) -> Steps[BatchAnswers]:
        """Send everything, wait, collect, and send again what was not answered.

        Raises:
            BudgetExceededError: It does not fit, and ``partial`` is not asked for; nothing was sent.
            BatchPendingError: It was not answered within the timeout.
        """
        wishes, started = self.wishes, self.clock.now()
        wishes.run = wishes.run or f"b{os.urandom(6).hex()}"
        deadline = started + (wishes.patience_s or 0.0)
        until = None if wishes.timeout_s is None else self.clock.monotonic() + wishes.timeout_s
        todo: Sequence[int] = range(len(self.items))
        sent_any = False
        while todo:
            left = deadline - self.clock.now()
            patience = None if wishes.patience_s is None else wishes.patience_s if not self.rounds else left
            refused = {place: "its batch was refused" for place in todo if self._was_refused(place)}
            places = [place for place in todo if place not in refused]
            division = yield Work(lambda few=places, wait=patience: divide(self.flow, self.items, few, wait))  # type: ignore[misc]  # bound now
            division.apart.update(refused)
            self.results.update((place, ItemResult(error=error)) for place, error in division.errors.items())
            running = yield Work(lambda parts=division: self._hold_all(parts, deadline))  # type: ignore[misc]  # bound now
            sent_any = sent_any or bool(running)
            with self._told():
                yield from self._send_all(running)
                yield from self._wait_for(running, deadline, until)
            yield from self._send_each(division.apart, deadline)
            self.rounds += 1
            todo = self._again()
        results = tuple(self.results[place] for place in range(len(self.items)))
        return BatchAnswers(wishes.run if sent_any else "", results)

    def _was_refused(self, place: int) -> bool:
        before = self.results.get(place)
        return before is not None and isinstance(before.error, BatchItemError) and before.error.reason == "failed"

    def _again(self) -> Sequence[int]:
        """The places of requests that may be answered another time."""
        if self.wishes.unanswered != "resend" or self.rounds >= _TRIES:
            return ()
        return [
            place for place, one in sorted(self.results.items())
            if isinstance(one.error, BatchItemError) and one.error.may_be_sent_again
        ]  # fmt: skip

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever ends the wait, whoever sees it learns that the batch goes on, and by which id."""
        try:
            yield
        except BatchPendingError:
            raise
        except BaseException as error:
            error.add_note(
                f"batch {self.wishes.run} is known to the ledger, with its hold; collect it with "
                f"`llm-cost batches collect {self.wishes.run}`, or by collect_batch of a pipeline"
            )
            raise

    # --- held ------------------------------------------------------------------------------------------------------

    def _hold_all(self, division: Division, deadline: float) -> list[Running]:
        """Set the money of every batch aside, before the first is sent."""
        running: list[Running] = []
        try:
            for planned in division.batches:
                running.extend(self._hold(planned, deadline, len(running)))
        except BaseException:
            for one in running:  # nothing was sent
                with suppress(LedgerError):
                    self.give_back(one.known)
            raise
        return running

    def _hold(self, planned: list[Planned], deadline: float, number: int) -> list[Running]:
        """Set the money of a batch aside; of the first requests that fit, where not all do and that is asked for."""
        try:
            self._check_most(planned)
            one = self._held(planned, deadline, number)
        except BudgetExceededError as refusal:
            if not self.wishes.partial:
                raise refusal.shown_in(self.currency) from None
            room, fits = floor_nanousd(max(refusal.available, ZERO.usd)), 0
            while fits < len(planned) and planned[fits].quote.amount_nanousd <= room:
                room = NanoUSD(room - planned[fits].quote.amount_nanousd)
                fits += 1
            rest = planned[fits:] or planned  # somebody else may have taken it meanwhile
            self.results.update((each.place, ItemResult(error=refusal)) for each in rest)
            return self._hold(planned[:fits], deadline, number) if 0 < fits < len(planned) else []
        self.sent.append(one)
        return [one]

    @property
    def spent(self) -> int:
        """Nano-dollars that its batches cost, or hold while that is not known."""
        costs = [(one.known.cost_nanousd, one.known.held_nanousd) for one in self.sent]
        return sum(held if cost is None else cost for cost, held in costs)

    def _check_most(self, planned: list[Planned]) -> None:
        if self.wishes.most is None:
            return
        spent, wanted = self.spent, sum(each.quote.amount_nanousd for each in planned)
        if spent + wanted > self.wishes.most:
            amounts = NanoUSD(spent).usd, NanoUSD(self.wishes.most).usd
            raise BudgetExceededError(*amounts, requested=NanoUSD(wanted).usd)

    def _held(self, planned: list[Planned], deadline: float, number: int) -> Running:
        first, amount = planned[0], NanoUSD(sum(each.quote.amount_nanousd for each in planned))
        request, target = first.call.request, first.call.target.plain
        key = f"{self.wishes.run}-{self.rounds}-{number}-{len(planned)}"
        known = KnownBatch(
            self.wishes.run, key, target.provider, request.endpoint, target.model,
            tuple(each.place for each in planned), f"batch.{key}", int(amount), self.clock.now(), deadline,
        )  # fmt: skip
        self.book.create(known)
        try:
            hold = self.clerk.hold_batch(known.hold, target, amount, first.call.scopes_at(first.call.target))
        except BaseException:
            self.book.given_back(known)
            raise
        return Running(replace(known, hold=hold), planned, self.items[first.place].client, self.clock.now())

    # --- sent ------------------------------------------------------------------------------------------------------

    def _send_all(self, running: list[Running]) -> Steps[None]:
        for one in list(running):
            try:
                yield from self._send(one)
            except Exception as error:
                if not _is_refused(error):
                    raise
                yield Work(lambda known=one.known: self.give_back(known))  # type: ignore[misc]  # bound now
                running.remove(one)
                one.known = replace(one.known, cost_nanousd=0)
                for each in one.planned:
                    failed = BatchItemError("failed", f"{type(error).__name__}: {error}")
                    failed.__cause__ = error
                    self.results[each.place] = ItemResult(error=failed)

    def _send(self, one: Running) -> Steps[None]:
        """Create the batch, once: where it is not known whether it was created, it is looked for first."""
        known, api = one.known, APIS[one.known.provider]
        requests = [(custom_id(known.key, each.place), each.body) for each in one.planned]
        for tries in range(1, _TRIES + 1):
            try:
                provider_id = yield from api.create(one.client, known.key, known.endpoint, requests)
                break
            except Exception as error:
                found = None
                if not _is_refused(error):
                    yield Wait(_FIRST_LOOK_S)  # what was just created may not be listed at once
                    found = yield from api.find(one.client, known.key, len(requests), known.at)
                if found is not None:
                    provider_id = found
                    break
                failure = self.flow.stages.health.classify(error, ModelRef(known.provider, known.model))
                if not failure.retryable or tries == _TRIES:
                    raise
                yield Wait(max(failure.retry_after or 0.0, 2.0**tries))
        one.known = yield Work(lambda: self.book.sent(known, provider_id))

    # --- waited for ------------------------------------------------------------------------------------------------

    def _wait_for(self, running: list[Running], deadline: float, until: float | None) -> Steps[None]:
        wishes, pause = self.wishes, _FIRST_LOOK_S
        rescue = deadline - min(_MARGIN_S, _MARGIN_SHARE * (wishes.patience_s or WINDOW_S))
        waiting = list(running)
        while waiting:
            waiting = yield from self._look_at(waiting)
            if not waiting:
                return
            now, left = self.clock.now(), None if until is None else until - self.clock.monotonic()
            if left is not None and left <= 0:
                pending = sum(len(one.planned) for one in waiting)
                raise BatchPendingError(wishes.run, pending, len(self.items))
            if wishes.unanswered == "resend" and now >= rescue:
                yield from self._cancel_all(waiting)
                pause = _FIRST_LOOK_S
            waits = [pause, *(each for each in (left, rescue - now) if each is not None and each > 0)]
            yield Wait(min(waits))
            pause = min(pause * _SLOWER, _LONGEST_PAUSE_S)

    def _look_at(self, waiting: list[Running]) -> Steps[list[Running]]:
        """Look at every batch, and collect those that have ended. Returns the others."""
        answered, others = 0, list[Running]()
        for one in waiting:
            status = yield from self.look(one.client, one.known)
            if status is not None and status.ended:
                try:
                    yield from self._take(one, status)
                    continue
                except Exception as error:
                    if not self.passes(error, one.known):
                        raise
            answered += 0 if status is None else status.answered
            others.append(one)
            yield from self._keep_alive(one)
        if self.wishes.progress is not None:
            self.wishes.progress(answered + len(self.results), len(self.items))
        return others

    def _cancel_all(self, waiting: list[Running]) -> Steps[None]:
        for one in waiting:
            if not one.cancelled:
                one.cancelled = True
                yield from self.cancel(one.client, one.known)

    def _keep_alive(self, one: Running) -> Steps[None]:
        if self.clock.now() - one.looked_at >= _HOUR_S:
            one.looked_at = self.clock.now()
            yield Work(lambda: self.extend(one.known))

    def _take(self, one: Running, status: Any) -> Steps[None]:
        """Book an ended batch, and keep its answers in their places."""
        lines, records = yield from self.take(one.client, one.known, status)
        cost = 0
        for each in one.planned:
            line = lines.get(each.place)
            if line is None or line.response is None:
                error = missing(status) if line is None else line.error
                self.results[each.place] = ItemResult(error=error)
                continue
            decision = each.call.decision._replace(lane="batch")
            response = self.items[each.place].deliver(line.response)
            record = records(each.place, each.call.id, each.call.scopes_at(each.call.target), each.call.request.model)
            cost += record.cost_nanousd
            self.results[each.place] = ItemResult(CallOutcome(response, each.call.id, decision, (record,)))
        if not status.gone:
            one.known = replace(one.known, cost_nanousd=cost)

    # --- ordinary calls --------------------------------------------------------------------------------------------

    def _send_each(self, apart: dict[int, str], deadline: float) -> Steps[None]:
        if not apart:
            return
        places, left = sorted(apart), deadline - self.clock.now()
        in_time = self.wishes.patience_s if not self.rounds else left if left > _HOUR_S else None
        answers = yield SendEach(places, in_time)
        for place, answer in zip(places, answers, strict=True):
            failed = isinstance(answer, BaseException)
            if failed and not isinstance(answer, Exception):
                raise answer
            self.results[place] = ItemResult(
                None if failed else answer, answer if failed else None, "standard", apart[place]
            )


_HOUR_S = 3_600.0


def _is_refused(error: BaseException) -> bool:
    """Whether the provider said that it does not take the batch, so that there is none."""
    status = getattr(error, "status_code", None)
    return isinstance(status, int) and _CLIENT_ERROR <= status < _SERVER_ERROR
