"""Cheap first, and the strong model only where the answer is not accepted: verification beats prediction.

An answer is accepted by the caller's check, by its schema, or because two cheap models agree. The machine here says
what to ask next; asking, reserving and booking are the caller's, attempt by attempt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import AnswerContent, CallRequest, CallResult, ModelRef
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.outcomes import failures
from llm_cost_middleware.routing.schemas import satisfies

if TYPE_CHECKING:
    from llm_cost_middleware.routing.policy import RoutingPolicy

AcceptBy = Literal["check", "schema", "agreement"]

_PRIOR_CALLS, _PRIOR_ACCEPTED = 5, 0.8
"""Until a site has shown otherwise a cascade is taken to be accepted four times in five: a belief worth five calls."""

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_ANSWER_LENGTH = 80
"""Up to here a text is an answer to be compared as a whole; of a longer one the last number is the answer."""


class CascadePlan(NamedTuple):
    """Who is asked, in which order, and what decides."""

    cheap: tuple[ModelRef, ...]
    """One model; two where agreement decides."""
    strong: ModelRef
    accept: AcceptBy


class Ask(NamedTuple):
    """Ask this model next."""

    target: ModelRef
    reason: str


class Accept(NamedTuple):
    """Take this answer."""

    answer: int
    """Its place among the answers."""
    reason: str


def plan_cascade(decision: RoutingDecision, accept: AcceptBy) -> CascadePlan | None:
    """The cascade behind a decision; ``None`` where there is no stronger model, or no second cheap one to agree with.

    The second cheap model comes from the decision's tier, another provider's before another of the same: two models
    of one family make the same mistakes.
    """
    strong = escalation(decision)
    if strong is None:
        return None
    cheap: tuple[ModelRef, ...] = (decision.target,)
    if accept == "agreement":
        peers = [c for c in decision.eligible if c.tier == decision.tier and c.target != decision.target]
        if not peers:
            return None
        peers.sort(key=lambda c: (c.target.provider == decision.target.provider, c.expected_nanousd or 0))
        cheap = (decision.target, peers[0].target)
    return CascadePlan(cheap, strong, accept)


def escalation(decision: RoutingDecision) -> ModelRef | None:
    """The cheapest eligible model of the next tier up that has one: where a call goes whose answer was not accepted."""
    above = [c for c in decision.eligible if c.tier > decision.tier >= 0]
    return min(above, key=lambda c: (c.tier, c.expected_nanousd or 0)).target if above else None


def next_step(
    plan: CascadePlan, answers: Sequence[str], *, check: Callable[[str], bool] | None = None, schema: str = ""
) -> Ask | Accept:
    """What to do after these answers, in the order in which they came.

    Args:
        plan: The cascade.
        answers: The texts so far: of the cheap models, then of the strong one.
        check: The caller's check, for ``accept = "check"``; without one nothing can be accepted. For
            ``accept = "schema"``: whether an answer fits, where that takes more than its text.
        schema: The output schema as JSON text, for ``accept = "schema"``.
    """
    given, cheap = len(answers), len(plan.cheap)
    if given > cheap:
        return Accept(given - 1, "the strong model's answer stands")
    if given < cheap:
        return Ask(plan.cheap[given], "a cheap model first" if not given else "a second opinion")
    if plan.accept == "agreement":
        agreed = all(agree(answers[0], other) for other in answers[1:])
        return Accept(0, "two models agree") if agreed else Ask(plan.strong, "two cheap models disagree")
    if plan.accept == "schema":
        fits = satisfies(schema, answers[0]) if check is None else check(answers[0])
        return Accept(0, "it fits its schema") if fits else Ask(plan.strong, "the answer does not fit its schema")
    if check is not None and check(answers[0]):
        return Accept(0, "the caller's check accepts it")
    return Ask(plan.strong, "the caller's check rejects it" if check else "there is no check to accept it by")


def judge(
    decision: RoutingDecision,
    policy: RoutingPolicy,
    results: Sequence[CallResult],
    request: CallRequest,
    accept: Callable[[CallResult], bool] | None,
) -> CallResult | ModelRef | None:
    """Whether the answers so far settle a call.

    Args:
        decision: How it was routed.
        policy: The policy of its call site.
        results: The answers, in the order in which they came.
        request: What was asked, for its schema and its tools.
        accept: The caller's check; ``None`` without one.

    Returns:
        The answer that stands, the model to ask next, or ``None`` where nothing decides but that it was answered.
    """
    by: AcceptBy = policy.accept if policy.kind == "cascade" else "check"
    if (by == "check" and accept is None) or (by == "schema" and not (request.output_schema or request.tools)):
        return None
    plan = plan_cascade(decision, by)
    if plan is None:
        return None
    texts = [""] * len(results)
    check: Callable[[str], bool] | None
    if by == "check":
        check = None if accept is None else lambda _: accept(results[0])
    else:
        said = [said for result in results if (said := result.content) is not None]
        if len(said) < len(results):  # this host does not tell what its answers say
            return None
        texts = [_gist_of(answer) for answer in said]
        check = lambda _: not failures(request, said[0])  # noqa: E731 - one of two
    step = next_step(plan, texts, check=check)
    return step.target if isinstance(step, Ask) else results[step.answer]


def _gist_of(said: AnswerContent) -> str:
    """What two answers are compared by: their tool calls where they make any, else their words."""
    return json.dumps(said.tool_calls, default=str) if said.tool_calls else said.text


def pays(
    cheap_nanousd: int,
    strong_nanousd: int,
    accepted: float,
    seen: int,
    *,
    extra_seconds: float = 0.0,
    second_nanousd: int = 0,
) -> tuple[bool, NanoUSD]:
    """Whether asking cheap models first is expected to be cheaper than asking the strong one at once.

    Args:
        cheap_nanousd: What the cheap attempts cost together.
        strong_nanousd: What the strong one costs.
        accepted: The share of cheap answers that this site accepted.
        seen: Of how many.
        extra_seconds: How much longer an escalated call takes.
        second_nanousd: What a second of waiting is worth.

    Returns:
        Whether it pays, and the expected saving of a call in nano-dollars (negative where it does not).
    """
    share = (accepted * seen + _PRIOR_ACCEPTED * _PRIOR_CALLS) / (seen + _PRIOR_CALLS)
    saving = share * strong_nanousd - cheap_nanousd - (1 - share) * extra_seconds * second_nanousd
    return saving > 0, NanoUSD(int(saving))


def agree(one: str, other: str) -> bool:
    """Whether two answers say the same: equal JSON, equal short texts, or the same last number in longer ones."""
    return bool(gist := _gist(one)) and gist == _gist(other)


def _gist(text: str) -> object:
    text = text.strip()
    try:
        return json.dumps(json.loads(text), sort_keys=True)
    except ValueError:
        pass
    if len(text) <= _ANSWER_LENGTH:
        return " ".join(text.casefold().split()).rstrip(".!")
    numbers = _NUMBER.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else " ".join(text.casefold().split())
