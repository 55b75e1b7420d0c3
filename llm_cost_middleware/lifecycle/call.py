"""The life of one call.

request → decision → bound → reserve → SEND → usage → cost → settle → record

One reservation an attempt. Whatever happens to an attempt, its reservation is resolved before the next one begins and
before anything is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from functools import partial
from typing import Any

from llm_cost_middleware.errors import BudgetExceededError, CircuitOpenError, LedgerError
from llm_cost_middleware.lifecycle.commands import (
    Available,
    Book,
    Compute,
    Deliver,
    Note,
    Reserve,
    Send,
    Settle,
    Sleep,
    StreamEnd,
    Void,
)
from llm_cost_middleware.lifecycle.drivers import Life
from llm_cost_middleware.lifecycle.engine import Engine
from llm_cost_middleware.lifecycle.state import Call, Hold, Outcome, Quote
from llm_cost_middleware.provider import UsageReading
from llm_cost_middleware.request import CallRequest, CallResult, Target

_log = logging.getLogger(__name__)
Steps = Generator[Any, Any, Any]


def life(
    engine: Engine, request: CallRequest, *, providers: frozenset[str] | None = None, prepared: Call | None = None
) -> Life:
    """Govern one call.

    Args:
        engine: The rooms and their state.
        request: What the caller wants.
        providers: The providers that this host can send to; ``None``: those with a key in the environment.
        prepared: The call, where it was routed ahead; it is good for one life.

    Raises:
        BudgetExceededError: It does not fit, and nothing that ``on_insufficient`` allows makes it fit.
        NoEligibleModelError: No model may take it.
        PriceNotFoundError: The model has no price, and ``on_unknown_price`` is ``deny``.
        CircuitOpenError: Every model that may take it is failing.
        LedgerUnavailableError: The ledger does not answer, and ``on_unavailable`` is ``deny``.
        Exception: What the last attempt raised, as the host raised it.
    """
    call = prepared
    if call is None or call.attempts:
        call = engine.begin(request, providers)
        available = (yield Available(call.scopes)) if engine.routes_by_budget else None
        engine.route(call, available)
    target = call.target
    while True:
        call.attempts += 1
        hold = yield from _hold(engine, call, target)
        try:
            answer = yield Send(hold.attempt)
        except GeneratorExit:
            raise
        except BaseException as error:
            following = yield from _after_failure(engine, call, hold, error)
            if following is None:
                yield Note(partial(engine.write_log, call))
                raise
            target = following
            continue
        if isinstance(answer, CallResult):
            yield from _resolve(engine, call, hold, engine.outcome(hold, answer.reading))
            yield Note(partial(engine.write_log, call))
            return engine.answer(call, answer.response)
        end: StreamEnd = yield Deliver(answer, hold.reservation_id, engine.settings.lease_s)
        yield from _resolve(engine, call, hold, engine.stream_outcome(hold, end.reading, end.error))
        yield Note(partial(engine.write_log, call))
        return engine.answer(call, None)


def _hold(engine: Engine, call: Call, target: Target) -> Generator[Any, Any, Hold]:
    """Admit the attempt and set its money aside; in observe mode, only look whether it would have fitted."""
    target = yield from _admit(engine, call, target)
    quote = engine.quote(call, target)
    if engine.settings.observe:
        available = yield Available(call.scopes_of(target))
        if available is not None and quote.amount_nanousd > available:
            engine.books.refused(call, quote, enforced=False, scope=None)
        return engine.hold(call, quote, reservation_id=None)
    try:
        return (yield from _reserve(engine, call, quote))
    except BudgetExceededError as refusal:
        hold = yield from _make_it_fit(engine, call, quote)
        if hold is None:
            engine.books.refused(call, quote, enforced=True, scope=refusal.scope)
            raise
        return hold


def _admit(engine: Engine, call: Call, target: Target) -> Generator[Any, Any, Target]:
    """Wait at the gate of a target, or walk around one whose circuit is open."""
    admission = engine.admit(target)
    while admission.action == "wait":
        yield Sleep(admission.delay_s)
        admission = engine.admit(target, admission)
    if not admission.open:
        return target
    for other in engine.fallbacks(call, target):
        if engine.admit(other).action == "go":
            return other
    raise CircuitOpenError(str(target), admission.retry_after)


def _reserve(engine: Engine, call: Call, quote: Quote) -> Generator[Any, Any, Hold]:
    reservation_id = engine.next_reservation_id(call)
    scopes = call.scopes_of(quote.target)
    if quote.over_call_limit is not None:
        raise quote.over_call_limit
    try:
        yield Reserve(reservation_id, quote.amount_nanousd, scopes, engine.settings.lease_s, engine.memo(call, quote))
    except BudgetExceededError:
        raise
    except LedgerError as error:
        if not engine.settings.allow_unavailable:
            raise
        _log.error("sent without a reservation, as on_unavailable allows: %s", error)
        return engine.hold(call, quote, reservation_id=None)
    except BaseException:  # interrupted at the very moment: nothing was sent, so nothing may stay reserved
        yield from _quietly(Void(reservation_id))
        raise
    return engine.hold(call, quote, reservation_id=reservation_id)


def _make_it_fit(engine: Engine, call: Call, quote: Quote) -> Generator[Any, Any, Hold | None]:
    """Count exactly where bytes were the bound, then do what ``on_insufficient`` allows, in its order."""
    if (count := engine.exact_count(call, quote.target)) is not None:
        call.exact_input = yield Compute(count)
        exact = engine.quote(call, quote.target)
        if exact.amount_nanousd < quote.amount_nanousd and (hold := (yield from _try(engine, call, exact))):
            return hold
    for action in engine.settings.on_insufficient:
        if action == "downgrade":
            for cheaper in engine.downgrades(call, quote.target):
                lesser = engine.quote(call, cheaper)
                if lesser.amount_nanousd >= quote.amount_nanousd:
                    continue
                if hold := (yield from _try(engine, call, lesser)):
                    engine.books.adjusted(call, action, str(quote.target), str(cheaper))
                    return hold
                quote = lesser
        elif action == "cap_output":
            available = yield Available(call.scopes_of(quote.target))
            capped = engine.cap_to(call, quote, available)
            if capped is not None and (hold := (yield from _try(engine, call, capped))):
                engine.books.adjusted(call, action, str(quote.max_tokens), str(capped.max_tokens))
                return hold
        else:
            break
    return None


def _try(engine: Engine, call: Call, quote: Quote) -> Generator[Any, Any, Hold | None]:
    try:
        return (yield from _reserve(engine, call, quote))
    except BudgetExceededError:
        return None


def _after_failure(engine: Engine, call: Call, hold: Hold, error: BaseException) -> Generator[Any, Any, Target | None]:
    """Resolve a failed attempt. Returns the target of the next attempt, or ``None`` to let the error through."""
    failure = engine.classify(error, hold.quote.target)
    reading: UsageReading | None = getattr(error, "llm_cost_reading", None)
    if reading is not None:  # billed, and the host could read for how much (an answer that failed to parse)
        yield from _resolve(engine, call, hold, engine.outcome(hold, reading))
    elif failure.billed == "no":
        if hold.reservation_id is not None:
            yield from _quietly(Void(hold.reservation_id))
        engine.voided(call, hold, failure.reason)
    else:
        yield from _resolve(engine, call, hold, engine.unconfirmed(hold))
    decision = engine.after_failure(call, hold, failure)
    if decision.action == "raise" or call.fixed:
        engine.books.failed(call, hold, failure, decision.reason)
        if failure.retry_after and isinstance(error, Exception):
            error.add_note(f"llm_cost_middleware: the provider asks to retry after {failure.retry_after:g} s")
        return None
    following = decision.target or hold.quote.target
    engine.books.retried(call, hold, failure, decision.delay_s, following)
    if decision.delay_s > 0:
        yield Sleep(decision.delay_s)
    return following


def _resolve(engine: Engine, call: Call, hold: Hold, outcome: Outcome) -> Steps:
    """Book an attempt. A ledger that does not answer now costs the caller nothing: the lease will charge it."""
    memo = engine.memo(call, hold.quote, outcome)
    if hold.reservation_id is None:
        receipt = yield from _quietly(
            Book(engine.next_reservation_id(call), outcome.amount_nanousd, hold.scopes, outcome.status, memo)
        )
    else:
        receipt = yield from _quietly(Settle(hold.reservation_id, outcome.amount_nanousd, outcome.status, memo))
    engine.settled(call, hold, outcome, receipt)


def _quietly(command: Any) -> Steps:
    try:
        return (yield command)
    except LedgerError as error:
        _log.error("%s failed; the reservation will lapse and be charged: %s", type(command).__name__.lower(), error)
        return None
