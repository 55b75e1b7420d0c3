"""Routing of one call: from the tier that a policy chooses to the model with the least expected cost in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from msgspec import Struct, structs

from llm_cost_middleware.capabilities.fitting import fit
from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.money import NanoUSD, ceil_nanousd
from llm_cost_middleware.platform import PLATFORMS, find_platform
from llm_cost_middleware.providers import NAMES, provider_of
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.routing.cascade import PRIOR_ACCEPTED, PRIOR_UNFAILED, is_worthwhile
from llm_cost_middleware.routing.complexity import read_text
from llm_cost_middleware.routing.decision import EvaluatedCandidate, RoutingDecision
from llm_cost_middleware.routing.eligibility import Candidate, CandidateSet, Parameters
from llm_cost_middleware.routing.evaluated import Evaluated
from llm_cost_middleware.routing.features import Features, last_user_text
from llm_cost_middleware.routing.history import NO_OUTPUTS, Mean, Outputs, SiteHistory
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.rules import PolicyInput
from llm_cost_middleware.routing.selection import TierChoice, select_tier
from llm_cost_middleware.routing.sites import call_site, read_site
from llm_cost_middleware.sentences import Sentence

NO_FALLBACKS: Mapping[str, str] = {}
NO_AFFINITY: Mapping[ModelRef, int] = {}


class RoutingContext(Struct, frozen=True, gc=False):
    """State of the application that a decision depends on, beside the policy and the request."""

    call_id: str
    now: float
    """Seconds since the Unix epoch."""
    rng: Random
    """Source of exploration."""
    available: NanoUSD | None = None
    """Nano-dollars left in the tightest budget; ``None`` without a limit."""
    budget_left: float | None = None
    """The share of the tightest budget that is left, 0 to 1."""
    affinity: Mapping[ModelRef, int] = NO_AFFINITY
    """Nano-dollars that a warm cache is expected to save this call, by model."""
    history: SiteHistory | None = None
    """Output lengths, latencies and acceptance of earlier calls."""
    sticky: ModelRef | None = None
    """The model that the conversation has used so far."""
    fallen_back: Mapping[str, str] | None = None
    """Learned policies that are not to be trusted any more, with the reason, by version."""


def decide(  # noqa: C901 - one step for each thing that decides
    policy: RoutingPolicy,
    candidates: Sequence[Candidate],
    request: CallRequest,
    features: Features,
    context: RoutingContext,
) -> RoutingDecision:
    """Choose the model for a call.

    Args:
        policy: How a tier is chosen.
        candidates: Every configured model, in the configured order.
        request: The call.
        features: ``read_features(request)``.
        context: The call's id, the time, and the state of budgets, caches and history.

    Raises:
        NoEligibleModelError: No candidate may take the call; it names each one's reason.
    """
    site = call_site(request)
    own = policy.for_site(site)
    groups = read_site(request).groups if own.learns else ()
    history, sticky, available = context.history, context.sticky, context.available
    given = PolicyInput(
        features, request, site, context.budget_left, context.now, groups, context.fallen_back or NO_FALLBACKS
    )
    if own.kind == "off" or request.model_pinned or request.context.forced_model:
        return _as_told(own, candidates, given, context)
    host = candidates if type(candidates) is CandidateSet else CandidateSet(candidates)
    outputs = history.outputs(site) if history is not None else NO_OUTPUTS
    evaluated = _evaluate(host, own, request, features, context.affinity, outputs)
    if not evaluated.takers:
        found = _without_takers(evaluated, host, own, given, context)
        if isinstance(found, RoutingDecision):
            return found
        evaluated = found
    # a random model inside a conversation would throw its warm cache away
    choice = select_tier(own, given, host.n_tiers, context.rng if sticky is None else None)
    wanted = choice.tier
    if choice.policy == "cascade":
        choice = _cascade_or_direct(own, choice, evaluated.eligible(), site, history)
    tier, told = choice.tier, choice.told
    place = evaluated.cheapest(tier) if available is None else None
    if place is None:
        chosen = _cheapest(evaluated.eligible(), tier, available)
        target, found_in = chosen.target, chosen.tier
    else:
        target, found_in = evaluated.eligibility.targets[place], tier
    reason = told
    if choice.chances:
        choice = _with_chance(choice, found_in, evaluated.eligible(), available)
    if found_in != tier:
        reason = ("{}; no model of {} may take it, so {}".format, told, own.tier_name(tier), own.tier_name(found_in))
    if sticky is not None and sticky != target:
        best = chosen if place is None else evaluated.entry(place)
        chosen, explanation = _beside(sticky, wanted, best, evaluated, given, history)
        target, found_in = chosen.target, chosen.tier
        reason = ("{}; {}".format, reason, explanation)
    if left_out := evaluated.eligibility.left_out(target, request):
        reason = ("{}; without {}, which {} does not take".format, reason, (_listed, *left_out), target)
    if found_in != tier or reason is not told:
        choice = structs.replace(choice, tier=found_in, told=reason)
    return _decision(own, choice, target, evaluated, given, context, left_out)


def _evaluate(
    candidates: CandidateSet, policy: RoutingPolicy, request: CallRequest, features: Features,
    affinity: Mapping[ModelRef, int] = NO_AFFINITY, outputs: Outputs = NO_OUTPUTS, parameters: Parameters = "strict",
) -> Evaluated:  # fmt: skip
    """Every candidate with its expected cost, and the reason against it."""
    found = candidates.eligibility(policy, request, features, parameters)
    return Evaluated.of(found, features.input_tokens, request.choice_count, outputs, affinity)


def _without_takers(
    evaluated: Evaluated, candidates: CandidateSet, policy: RoutingPolicy, given: PolicyInput, context: RoutingContext
) -> RoutingDecision | Evaluated:
    """What becomes of a call that no candidate takes as it is: its own model, or those that take it without hints."""
    request, features = given.request, given.features
    home = _home(request)
    if home is not None and _evaluate(candidates, policy, request, features, parameters="ignored").takers:
        told = (
            "stays with the model that it names: no other takes it ({})".format,
            (_listed, *evaluated.eligibility.reasons),
        )
        choice = TierChoice(-1, None, told, policy="home")
        return _decision(policy, choice, home, evaluated, given, context)
    if policy.on_unsupported == "leave_out":
        outputs = context.history.outputs(given.site) if context.history is not None else NO_OUTPUTS
        evaluated = _evaluate(candidates, policy, request, features, context.affinity, outputs, "lenient")
    if not evaluated.takers:
        raise NoEligibleModelError({str(c.target): c.rejected for c in evaluated})
    return evaluated


def _as_told(
    policy: RoutingPolicy, candidates: Sequence[Candidate], given: PolicyInput, context: RoutingContext
) -> RoutingDecision:
    """The decision for a call whose model is forced or pinned, or that names none while routing is off.

    Neither model is checked against the candidates: the caller may know one that the configuration does not. A forced
    model is one that the host must be able to call and the parameters were not written for, so they must fit it.
    """
    request = given.request
    forced = _forced(request, candidates)
    if forced is not None:
        unreached = None
        if type(candidates) is CandidateSet and not request.is_bare(forced):  # what a gateway serves, nobody knows
            unreached = candidates.out_of_reach(forced)
        if refused := unreached or fit(request, forced).refused:
            raise NoEligibleModelError({str(forced): refused})
        told = ("{} was forced for this call".format, request.context.forced_model)
        choice = TierChoice(-1, None, told, policy="force")
        return _decision(policy, choice, forced, (), given, context)
    if request.model_pinned:
        pinned = ModelRef(request.provider, request.model)
        choice = TierChoice(-1, None, "the caller chose the model of this call", policy="pinned")
        return _decision(policy, choice, pinned, (), given, context)
    raise NoEligibleModelError({request.model: 'routing.policy is "off": name a model'})


def _beside(
    sticky: ModelRef,
    wanted: int,
    chosen: EvaluatedCandidate,
    evaluated: Evaluated,
    given: PolicyInput,
    history: SiteHistory | None,
) -> tuple[EvaluatedCandidate, Sentence]:
    """The model to use in a conversation that has used another one so far, and the reason as a clause."""
    eligible = evaluated.eligible()
    current = next((c for c in eligible if c.target == sticky), None)
    if current is None:  # another arm of its model has the same cache
        current = next((c for c in eligible if c.target.plain == sticky.plain), None)
    if current is None:
        return chosen, ("{} of this conversation may not take it".format, sticky)
    if wanted > current.tier < chosen.tier:
        # Staying keeps a warm cache, which is a question of price between models that may both answer. Which may is the
        # policy's to say, at any turn.
        lost = NanoUSD(current.cache_saving_nanousd)
        return chosen, ("leaves {} of this conversation for it, and a warm cache worth {}".format, sticky, lost)
    least = Mean(history.least_output(given.site) if history else 0)
    cost = {c.target: c.expected_nanousd or 0 for c in evaluated.at_lengths({None: least})}
    return _stay_or_switch(chosen, current, NanoUSD(cost[current.target] - cost[chosen.target]))


def _home(request: CallRequest) -> ModelRef | None:
    """The model that the caller named; ``None`` where he named none ("smart" is a name for "choose one")."""
    platform = find_platform(request.provider)
    named = provider_of(request.model) == request.provider
    if not named and (platform is None or platform.parse(request.model) is None):
        return None
    return ModelRef(request.provider, request.model)


def fallbacks(decision: RoutingDecision) -> tuple[ModelRef, ...]:
    """Return the other models that may take the call, best first, for when the chosen one fails.

    The same tier before a stronger before a weaker one; inside a tier another provider first, because most outages
    are a provider's, then by expected cost. Empty for a forced or pinned model.
    """
    provider, tier = decision.target.provider, decision.tier

    def order(c: EvaluatedCandidate) -> tuple[bool, int, bool, int]:
        return c.tier < tier, abs(c.tier - tier), c.target.provider == provider, c.expected_nanousd or 0

    failed = decision.target.plain  # its other arms fail as well
    others = sorted((c for c in decision.eligible if c.target.plain != failed), key=order)
    found: dict[ModelRef, ModelRef] = {}
    for other in others:
        found.setdefault(other.target.plain, other.target)
    return tuple(found.values())


def downgrade(decision: RoutingDecision) -> tuple[ModelRef, ...]:
    """Return the cheaper models that may take the call where the budget cannot pay the chosen one, strongest first."""
    spent = decision.expected_nanousd
    if spent is None:
        return ()
    cheaper = [
        c
        for c in decision.eligible
        if c.tier <= decision.tier and c.expected_nanousd is not None and c.expected_nanousd < spent
    ]
    cheaper.sort(key=lambda c: (-c.tier, c.expected_nanousd))
    return tuple(dict.fromkeys(c.target for c in cheaper))


def _forced(request: CallRequest, candidates: Sequence[Candidate]) -> ModelRef | None:
    name = request.context.forced_model
    if not name:
        return None
    if (arm := next((c.target for c in candidates if c.target.parameters and str(c.target) == name), None)) is not None:
        return arm
    provider, slash, model = name.partition("/")
    if slash and provider in {*NAMES, *PLATFORMS}:  # other slashes are part of a model's name
        return ModelRef(provider, model)
    known = next((c.target.plain for c in candidates if c.target.model == name), None)
    return known or ModelRef(provider_of(name) or request.provider, name)


def _cheapest(eligible: Sequence[EvaluatedCandidate], tier: int, available: NanoUSD | None) -> EvaluatedCandidate:
    """Return the cheapest of a tier; where it is empty of the next stronger, then of the next weaker."""
    if available is not None:
        # where nothing fits the budget, the ledger refuses the call with its figures
        eligible = [c for c in eligible if (c.expected_nanousd or 0) <= available] or eligible
    # min() keeps the configured order between equals
    if of_tier := [c for c in eligible if c.tier == tier]:
        return min(of_tier, key=lambda c: c.expected_nanousd or 0)
    return min(eligible, key=lambda c: (c.tier < tier, abs(c.tier - tier), c.expected_nanousd or 0))


def _with_chance(
    choice: TierChoice, tier: int, eligible: Sequence[EvaluatedCandidate], available: NanoUSD | None
) -> TierChoice:
    """Note how likely the tier was that answers: one without a model for this call adds its chance to another's."""
    leads = (_cheapest(eligible, drawn, available).tier for drawn in range(len(choice.chances)))
    chance = sum(part for part, lead in zip(choice.chances, leads, strict=True) if lead == tier)
    return structs.replace(choice, propensity=min(chance, 1.0))


