"""The life of one call.

request → decision → bound → reserve → SEND → usage → cost → settle → record

One reservation an attempt. Whatever happens to an attempt, its reservation is resolved before the next one begins and
before anything is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

from llm_cost_middleware.budget.model import Receipt
from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.errors import (
    BudgetExceededError,
    CircuitOpenError,
    LedgerError,
    LedgerUnavailableError,
    LLMCostError,
)
from llm_cost_middleware.lifecycle.commands import (
    Available,
    Book,
    Compute,
    Deliver,
    Look,
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
from llm_cost_middleware.lifecycle.state import Answer, Call, Hold, Outcome, Quote
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.provider import UsageReading
from llm_cost_middleware.request import CallRequest, CallResult, Target
from llm_cost_middleware.retry.gate import Admission
from llm_cost_middleware.routing.outcomes import PARSE_FAILED

_log = logging.getLogger(__name__)
_WARM_POLL_S, _WARM_POLLS = 0.05, 600  # thirty seconds: an answer that has not begun by then is no warm-up
Steps = Generator[Any, Any, Any]


def life(
    engine: Engine,
    request: CallRequest,
    *,
    providers: frozenset[str] | None = None,
    prepared: Call | None = None,
    accept: Callable[[CallResult], bool] | None = None,
) -> Life:
    """Govern one call.

    Args:
        engine: The rooms and their state.
        request: What the caller wants.
        providers: The providers that this host can send to; ``None``: those with a key in the environment.
        prepared: The call, where it was routed ahead; it is good for one life.
        accept: Checks an answer; what it rejects is asked once more, a tier up, where the budget allows.

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
        headroom = (yield from _headroom(engine, call.scopes)) if engine.routes_by_budget else None
        engine.route(call, headroom)
    call.accept = accept
    try:
        answer = yield from _attempts(engine, call)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _write_log(engine, call)
        raise
    yield from _write_log(engine, call)
    return answer


def _attempts(engine: Engine, call: Call) -> Generator[Any, Any, Answer]:
    """Attempt after attempt, until one is answered or nothing is left to try."""
    target = call.target
    cause: BaseException | None = None
    while True:
        call.attempts += 1
        try:
            hold = yield from _hold(engine, call, target)
        except LLMCostError as refusal:
            if call.results:  # an answer that a check rejected is better than none
                return engine.answer(call, call.results[-1].response)
            refusal.__cause__ = refusal.__cause__ or cause  # where a second attempt is refused: what the first met
            raise
        cause = None  # a frame of its own traceback must not keep it
        try:
            answer = yield Send(hold.attempt)
        except GeneratorExit:
            raise
        except BaseException as error:
            following = yield from _after_failure(engine, call, hold, error)
            if following is None:
                if call.results and isinstance(error, Exception):
                    return engine.answer(call, call.results[-1].response)
                raise
            target, cause = following, error
            continue
        if isinstance(answer, CallResult):
            yield from _resolve(engine, call, hold, engine.outcome(hold, answer.reading))
            verdict = engine.judge(call, hold, answer)
            if isinstance(verdict, CallResult):
                return engine.answer(call, verdict.response)
            target = verdict
            continue
        deadline = inf if engine.settings.observe else call.started + engine.retry.stream_deadline_s
        end: StreamEnd = yield Deliver(answer, hold.reservation_id, engine.settings.lease_s, deadline)
        yield from _end_stream(engine, call, hold, end)
        return engine.answer(call, None)


def _hold(engine: Engine, call: Call, target: Target) -> Generator[Any, Any, Hold]:
    """Admit the attempt and set its money aside. In observe mode, what does not fit is only reported."""
    admission = engine.admit(target)
    if admission.action != "go":
        target = yield from _wait(engine, call, target, admission)
    if engine.cache.warm_first:
        yield from _let_warm(engine, call, target)
    quote = engine.quotes.quote(call, target)
    enforced = not engine.settings.observe
    try:
        return (yield from _reserve(engine, call, quote))
    except BudgetExceededError as refusal:
        fitting = yield from _make_it_fit(engine, call, quote)
        if fitting is None:
            engine.books.refused(call, quote, enforced=enforced, scope=refusal.scope)
            if enforced:
                raise
        return fitting if fitting is not None and enforced else engine.hold(call, quote, reservation_id=None)


def _let_warm(engine: Engine, call: Call, target: Target) -> Generator[Any, Any, None]:
    """With ``warm_first``: wait while another call writes the prefix that this one could read."""
    for _ in range(_WARM_POLLS):
        if not engine.should_wait(call, target):
            return
        yield Sleep(_WARM_POLL_S)


def _wait(engine: Engine, call: Call, target: Target, admission: Admission) -> Generator[Any, Any, Target]:
    """Wait at the gate of a target, or walk around one whose circuit is open."""
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
    if quote.over_call_limit is not None:
        raise quote.over_call_limit
    reservation_id = engine.next_reservation_id(call)
    scopes = call.scopes_of(quote.target)
    try:
        yield Reserve(reservation_id, quote.amount_nanousd, scopes, engine.settings.lease_s, engine.memo(call, quote))
        return engine.hold(call, quote, reservation_id=reservation_id, scopes=scopes)
    except LedgerUnavailableError as error:
        if not engine.settings.allow_unavailable:
            raise
        _log.error("sent without a reservation, as on_unavailable allows: %s", error)
        return engine.hold(call, quote, reservation_id=None)
    except (BudgetExceededError, LedgerError, GeneratorExit):
        raise
    except BaseException:  # interrupted at the very moment: nothing was sent, so nothing may stay reserved
        with suppress(LedgerError):
            yield Void(reservation_id)
        raise


