"""Eligibility of models for a call, and the expected cost of the call at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llm_cost_middleware.capabilities.arms import arm_for, output_factor
from llm_cost_middleware.capabilities.fitting import Fits
from llm_cost_middleware.money import PICO_PER_NANO, NanoUSD
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.routing.decision import EvaluatedCandidate
from llm_cost_middleware.routing.features import Features
from llm_cost_middleware.routing.history import Outputs
from llm_cost_middleware.routing.policy import RoutingPolicy

Parameters = Literal["strict", "lenient", "ignored"]
DEFAULT_OUTPUT = 512
"""Output tokens expected at a site without history. The same for every model, so that their prices rank them."""


# A dataclass: it is read ten times in every decision, and a slot costs a tenth of a named tuple's field.
@dataclass(frozen=True, slots=True)
class Candidate:
    """A configured model or arm with its prices of the day. Built once per configuration and date."""

    target: ModelRef
    tier: int
    input_picousd: int
    """Pico-dollars per uncached input token."""
    output_picousd: int
    context_window: int | None
    max_output: int | None
    capabilities: frozenset[str]
    """Of ``tools``, ``images``, ``documents``, ``audio``, ``schema``."""
    unavailable: str | None = None
    """Reason why it cannot be used at all (no key, no price); ``None`` where it can."""


def evaluate_candidates(
    candidates: Sequence[Candidate],
    policy: RoutingPolicy,
    request: CallRequest,
    features: Features,
    n_tiers: int,
    affinity: Mapping[ModelRef, int],
    outputs: Outputs,
    parameters: Parameters = "strict",
) -> list[EvaluatedCandidate]:
    """Return every candidate with the expected cost of this call there, and the reason against it.

    An arm is evaluated without what the caller states himself: the two arms of a model may then be one.

    Args:
        candidates: The models.
        policy: Its floor and ceiling.
        request: The call.
        features: Its features.
        n_tiers: How many tiers there are.
        affinity: What a warm cache is worth, by model.
        outputs: Expected lengths of answers, by arm.
        parameters: How parameters decide: ``lenient`` leaves soft demands out, ``ignored`` does not look at them.
    """
    evaluated: list[EvaluatedCandidate] = []
    elsewhere, input_tokens = outputs.get(None), features.input_tokens
    cap, answers = request.max_tokens, request.choice_count
    reasons = _rejections(candidates, policy, request, features, n_tiers, parameters)
    for candidate, reason in zip(candidates, reasons):  # noqa: B905 - of one length, and checking it costs 700 instructions
        target, most, rejected = candidate.target, candidate.max_output, reason
        if target.parameters:
            target = arm_for(target, request)
            if target is not candidate.target and not reason:
                rejected = _same_as(target, evaluated)
        known = outputs.get(target)
        if known is None and target.parameters:
            output = _assumed_output(target, outputs)
        else:
            known = known or elsewhere
            output = DEFAULT_OUTPUT if known is None else round(known.value)
        if cap is not None and cap < output:
            output = cap
        if most is not None and most < output:
            output = most
        pico = input_tokens * candidate.input_picousd + output * answers * candidate.output_picousd
        cold = NanoUSD(-(-pico // PICO_PER_NANO))  # rounded up
        entry = EvaluatedCandidate(target, candidate.tier, cold, rejected)
        if affinity and (saving := min(cold, affinity.get(target.plain, 0))):
            entry = entry._replace(expected_nanousd=NanoUSD(cold - saving), cache_saving_nanousd=NanoUSD(saving))
        evaluated.append(entry)
    return evaluated


def _rejections(
    candidates: Sequence[Candidate],
    policy: RoutingPolicy,
    request: CallRequest,
    features: Features,
    n_tiers: int,
    parameters: Parameters,
) -> list[str]:
    """Return for every candidate the reason why it may not take the call; empty where it may."""
    floor, ceiling = min(policy.floor or 0, n_tiers - 1), n_tiers if policy.ceiling is None else policy.ceiling
    needs, provider, wanted = features.needs, request.provider, request.max_tokens or 0
    size = features.input_tokens + wanted
    fits = None if parameters == "ignored" else Fits(request, lenient=parameters == "lenient")
    reasons = []
    for candidate in candidates:
        reason, most, window = "", candidate.max_output, candidate.context_window
        abroad = candidate.target.provider != provider
        if candidate.unavailable is not None:
            reason = candidate.unavailable or "unavailable"
        elif candidate.tier < floor:
            reason = "below the floor tier"
        elif candidate.tier > ceiling:
            reason = "above the ceiling tier"
        elif needs and not candidate.capabilities.issuperset(needs):
            reason = f"cannot take {min(frozenset(needs) - candidate.capabilities)}"
        # What only the other provider holds or runs cannot be moved.
        elif abroad and request.has_server_side_context:
            reason = f"the request refers to context stored at {request.provider}"
        elif abroad and request.server_tools:
            reason = f"the request uses server tools of {request.provider}"
        elif most is not None and wanted > most:
            reason = f"gives at most {most:,} output tokens, {wanted:,} asked for"
        elif window is not None and size > window:
            reason = f"about {size:,} tokens do not fit its window of {window:,}"
        else:
            reason = "" if fits is None else fits.at(candidate.target).refused
        reasons.append(reason)
    return reasons


def _assumed_output(arm: ModelRef, outputs: Outputs) -> int:
    """Output tokens of an arm that was not asked at this site: from those of its model, else of all models there."""
    for other, known in outputs.items():
        if other is not None and other.plain == arm.plain:
            return round(known.value * output_factor(arm) / output_factor(other))
    elsewhere = outputs.get(None)
    return round((DEFAULT_OUTPUT if elsewhere is None else elsewhere.value) * output_factor(arm))


def _same_as(arm: ModelRef, evaluated: Sequence[EvaluatedCandidate]) -> str:
    """Why an arm is none of its own for a call whose caller states the parameters that it differs by."""
    other = next((each for each in evaluated if each.target == arm and not each.rejected), None)
    return "" if other is None else f"differs from {arm} by what the caller states himself"
