"""Which model takes a call, first and after a failure, and whether its answer stands."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from random import Random

from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.stages.cache import CACHE_WORTHY, CacheStage
from llm_cost_middleware.lifecycle.stages.drift import DriftStage
from llm_cost_middleware.lifecycle.state import ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.request import CallRequest, CallResult, ModelRef
from llm_cost_middleware.routing.cascade import other_tier, review_answer
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.history import SiteHistory
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import NO_AFFINITY, Candidate, RoutingContext, decide, downgrade, fallbacks
from llm_cost_middleware.usage import TokenUsage

_TURNS = 16_384  # calls remembered, as numbers, to recognise the next turn of their conversation
_PREPARED = 4_096
_NOWHERE: frozenset[ModelRef] = frozenset()
Candidates = Callable[..., Sequence[Candidate]]
"""The configured models as a host sees them that reaches these providers."""


class RouteStage:
    """Chooses models. Safe to share between threads."""

    _lock = ForkSafeLock()

    def __init__(
        self,
        settings: Settings,
        policy: RoutingPolicy,
        candidates: Candidates,
        cache: CacheStage,
        drift: DriftStage,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._settings, self._policy, self._candidates, self._cache = settings, policy, candidates, cache
        self._drift, self._clock, self._rng = drift, clock, rng
        self._history = SiteHistory()
        self._last_target: OrderedDict[Hashable, ModelRef] = OrderedDict()
        self._unclaimed: dict[str, None] = {}
        policies = (policy, *policy.sites.values())
        self.needs_headroom = policy.explore > 0 or any(each.kind == "rules" for each in policies)
        """Whether the policy looks at the money that is left."""
        self.has_cascades = any(each.kind == "cascade" for each in policies)
        """Whether an answer may be reviewed that the caller does not check."""
        self.has_shadows = any(each.shadow > 0 for each in policies) and not settings.observe
        """Whether any call may be answered by a second model, to learn from."""
        self._reads_none = not any(each.learns or each.watches_failures for each in policies)

    def take_over(self, before: RouteStage) -> None:
        """Go on with what another one remembers of sites, conversations and calls that were routed ahead."""
        self._history, self._last_target, self._unclaimed = before._history, before._last_target, before._unclaimed

    def route(
        self,
        call_id: str,
        request: CallRequest,
        providers: frozenset[str] | None,
        headroom: Headroom | None = None,
        named: ModelRef | None = None,
        sent_externally: bool = False,
        events_enabled: bool = True,
    ) -> RoutedCall:
        """Choose the model of a call, and remember it for the next turn of its conversation.

        Args:
            call_id: Names the call.
            request: The call.
            providers: What the host reaches; ``None``: the providers with a key in the environment.
            headroom: The money left in the tightest budget, where the policy looks at it.
            named: In observe mode the model that the caller named: the call goes there whatever is decided.
            sent_externally: The caller sends the request itself.
            events_enabled: Some observer receives ordinary events.

        Raises:
            NoEligibleModelError: No model may take it.
        """
        started_at, now = self._clock.monotonic(), self._clock.now()
        features, candidates = read_features(request), self._candidates(providers, request.prices)
        worthy = features.total_chars >= CACHE_WORTHY  # below it no model caches a prefix: nothing to look for
        layout = self._cache.layout(request) if worthy and not request.bare else None
        affinity = NO_AFFINITY
        if layout is not None and not request.model_pinned and len(candidates) > 1:
            affinity = self._cache.affinity(layout, candidates, now, request.prices)
        own_key, earlier = conversation_keys(request)
        available, share = (None, None) if headroom is None else headroom
        with self._lock:
            # Chosen under the lock: history and conversation must not change between ranking and remembering.
            last = next(filter(None, map(self._last_target.get, earlier)), None) if earlier else None
            fallen = self._drift.fallen_back
            context = RoutingContext(call_id, now, self._rng, available, share, affinity, self._history, last, fallen)
            try:
                decision = decide(self._policy, candidates, request, features, context)
            except NoEligibleModelError:
                if named is None:
                    raise
                pinned = request._replace(model_pinned=True)  # an observer must not stop a call
                decision = decide(self._policy, candidates, pinned, features, context)
            chosen, turns = decision.target, self._last_target
            turns[own_key] = chosen
            turns.move_to_end(own_key)
            if len(turns) > _TURNS:
                turns.popitem(last=False)
        target = named or chosen
        return RoutedCall(call_id, request, decision, target, layout, started_at, sent_externally, events_enabled)

    def route_dry_run(
        self, call_id: str, request: CallRequest, providers: frozenset[str] | None, *, rng: Random | None = None
    ) -> RoutedCall:
        """Choose the model without remembering the choice: for a quote. ``rng``: in the place of the calls' own."""
        started_at, now = self._clock.monotonic(), self._clock.now()
        fallen = self._drift.fallen_back
        context = RoutingContext(call_id, now, rng or self._rng, history=self._history, fallen_back=fallen)
        candidates = self._candidates(providers, request.prices)
        decision = decide(self._policy, candidates, request, read_features(request), context)
        return RoutedCall(call_id, request, decision, decision.target, None, started_at)

    def reads_answers(self, site: str) -> bool:
        """Whether something looks at the answers of a site: learning, or a cascade."""
        if self._reads_none:
            return False
        policy = self._policy.for_site(site)
        return policy.learns or policy.watches_failures

    def shadows(self, site: str) -> bool:
        """Whether calls of a site may be answered by a second model, to learn from."""
        return self._policy.for_site(site).shadow > 0 and not self._settings.observe

    def shadow_target(self, call: RoutedCall) -> ModelRef | None:
        """Draw whether a call is answered by a second model, and by which: the next tier's, else the one's below."""
        request, decision = call.request, call.decision
        # what another provider's tools or stored context do is no part of the answer
        if request.model_pinned or call.sent_externally or request.has_server_side_context or request.server_tools:
            return None
        with self._lock:
            drawn = self._rng.random() < self._policy.for_site(decision.site).shadow
        return other_tier(decision) if drawn else None

    def answer_field(self, site: str) -> str:
        """The field of a JSON answer that holds its result; empty: all of it."""
        return self._policy.for_site(site).answer_field

    def keep_for_one_run(self, call: RoutedCall) -> RoutedCall:
        """Note that ``call`` was handed to a host. A call that is dropped unused is forgotten in time."""
        with self._lock:
            # Ids only: a prepared call may be dropped unused (LangChain answers from its cache), and its prompt with
            # it.
            self._unclaimed[call.id] = None
            if len(self._unclaimed) > _PREPARED:
                del self._unclaimed[next(iter(self._unclaimed))]
        return call

    def claim(self, call: RoutedCall) -> bool:
        """Whether ``call`` may be run. Once only: a second run under the same ids would be taken for the first one."""
        with self._lock:
            return self._unclaimed.pop(call.id, self) is None

    def review_answer(
        self,
        call: RoutedCall,
        reserved: ReservedAttempt,
        results: Sequence[CallResult],
        accept: Callable[[CallResult], bool] | None,
        failures: Sequence[str] = (),
    ) -> CallResult | ModelRef:
        """Decide whether the newest of ``results`` stands. ``failures``: what it visibly failed in.

        Returns:
            The answer that stands, or the model to ask next.
        """
        decision, policy = call.decision, self._policy.for_site(call.decision.site)
        with self._lock:
            if len(results) > 1 and policy.watches_failures:
                self._history.observe_escalation(decision.site, helped=not failures)
            elif failures and not self._history.escalation_helps(decision.site):
                failures = ()  # the stronger model's answers fail here as well, such as at a cap that is too low
        verdict = review_answer(decision, policy, results, call.request, accept, failures)
        if verdict is None:
            return results[-1]
        if len(results) == 1:
            # The first answer only: later ones are of a stronger model, and no check of a cheap one.
            seconds = self._clock.monotonic() - reserved.started_at
            with self._lock:
                self._history.observe(
                    decision.site, reserved.arm, seconds=seconds, accepted=isinstance(verdict, CallResult)
                )
        return verdict

    def expected_output(self, call: RoutedCall, earlier: Callable[[], SiteHistory]) -> float | None:
        """How long answers at the site of a call usually are, in tokens; ``None`` where it has had none.

        Args:
            call: The call.
            earlier: What earlier processes logged; asked only where this one knows nothing.
        """
        site = call.decision.site
        with self._lock:
            known = self._history.outputs(site)
        found = known or earlier().outputs(site)
        mean = found.get(call.target) or found.get(None)
        return mean.value if mean is not None and mean.calls else None

    def observe(self, call: RoutedCall, target: ModelRef, usage: TokenUsage) -> None:
        """Learn how long the answers of a call site are."""
        with self._lock:
            self._history.observe(call.decision.site, target, usage.output_tokens)


