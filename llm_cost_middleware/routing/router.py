"""From a policy's tier to a model: the cheapest that may take the call, by what this call is expected to cost there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.money import NanoUSD, ceil_nanousd
from llm_cost_middleware.providers import NAMES, provider_of
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.routing.cascade import pays
from llm_cost_middleware.routing.complexity import clip, grams, shape
from llm_cost_middleware.routing.decision import Considered, RoutingDecision
from llm_cost_middleware.routing.eligibility import Candidate, cold_cost, consider
from llm_cost_middleware.routing.features import Features, working_text
from llm_cost_middleware.routing.history import NO_OUTPUTS, SiteHistory
from llm_cost_middleware.routing.policy import RoutingPolicy, TierChoice, select_tier
from llm_cost_middleware.routing.rules import PolicyInput
from llm_cost_middleware.routing.sites import call_site

NO_AFFINITY: Mapping[ModelRef, int] = {}


class RoutingContext(NamedTuple):
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
    learning: bool = False
    """Whether the decision carries hashed n-grams of the text, to learn from later."""


def decide(
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
    given = PolicyInput(features, request, site, context.budget_left, context.now)
    forced = _forced(request, candidates)
    if forced is not None:
        choice = TierChoice(-1, None, f"{request.context.forced_model} was forced for this call", policy="force")
        return _decision(policy, choice, forced, (), given, context)
    if request.model_pinned:
        pinned = ModelRef(request.provider, request.model)
        choice = TierChoice(-1, None, "the caller chose the model of this call", policy="pinned")
        return _decision(policy, choice, pinned, (), given, context)

    history, sticky = context.history, context.sticky
    own = policy.at(site)
    n_tiers = 1 + max([candidate.tier for candidate in candidates], default=0)
    outputs = history.outputs(site) if history is not None else NO_OUTPUTS
    considered = consider(candidates, own, request, features, n_tiers, context.affinity, outputs)
    eligible = [c for c in considered if not c.rejected]
    if not eligible:
        raise NoEligibleModelError({str(c.target): c.rejected for c in considered})
    # a random model inside a conversation would throw its warm cache away
    choice = select_tier(own, given, n_tiers, context.rng if sticky is None else None)
    if own.kind == "cascade":
        choice = _cascade_or_direct(own, choice, eligible, site, history)
    chosen = _cheapest(eligible, choice.tier, context.available)
    reason = choice.reason
    if chosen.tier != choice.tier:
        reason += f"; no model of {own.tier_name(choice.tier)} may take it, so {own.tier_name(chosen.tier)}"
    if sticky is not None and sticky != chosen.target:
        current = next((c for c in eligible if c.target == sticky), None)
        if current is None:
            reason += f"; {sticky} of this conversation may not take it"
        else:
            least = round(history.least_output(site)) if history else 0
            at_least = [
                cold_cost(next(c for c in candidates if c.target == considered.target), features, request, least)
                for considered in (current, chosen)
            ]
            chosen, told = _stay_or_switch(chosen, current, NanoUSD(at_least[0] - at_least[1]))
            reason += told
    if chosen.tier != choice.tier or reason is not choice.reason:
        choice = choice._replace(tier=chosen.tier, reason=reason)
    return _decision(own, choice, chosen.target, tuple(considered), given, context)


def fallbacks(decision: RoutingDecision) -> tuple[ModelRef, ...]:
    """The other models that may take the call, best first, for when the chosen one fails.

    The same tier before a stronger before a weaker one; inside a tier another provider first (an outage is a
    provider's), then by expected cost. Empty for a forced or pinned model.
    """
    provider, tier = decision.target.provider, decision.tier

    def order(c: Considered) -> tuple[int, int, bool, int]:
        return c.tier < tier, abs(c.tier - tier), c.target.provider == provider, c.expected_nanousd or 0

    others = sorted((c for c in decision.eligible if c.target != decision.target), key=order)
    return tuple(dict.fromkeys(c.target for c in others))


def downgrade(decision: RoutingDecision) -> tuple[ModelRef, ...]:
    """The cheaper models that may take the call, for when the budget does not fit the chosen one: strongest first."""
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
    provider, slash, model = name.partition("/")
    if slash and provider in NAMES:
        return ModelRef(provider, model)
    known = next((c.target for c in candidates if c.target.model == name), None)
    return known or ModelRef(provider_of(name) or request.provider, name)


def _cheapest(eligible: Sequence[Considered], tier: int, available: NanoUSD | None) -> Considered:
    """The cheapest of a tier; where it is empty of the next stronger, then of the next weaker.

    What the budget cannot pay counts only where something else fits: otherwise the ledger refuses, with its figures.
    """
    if available is not None:
        eligible = [c for c in eligible if (c.expected_nanousd or 0) <= available] or eligible
    best: Considered | None = None
    for c in eligible:  # the configured order decides between equals
        if c.tier == tier and (best is None or (c.expected_nanousd or 0) < (best.expected_nanousd or 0)):
            best = c
    if best is not None:
        return best

    def order(c: Considered) -> tuple[bool, int, int]:
        return c.tier < tier, abs(c.tier - tier), c.expected_nanousd or 0

    return min(eligible, key=order)  # stable, likewise


def _cascade_or_direct(
    policy: RoutingPolicy,
    choice: TierChoice,
    eligible: Sequence[Considered],
    site: str,
    history: SiteHistory | None,
) -> TierChoice:
    """A cascade only where it is expected to pay at this site; else the stronger tier at once."""
    cheap = sorted((c for c in eligible if c.tier == choice.tier), key=lambda c: c.expected_nanousd or 0)
    strong = min(
        (c for c in eligible if c.tier > choice.tier), key=lambda c: (c.tier, c.expected_nanousd), default=None
    )
    asked = cheap[: 2 if policy.accept == "agreement" else 1]
    if strong is None or not asked or choice.propensity < 1:
        return choice
    accepted, seen = history.acceptance(site) if history else (0.0, 0)
    seconds = [history.expected_seconds(site, c.target) or 0.0 for c in asked] if history else []
    worth, saving = pays(
        sum(c.expected_nanousd or 0 for c in asked), strong.expected_nanousd or 0, accepted, seen,
        extra_seconds=sum(seconds), second_nanousd=ceil_nanousd(policy.wait_usd_s),
    )  # fmt: skip
    if worth:
        return choice._replace(reason=f"{choice.reason}: expected to save {saving} a call")
    told = f"asking a cheap model first does not pay at {site}: {accepted:.0%} of {seen} accepted, {saving} a call"
    return choice._replace(tier=strong.tier, reason=told)


def _stay_or_switch(best: Considered, current: Considered, short_saving: NanoUSD) -> tuple[Considered, str]:
    """Inside a conversation the model changes only when the switch saves more than the warm cache it throws away.

    What it saves must not hang on a long answer: it is the smaller of what is expected and ``short_saving``, what is
    saved where the answer is as short as this site's answers come.
    """
    here = (current.expected_nanousd or 0) + current.warm_nanousd
    there = (best.expected_nanousd or 0) + best.warm_nanousd
    saved = NanoUSD(min(here - there, short_saving))
    lost = NanoUSD(current.warm_nanousd - best.warm_nanousd)
    if saved > lost and saved > 0:
        return best, f"; leaves {current.target}: the switch saves {saved} and loses a warm cache worth {lost}"
    why = f"a switch to {best.target} saves {saved if saved > 0 else 'nothing'}"
    return current, f"; stays with {current.target} in this conversation: {why} and loses a warm cache worth {lost}"


def _decision(
    policy: RoutingPolicy,
    choice: TierChoice,
    target: ModelRef,
    considered: tuple[Considered, ...],
    given: PolicyInput,
    context: RoutingContext,
) -> RoutingDecision:
    learning = context.learning
    text = clip(working_text(given.request)) if learning else ""
    return RoutingDecision(
        call_id=context.call_id,
        at=given.now,
        target=target,
        tier=choice.tier,
        tier_name=policy.tier_name(choice.tier) if choice.tier >= 0 else choice.policy,
        policy=choice.policy,
        policy_version=policy.version,
        reason=choice.reason,
        score=choice.score,
        propensity=choice.propensity,
        site=given.site,
        requested=given.request.model,
        features=given.features,
        candidates=considered,
        grams=tuple(sorted(grams(text).elements())) if learning else (),
        shape=shape(text) if learning else (),
    )


__all__ = ["Candidate", "RoutingContext", "RoutingDecision", "decide", "downgrade", "fallbacks"]
