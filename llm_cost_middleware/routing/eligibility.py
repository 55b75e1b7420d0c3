"""Eligibility of models for a call, and the expected cost of the call at each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from llm_cost_middleware.capabilities.arms import arm_for, output_factor
from llm_cost_middleware.capabilities.fitting import Fits, fit_eligible, shape_of
from llm_cost_middleware.request import CallRequest, ModelRef
from llm_cost_middleware.routing.features import Features
from llm_cost_middleware.routing.history import Outputs
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.sentences import Sentence

Parameters = Literal["strict", "lenient", "ignored"]
DEFAULT_OUTPUT = 512
"""Output tokens expected at a site without history. The same for every model, so that their prices rank them."""
_SHAPES = 512
_NO_CAP = 2**62


# A dataclass: it is read ten times in every decision, and a slot costs a quarter of a named tuple's field.
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


class CandidateSet(Sequence[Candidate]):
    """The candidates of a host, with what was found out of them for the shapes of requests seen so far.

    Built with the candidates, once per configuration and date, and forgotten with them. Safe to share between threads.
    """

    __slots__ = ("_candidates", "_found", "_least_window", "n_tiers", "out_of_reach")

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._candidates = tuple(candidates)
        self.n_tiers = 1 + max((candidate.tier for candidate in self), default=0)
        windows = [candidate.context_window for candidate in self if candidate.context_window is not None]
        self._least_window = min(windows, default=inf)
        self._found: dict[Hashable, Eligibility] = {}
        self.out_of_reach: Callable[[ModelRef], str | None] = _reached
        """Why the host cannot call a model, whether it is one of these or not; ``None``: it can."""

    def __getitem__(self, at: Any) -> Any:
        return self._candidates[at]

    def __len__(self) -> int:
        return len(self._candidates)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates)

    def eligibility(
        self, policy: RoutingPolicy, request: CallRequest, features: Features, parameters: Parameters = "strict"
    ) -> Eligibility:
        """Which of them may take a request, and why the others may not.

        Args:
            policy: Its floor and ceiling.
            request: The call.
            features: Its features.
            parameters: How parameters decide: ``lenient`` leaves soft demands out, ``ignored`` does not look at them.
        """
        # A request that is too long for one of them is a case of its own: the reason names its length.
        fits_all = features.input_tokens + (request.max_tokens or 0) <= self._least_window
        shape = shape_of(request) if fits_all else None
        if shape is None:
            return _find_eligibility(self, policy, request, features, parameters)
        asked = request.endpoint_at
        endpoints = None if asked is None else tuple([asked(candidate.target.plain) for candidate in self])
        key = (
            shape, id(policy), parameters, features.needs, request.has_server_side_context, not request.server_tools,
            endpoints,
        )  # fmt: skip
        found = self._found.get(key)
        if found is None:
            found = _find_eligibility(self, policy, request, features, parameters)
            if len(self._found) >= _SHAPES:
                self._found.clear()  # shapes that never repeat would otherwise grow it for ever
            self._found[key] = found  # it holds the policy, whose id is thus no other's
        return found


def _reached(_: ModelRef) -> str | None:
    """Nobody says what the host reaches."""


class Eligibility:
    """Which candidates may take the requests of one shape. Never changed.

    Args:
        policy: The policy that it was asked for.
        candidates: The candidates.
        targets: Each one's model or arm, without what the caller states himself.
        reasons: Why each may not take the call; empty where it may.
        cap: The output cap that the caller set.
        lenient: Soft demands are left out.
    """

    __slots__ = (
        "_left_out", "_lenient", "arms", "candidates", "of_tier", "policy", "prices", "reasons", "takers", "targets",
    )  # fmt: skip

    def __init__(
        self,
        policy: RoutingPolicy,
        candidates: Sequence[Candidate],
        targets: tuple[ModelRef, ...],
        reasons: tuple[Sentence, ...],
        cap: int | None,
        *,
        lenient: bool,
    ) -> None:
        self._lenient, self._left_out = lenient, dict[ModelRef, tuple[str, ...]]()
        self.policy, self.candidates, self.targets, self.reasons = policy, candidates, targets, reasons
        self.arms = any(target.parameters for target in targets)
        """Some target is an arm, of which other lengths of answers are expected."""
        caps = ([most for most in (cap, each.max_output) if most is not None] for each in candidates)
        self.prices = tuple(
            (candidate.input_picousd, candidate.output_picousd, min(each, default=_NO_CAP))
            for candidate, each in zip(candidates, caps, strict=True)
        )
        """Of each: pico-dollars per input and per output token, and the output tokens that it can give at most."""
        self.takers = tuple(place for place, reason in enumerate(reasons) if not reason)
        """The places of those that may take it."""
        self.of_tier: dict[int, tuple[int, ...]] = {}
        """The same by tier."""
        for place in self.takers:
            tier = candidates[place].tier
            self.of_tier[tier] = (*self.of_tier.get(tier, ()), place)

    def left_out(self, target: ModelRef, request: CallRequest) -> tuple[str, ...]:
        """The parameters of a request of this shape that one of the targets does not take, and is not sent."""
        found = self._left_out.get(target)
        if found is None:
            found = self._left_out[target] = fit_eligible(request, target, lenient=self._lenient).left_out
        return found

    def picousd(self, places: Iterable[int], tokens: int, answers: int, outputs: Outputs) -> list[int]:
        """The expected costs at some of the targets without a warm cache, in pico-dollars.

        Args:
            places: Which.
            tokens: The call's expected input tokens.
            answers: How many answers it asks for.
            outputs: Means of the call's site, by arm.
        """
        mean = outputs.get(None)
        elsewhere, found = DEFAULT_OUTPUT if mean is None else round(mean.value), []
        for place in places:
            inward, outward, most = self.prices[place]
            known = outputs.get(target := self.targets[place])
            if known is not None:
                length = round(known.value)
            else:
                length = _assumed_output(target, outputs) if self.arms and target.parameters else elsewhere
            found.append(tokens * inward + (length if length < most else most) * answers * outward)  # noqa: FURB136 - a call of min() costs more than all the rest
        return found


def _find_eligibility(
    candidates: CandidateSet, policy: RoutingPolicy, request: CallRequest, features: Features,
    parameters: Parameters,
) -> Eligibility:  # fmt: skip
    """An arm is evaluated without what the caller states himself: the two arms of a model may then be one."""
    reasons = _rejections(candidates, policy, request, features, candidates.n_tiers, parameters)
    targets: list[ModelRef] = []
    for place, candidate in enumerate(candidates):
        target = arm_for(candidate.target, request)
        if (
            target is not candidate.target
            and not reasons[place]
            and any(other == target and not reason for other, reason in zip(targets, reasons, strict=False))
        ):
            reasons[place] = ("differs from {} by what the caller states himself".format, target)
        targets.append(target)
    return Eligibility(
        policy, tuple(candidates), tuple(targets), tuple(reasons), request.max_tokens, lenient=parameters == "lenient"
    )


def _rejections(
    candidates: Sequence[Candidate],
    policy: RoutingPolicy,
    request: CallRequest,
    features: Features,
    n_tiers: int,
    parameters: Parameters,
) -> list[Sentence]:
    """Return for every candidate the reason why it may not take the call; empty where it may."""
    floor, ceiling = min(policy.floor or 0, n_tiers - 1), n_tiers if policy.ceiling is None else policy.ceiling
    needs, provider, wanted = features.needs, request.provider, request.max_tokens or 0
    size = features.input_tokens + wanted
    fits = None if parameters == "ignored" else Fits(request, lenient=parameters == "lenient")
    reasons = []
    reason: Sentence
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
            reason = ("cannot take {}".format, min(frozenset(needs) - candidate.capabilities))
        # What only the other provider holds or runs cannot be moved.
        elif abroad and request.has_server_side_context:
            reason = ("the request refers to context stored at {}".format, provider)
        elif abroad and request.server_tools:
            reason = ("the request uses server tools of {}".format, provider)
        elif most is not None and wanted > most:
            reason = ("gives at most {:,} output tokens, {:,} asked for".format, most, wanted)
        elif window is not None and size > window:
            reason = ("about {:,} tokens do not fit its window of {:,}".format, size, window)
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
