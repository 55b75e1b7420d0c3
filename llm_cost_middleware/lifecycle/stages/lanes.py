"""In which lane a call begins that can wait, and what follows where it brings no answer there."""

from __future__ import annotations

import json
from math import inf
from random import Random
from typing import get_args

from msgspec.structs import replace

from llm_cost_middleware.budget.backend import Journal, JournalEntry
from llm_cost_middleware.capabilities import find_capabilities
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import LLMCostError, PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import CallReport, ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pricing.bound import measure
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.provider import Failure
from llm_cost_middleware.request import CallRequest, FixedRetries, ModelRef
from llm_cost_middleware.retry.flex import FlexTry, NextLane, after_flex
from llm_cost_middleware.retry.policy import RetryPolicy
from llm_cost_middleware.routing.eligibility import DEFAULT_OUTPUT
from llm_cost_middleware.routing.lanes import Lane, LaneEnd, LaneHistory, LaneOffer, choose_lane
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.sentences import Sentence, unread
from llm_cost_middleware.usage import TokenUsage

LANE = "lane"
"""The kind of the journal's lines that say how tries in a lane went."""
_FLEX: Lane = "flex"
_ENDPOINTS = frozenset({"chat.completions", "responses"})
_UNSAID = frozenset({None, "", "auto", "default"})
_RECALLED_S = 86_400.0
_BYTES_PER_TOKEN = 3


