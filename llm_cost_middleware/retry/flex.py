"""What follows a try at the flex tier that brought no answer: the same again, or the standard tier. Pure.

OpenAI's guide to flex processing: without capacity it answers ``429 Resource Unavailable``, which is not charged; ask
again with growing waits, or at the standard tier. Here: again while the caller's patience has room for it and the way
back, then the standard tier. Tries at flex take nothing from ``max_attempts``, the retry quota or the circuit breaker:
what flex lacks says nothing of the standard tier.
"""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

from msgspec import Struct

from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.sentences import Sentence, told_when_read

_K = FailureKind
_CAPACITY = frozenset({_K.RATE_LIMITED, _K.OVERLOADED})
_TO_STANDARD = _CAPACITY | {
    _K.TIMEOUT, _K.SERVER_ERROR, _K.CONNECTION, _K.INTERRUPTED_STREAM, _K.CONFLICT,
    # the account, or this very request, may not have flex; what fails for its own reasons fails again, at no cost
    _K.INVALID_REQUEST, _K.PERMISSION, _K.NOT_FOUND,
}  # fmt: skip
_TIMED_OUT = frozenset({408, 504})
MOST_TRIES = 4
"""Tries at flex that one call makes at most."""
_FIRST_WAIT_S = 15.0


class FlexTry(NamedTuple):
    """A try at flex that brought no answer."""

    failure: Failure
    tries: int
    """So many were made, this one included."""
    left_s: float
    """Seconds that another try could take."""
    least_s: float
    """A shorter try is not worth beginning."""


@told_when_read("reason")
class NextLane(Struct, frozen=True, gc=False):
    """What follows it."""

    action: Literal["flex", "standard"]
    delay_s: float
    """Seconds to wait before."""
    reason: str
    """One sentence."""


def after_flex(failed: FlexTry, rng: Random) -> NextLane | None:
    """Decide what follows a try at flex; ``None``: no lane helps, and the rules of every other failure hold."""
    failure = failed.failure
    if failure.kind not in _TO_STANDARD:
        return None
    told: Sentence
    if failure.kind in _CAPACITY and failure.billed == "no" and failed.tries < MOST_TRIES:
        wait = _FIRST_WAIT_S * 2.0 ** (failed.tries - 1)
        wait = max(wait * rng.uniform(0.5, 1.0), failure.retry_after or 0.0)
        if failed.left_s - wait >= failed.least_s:
            told = ("flex has no capacity, again in {:.1f} s".format, wait)
            return NextLane("flex", wait, told)
    # a rate limit may be the model's, whatever the tier: it is waited for, where there is time
    wait = (failure.retry_after or 0.0) if failure.kind is _K.RATE_LIMITED else 0.0
    wait = wait if wait <= failed.left_s else 0.0
    told = ("{} at flex: on to the standard tier".format, failure.kind)
    return NextLane("standard", wait, told)


def as_flex(failure: Failure, error: BaseException) -> Failure:
    """The failure as it counts at flex: what timed out may be billed, whoever says so.

    The guide says that a refusal for want of capacity is not charged, and nothing of a 408 or a 504.
    """
    timed_out = failure.kind is _K.TIMEOUT or getattr(error, "status_code", None) in _TIMED_OUT
    return failure.changed(billed="unknown") if timed_out and failure.billed == "no" else failure
