"""Cascades: cheap models first, a stronger one only where their answer is not accepted.

An answer is accepted by the caller's check, because it fits the requested schema, because two cheap models agree, or
because it shows no failure.
The functions here choose the next model; sending, reserving and recording are the caller's, attempt by attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallRequest, CallResult, ModelRef
from llm_cost_middleware.routing.agreement import answers_agree
from llm_cost_middleware.routing.decision import AcceptBy, RoutingDecision
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.signals import failure_signals

# An assumption about sites without calls of their own, optimistic so that a cascade is tried and measured at all. It
# weighs five calls: the site's own record soon outweighs it.
_PRIOR_CALLS, PRIOR_ACCEPTED = 5, 0.8
# Of answers that show no failure it is more: of 1,000 to 2,500 real calls with tools 93 to 98 % showed none.
PRIOR_UNFAILED = 0.95


def cascade_models(decision: RoutingDecision, accept: AcceptBy) -> tuple[ModelRef, ...]:
    """Return the models of a cascade in the order they are asked, the strong one last.

    The second cheap model of an agreement comes from the decision's tier, another provider's before another of the
    same: two models of one family make the same mistakes.

    Returns:
        Two models, or three where agreement decides; none where there is no stronger model or no second cheap one.
    """
    strong = escalation(decision)
    if strong is None:
        return ()
    if accept != "agreement":
        return decision.target, strong
    peers = [c for c in decision.eligible if c.tier == decision.tier and c.target != decision.target]
    peers.sort(key=lambda c: (c.target.provider == decision.target.provider, c.expected_nanousd or 0))
    return (decision.target, peers[0].target, strong) if peers else ()


def escalation(decision: RoutingDecision) -> ModelRef | None:
    """Return the cheapest eligible model of the next tier up that has one."""
    above = [c for c in decision.eligible if c.tier > decision.tier >= 0]
    return min(above, key=lambda c: (c.tier, c.expected_nanousd or 0)).target if above else None


def other_tier(decision: RoutingDecision) -> ModelRef | None:
    """Return the model to compare an answer with: of the next tier up, else of the next below; ``None`` without one."""
    below = [c for c in decision.eligible if c.tier < decision.tier]
    lower = min(below, key=lambda c: (-c.tier, c.expected_nanousd or 0), default=None)
    return escalation(decision) or (lower.target if lower is not None else None)


def review_answer(
    decision: RoutingDecision,
    policy: RoutingPolicy,
    results: Sequence[CallResult],
    request: CallRequest,
    accept: Callable[[CallResult], bool] | None,
    failures: Sequence[str] = (),
) -> CallResult | ModelRef | None:
    """Review the answers of a call so far.

    Args:
        decision: How the call was routed.
        policy: The policy of its call site.
        results: The answers in the order they came, at least one.
        request: The request, for its schema and its tools.
        accept: The caller's check; ``None`` without one.
        failures: What the newest answer visibly failed in (``signals.VISIBLE_FAILURES``).

    Returns:
        The accepted answer, the model to ask next, or ``None`` where nothing but having been answered decides.
    """
    by: AcceptBy = policy.accept if policy.kind == "cascade" else "check"
    if by == "no_failure" and request.size_only:
        by = "check"
    if (by == "check" and accept is None) or (by == "schema" and not (request.output_schema or request.tools)):
        return None
    models = cascade_models(decision, by)
    if not models:
        return None
    reads = by in ("schema", "agreement")
    contents = [content for result in results if reads and (content := result.content) is not None]
    if reads and len(contents) < len(results):  # a host may not be able to read its answers
        return None
    if len(results) >= len(models):
        return results[-1]
    if len(results) < len(models) - 1:
        return models[len(results)]
    if by == "check":
        accepted = accept is not None and accept(results[0])
    elif by == "no_failure":
        accepted = not failures and (accept is None or accept(results[0]))
    elif by == "schema":
        accepted = not failure_signals(request, contents[0])
    else:
        accepted = answers_agree(contents[0], contents[1], field=policy.answer_field)
    return results[0] if accepted else models[-1]


def is_worthwhile(
    cheap_nanousd: int,
    strong_nanousd: int,
    accepted: float,
    seen: int,
    *,
    extra_seconds: float = 0.0,
    second_nanousd: int = 0,
    prior: float = PRIOR_ACCEPTED,
) -> tuple[bool, NanoUSD]:
    """Return whether asking cheap models first is expected to cost less than asking the strong one at once.

    Args:
        cheap_nanousd: Expected cost of the cheap attempts together.
        strong_nanousd: Expected cost of the strong one.
        accepted: The share of cheap answers that this site accepted.
        seen: Calls that the share was measured on.
        extra_seconds: How much longer an escalated call takes.
        second_nanousd: The price of a second of waiting.
        prior: The share assumed of a site without calls.

    Returns:
        Whether it is, and the expected saving per call in nano-dollars (negative where it is not).
    """
    share = (accepted * seen + prior * _PRIOR_CALLS) / (seen + _PRIOR_CALLS)
    saving = share * strong_nanousd - cheap_nanousd - (1 - share) * extra_seconds * second_nanousd
    return saving > 0, NanoUSD(int(saving))
