"""How much to hold: the input counted where that is cheap or where money is short, else bounded by its bytes.

A burst must not starve behind byte bounds: where only a few such holds fit into what is left, a call is counted before
it is held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any

from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.lifecycle.commands import Command, CountInput, RunInThread, Sleep
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.stages.counts import TIMEOUT_S
from llm_cost_middleware.lifecycle.stages.price import CLOSE_COUNT
from llm_cost_middleware.lifecycle.state import CallReport, Quote, RoutedCall, Settings
from llm_cost_middleware.money import ZERO, NanoUSD, ceil_nanousd
from llm_cost_middleware.request import InputCounter, ModelRef

_log = logging.getLogger(__name__)
_OFFLINE_HOLDS, _PROVIDER_HOLDS = 100, 8
"""Fewer byte bounds than this in what is left: money is short, and counting comes first. A count by the provider is a
request, so it is made later than one at home."""
_FRESH_S = 1.0  # so long what a budget has left is not looked up again
_SCOPES = 4_096


class Sizing:
    """Quotes attempts as tightly as is worth it. One a pipeline.

    Args:
        stages: What a call consults.
        settings: What it may do.
        clock: Time.
        available: Asks the ledger what the tightest budget of some scopes has left.
        check_paused: Raises where a call may not be sent.
    """

    def __init__(
        self,
        stages: Stages,
        settings: Settings,
        clock: Clock,
        available: Callable[[tuple[str, ...]], Generator[Command, Any, NanoUSD | None]],
        check_paused: Callable[[RoutedCall, Quote], Generator[Command, Any, None]],
    ) -> None:
        self._stages, self._settings, self._clock, self._available = stages, settings, clock, available
        self._check_paused = check_paused
        self._prepared: set[str] = set()
        self._left: dict[tuple[str, ...], tuple[float, NanoUSD | None]] = {}

    def first_quote(self, call: RoutedCall, report: CallReport, target: ModelRef) -> Generator[Command, Any, Quote]:
        """The quote to try first: counted where that takes a moment, or where money is short."""
        stages, counts = self._stages, report.token_counts
        exact = stages.price.exact_count(call, target, counts)
        if exact is not None and exact.cheap:
            counts[exact.encoding], exact = exact.make(), None
        known = report.counter is not None and self._note_known(call, report, target)
        quote = stages.price.quote(call, target, counts, plan=stages.cache.plan(call, target))
        if self._settings.observe or quote.over_call_limit is not None:
            return quote  # an observer enforces nothing; a limit of the call itself is looked at next
        framed = call.request.tools or call.request.output_schema  # whose length is estimated
        if exact is None and quote.counted and (CLOSE_COUNT in quote.bound.notes or not framed):
            return quote
        if exact is None and not quote.counted and (known or self._counter_of(call, report, target) is None):
            return quote
        holds, scopes = _PROVIDER_HOLDS if exact is None else _OFFLINE_HOLDS, call.scopes_at(target)
        now, seen = self._clock.monotonic(), self._left.get(scopes)
        if seen is None or now - seen[0] >= _FRESH_S:
            seen = yield from self._look_up(scopes, now)
        left = seen[1]
        if left is None or left >= holds * quote.amount_nanousd:
            return quote
        if exact is not None:
            counts[exact.encoding] = yield RunInThread(exact.make)
        elif quote.counted:
            counts[str(target.plain)] = stages.price.close_count(call, target, counts)
        elif self._least(call, quote) <= left:
            return (yield from self._asked(call, report, quote))
        else:
            return quote
        return stages.price.quote(call, target, counts, plan=quote.plan)

    def counted(
        self, call: RoutedCall, report: CallReport, quote: Quote, refusal: BudgetExceededError
    ) -> Generator[Command, Any, Quote]:
        """The same attempt with its input counted, where it was not: it did not fit."""
        target, counts, price = quote.target, report.token_counts, self._stages.price
        room = ceil_nanousd(max(refusal.available, ZERO.usd))
        if (exact := price.exact_count(call, target, counts)) is not None:
            counts[exact.encoding] = yield RunInThread(exact.make)
            quote = price.quote(call, target, counts, plan=quote.plan)
            if quote.amount_nanousd <= room:
                return quote
        if (close := price.close_count(call, target, counts)) is not None:
            counts[str(target.plain)] = close
            return price.quote(call, target, counts, plan=quote.plan)
        if self._counter_of(call, report, target) is None:
            return quote
        bare = price.unmarked(call, quote, counts)
        if (bare is not quote and bare.amount_nanousd <= room) or not self._could_fit(call, bare, refusal):
            return quote  # a mark is given up sooner than a request is made
        return (yield from self._asked(call, report, quote))

    def _look_up(self, scopes: tuple[str, ...], now: float) -> Generator[Command, Any, tuple[float, NanoUSD | None]]:
        """What the tightest budget of some scopes has left, and when it was looked up; ``None``: unlimited."""
        left = yield from self._available(scopes)
        if len(self._left) > _SCOPES:
            self._left.clear()
        seen = self._left[scopes] = now, left
        return seen

    def _could_fit(self, call: RoutedCall, quote: Quote, refusal: BudgetExceededError) -> bool:
        """Whether the attempt would fit if its input were as short as can be hoped for."""
        room = ceil_nanousd(max(refusal.available, ZERO.usd))
        if self._settings.max_wait_for_budget_s and refusal.pending:
            room = NanoUSD(room + ceil_nanousd(refusal.pending))
        return self._least(call, quote) <= room

    def _least(self, call: RoutedCall, quote: Quote) -> NanoUSD:
        return self._stages.price.least_amount(quote, input_tokens=self._stages.counts.least(call.request))

    # --- counts of the provider ------------------------------------------------------------------------------------

    def _counter_of(self, call: RoutedCall, report: CallReport, target: ModelRef) -> InputCounter | None:
        """Who may be asked for a count now, if anybody."""
        counter, target = report.counter, target.plain
        if counter is None or self._settings.observe or report.asked_counts.get(target):
            return None
        if call.request.has_server_side_context or not counter.counts(target):
            return None
        return counter if self._stages.counts.may_ask(counter.account(target)) else None

    def _note_known(self, call: RoutedCall, report: CallReport, target: ModelRef) -> bool:
        """Take over what an earlier call had counted: this input, or the beginning of this conversation."""
        counts, target = self._stages.counts, target.plain
        if report.counter is None or not counts.knows_any or str(target) in report.token_counts:
            return False
        if not report.counter.counts(target):
            return False
        tokens = counts.known(call.request, target, counts.key(call.request, target))
        if tokens is not None:
            report.token_counts[str(target)] = tokens
        return tokens is not None

    def _asked(self, call: RoutedCall, report: CallReport, quote: Quote) -> Generator[Command, Any, Quote]:
        """The quote by the provider's own count; the same quote where it does not come in time."""
        target, counter, counts = quote.target.plain, report.counter, self._stages.counts
        assert counter is not None  # noqa: S101 - ``_counter_of`` was asked before
        yield from self._check_paused(call, quote)  # a count is a request, with the whole prompt
        if counter.account(target) not in self._prepared:
            yield RunInThread(counter.prepare)
            self._prepared.add(counter.account(target))
        account, key = counter.account(target), counts.key(call.request, target)
        until = self._clock.monotonic() + TIMEOUT_S
        report.asked_counts = {**report.asked_counts, target: True}
        waited = 0.0
        while (turn := counts.take_turn(account, key)).delay_s:
            waited += turn.delay_s
            if waited > TIMEOUT_S or self._clock.monotonic() + turn.delay_s > until:
                report.asked_counts = {**report.asked_counts, target: self._settings.max_wait_for_budget_s == 0}
                return quote
            yield Sleep(turn.delay_s)
            if (found := counts.known(call.request, target, key)) is not None:
                report.token_counts[str(target)] = found
                return self._stages.price.quote(call, quote.target, report.token_counts, plan=quote.plan)
        try:
            tokens = yield CountInput(counter, target, max(until - self._clock.monotonic(), 0.05))
        except Exception as error:  # noqa: BLE001 - whatever the client raises: the byte bound remains
            counts.failed(account, key, error)
            _log.info("%s was not counted, its byte bound remains: %s", target, type(error).__name__)
            return quote
        except BaseException:
            counts.failed(account, key, None)
            raise
        report.token_counts[str(target)] = counts.counted(account, key, tokens)
        return self._stages.price.quote(call, quote.target, report.token_counts, plan=quote.plan)
