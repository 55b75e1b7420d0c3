"""``process_many``: the pattern for many texts, quoted before the first call, with partial results on failure."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Literal

from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError, ScopePausedError, readable
from llm_cost_middleware.event_loops import at_once
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.lifecycle.batches import BatchQuote
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.natural_values import read_whole
from llm_cost_middleware.patterns.patient import Patient
from llm_cost_middleware.patterns.process import PatternCall, Result, add_records, check_tracker, left_nanousd
from llm_cost_middleware.patterns.progress import Shared, ShowProgress, progress_bar, tell_nobody
from llm_cost_middleware.patterns.progress_file import ProgressFile
from llm_cost_middleware.pipeline import PipelineSource
from llm_cost_middleware.tracker import CostTracker
from llm_cost_middleware.typed_fields import read_choice

_log = logging.getLogger(__name__)
OnError = Literal["raise", "collect"]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Answered, remaining and failed items of a batch, with its cost."""

    done: tuple[tuple[int, Result], ...]
    """(index, result) of every answered item, in the order of the items."""
    remaining: tuple[tuple[int, str], ...]
    """(index, item) of every other item, in order."""
    failed: tuple[tuple[int, Exception], ...]
    """(index, error) of every failed item; all of them are in ``remaining`` too."""
    tracker: CostTracker
    quote: BatchQuote
    exhausted: BudgetExceededError | ScopePausedError | None = None
    """Refusal that ended the batch early."""
    actual_nanousd: NanoUSD = ZERO
    """What the answers cost, those of an earlier run that went on here included: beside ``quote``."""
    batch_id: str = ""
    """The id of the batches of providers that it went in, if any: see ``llm-cost batches``."""

    @property
    def actual(self) -> Decimal:
        """US dollars that the answers cost; ``quote.expected`` is what they were expected to."""
        return self.actual_nanousd.usd


def process_many(
    items: Iterable[str],
    config: PipelineSource,
    tracker: CostTracker,
    *,
    client: Any,
    system_prompt: str = "",
    parse_result: Callable[[Any], Any] | None = None,
    on_error: OnError = "raise",
    progress: ShowProgress = False,
    concurrency: int = 1,
    max_tokens: int | None = None,
    anyway: bool = False,
    journal: Path | str | None = None,
    patience: Any = None,
    timeout: Any = None,
) -> BatchResult:
    """``process`` for many texts, one call each. The whole batch is quoted before its first call.

    Args:
        items: The texts.
        config: A configuration or a pipeline, as in ``process``.
        tracker: Spending so far; never changed.
        client: An ``anthropic`` or ``openai`` client.
        system_prompt: The stable prefix.
        parse_result: Makes a value of each SDK response.
        on_error: ``raise`` at the first item that fails (the error's ``batch`` attribute is the ``BatchResult`` so
            far), or ``collect`` it and go on.
        progress: Show a progress bar on standard error; or a function that is called with how many are done, and of
            how many.
        concurrency: The most calls at a time. Each may cost what the tracker has left as it begins, whatever those
            beside it cost: together they can pass its limit, by what ``concurrency - 1`` of them cost at most. A
            budget of the ledger holds them together.
        max_tokens: Output cap of every call; without one, that of the configuration.
        anyway: Start it even if it is expected to cost more than is left: each call is held on its own, and the first
            that does not fit ends the batch.
        journal: A file that remembers what is answered: called again with the same texts and this file, after a crash
            say, only the others are sent. **It holds the answers**, readable by you alone; the texts as digests.
        patience: How long the answers may take: with ``"24h"`` or more they come in batches of the provider at half
            price, where that pays.
        timeout: With ``patience``: how long to block.

    Returns:
        The results, what remains, and a new tracker. A budget that ends in the middle ends the batch without an error.

    Raises:
        BudgetExceededError: The tracker is over its limit, or the batch is expected to cost more than is left; nothing
            was sent. The message says what is expected, and at most.
        BatchPendingError: Within the timeout not all was answered; called again with the same ``journal``, it goes on.
        Exception: The error of an item, with ``on_error="raise"``.
    """
    width = _read_width(concurrency)
    batch = _Batch(
        items, config, tracker, client, system_prompt, parse_result, on_error, max_tokens=max_tokens, anyway=anyway,
        journal=journal, patience=Patient.read(patience, timeout),
    )  # fmt: skip
    with batch.attached(), progress_bar(len(batch.items), show=progress) as batch.advance:
        if batch.patient is not None:
            left = left_nanousd(batch.tracker)
            batch.take_all(batch.patient.run(batch.call, batch.items, batch.file, batch.tell, left))
        elif width == 1:
            batch.work(batch.pending())
        else:
            _side_by_side(batch, width)
    return batch.finish()