def _cascade_or_direct(
    policy: RoutingPolicy,
    choice: TierChoice,
    eligible: Sequence[EvaluatedCandidate],
    site: str,
    history: SiteHistory | None,
) -> TierChoice:
    """Choose a cascade only where it is expected to cost less at this site; else the stronger tier at once."""
    cheap = sorted((c for c in eligible if c.tier == choice.tier), key=lambda c: c.expected_nanousd or 0)
    strong = min(
        (c for c in eligible if c.tier > choice.tier), key=lambda c: (c.tier, c.expected_nanousd), default=None
    )
    asked = cheap[: 2 if policy.accept == "agreement" else 1]
    if strong is None or not asked or choice.chances:  # an explored tier must stay the one that was drawn
        return choice
    accepted, seen = history.acceptance(site) if history else (0.0, 0)
    seconds = [history.expected_seconds(site, c.target) or 0.0 for c in asked] if history else []
    worth, saving = is_worthwhile(
        sum(c.expected_nanousd or 0 for c in asked), strong.expected_nanousd or 0, accepted, seen,
        extra_seconds=sum(seconds), second_nanousd=ceil_nanousd(policy.wait_usd_s),
        prior=PRIOR_UNFAILED if policy.watches_failures else PRIOR_ACCEPTED,
    )  # fmt: skip
    if worth:
        return structs.replace(choice, told=("{}: expected to save {} a call".format, choice.told, saving))
    why = "asking a cheap model first does not pay at {}: {:.0%} of {} accepted, {} a call".format
    return structs.replace(choice, tier=strong.tier, told=(why, site, accepted, seen, saving))