def _headroom(engine: Engine, scopes: tuple[str, ...]) -> Generator[Any, Any, Headroom | None]:
    headroom: Headroom | None = None
    try:
        headroom = yield Look(scopes)
    except LedgerUnavailableError:
        if not engine.settings.allow_unavailable:
            raise
    return headroom


def _available(engine: Engine, scopes: tuple[str, ...]) -> Generator[Any, Any, NanoUSD | None]:
    available: NanoUSD | None = None
    try:
        available = yield Available(scopes)
    except LedgerUnavailableError:
        if not engine.settings.allow_unavailable:
            raise
    return available


def _make_it_fit(engine: Engine, call: Call, quote: Quote) -> Generator[Any, Any, Hold | None]:
    """Count exactly where bytes were the bound, then do what ``on_insufficient`` allows, in its order."""
    enforced = not engine.settings.observe
    if (count := engine.quotes.exact_count(call, quote)) is not None:
        call.counts[quote.encoding] = yield Compute(count)
        exact = engine.quotes.quote(call, quote.target)
        if exact.amount_nanousd < quote.amount_nanousd and (hold := (yield from _try(engine, call, exact))):
            return hold
    for action in engine.settings.on_insufficient:
        if action == "downgrade":
            for cheaper in engine.downgrades(call, quote.target):
                lesser = engine.quotes.quote(call, cheaper)
                if lesser.amount_nanousd >= quote.amount_nanousd:
                    continue
                if hold := (yield from _try(engine, call, lesser)):
                    engine.books.adjusted(call, action, str(quote.target), str(cheaper), enforced=enforced)
                    return hold
                quote = lesser
        elif action == "cap_output":
            available = yield from _available(engine, call.scopes_of(quote.target))
            capped = engine.quotes.cap_to(call, quote, available)
            if capped is not None and (hold := (yield from _try(engine, call, capped))):
                before, after = str(quote.max_tokens), str(capped.max_tokens)
                engine.books.adjusted(call, action, before, after, enforced=enforced)
                return hold
        else:
            break
    return None


def _try(engine: Engine, call: Call, quote: Quote) -> Generator[Any, Any, Hold | None]:
    """Set a lesser amount aside; in observe mode, only look whether it would have fitted."""
    if engine.settings.observe:
        available = yield from _available(engine, call.scopes_of(quote.target))
        fits = quote.over_call_limit is None and (available is None or quote.amount_nanousd <= available)
        return engine.hold(call, quote, reservation_id=None) if fits else None
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
        if reading.error is None:
            call.seen += (PARSE_FAILED,)
    elif failure.billed == "no":
        interruption = None
        if hold.reservation_id is not None:
            _, interruption = yield from _surely(Void(hold.reservation_id))
        engine.voided(call, hold, failure.reason)
        if interruption is not None:
            raise interruption
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


def _end_stream(engine: Engine, call: Call, hold: Hold, end: StreamEnd) -> Steps:
    """Book a stream that was left; where it broke, say so."""
    yield from _resolve(engine, call, hold, engine.stream_outcome(hold, end.reading, end.error))
    if end.error is not None and not end.reading.complete and not isinstance(end.error, GeneratorExit):
        failure = engine.classify(end.error, hold.quote.target)
        engine.books.failed(call, hold, failure, "in the middle of its stream")


def _resolve(engine: Engine, call: Call, hold: Hold, outcome: Outcome) -> Steps:
    """Book an attempt, whatever happens meanwhile."""
    memo = engine.memo(call, hold.quote, outcome)
    verb: Settle | Book
    if hold.reservation_id is None:
        verb = Book(engine.next_reservation_id(call), outcome.amount_nanousd, hold.scopes, outcome.status, memo)
    else:
        verb = Settle(hold.reservation_id, outcome.amount_nanousd, outcome.status, memo)
    receipt, interruption = yield from _surely(verb)
    engine.settled(call, hold, outcome, receipt)
    if interruption is not None:
        raise interruption


def _surely(verb: Settle | Book | Void) -> Generator[Any, Any, tuple[Receipt | None, BaseException | None]]:
    """Run a verb that ends a reservation, and return what interrupted it, to be raised once the books are in order.

    Interrupted it may or may not have happened; its id makes the second go a no-op with the same answer. A ledger that
    does not answer costs the caller nothing: the lease will charge what was reserved.
    """
    interruption: BaseException | None = None
    while True:
        try:
            return (yield verb), interruption
        except LedgerError as error:
            _log.error("%s failed; what is reserved will lapse and be charged: %s", type(verb).__name__.lower(), error)
            return None, interruption
        except GeneratorExit:
            raise
        except BaseException as error:
            if interruption is not None:
                raise
            interruption = error


def _write_log(engine: Engine, call: Call) -> Steps:
    """Log the decision and what it came to. What goes wrong there is nothing to lose an answer for."""
    try:
        yield Note(partial(engine.chronicle.write, call))
    except Exception:  # noqa: BLE001 - whatever the storage raises: the call itself is over and booked
        _log.exception("the decision of call %s was not logged", call.id)
