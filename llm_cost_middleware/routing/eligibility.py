"""Eligibility of models for a call, and the expected cost of the call at each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from llm_cost_middleware.money import NanoUSD, ceil_picousd
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.routing.decision import EvaluatedCandidate
from llm_cost_middleware.routing.features import Features
from llm_cost_middleware.routing.history import Outputs
from llm_cost_middleware.routing.policy import RoutingPolicy

DEFAULT_OUTPUT = 512
"""Output tokens expected at a site without history. The same for every model, so that their prices rank them."""


class Candidate(NamedTuple):
    """A configured model with its prices of the day. Built once per configuration and date."""

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
    candidates: Iterable[Candidate],
    policy: RoutingPolicy,
    request: CallRequest,
    features: Features,
    n_tiers: int,
    affinity: Mapping[ModelRef, int],
    outputs: Outputs,
) -> list[EvaluatedCandidate]:
    """Return every candidate with the expected cost of this call there, and the reason against it."""
    evaluated = []
    elsewhere = outputs.get(None)
    for candidate in candidates:
        target = candidate.target
        known = outputs.get(target, elsewhere)
        cold = uncached_cost(candidate, features, request, DEFAULT_OUTPUT if known is None else round(known.value))
        rejected = _rejection(candidate, policy, request, features, n_tiers)
        entry = EvaluatedCandidate(target, candidate.tier, cold, rejected)
        if affinity and (saving := min(cold, affinity.get(target, 0))):
            entry = entry._replace(expected_nanousd=NanoUSD(cold - saving), cache_saving_nanousd=NanoUSD(saving))
        evaluated.append(entry)
    return evaluated


def uncached_cost(candidate: Candidate, features: Features, request: CallRequest, output: int) -> NanoUSD:
    """Return the cost of a call without a warm cache, for ``output`` tokens or what its caps leave of them."""
    if request.max_tokens is not None and request.max_tokens < output:
        output = request.max_tokens
    if candidate.max_output is not None and candidate.max_output < output:
        output = candidate.max_output
    pico = features.input_tokens * candidate.input_picousd + output * request.choice_count * candidate.output_picousd
    return ceil_picousd(pico)


def _rejection(  # noqa: C901 - a list of reasons
    candidate: Candidate, policy: RoutingPolicy, request: CallRequest, features: Features, n_tiers: int
) -> str:
    """Return the reason why a candidate may not take the call; empty where it may."""
    if candidate.unavailable is not None:
        return candidate.unavailable or "unavailable"
    if policy.floor is not None and candidate.tier < min(policy.floor, n_tiers - 1):
        return "below the floor tier"
    if policy.ceiling is not None and candidate.tier > policy.ceiling:
        return "above the ceiling tier"
    for need in features.needs:
        if need not in candidate.capabilities:
            return f"cannot take {need}"
    if candidate.target.provider != request.provider:  # what only the other provider holds or runs cannot be moved
        if request.has_server_side_context:
            return f"the request refers to context stored at {request.provider}"
        if request.server_tools:
            return f"the request uses server tools of {request.provider}"
    wanted = request.max_tokens or 0
    if candidate.max_output is not None and wanted > candidate.max_output:
        return f"gives at most {candidate.max_output:,} output tokens, {wanted:,} asked for"
    size, window = features.input_tokens + wanted, candidate.context_window
    if window is not None and size > window:
        return f"about {size:,} tokens do not fit its window of {window:,}"
    return ""