def _read_width(concurrency: object) -> int:
    width = read_whole(concurrency, "concurrency")
    if width < 1:
        raise ConfigurationError(f"must be a positive whole number, such as 8, not {concurrency!r}", key="concurrency")
    return width


def _side_by_side(batch: _Batch, concurrency: int) -> None:
    """Work in threads. Interrupted, no other call begins, and those under way are waited for: they are paid for."""
    pending, ended = Shared(batch.pending()), [Event() for _ in range(min(concurrency, len(batch.items)))]

    def work(mine: Event) -> None:
        try:
            batch.work(pending)
        finally:
            mine.set()

    threads = [Thread(target=copy_context().run, args=(work, mine), name="process_many", daemon=True) for mine in ended]
    for thread in threads:
        thread.start()
    try:
        for each in ended:  # not ``join``: interrupted, it takes a thread that still works for one that has ended
            each.wait()
    except BaseException:
        pending.stop()
        for each in ended:
            each.wait()
        raise
    for thread in threads:
        thread.join()


async def aprocess_many(
    items: Iterable[str],
    config: PipelineSource,
    tracker: CostTracker,
    *,
    client: Any,
    system_prompt: str = "",
    parse_result: Callable[[Any], Any] | None = None,
    on_error: OnError = "raise",
    progress: ShowProgress = False,
    concurrency: int = 8,
    max_tokens: int | None = None,
    anyway: bool = False,
    journal: Path | str | None = None,
    patience: Any = None,
    timeout: Any = None,  # noqa: ASYNC109 - as in ``process_many``: the batch goes on
) -> BatchResult:
    """``process_many`` with an asynchronous client, at most ``concurrency`` calls at a time."""
    width = _read_width(concurrency)
    batch = _Batch(
        items, config, tracker, client, system_prompt, parse_result, on_error, is_async=True, max_tokens=max_tokens,
        anyway=anyway, journal=journal, patience=Patient.read(patience, timeout),
    )  # fmt: skip
    pending = batch.pending()  # one iterator for all workers: each item is taken once
    with batch.attached(), progress_bar(len(batch.items), show=progress) as batch.advance:
        if batch.patient is not None:
            left = left_nanousd(batch.tracker)
            batch.take_all(await batch.patient.arun(batch.call, batch.items, batch.file, batch.tell, left))
            return batch.finish()

        async def work() -> None:
            for index, item in pending:
                try:
                    batch.add(index, await batch.call.asend(item, tracker=batch.tracker))
                except Exception as error:  # noqa: BLE001 - the batch decides what it means
                    batch.fail(index, error)

        await at_once(width, work)
    return batch.finish()