def fallbacks_of(call: RoutedCall, target: ModelRef) -> tuple[ModelRef, ...]:
    """The other models that may take the call after ``target`` failed."""
    if call.request.model_pinned:
        return ()
    return tuple(other for other in fallbacks(call.decision) if other.plain != target.plain)


def downgrades_of(call: RoutedCall, target: ModelRef) -> Iterator[ModelRef]:
    """The cheaper models that may take the call, most expensive first."""
    if not call.request.model_pinned:
        yield from (other for other in (call.decision.target, *downgrade(call.decision)) if other != target)


def conversation_keys(request: CallRequest) -> tuple[Hashable, Iterable[Hashable]]:
    """Return the key of a call, and those of the calls that it may continue, the latest first.

    A conversation's own id is the same for all of its turns. Without one, a call continues another that it carries
    whole: every message of it, its last question included, and the answer. What begins alike, such as the examples of a
    template, makes no conversation.
    """
    if (named := request.context.conversation) is not None:
        return named, (named,)
    contents, spoken_to = request.contents, hash((request.provider, request.endpoint))
    prefixes = contents.prefixes
    earlier = (spoken_to ^ prefixes[at] for at in reversed(contents.asked)) if contents.asked else ()
    return spoken_to ^ prefixes[-1] if prefixes else spoken_to, earlier
