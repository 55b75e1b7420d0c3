"""What happens to a call, as frozen records in ids, money and text. Never a prompt, an answer or a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.usage import TokenUsage


# Frozen: observers run one after the other, and none may change what the next one receives.
@dataclass(frozen=True, slots=True)
class Event:
    """The common part of every event."""

    call_id: str
    at: float
    """Seconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Routed(Event):
    """A model was chosen."""

    model: str
    requested: str
    tier: str
    policy: str
    reason: str
    expected_nanousd: NanoUSD | None = None


@dataclass(frozen=True, slots=True)
class Reserved(Event):
    """Money was set aside for an attempt."""

    reservation_id: str
    attempt: int
    model: str
    amount_nanousd: NanoUSD
    scopes: tuple[str, ...]
    max_tokens: int | None
    max_tokens_injected: bool
    guaranteed: bool


@dataclass(frozen=True, slots=True)
class Settled(Event):
    """An attempt was booked at what it cost."""

    reservation_id: str
    attempt: int
    model: str
    amount_nanousd: NanoUSD
    overrun_nanousd: NanoUSD
    status: str
    """``exact``, ``estimated`` or ``unconfirmed``."""
    usage: TokenUsage | None
    response_id: str | None = None


@dataclass(frozen=True, slots=True)
class Voided(Event):
    """An attempt that was certainly not billed gave its reservation back."""

    reservation_id: str
    attempt: int
    model: str
    kind: str
    """Why it failed, as one of the few values of ``FailureKind``."""
    reason: str
    """Why it failed, as a sentence."""


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """An attempt failed and another follows."""

    attempt: int
    model: str
    kind: str
    reason: str
    delay_s: float
    next_model: str


@dataclass(frozen=True, slots=True)
class Escalated(Event):
    """An answer was not accepted, and another model is asked."""

    attempt: int
    model: str
    next_model: str


@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """A call ended in an error."""

    attempts: int
    model: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class BudgetRefused(Event):
    """A call did not fit its budget. In observe mode it was sent all the same (``enforced`` is false)."""

    model: str
    scope: str
    requested_nanousd: NanoUSD
    enforced: bool


@dataclass(frozen=True, slots=True)
class CallPaused(Event):
    """A call met a scope that is paused. In observe mode it was sent all the same (``enforced`` is false)."""

    model: str
    scope: str
    reason: str
    enforced: bool


@dataclass(frozen=True, slots=True)
class WaitingForBudget(Event):
    """A call does not fit because of money that calls in flight hold, and waits for it."""

    model: str
    scope: str
    requested_nanousd: NanoUSD
    ahead: int
    """How many calls came first."""


@dataclass(frozen=True, slots=True)
class RequestAdjusted(Event):
    """A call was changed so that it fits: a cheaper model, or a smaller output cap. In observe mode it was not."""

    action: str
    """``downgrade`` or ``cap_output``."""
    before: str
    after: str
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class OutputCapReached(Event):
    """An answer stopped at an output cap that the caller had not set."""

    model: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class ThresholdCrossed(Event):
    """A scope has spent a soft threshold of its budget in this window."""

    scope: str
    window: str
    threshold_nanousd: NanoUSD | None = None
    """The sum that was crossed; ``None`` where an earlier call told of it."""


@dataclass(frozen=True, slots=True)
class Ungoverned(Event):
    """A call went past the middleware, as ``on_ungoverned`` allows."""

    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class Unattributed(Event):
    """A call does not say whose it is. Where it was let through (``enforced`` is false) it is booked as unassigned."""

    kind: str
    reason: str
    """``missing``, or ``unknown``: a name that is not on the list. Never the name."""
    enforced: bool


@dataclass(frozen=True, slots=True)
class AttributesIgnored(Event):
    """Something that a client of the proxy said of its request became no scope; the request was served without it."""

    what: str
    """``tags`` or ``end_user``. Never the text itself."""
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class PolicyDrifted(Event):
    """The calls of a learned policy are not those that it was fitted on any more: the stronger model takes them all.

    Told once in each process; it holds until a new policy is tuned.
    """

    policy_version: str
    reason: str


class Observer(Protocol):
    """Receives every event, in the caller's thread, outside every lock. What it raises is logged and dropped."""

    def on_event(self, event: Event) -> None:
        """Take note of ``event``. Must not block."""
        ...