class _Batch:
    """State of one batch, shared by the synchronous and the asynchronous form."""

    def __init__(
        self,
        items: Iterable[str],
        config: PipelineSource,
        tracker: CostTracker,
        client: Any,
        system_prompt: str,
        parse_result: Callable[[Any], Any] | None,
        on_error: OnError,
        *,
        is_async: bool = False,
        max_tokens: int | None = None,
        anyway: bool = False,
        journal: Path | str | None = None,
        patience: Patient | None = None,
    ) -> None:
        read_choice(OnError, on_error, "on_error")
        check_tracker(tracker)
        if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
            # Not repeated: it may be a prompt.
            raise ConfigurationError(
                f"must be a list of texts, such as [text], not a {type(items).__name__}", key="items"
            )
        if max_tokens is not None and (max_tokens := read_whole(max_tokens, "max_tokens")) < 1:
            raise ConfigurationError("must be a positive whole number", key="max_tokens")
        self.items = list(items)
        for at, item in enumerate(self.items):
            if not isinstance(item, str):
                raise ConfigurationError(f"must be a text, not a {type(item).__name__}", key=f"items[{at}]")
        if parse_result is not None and not callable(parse_result):  # it would fail behind a paid answer
            raise ConfigurationError(f"must be a function of a response, not {parse_result!r}", key="parse_result")
        self.call = PatternCall(client, config, system_prompt, is_async=is_async, max_tokens=max_tokens)
        self.tracker, self._parse, self._on_error = tracker, parse_result, on_error
        self._done: dict[int, Result] = {}
        self._failed: dict[int, Exception] = {}
        self._exhausted: BudgetExceededError | ScopePausedError | None = None
        self._error: Exception | None = None
        self._lock, self._batch_id, self._actual = Lock(), "", 0
        self.advance: Callable[[int, int], object] = tell_nobody
        self.patient = patience
        requests = map(self.call.request, self.items)
        if patience is not None:
            requests = map(patience.quoted, requests)
        self._quote = self.call.pipeline.quote(requests, providers=self.call.providers)
        self.file: ProgressFile | None = None
        if journal is not None:
            self.file = ProgressFile(journal, self.items, system_prompt, self.call.service)
        if not anyway:
            self._check_batch_fits()
        for index, answer in sorted(self.file.done.items()) if self.file is not None else ():
            self._keep(index, answer)

    def _check_batch_fits(self) -> None:
        quote, tracker = self._quote, self.tracker
        advice = f"at most {readable(quote.bound, up=True)}; {quote.advice}"
        if tracker.budget_limit is not None and tracker.total_cost + quote.expected > tracker.budget_limit:
            raise BudgetExceededError(tracker.total_cost, tracker.budget_limit, requested=quote.expected, advice=advice)
        ledger, currency = self.call.pipeline.ledger, self.call.pipeline.catalogue.currency
        # The ledger may have other callers: this is a forecast, and each item is still reserved on its own.
        scopes = self.call.request("").context.scopes
        available = ledger.available(scopes)
        if available is not None and quote.expected_nanousd > available:
            amounts = Decimal(0), available.usd
            refusal = BudgetExceededError(*amounts, scope="batch", requested=quote.expected, advice=advice)
            raise refusal.shown_in(currency)

    def pending(self) -> Iterator[tuple[int, str]]:
        """Yield the items still to be called, until the batch ends."""
        for index, item in enumerate(self.items):
            if index in self._done:
                continue
            if self._exhausted is not None or self._error is not None:
                return
            try:
                check_tracker(self.tracker)
            except BudgetExceededError as refusal:
                self._exhausted = refusal
                return
            yield index, item

    def work(self, pending: Iterator[tuple[int, str]]) -> None:
        """Make calls until none is left."""
        for index, item in pending:
            try:
                self.add(index, self.call.send(item, tracker=self.tracker))
            except Exception as error:  # noqa: BLE001 - the batch decides what it means
                self.fail(index, error)

    def tell(self, done: int, total: int) -> None:
        """Show how far it is."""
        self.advance(done, total)

    def take_all(self, answers: tuple[str, dict[int, Any]]) -> None:
        """Take what came by batches: outcomes and errors by their places."""
        self._batch_id, found = answers
        for index, answer in sorted(found.items()):
            if index in self._done:
                continue
            if isinstance(answer, Exception):
                self.fail(index, answer)
                continue
            try:
                self.add(index, answer)
            except Exception as error:  # noqa: BLE001 - as in ``work``
                self.fail(index, error)

    def add(self, index: int, answer: CallOutcome) -> None:
        """Keep an answer. Raises what ``parse_result`` raises, when it is kept already."""
        with self._lock:
            self._count(answer)
            if self.file is not None and index not in self.file.done:
                try:
                    self.file.add(index, answer)
                except OSError as error:  # it is paid for: its caller gets it all the same
                    _log.warning("an answer is not in the journal, and would be asked for again: %s", error.strerror)
        self._done[index] = self.call.result(answer, self._parse)
        self._show()

    def _show(self) -> None:
        if self.patient is None:  # a batch of the provider tells by itself how far it is
            self.advance(len(self._done) + len(self._failed), len(self.items))

    def _keep(self, index: int, answer: CallOutcome) -> None:
        """Take over an answer of an earlier run; its cost too, unless the tracker has it."""
        known = any(record.call_id == answer.call_id for record in self.tracker.records)
        self._count(answer, tracked=not known)
        self._done[index] = self.call.result(answer, self._parse)

    def _count(self, answer: CallOutcome, *, tracked: bool = True) -> None:
        self._actual += sum(record.cost_nanousd for record in answer.records)
        if tracked:
            self.tracker = add_records(self.tracker, answer)

    def fail(self, index: int, error: Exception) -> None:
        """Take note of an error."""
        with self._lock:
            if isinstance(error, BudgetExceededError | ScopePausedError):
                # Not a failure of the item: it was never sent, and the rest would be refused the same way.
                self._exhausted = self._exhausted or error
                return
            self._failed[index] = error
            if self._on_error == "raise":
                self._error = self._error or error
        self._show()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Whatever ends the batch from outside (Ctrl-C, say) bears what was done, as its ``batch``."""
        try:
            yield
        except BaseException as error:
            if hasattr(error, "__dict__"):
                vars(error)["batch"] = self._result()
            raise
        finally:
            if self.file is not None:
                self.file.close()

    def _result(self) -> BatchResult:
        return BatchResult(
            done=tuple(sorted(self._done.items())),
            remaining=tuple((index, item) for index, item in enumerate(self.items) if index not in self._done),
            failed=tuple(sorted(self._failed.items(), key=lambda pair: pair[0])),
            tracker=self.tracker,
            quote=self._quote,
            exhausted=self._exhausted,
            actual_nanousd=NanoUSD(self._actual),
            batch_id=self._batch_id,
        )

    def finish(self) -> BatchResult:
        """Return the result, or raise the first error."""
        result = self._result()
        if self._error is not None:
            vars(self._error)["batch"] = result  # answers that were paid for must reach the caller
            raise self._error
        return result
