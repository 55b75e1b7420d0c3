"""What happens to a call, as frozen records in ids, money and text. Never a prompt, an answer or a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from llm_cost_middleware.foresight import Foreseen, Foresight
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.sentences import told_when_read
from llm_cost_middleware.usage import TokenUsage


# Frozen: observers run one after the other, and none may change what the next one receives.
@dataclass(frozen=True, slots=True)
class Event:
    """The common part of every event."""

    call_id: str
    at: float
    """Seconds since the Unix epoch."""


@told_when_read("reason")
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
    endpoint: str = ""
    """``chat.completions``, ``messages``, ``embeddings`` …"""


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
    scopes: tuple[str, ...] = ()
    failure: str = ""
    """Why it failed, as one of the few values of ``FailureKind``, or ``parse_failed``; empty where it did not."""


@told_when_read("reason")
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


@told_when_read("reason")
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


@told_when_read("reason")
@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """A call ended in an error."""

    attempts: int
    model: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class BudgetRefused(Foreseen, Event):
    """A call did not fit its budget. In observe mode it was sent all the same (``enforced`` is false)."""

    model: str
    scope: str
    requested_nanousd: NanoUSD
    enforced: bool
    foresight: Foresight | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class CallPaused(Event):
    """A call met a scope that is paused, and was not sent: in every mode, so ``enforced`` is always true."""

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
    """A call was changed so that it fits: a cheaper model, a smaller output cap, or no cache marks of ours.

    In observe mode it was not.
    """

    action: str
    """``downgrade``, ``cap_output`` or ``drop_cache_marks``."""
    before: str
    after: str
    enforced: bool = True


@dataclass(frozen=True, slots=True)
class OutputCapReached(Event):
    """An answer stopped at an output cap that the caller had not set."""

    model: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class ThresholdCrossed(Foreseen, Event):
    """A scope has spent a soft threshold of its budget in this window."""

    scope: str
    window: str
    threshold_nanousd: NanoUSD | None = None
    """The sum that was crossed; ``None`` where an earlier call told of it."""
    limit_nanousd: NanoUSD | None = None
    """``None``, as ``spent_nanousd``, where the ledger could not be asked."""
    spent_nanousd: NanoUSD | None = None
    resets_at: float | None = None
    """Seconds since the Unix epoch; ``None`` for a budget without an end."""
    foresight: Foresight | None = field(default=None, compare=False, repr=False)

    @property
    def percent(self) -> float | None:
        """What of the limit is spent."""
        return percent_of(self.spent_nanousd, self.limit_nanousd)


@dataclass(frozen=True, slots=True)
class AlertRaised(Event):
    """Something that ``[[alerts]]`` watches for has happened: once for each window and scope, in one process.

    It may come twice where a process ended or a storage forgot; the same ``id`` says so.
    """

    id: str
    """The same in every process."""
    kind: str
    """``threshold``, ``forecast`` …: the ``when`` of its rule."""
    scope: str
    window: str
    """The window of the budget, or the stretch of time that was looked at."""
    text: str
    """What happened, as a sentence."""
    subject: str = ""
    """What it is about beside the scope: a model, a policy, a version of the prices."""
    limit_nanousd: NanoUSD | None = None
    spent_nanousd: NanoUSD | None = None
    """For a forecast what will be spent, for a rate what was spent in this stretch of time."""
    resets_at: float | None = None

    @property
    def percent(self) -> float | None:
        """``spent`` of the limit."""
        return percent_of(self.spent_nanousd, self.limit_nanousd)


def percent_of(spent: NanoUSD | None, limit: NanoUSD | None) -> float | None:
    """A share of a limit in percent, to a tenth; ``None`` where either is unknown or the limit is zero."""
    return None if spent is None or not limit else round(spent * 1000 / limit) / 10


@dataclass(frozen=True, slots=True)
class Ungoverned(Event):
    """A call went past the middleware, as ``on_ungoverned`` allows."""

    what: str
    advice: str


@dataclass(frozen=True, slots=True)
class ModelUnpriced(Event):
    """A call was refused because nobody knows what its model costs."""

    model: str
    """``provider/model``."""


@dataclass(frozen=True, slots=True)
class Unattributed(Event):
    """A call does not say whose it is. Where it was let through (``enforced`` is false) it is booked as unassigned."""

    kind: str
    reason: str
    """``missing``, or ``unknown``: a name that is not on the list. Never the name."""
    enforced: bool
    nearest: str = ""
    """The name on the list that it is most like."""


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


@dataclass(frozen=True, slots=True)
class RunawaySuspected(Event):
    """An agent repeats itself, or each of its steps costs more than the one before. ``enforced``: it was ended."""

    scope: str
    """Its run, or its agent where there is no run."""
    reason: str
    enforced: bool


class Observer(Protocol):
    """Receives every event, in the caller's thread, outside every lock; a plain function that takes one is one too.

    What it raises is dropped; the first time it is logged, with its traceback. ``AlertRaised`` comes from a thread of
    its own.
    """

    def on_event(self, event: Event) -> None:
        """Take note of ``event``. Must not block."""
        ...
