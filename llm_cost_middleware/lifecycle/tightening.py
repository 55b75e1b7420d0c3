"""Where money is short: the holds of this process that are loose are reduced to what their calls are known to need.

Inputs that can be counted at home are counted; where a provider counts, a few are asked for, within its allowance; and
a running stream is told to reduce its own hold as soon as the provider has said how long its input was.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from msgspec.structs import replace

from llm_cost_middleware.budget.model import Reduction
from llm_cost_middleware.errors import BudgetExceededError, LedgerError
from llm_cost_middleware.event_loops import current_loop
from llm_cost_middleware.lifecycle.commands import Command, CountInput, Reduce, RunInThread
from llm_cost_middleware.lifecycle.open_holds import OpenHold, OpenHolds
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.stages.counts import TIMEOUT_S
from llm_cost_middleware.lifecycle.state import Quote
from llm_cost_middleware.money import ZERO, floor_nanousd

_MOST = 64
"""Holds that one refusal has counted at home, at most; the next one goes on."""


class Tightening:
    """One a pipeline; keeps nothing of a call."""

    def __init__(self, stages: Stages, holds: OpenHolds) -> None:
        self._stages, self._holds = stages, holds

    def tighten(self, refusal: BudgetExceededError, quote: Quote) -> Generator[Command, Any, bool]:
        """Have loose holds in the budget that refused reduced, until ``quote`` fits; return whether any was."""
        loose = self._holds.loose(str(refusal.scope))
        if not loose or refusal.available is None:
            return False
        needed = quote.amount_nanousd - floor_nanousd(max(refusal.available, ZERO.usd))
        if needed > floor_nanousd(max(refusal.pending or ZERO.usd, ZERO.usd)):
            return False  # not even if they held nothing
        found: list[tuple[OpenHold, Quote]] = yield RunInThread(lambda: self._counted(loose[:_MOST], needed))
        needed -= sum(hold.quote.amount_nanousd - better.amount_nanousd for hold, better in found)
        for hold in loose if needed > 0 else ():
            if needed > 0 and not hold.is_final and (better := (yield from self._asked(hold))) is not None:
                found.append((hold, better))
                needed -= hold.quote.amount_nanousd - better.amount_nanousd
        for hold in loose if needed > 0 else ():
            hold.wanted = not hold.is_final  # if it streams, it reduces itself
        if not found:
            return False
        amounts = {}
        for hold, better in found:
            amounts.update(hold.reduced(better).amounts)
        try:
            made: tuple[Reduction, ...] = yield Reduce(amounts)
        except LedgerError:
            return False
        return any(one.released_nanousd for one in made)

    def _counted(self, loose: list[OpenHold], needed: float) -> list[tuple[OpenHold, Quote]]:
        """Count the inputs that can be counted at home; what cannot be is not tried again."""
        found = []
        for hold in loose:
            if needed <= 0:
                break
            exact = self._stages.price.exact_count(hold.call, hold.quote.target, {})
            count = None if exact is None else exact.make()
            if exact is None or count is None:
                continue
            better = self._requoted(hold, {exact.encoding: count})
            if better is None:
                hold.is_final = True
            else:
                found.append((hold, better))
                needed -= hold.quote.amount_nanousd - better.amount_nanousd
        return found

    def _asked(self, hold: OpenHold) -> Generator[Command, Any, Quote | None]:
        """Ask the provider for the count of a hold, where one may be asked for now and nobody has to wait for it."""
        counts, counter, target, request = self._stages.counts, hold.counter, hold.quote.target.plain, hold.call.request
        if counter is None or hold.loop is not current_loop():
            return None  # a client of an event loop belongs to it
        if request.has_server_side_context or not counter.counts(target):
            return None
        account, key = counter.account(target), counts.key(request, target)
        tokens = counts.known(request, target, key)
        if tokens is None:
            if not counts.may_ask(account) or counts.take_turn(account, key).delay_s:
                return None
            try:
                told = yield CountInput(counter, target, TIMEOUT_S)
            except Exception as error:  # noqa: BLE001 - whatever the client raises: the hold stays as it is
                counts.failed(account, key, error)
                return None
            except BaseException:
                counts.failed(account, key, None)
                raise
            tokens = counts.counted(account, key, told)
        better = self._requoted(hold, {str(target): tokens})
        hold.is_final = better is None
        return better

    def _requoted(self, hold: OpenHold, token_counts: dict[str, int | None]) -> Quote | None:
        """Its quote by a count, at the prices, the plan and the cap that it was sent with; ``None`` if no less."""
        before = hold.quote
        again = self._stages.price.quote(
            hold.call, before.target, token_counts, plan=before.plan, cap=before.max_tokens
        )
        if again.rates != before.rates or again.amount_nanousd >= before.amount_nanousd:
            return None
        return replace(before, amount_nanousd=again.amount_nanousd, bound=again.bound, counted=again.counted)