def _stay_or_switch(
    best: EvaluatedCandidate, current: EvaluatedCandidate, short_saving: NanoUSD
) -> tuple[EvaluatedCandidate, Sentence]:
    """Change the model inside a conversation only when that saves more than the warm cache it discards.

    Args:
        best: The model that routing would choose now.
        current: The conversation's model.
        short_saving: Nano-dollars saved where the answer is as short as nearly all of this site's answers.

    Returns:
        The model to use, and the reason as a clause. The saving counted is the smaller of the expected one and
        ``short_saving``, because a long answer that does not come would turn the switch into a loss.
    """
    here = (current.expected_nanousd or 0) + current.cache_saving_nanousd
    there = (best.expected_nanousd or 0) + best.cache_saving_nanousd
    saved = NanoUSD(min(here - there, short_saving))
    lost = NanoUSD(current.cache_saving_nanousd - best.cache_saving_nanousd)
    if saved > lost and saved > 0:
        leaves = "leaves {}: the switch saves {} and loses a warm cache worth {}".format
        return best, (leaves, current.target, saved, lost)
    stays = "stays with {} in this conversation: a switch to {} saves {} and loses a warm cache worth {}".format
    return current, (stays, current.target, best.target, saved if saved > 0 else "nothing", lost)


def _listed(*names: str) -> str:
    return ", ".join(dict.fromkeys(names))


def _decision(
    policy: RoutingPolicy,
    choice: TierChoice,
    target: ModelRef,
    evaluated: Sequence[EvaluatedCandidate],
    given: PolicyInput,
    context: RoutingContext,
    left_out: tuple[str, ...] = (),
) -> RoutingDecision:
    tier, reading = choice.tier, choice.reading
    ngrams: tuple[int, ...] = ()
    stats: tuple[float, ...] = ()
    groups: tuple[str, ...] = ()
    if reading is None and policy.learns:  # each text is hashed once
        reading = read_text(last_user_text(given.request))
    if reading is not None:
        ngrams, stats, groups = tuple(sorted(reading.ngrams.elements())), reading.stats, given.groups
    return RoutingDecision(
        context.call_id, given.now, target, tier, policy.tier_name(tier) if tier >= 0 else choice.policy, choice.policy,
        policy.version, choice.told, choice.score, choice.propensity, given.site, given.request.model, given.features,
        evaluated, ngrams, stats, left_out, "", (), groups,
    )  # fmt: skip


__all__ = ["Candidate", "RoutingContext", "RoutingDecision", "decide", "downgrade", "fallbacks"]
