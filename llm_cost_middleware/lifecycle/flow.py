"""The flow of one call, as a generator of commands.

route → quote → reserve → SEND → usage → cost → settle → record

One reservation per attempt. Whatever happens to an attempt, its reservation is resolved before the next one begins and
before anything is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from random import Random
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LLMCostError, PriceNotFoundError
from llm_cost_middleware.event_loops import other_loop
from llm_cost_middleware.lifecycle.attribution import with_scopes
from llm_cost_middleware.lifecycle.caps import cut_at_learned_cap
from llm_cost_middleware.lifecycle.commands import HandOffStream, OpenedStream, Send, WriteLog
from llm_cost_middleware.lifecycle.drivers import Flow, adrive, drive, running_loop
from llm_cost_middleware.lifecycle.open_holds import OpenHolds
from llm_cost_middleware.lifecycle.reserving import Reserving, Steps
from llm_cost_middleware.lifecycle.settling import Settling
from llm_cost_middleware.lifecycle.shadow import Shadows
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.lifecycle.state import CallOutcome, CallReport, ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.lifecycle.warm_up import WarmUp, load_tables
from llm_cost_middleware.named_tuples import made
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.request import CallContext, CallRequest, CallResult, InputCounter, ModelRef
from llm_cost_middleware.routing.signals import demanded_tools, failure_signals

_log = logging.getLogger(__name__)
_ANY = MappingProxyType({"model": "smart", "messages": ({"role": "user", "content": "Hello"},)})
"""A body that routing chooses a model for."""


class CallFlow:
    """Takes calls through the stages. One a pipeline; all state of a call is in the locals of its generator.

    Args:
        stages: What a call consults.
        settings: What it may do.
        clock: Time.
        new_id: Makes call ids.
        stream_deadline_s: Seconds from the start of a call to the end of its stream.
        reduces: The ledger can reduce what it holds.
    """

    drive, adrive = staticmethod(drive), staticmethod(adrive)

    def __init__(
        self,
        stages: Stages,
        settings: Settings,
        clock: Clock,
        new_id: Callable[[], str],
        stream_deadline_s: float,
        *,
        reduces: bool = False,
    ) -> None:
        self.stages, self.settings, self._new_id = stages, settings, new_id
        self._holds = OpenHolds(stages.price, notes=reduces and not settings.observe)
        self._reserving = Reserving(stages, settings, clock, self._holds)
        self._settling = Settling(stages, clock)
        self._shadows = Shadows(stages, self._reserving, self._settling, new_id)
        self.is_ready = False
        """A call on an event loop blocks it for no table."""
        self._warm_up = WarmUp()
        self._logs_in_memory = stages.logs_in_memory
        self._attributes = not settings.attribution.asks_nothing
        self._stream_deadline_s = inf if settings.observe else stream_deadline_s

    def route(
        self,
        request: CallRequest,
        providers: frozenset[str] | None,
        headroom: Headroom | None = None,
        *,
        sent_externally: bool = False,
    ) -> RoutedCall:
        """Take in a call under the scopes that ``attributed`` gave it: draw its id and choose its model.

        Raises:
            NoEligibleModelError: No model may take it.
        """
        stages = self.stages
        named = stages.price.named_model(request) if self.settings.observe else None
        call = stages.route.route(
            self._new_id(), request, providers, headroom, named, sent_externally, stages.record.has_listeners
        )
        if stages.lanes.waits or request.context.patience_s:
            call = stages.lanes.choose(call)
        if call.events_enabled:
            stages.record.routed(call)
        for version, reason in stages.drift.news() if stages.drift.untold else ():
            stages.record.policy_drifted(call, version, reason)
        return call

    def attributed(self, request: CallRequest) -> CallRequest:
        """The call under the scopes that the rule of attribution gives it.

        Raises:
            AttributionError: It names nobody, or somebody who is not on the list, and may not.
        """
        if self.settings.attribution.asks_nothing:
            return request
        scopes = self.settings.attribution.end_user_of(request.context.scopes, request.settings)
        context = self.attribute(with_scopes(request.context, scopes), send=True)
        return request if context is request.context else request._replace(context=context)

    def attribute(self, context: CallContext, *, send: bool) -> CallContext:
        """The context of a call, or of a booking, under the scopes that the rule gives it.

        Args:
            context: As the host read it.
            send: It is about to be sent, so it can be refused.

        Raises:
            AttributionError: As ``attributed``.
        """
        rule = self.settings.attribution
        found = rule.attributed(context.scopes)
        if not found.gaps:
            return with_scopes(context, found.scopes)
        refused = next((gap for gap in found.gaps if rule.refuses(gap)), None)
        enforced = send and refused is not None and not self.settings.observe
        if refused is not None or rule.on_missing == "warn":
            self.stages.record.unattributed(found.gaps, rule, enforced=enforced)
        if enforced and refused is not None:
            raise rule.error(refused)
        return with_scopes(context, rule.filled(found))

    def load_ahead(self) -> None:
        """Load what a first call looks up, as the pipeline is made: prices, limits and abilities of its models.

        Where an event loop runs in this thread, another one does it, and a call that comes sooner waits for that.
        """

        def load() -> None:
            load_tables()
            for name in NAMES:
                with suppress(Exception):  # as there
                    rules = get_provider(name)
                    self._look_up(rules.read_request(_ANY, rules.endpoints[0]), frozenset(NAMES))
                    self.stages.health.classify(TimeoutError(), ModelRef(name, ""))  # the errors of every platform
            self.is_ready = True

        if running_loop(blocks=False) is None and other_loop() is None:
            load()
        else:
            with suppress(RuntimeError):  # no more threads: the first call loads it
                self._warm_up.begin(load)

    async def make_ready(self, request: CallRequest, providers: frozenset[str] | None) -> None:
        """Load in a thread, ahead of a first call on an event loop, what routing and quoting it look up.

        Half a second of imports and tables of prices, limits and abilities. Nothing is remembered of the call.
        """
        await self._warm_up.wait(partial(self._look_up, request, providers))
        self.is_ready = True

    def _look_up(self, request: CallRequest, providers: frozenset[str] | None) -> None:
        with suppress(Exception):  # whatever it is, the call itself meets it next, and says so
            rng = Random(0)  # noqa: S311 - neither an id nor a number is drawn that the calls themselves would have
            call = self.stages.route.route_dry_run("", request, providers, rng=rng)
            self.stages.price.quote(call, call.target, {})

    def route_dry_run(self, request: CallRequest, providers: frozenset[str] | None) -> RoutedCall:
        """The call as it would be routed. Nothing is remembered."""
        scopes = self.settings.attribution.attributed(request.context.scopes).scopes
        request = request._replace(context=with_scopes(request.context, scopes))
        return self.stages.route.route_dry_run(self._new_id(), request, providers)

    def start(  # noqa: C901, PLR0912, PLR0915 - the life of a call in one generator: each more is passed by every command
        self,
        request: CallRequest,
        *,
        providers: frozenset[str] | None = None,
        prepared: RoutedCall | None = None,
        accept: Callable[[CallResult], bool] | None = None,
        counter: InputCounter | None = None,
    ) -> Flow:
        """Govern one call.

        Args:
            request: The call.
            providers: The providers that this host can send to; ``None``: those with a key in the environment.
            prepared: The call, where it was routed ahead; it is good for one run.
            accept: Checks an answer; what it rejects is asked once more, a tier up, where the budget allows.
            counter: Asks the provider for the call's input tokens, where the host can.

        Raises:
            BudgetExceededError: It does not fit, and nothing that ``on_insufficient`` allows makes it fit.
            NoEligibleModelError: No model may take it.
            PriceNotFoundError: The model has no price, and ``on_unknown_price`` is ``deny``.
            CircuitOpenError: Every model that may take it is failing.
            LedgerUnavailableError: The ledger does not answer, and ``on_unavailable`` is ``deny``.
            Exception: The error of the last attempt, as the host raised it.
        """
        stages, route = self.stages, self.stages.route
        # A host may hand the same call in twice (a retry around it): the second run needs ids of its own.
        if prepared is not None and route.claim(prepared):
            call = prepared
        else:
            if self._attributes:
                request = self.attributed(request)
            if stages.lanes.must_recall(request):
                yield WriteLog(stages.lanes.recall)
            headroom = (yield from self._reserving.headroom(request.context.scopes)) if route.needs_headroom else None
            call = self.route(request, providers, headroom)
        if stages.cache.shares(call):
            yield WriteLog(partial(stages.cache.recall, call))
        report, target, number, retry_tokens = CallReport(counter), call.target, 0, 0
        results: list[CallResult] = []
        cut: list[CallResult] = []
        cause: BaseException | None = None
        response: Any = None
        try:
            # Attempt after attempt, until one is answered or nothing is left to try.
            while True:
                number += 1
                asked = replace(call, spent_nanousd=report.spent_nanousd) if report.spent_nanousd else call
                try:
                    reserved = yield from self._reserving.admit_and_reserve(asked, report, target, number)
                except LLMCostError as refusal:
                    if kept := [*cut, *results]:  # an answer that a cap cut, or a check rejected, is better than none
                        response = kept[-1].response
                        break
                    # A refused second attempt shows why the first failed.
                    refusal.__cause__ = refusal.__cause__ or cause
                    raise
                cause = None  # the traceback of an error holds this frame: no cycle of references
                try:
                    answer = yield Send(reserved.attempt)
                except BaseException as error:
                    reserved = self._holds.closed(reserved)
                    following, retry_tokens = yield from self._settling.after_failure(
                        call, report, reserved, error, retry_tokens
                    )
                    call = stages.lanes.onward(call, report)
                    if following is None:
                        if isinstance(error, Exception) and (kept := [*cut, *results]):
                            response = kept[-1].response
                            break
                        raise
                    cause, target = error, following
                    continue
                if call.lane is not None:
                    stages.lanes.answered(call, report, reserved)
                # A stream cannot be reviewed: its chunks are with the caller before it is complete.
                if not isinstance(answer, CallResult):
                    yield from self._hand_off(call, report, reserved, answer, retry_tokens)
                    break
                reserved = self._holds.closed(reserved)
                posting = stages.price.posting(reserved, answer.reading)
                stages.health.succeeded(call, reserved, retry_tokens)  # whether its usage can be read or not
                again = reserved.quote.learned and cut_at_learned_cap(reserved, answer.reading)
                signals, stands = self._signals(call, report, answer), not (again or self._reviews(call, accept))
                yield from self._settling.post(call, report, reserved, posting, signals, stands=stands)
                retry_tokens = 0  # given back: an answer that a check rejects is followed by no retry
                verdict: CallResult | ModelRef = answer
                if again:
                    call, cut, verdict = replace(call, full_cap=True), [answer], reserved.arm
                elif not stands:
                    verdict = self._review(call, report, reserved, answer, results, accept)
                # Not always the newest: where two cheap models agree, the first answer stands.
                if isinstance(verdict, CallResult):
                    if route.has_shadows:
                        yield from self._shadows.compare(call, report, verdict)
                    response = verdict.response
                    break
                target = verdict
        except GeneratorExit:
            raise
        except BaseException as error:
            if isinstance(error, PriceNotFoundError):
                stages.record.unpriced(call, error)
            yield from self._write_log(call, report)
            raise
        if self._logs_in_memory:
            self._log_now(call, report)
        else:
            yield from self._write_log(call, report)
        return made(CallOutcome, (response, call.id, call.decision, report.booked))

    def _hand_off(
        self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, answer: OpenedStream, retry_tokens: int
    ) -> Steps[None]:
        """Hand a stream to the caller, and book it when it has ended."""
        deadline = call.started_at + self._stream_deadline_s
        hold_ttl_s = self.settings.hold_ttl_s
        hold = self._holds.of(reserved)
        try:
            end = yield HandOffStream(answer, reserved.reservation_id, hold_ttl_s, deadline, call.id, hold)
        finally:
            reserved = self._holds.closed(reserved)
        yield from self._settling.end_stream(call, report, reserved, end, retry_tokens)

    def _signals(self, call: RoutedCall, report: CallReport, answer: CallResult) -> tuple[str, ...]:
        """The failures that an answer shows."""
        # Read only where something learns from it: most calls never extract the content of their answer.
        request = call.request
        told = (
            self.stages.route.reads_answers(call.decision.site)
            or request.output_schema
            or (request.tools and demanded_tools(request) is not None)
        )
        # What a provider still works on says nothing yet.
        content = answer.content if (told or request.tools) and not answer.reading.pending else None
        if content is not None:
            report.content = content  # which tools are never called is told by the ledger
        return failure_signals(request, content) if told and content is not None else ()

    def _reviews(self, call: RoutedCall, accept: Callable[[CallResult], bool] | None) -> bool:
        """Whether an answer may be followed by a stronger model's."""
        if call.request.model_pinned or self.settings.observe:
            return False
        return accept is not None or self.stages.route.has_cascades

    def _review(
        self,
        call: RoutedCall,
        report: CallReport,
        reserved: ReservedAttempt,
        answer: CallResult,
        results: list[CallResult],
        accept: Callable[[CallResult], bool] | None,
    ) -> CallResult | ModelRef:
        """Decide whether an answer that is reviewed stands. Returns the one that does, or the stronger model to ask."""
        if answer.reading.pending:
            return answer
        results.append(answer)
        verdict = self.stages.route.review_answer(call, reserved, results, accept, report.quality_signals)
        if isinstance(verdict, ModelRef):
            report.escalated = True
            report.tried_targets += (reserved.arm,)  # where money is short no step down leads back to it
            self.stages.record.escalated(reserved, verdict)
        return verdict

    def _log_now(self, call: RoutedCall, report: CallReport) -> None:
        """``_write_log`` where nothing leaves this process: no command, as there is nothing to wait for."""
        self.stages.drift.observe(call)
        try:
            self.stages.write_log(call, report)
        except Exception:  # noqa: BLE001 - as below
            _log.exception("the decision of call %s was not logged", call.id)

    def _write_log(self, call: RoutedCall, report: CallReport) -> Steps[None]:
        """Log the decision and what became of it. A failure to log must not lose an answer that was paid for."""
        if self._logs_in_memory:
            self._log_now(call, report)
            return
        self.stages.drift.observe(call)
        try:
            if self.stages.has_log(call, report):
                yield WriteLog(partial(self.stages.write_log, call, report))
        except LLMCostError as error:  # of a ledger that is away it says all there is to say
            _log.error("the decision of call %s was not logged: %s", call.id, error)
        except Exception:  # noqa: BLE001 - whatever the storage raises: the call itself is over and booked
            _log.exception("the decision of call %s was not logged", call.id)
