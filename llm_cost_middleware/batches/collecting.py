"""Batches looked at, cancelled, fetched and booked, by whichever process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from llm_cost_middleware.batches.apis import APIS, BatchStatus, ItemLine, results_of
from llm_cost_middleware.batches.book import BatchBook, KnownBatch
from llm_cost_middleware.batches.errors import BatchItemError
from llm_cost_middleware.batches.results import Collected
from llm_cost_middleware.batches.steps import Steps, Work
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError, LedgerError, ReservationNotFoundError
from llm_cost_middleware.lifecycle.clerk import BATCH_LIFETIME_S, Clerk
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.state import Posting
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.tracker import CostRecord
from llm_cost_middleware.usage import UsageReport, read_or_unknown

_log = logging.getLogger(__name__)
_NOTHING = UsageReport(unbilled=True, complete=True, batch=True)
_BEING_SENT_S = 900.0
"""Seconds within which whoever made a batch may still be about to send it."""
Records = Callable[[int, str, tuple[str, ...], str], CostRecord]
"""The record of an answered request: by its place, its call's id, its scopes and the model that its caller named."""


@dataclass(slots=True)
class Collecting:
    """Looks after the batches of one ledger.

    Attributes:
        flow: Of the pipeline.
        clerk: Books.
        ledger: The ledger.
        book: What it knows of batches.
        clock: Time.
    """

    flow: CallFlow
    clerk: Clerk
    ledger: Ledger
    book: BatchBook
    clock: Clock

    def look(self, client: Any, known: KnownBatch) -> Steps[BatchStatus | None]:
        """Look at a batch; ``None`` where the provider did not answer for now: it is asked again."""
        try:
            return (yield from APIS[known.provider].status(client, known.provider_id))
        except Exception as error:
            if not self.passes(error, known):
                raise
            return None

    def cancel(self, client: Any, known: KnownBatch) -> Steps[None]:
        """Cancel a batch. One that has ended meanwhile is collected as it is."""
        try:
            yield from APIS[known.provider].cancel(client, known.provider_id)
        except Exception as error:
            status = yield from self.look(client, known)
            if status is not None and not status.ended:
                raise
            _log.debug("batch %s was not cancelled: %s", known.key, type(error).__qualname__)

    def passes(self, error: Exception, known: KnownBatch) -> bool:
        """Whether what a provider said of a batch may be otherwise the next time."""
        failure = self.flow.stages.health.classify(error, ModelRef(known.provider, known.model))
        _log.warning("batch %s could not be looked at: %s", known.key, failure.reason)
        return failure.retryable

    def take(self, client: Any, known: KnownBatch, status: BatchStatus) -> Steps[tuple[dict[int, ItemLine], Records]]:
        """Fetch what an ended batch has brought, and book it, once."""
        if status.gone:
            yield Work(lambda: self._settle_unknown(known))
            return {}, lambda *_: self._record(known, ItemLine("", None), "", (), known.model)
        found = yield from APIS[known.provider].results(client, status, known.endpoint)
        lines = results_of(found, known.key)
        yield Work(lambda: self._settle(known, lines))
        return lines, lambda place, call_id, scopes, model: self._record(known, lines[place], call_id, scopes, model)

    def _settle(self, known: KnownBatch, lines: Mapping[int, ItemLine]) -> None:
        read = get_provider(known.provider).read_usage
        reading = read_or_unknown(read, [line.raw for line in lines.values()]) if lines else _NOTHING
        cost = self.clerk.settle_batch(known.provider, known.hold, reading, known.model)
        if cost is not None and known.open:
            self.book.settled(known, cost, sum(line.response is not None for line in lines.values()))

    def _settle_unknown(self, known: KnownBatch) -> None:
        """Book the most that a batch can have cost: what it did cost is not kept any more."""
        if known.open:
            self.ledger.settle(known.hold, NanoUSD(known.held_nanousd), status="unconfirmed")
            self.book.settled(known, known.held_nanousd, 0)

    def _record(
        self, known: KnownBatch, line: ItemLine, call_id: str, scopes: tuple[str, ...], model: str
    ) -> CostRecord:  # fmt: skip
        """The record of one answer: a part of the batch's row, which is kept for all of them."""
        reading = read_or_unknown(get_provider(known.provider).read_usage, [line.raw])
        priced = self.flow.stages.price.price(reading, known.provider, known.model)
        amount, exact = priced.cost_nanousd, priced.status == "exact"
        return self.flow.stages.record.keep(
            Posting(ZERO if amount is None else amount, "exact" if exact else "estimated", reading, priced),
            ModelRef(known.provider, known.model), call_id=call_id, at=self.clock.now(),
            usage=reading.usage if reading.items else None, requested_model=model, scopes=scopes, counted=False,
        ).record()  # fmt: skip

    def extend(self, known: KnownBatch) -> None:
        """Let the hold of a batch on its way live on."""
        with suppress(LedgerError):
            self.ledger.extend(known.hold, BATCH_LIFETIME_S)

    def give_back(self, known: KnownBatch) -> None:
        """Give back the money of a batch that was not created."""
        with suppress(ReservationNotFoundError):  # it ended before the money was held
            self.ledger.void(known.hold)
        self.book.given_back(known)

    def collect(self, name: str, clients: Mapping[str, Any], *, cancel: bool = False) -> Steps[Collected]:
        """Book what has ended of a batch, and return its answers.

        Args:
            name: The batch's id, a provider's or the one that ``BatchPendingError`` names.
            clients: By provider.
            cancel: Cancel what is on its way.

        Raises:
            ConfigurationError: The ledger knows no such batch, or there is no client for its provider.
        """
        batches = yield Work(lambda: self.book.find(name))
        collected = Collected(batches[0].run)
        pending, cost = 0, 0
        for known in batches:
            if (client := clients.get(known.provider)) is None:
                raise ConfigurationError(f"batch {known.key} is of {known.provider}: give a client of it", key="client")
            found = yield from self._sure(client, known)
            if found is None or found.state == "given back":
                error = BatchItemError("unsent")
                collected.errors.update(dict.fromkeys(known.places, error))
                continue
            status = (yield from self.look(client, found)) if found.provider_id else None
            if cancel and status is not None and not status.ended:
                yield from self.cancel(client, found)
                status = yield from self.look(client, found)
            if status is None or not status.ended:
                pending += len(known.places)
                yield Work(lambda one=found: self.extend(one))  # type: ignore[misc]  # bound now
                continue
            lines, records = yield from self.take(client, found, status)
            cost += self._sort(collected, found, status, lines, records)
        for place in collected.responses:  # a later round has answered it
            collected.errors.pop(place, None)
        return replace(collected, pending=pending, cost_nanousd=NanoUSD(cost))

    def status(self, name: str, clients: Mapping[str, Any]) -> Steps[dict[str, str]]:
        """Ask where the batches of a work stand; those without a client are left out. Raises as ``collect``."""
        batches, told = (yield Work(lambda: self.book.find(name))), dict[str, str]()
        for known in batches:
            client = clients.get(known.provider)
            status = (yield from self.look(client, known)) if client is not None and known.provider_id else None
            if status is not None:
                told[known.key] = f"{status.word}, {status.answered:,} of {status.total:,} answered"
        return told

    def _sort(
        self, collected: Collected, known: KnownBatch, status: BatchStatus, lines: Mapping[int, ItemLine],
        records: Records,
    ) -> int:  # fmt: skip
        cost = 0
        for place in known.places:
            line = lines.get(place)
            if line is not None and line.response is not None:
                collected.responses[place] = line.response
                collected.records[place] = record = records(place, f"{known.key}-{place}", (), known.model)
                cost += record.cost_nanousd
            else:
                collected.errors[place] = (line.error if line is not None else None) or missing(status)
        return cost

    def _sure(self, client: Any, known: KnownBatch) -> Steps[KnownBatch | None]:
        """A batch whose fate is known: one that ended between its hold and the provider's id is looked for.

        ``None``: it was never created, and its money is given back. One that may still be about to be sent is returned
        as it is.
        """
        if known.state != "created":
            return known
        found = yield from APIS[known.provider].find(client, known.key, len(known.places), known.at)
        if found is not None:
            sent: KnownBatch = yield Work(lambda: self.book.sent(known, found))
            return sent
        if self.clock.now() - known.at < _BEING_SENT_S:
            return known
        yield Work(lambda: self.give_back(known))
        return None


def missing(status: BatchStatus) -> BatchItemError:
    """Why a request of an ended batch has no line among its results."""
    if status.gone:
        return BatchItemError("archived", "its provider does not keep the results any more")
    return BatchItemError("failed", status.error) if status.error else BatchItemError("unsent")