class LaneStage:
    """Chooses lanes, and remembers how they went. Safe to share between threads.

    Args:
        settings: What a call may do.
        policy: Says how long the calls of a site can wait.
        retries: Limits how often a call is sent.
        catalogue: Prices.
        journal: Where processes tell each other how tries went; ``None``: nowhere.
        clock: Time.
        rng: Spreads waits.
    """

    _lock = ForkSafeLock()

    def __init__(
        self,
        settings: Settings,
        policy: RoutingPolicy,
        retries: RetryPolicy,
        catalogue: Catalogue,
        journal: Journal | None,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._settings, self._policy, self._retries, self._catalogue = settings, policy, retries, catalogue
        self._journal, self._clock, self._rng = journal, clock, rng
        self._history, self._recalled = LaneHistory(), journal is None
        self.waits = any(each.patience for each in (policy, *policy.sites.values()))
        """Whether calls may wait that say nothing of it themselves."""

    def take_over(self, before: LaneStage) -> None:
        """Go on with what another one remembers."""
        self._history, self._recalled = before._history, before._recalled

    # --- what earlier processes saw --------------------------------------------------------------------------------

    def must_recall(self, request: CallRequest) -> bool:
        """Whether ``recall`` is due: before the first call that can wait."""
        return not self._recalled and (self.waits or bool(request.context.patience_s))

    def recall(self) -> None:
        """Read how tries of the last day went, in all processes of the ledger. May block; never raises."""
        with self._lock:
            if self._recalled or self._journal is None:
                return
            self._recalled = True
            try:
                for line in self._journal.read(LANE, self._clock.now() - _RECALLED_S):
                    if (told := _read(line.data)) is not None:
                        self._history.observe(*told, line.at)
            except LLMCostError:  # without it the documents say what to expect
                return

    # --- before an attempt -----------------------------------------------------------------------------------------

    def choose(self, call: RoutedCall) -> RoutedCall:
        """The call with the lane in which it begins, where it can wait; without one, where it cannot."""
        patience = call.request.context.patience_s
        if patience is None:
            patience = self._policy.for_site(call.decision.site).patience_s if self.waits else None
        if not patience or call.sent_externally:
            return call
        target, now = call.target.plain, self._clock.now()
        unfit = self._unfit(call.request, target)
        with self._lock:
            standard = LaneOffer(
                "standard", self._cost(call, target, None) or NanoUSD(0), self._history.delay(target, "standard")
            )
            delay, shares = self._history.delay(target, _FLEX), self._history.shares(target, _FLEX, now)
            flex = LaneOffer(_FLEX, self._cost(call, target, _FLEX) or NanoUSD(0), delay, *shares, unfit)
            choice = choose_lane((standard, flex), patience)
        told = ("{}; {}".format, unread(call.decision, "reason"), choice.told)
        decision = call.decision._replace(lane=choice.lane, lanes=choice.candidates, reason=told)
        taken: frozenset[ModelRef] = frozenset()
        if choice.lane == _FLEX and not self._settings.observe:  # an observer leaves the request as it is
            others = (each.target.plain for each in decision.candidates if not each.rejected)
            taken = frozenset((target, *(other for other in others if not self._unfit(call.request, other))))
        return replace(call, decision=decision, lane=choice, flex_at=taken)

    def in_time(self, call: RoutedCall) -> RoutedCall:
        """A call at flex as it goes on from here: without it, where no time is left for a try."""
        assert call.lane is not None  # noqa: S101 - ``choose`` gives it with the models at flex
        left = call.lane.left_s(self._clock.monotonic() - call.started_at)
        return call if left >= call.lane.least_s else replace(call, flex_at=frozenset())

    def _unfit(self, request: CallRequest, target: ModelRef) -> Sentence:
        """Why a call may not go to flex at a model; empty where it may."""
        stated = request.settings.get("service_tier", request.params.get("service_tier"))
        terms, sent = request.retry_terms, self._settings.sent_tiers.get(target.provider)
        known = find_capabilities(*target)
        served = request.endpoint_at(target) if request.endpoint_at is not None else request.endpoint
        endpoint = served or request.endpoint
        if stated is not None or sent not in _UNSAID:
            return "service_tier = {} is asked for".format, repr(stated or sent)
        if known is None or _FLEX not in known.service_tiers:
            return "{} does not sell flex".format, target.model
        if target.provider != "openai" or not {endpoint, request.endpoint} <= _ENDPOINTS:
            return "{} takes no flex".format, endpoint
        if known.endpoints and endpoint not in known.endpoints:
            return "{} is not served at {}".format, target.model, endpoint
        if request.is_bare(target):
            return "a gateway is sent what the caller wrote"
        if request.params.get("batch") or request.settings.get("background"):
            return "its answer comes later anyway"
        if self._retries.max_attempts == 1 or (isinstance(terms, FixedRetries) and terms.max_attempts == 1):
            return "it may be sent once only, which leaves no way back"
        return ""

    def _cost(self, call: RoutedCall, target: ModelRef, tier: str | None) -> NanoUSD | None:
        """What an answer of usual length costs at a tier; ``None`` without a price."""
        request, size = call.request, measure(call.request)
        tokens = (size.text_bytes + size.tool_bytes) // _BYTES_PER_TOKEN
        output = min(DEFAULT_OUTPUT, request.max_tokens or DEFAULT_OUTPUT) * request.choice_count
        try:
            rates = (request.prices or self._catalogue).rates(*target, at=self._clock.now(), service_tier=tier)
        except PriceNotFoundError:
            return None
        return rates.cost(TokenUsage(uncached_input=tokens, output=output))

    # --- after an attempt ------------------------------------------------------------------------------------------

    def answered(self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt) -> None:
        """Note that an attempt of a call that can wait was answered."""
        if call.lane is not None:
            self._note(call, report, reserved, "answered")

    def after_failure(
        self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, failure: Failure
    ) -> NextLane | None:
        """Note that a try at flex brought no answer, and decide what follows; ``None``: what follows every failure.

        Args:
            call: The call.
            report: Counts its tries.
            reserved: The try.
            failure: What its end means, as ``retry.flex.as_flex`` has it.
        """
        if not reserved.quote.lane or call.lane is None:
            return None
        self._note(call, report, reserved, "refused" if failure.billed == "no" else "lost")
        report.flex_tries += 1
        left = call.lane.left_s(self._clock.monotonic() - call.started_at)
        with self._lock:
            following = after_flex(FlexTry(failure, report.flex_tries, left, call.lane.least_s), self._rng)
        report.flex_over = following is None or following.action == "standard"
        return following

    def onward(self, call: RoutedCall, report: CallReport) -> RoutedCall:
        """The call after a failure: at the standard tier, where flex is over for it."""
        return replace(call, flex_at=frozenset()) if report.flex_over and call.flex_at else call

    def _note(self, call: RoutedCall, report: CallReport, reserved: ReservedAttempt, end: LaneEnd) -> None:
        model, lane = reserved.attempt.target, _FLEX if reserved.quote.lane else "standard"
        seconds, at = self._clock.monotonic() - reserved.started_at, self._clock.now()
        with self._lock:
            self._history.observe(model, lane, end, seconds, at)
        if self._journal is not None and reserved.quote.lane:
            line = {"m": [*model], "l": lane, "e": end, "s": round(seconds, 3)}
            report.lines.append(JournalEntry(LANE, call.id, at, json.dumps(line, separators=(",", ":")).encode()))


def _read(line: bytes) -> tuple[ModelRef, Lane, LaneEnd, float] | None:
    """What a line says of a try; ``None`` where it is none of ours."""
    try:
        said = json.loads(line)
        model, lane, end, seconds = ModelRef(*map(str, said["m"])), said["l"], said["e"], float(said["s"])
    except (ValueError, TypeError, KeyError):
        return None
    known = lane in get_args(Lane) and end in get_args(LaneEnd) and 0 <= seconds < inf
    return (model, lane, end, seconds) if known else None
