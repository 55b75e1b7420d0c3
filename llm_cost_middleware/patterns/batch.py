"""``process_many``: the pattern for many texts, quoted before the first call, with partial results on failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError, ScopePausedError, readable
from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.lifecycle.batches import BatchQuote
from llm_cost_middleware.natural_values import read_whole
from llm_cost_middleware.patterns.process import PatternCall, Result, add_records, check_tracker
from llm_cost_middleware.pipeline import PipelineSource
from llm_cost_middleware.tracker import CostTracker
from llm_cost_middleware.typed_fields import read_choice

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


def process_many(
    items: Iterable[str],
    config: PipelineSource,
    tracker: CostTracker,
    *,
    client: Any,
    system_prompt: str = "",
    parse_result: Callable[[Any], Any] | None = None,
    on_error: OnError = "raise",
    progress: bool = False,
    max_tokens: int | None = None,
    anyway: bool = False,
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
        progress: Show a progress bar on standard error.
        max_tokens: Output cap of every call; without one, that of the configuration.
        anyway: Start it even if it is expected to cost more than is left: each call is held on its own, and the first
            that does not fit ends the batch.

    Returns:
        The results, what remains, and a new tracker. A budget that ends in the middle ends the batch without an error.

    Raises:
        BudgetExceededError: The tracker is over its limit, or the batch is expected to cost more than is left; nothing
            was sent. The message says what is expected, and at most.
        Exception: The error of an item, with ``on_error="raise"``.
    """
    batch = _Batch(
        items, config, tracker, client, system_prompt, parse_result, on_error, max_tokens=max_tokens, anyway=anyway
    )
    with progress_bar(len(batch.items), show=progress) as advance:
        for index, item in batch.pending():
            try:
                batch.add(index, batch.call.send(item))
            except Exception as error:  # noqa: BLE001 - the batch decides what it means
                batch.fail(index, error)
            advance()
    return batch.finish()


async def aprocess_many(
    items: Iterable[str],
    config: PipelineSource,
    tracker: CostTracker,
    *,
    client: Any,
    system_prompt: str = "",
    parse_result: Callable[[Any], Any] | None = None,
    on_error: OnError = "raise",
    progress: bool = False,
    concurrency: int = 8,
    max_tokens: int | None = None,
    anyway: bool = False,
) -> BatchResult:
    """``process_many`` with an asynchronous client, at most ``concurrency`` calls at a time."""
    batch = _Batch(
        items, config, tracker, client, system_prompt, parse_result, on_error, is_async=True, max_tokens=max_tokens,
        anyway=anyway,
    )  # fmt: skip
    pending = batch.pending()  # one iterator for all workers: each item is taken once
    with progress_bar(len(batch.items), show=progress) as advance:

        async def work() -> None:
            for index, item in pending:
                try:
                    batch.add(index, await batch.call.asend(item))
                except Exception as error:  # noqa: BLE001 - the batch decides what it means
                    batch.fail(index, error)
                advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(max(concurrency, 1)):
                group.create_task(work())
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
        self.call = PatternCall(client, config, system_prompt, is_async=is_async, max_tokens=max_tokens)
        self._tracker, self._parse, self._on_error = tracker, parse_result, on_error
        self._done: dict[int, Result] = {}
        self._failed: dict[int, Exception] = {}
        self._exhausted: BudgetExceededError | ScopePausedError | None = None
        self._error: Exception | None = None
        self._quote = self.call.pipeline.quote(map(self.call.request, self.items), providers=self.call.providers)
        if not anyway:
            self._check_batch_fits()

    def _check_batch_fits(self) -> None:
        quote, tracker = self._quote, self._tracker
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
            if self._exhausted is not None or self._error is not None:
                return
            try:
                check_tracker(self._tracker)
            except BudgetExceededError as refusal:
                self._exhausted = refusal
                return
            yield index, item

    def add(self, index: int, answer: CallOutcome) -> None:
        self._tracker = add_records(self._tracker, answer)
        self._done[index] = self.call.result(answer, self._parse)

    def fail(self, index: int, error: Exception) -> None:
        if isinstance(error, BudgetExceededError | ScopePausedError):
            # Not a failure of the item: it was never sent, and the rest would be refused the same way.
            self._exhausted = self._exhausted or error
            return
        self._failed[index] = error
        if self._on_error == "raise":
            self._error = self._error or error

    def finish(self) -> BatchResult:
        result = BatchResult(
            done=tuple(sorted(self._done.items())),
            remaining=tuple((index, item) for index, item in enumerate(self.items) if index not in self._done),
            failed=tuple(sorted(self._failed.items(), key=lambda pair: pair[0])),
            tracker=self._tracker,
            quote=self._quote,
            exhausted=self._exhausted,
        )
        if self._error is not None:
            vars(self._error)["batch"] = result  # answers that were paid for must reach the caller
            raise self._error
        return result


@contextmanager
def progress_bar(total: int, *, show: bool) -> Iterator[Callable[[], None]]:
    """Show a progress bar on standard error, or none; yields a function that advances it."""
    if not show:
        yield lambda: None
        return
    with needed_for("a progress bar"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("calls", total=total)
        yield lambda: bar.advance(task)
