"""A routing decision as a value: the chosen model, the others and the reasons; replayable from its line in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct, structs

from llm_cost_middleware.capabilities.arms import Arm
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.features import Features
from llm_cost_middleware.routing.lanes import EvaluatedLane
from llm_cost_middleware.sentences import told_when_read

AcceptBy = Literal["check", "schema", "agreement", "no_failure"]
"""How a cheap answer of a cascade is accepted."""

# Version of a decision's line. Lines of older versions stay readable: a missing field has a default.
FORMAT = 1


class EvaluatedCandidate(Struct, frozen=True, gc=False):
    """One model or arm with its expected cost for a call, and the reason against it."""

    target: ModelRef
    tier: int
    expected_nanousd: NanoUSD | None
    """Expected cost of this call there, a warm cache counted; ``None`` where unknown."""
    rejected: str = ""
    """Reason why it may not take the call; empty where it may."""
    cache_saving_nanousd: NanoUSD = NanoUSD(0)
    """Expected saving of a warm cache there."""


@told_when_read("reason")
class RoutingDecision(Struct, frozen=True, gc=False):
    """Which model or arm takes a call, and why. Numbers, names and reasons only: never a text."""

    call_id: str
    at: float
    """Seconds since the Unix epoch."""
    target: ModelRef
    tier: int
    """The tier's index, cheap to strong; -1 for a model that was forced or pinned."""
    tier_name: str
    policy: str
    """``threshold``, ``rules``, ``learned``, ``cascade``, ``force``, ``pinned``, ``home`` (no other model takes its
    parameters); ``default`` in logs of older versions (learned, but not for this site)."""
    policy_version: str
    reason: str
    score: float | None
    propensity: float
    """Probability with which this tier was chosen, for off-policy estimates; 1 without exploration."""
    site: str
    requested: str
    """Model that the caller named."""
    features: Features
    candidates: Sequence[EvaluatedCandidate] = ()
    """Every configured model in its order: as a tuple, or compared as one."""
    ngrams: tuple[int, ...] = ()
    """Hashed n-grams of the last user text, repeated as often as they occur; only where learning is on."""
    text_stats: tuple[float, ...] = ()
    """Statistics of the last user text (``complexity.STAT_NAMES``); only where learning is on."""
    left_out: tuple[str, ...] = ()
    """Parameters of the request that the chosen model does not take, and is not sent."""
    lane: str = ""
    """``standard`` or ``flex``, where the call can wait; empty where it cannot."""
    lanes: tuple[EvaluatedLane, ...] = ()
    """The lanes as they were weighed for it."""
    groups: tuple[str, ...] = ()
    """The wider groups of the site (``sites.CallSite``); only where learning is on."""

    def _replace(self, **changes: Any) -> RoutingDecision:
        """The same with other fields, as of a named tuple."""
        return structs.replace(self, **changes)

    @property
    def grams(self) -> tuple[int, ...]:
        """Former name of ``ngrams``."""
        return self.ngrams

    @property
    def expected_nanousd(self) -> NanoUSD | None:
        """Expected cost of the call at the chosen model; ``None`` where unknown."""
        return next((c.expected_nanousd for c in self.candidates if c.target == self.target), None)

    @property
    def eligible(self) -> tuple[EvaluatedCandidate, ...]:
        """The models that may take the call."""
        return tuple(candidate for candidate in self.candidates if not candidate.rejected)

    def explain(self) -> str:
        """The decision in one sentence."""
        text = f"{self.target} ({self.tier_name}): {self.reason}"
        cost = self.expected_nanousd
        if cost is not None:
            peers = [
                c.expected_nanousd for c in self.eligible if c.tier == self.tier and c.expected_nanousd is not None
            ]
            cheapest = f", cheapest of {len(peers)} in its tier" if len(peers) > 1 and cost <= min(peers) else ""
            text += f"; about {cost} expected{cheapest}"
        rejected = [f"{c.target} ({c.rejected})" for c in self.candidates if c.rejected]
        return f"{text}; not {', '.join(rejected)}." if rejected else f"{text}."

    def to_json(self) -> str:
        """The decision as one line of JSON."""
        lanes = [[each.lane, each.expected_nanousd, each.late_s, each.rejected] for each in self.lanes]
        return json.dumps(
            {
                "v": FORMAT,  # keys are short and kept over renames: logs outlive the code that wrote them
                "id": self.call_id,
                "at": self.at,
                "target": list(self.target),
                "tier": self.tier,
                "tier_name": self.tier_name,
                "policy": self.policy,
                "policy_version": self.policy_version,
                "reason": self.reason,
                "score": self.score,
                "propensity": self.propensity,
                "site": self.site,
                "requested": self.requested,
                "features": structs.asdict(self.features),
                **({"arm": dict(self.target.parameters)} if self.target.parameters else {}),
                "candidates": [
                    [
                        *c.target,
                        c.tier,
                        c.expected_nanousd,
                        c.rejected,
                        c.cache_saving_nanousd,
                        *([dict(c.target.parameters)] if c.target.parameters else ()),
                    ]
                    for c in self.candidates
                ],
                "grams": self.ngrams,
                "shape": self.text_stats,
                **({"left_out": self.left_out} if self.left_out else {}),
                **({"groups": self.groups} if self.groups else {}),
                **({"lane": self.lane, "lanes": lanes} if self.lane else {}),
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, line: str | bytes) -> RoutingDecision:
        """Read a decision's line; one of an older version is read with defaults for what it lacks.

        Raises:
            ConfigurationError: It is not a decision, or a newer version wrote it.
        """
        try:
            data = json.loads(line)
            version = int(data.get("v", 0))
            if version <= FORMAT:
                return _read(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigurationError(f"not a routing decision: {type(error).__name__} {error}") from None
        raise ConfigurationError(f"a decision of version {version}; this version reads up to {FORMAT}")


_COUNTS = Features.__struct_fields__
_UNKNOWN = dict.fromkeys(_COUNTS, 0) | {"item_count": 1, "needs": ()}


def _read(data: dict[str, Any]) -> RoutingDecision:
    known = {key: value for key, value in data.get("features", {}).items() if key in _COUNTS}
    return RoutingDecision(
        call_id=data["id"],
        at=float(data["at"]),
        target=read_ref(data["target"], data.get("arm")),
        tier=int(data.get("tier", -1)),
        tier_name=data.get("tier_name", ""),
        policy=data.get("policy", "threshold"),
        policy_version=data.get("policy_version", ""),
        reason=data.get("reason", ""),
        score=data.get("score"),
        propensity=float(data.get("propensity", 1.0)),
        site=data.get("site", ""),
        requested=data.get("requested", ""),
        features=Features(**{**_UNKNOWN, **known, "needs": tuple(known.get("needs", ()))}),
        candidates=tuple(_evaluated(*entry) for entry in data.get("candidates", ())),
        ngrams=tuple(data.get("grams", ())),
        text_stats=tuple(data.get("shape", ())),
        left_out=tuple(data.get("left_out", ())),
        groups=tuple(data.get("groups", ())),
        lane=data.get("lane", ""),
        lanes=tuple(EvaluatedLane(lane, NanoUSD(expected), *rest) for lane, expected, *rest in data.get("lanes", ())),
    )


def _evaluated(
    provider: str, model: str, tier: int, expected: int | None, rejected: str = "", warm: int = 0,
    arm: object = None, *_: object,
) -> EvaluatedCandidate:  # fmt: skip
    target = read_ref((provider, model), arm)
    return EvaluatedCandidate(target, tier, None if expected is None else NanoUSD(expected), rejected, NanoUSD(warm))


def read_ref(names: Sequence[str], arm: object = None) -> ModelRef:
    """A model of a logged line, or the arm of it: as it was, whatever the table says today."""
    provider, model = names
    return Arm(provider, model, arm) if arm and isinstance(arm, Mapping) else ModelRef(provider, model)
