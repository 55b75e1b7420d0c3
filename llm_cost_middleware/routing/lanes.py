"""Lanes: at which service tier a call is sent that can wait: standard or flex.

They are compared by what an answer is expected to cost there, and by how long answers have taken. A lane is taken only
where it leaves time to come back to the standard one. Whether many calls go as a batch is decided before they are calls
(``batch_lane``).

Flex (OpenAI's guide to flex processing) costs what a batch costs, may refuse for want of capacity, which is not
charged, and is slow: an attempt that is given up may be billed all the same, and counts as if it were. ``priority`` and
``fast`` are dearer: no lane of ours.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.sentences import Sentence, text, told_when_read

Lane = Literal["standard", "flex"]
LaneEnd = Literal["answered", "refused", "lost"]
"""How a try in a lane ended: ``refused`` was not charged, ``lost`` may have been."""

FLEX_TIMEOUT_S = 900.0
"""The timeout that OpenAI's guide to flex processing advises: fifteen minutes."""
_KEPT = 64  # tries remembered for each model and lane
_MODELS = 512
_LEARNED = 8  # answers from which on they say more than the documents
_LATE = 0.95
_CAPACITY_S = 900.0  # how long a refusal says something of the next try
_DOUBTS = 16  # tries that the assumed shares weigh as much as
_ASSUMED_REFUSED, _ASSUMED_LOST = 0.1, 0.02
_GENEROUS = 2.0  # times the late answer: a try that is given up costs more than the wait
_LEAST_TRY_S = 60.0
_SAFE = 3.0  # times the late answer of the standard tier: one in twenty is later than that, and would come too late


class Delay(NamedTuple):
    """How long answers take, in seconds."""

    usual_s: float
    """The median."""
    late_s: float
    """What nineteen of twenty keep within."""
    answers: int = 0
    """So many were measured; 0: as the documents lead one to expect."""


ASSUMED: dict[Lane, Delay] = {
    "standard": Delay(10.0, 60.0),
    "flex": Delay(30.0, 600.0),  # the SDKs' own timeout, which the guide says to raise for long prompts
}
"""Until something was measured."""


class LaneOffer(NamedTuple):
    """What one lane offers a call."""

    lane: Lane
    cost_nanousd: NanoUSD
    """Expected cost of an answer there."""
    delay: Delay
    refused: float = 0.0
    """The share of tries that it refuses, without a charge."""
    lost: float = 0.0
    """The share of tries that end without an answer, and may be billed."""
    unfit: Sentence = ""
    """Why the call may not go there; empty: it may."""


@told_when_read("rejected")
class EvaluatedLane(Struct, frozen=True, gc=False):
    """One lane as it was weighed for a call."""

    lane: Lane
    expected_nanousd: NanoUSD
    """What the call costs if it begins there: tries that are refused or lost, and what follows them, included."""
    late_s: float
    """What nineteen of twenty answers keep within."""
    rejected: str = ""
    """Why it was not taken; empty for the one that was."""


class LaneChoice(NamedTuple):
    """The lane in which a call begins."""

    lane: Lane
    told: Sentence
    """Why: one clause."""
    patience_s: float
    """Seconds from its start after which the caller waits no longer."""
    candidates: tuple[EvaluatedLane, ...] = ()
    try_s: float = 0.0
    """The most seconds that one try takes before it is given up; 0 in the standard lane."""
    reserve_s: float = 0.0
    """Seconds that are left to the standard lane."""
    least_s: float = 0.0
    """A shorter try than this is not worth beginning."""

    @property
    def reason(self) -> str:
        """The clause as a text."""
        return text(self.told)

    def left_s(self, elapsed_s: float) -> float:
        """The seconds that a try may take that begins now; below ``least_s``, none is to begin."""
        return min(self.try_s, self.patience_s - self.reserve_s - elapsed_s)


def choose_lane(offers: Sequence[LaneOffer], patience_s: float) -> LaneChoice:
    """Choose the lane of least expected cost among those that leave the call in time.

    Args:
        offers: The standard lane first, then others.
        patience_s: How long the call can wait.
    """
    standard = offers[0]
    reserve = standard.delay.late_s * (_SAFE if standard.delay.answers else 1.0)
    costs = [standard.cost_nanousd, *(_expected(offer, standard) for offer in offers[1:])]
    against: list[Sentence] = ["", *(_against(offer, reserve, patience_s) for offer in offers[1:])]
    best = min((at for at, why in enumerate(against) if not why), key=costs.__getitem__)
    dearer: Sentence = ("{} is expected to cost less".format, offers[best].lane)
    weighed = tuple(
        EvaluatedLane(offer.lane, costs[at], offer.delay.late_s, against[at] or (dearer if at != best else ""))
        for at, offer in enumerate(offers)
    )
    if not best:
        why = next(filter(None, against), "nothing costs less")
        return LaneChoice("standard", ("standard lane: {}".format, why), patience_s, weighed)
    offer, share = offers[best], 100 * costs[best] // max(standard.cost_nanousd, 1)
    tried = ("{} lane: can wait {}, expected at {} % of standard".format, offer.lane, (_length, patience_s), share)
    longest = min(FLEX_TIMEOUT_S, patience_s - reserve)
    if offer.delay.answers:
        longest = min(longest, max(_GENEROUS * offer.delay.late_s, _LEAST_TRY_S))
    return LaneChoice(offer.lane, tried, patience_s, weighed, longest, reserve, offer.delay.usual_s)


def _expected(offer: LaneOffer, standard: LaneOffer) -> NanoUSD:
    """What a call costs that begins in a lane and ends in the standard one where that fails. In parts of a thousand."""
    refused, lost = round(offer.refused * 1_000), round(offer.lost * 1_000)
    again = (refused + lost) * standard.cost_nanousd
    return NanoUSD(((1_000 - refused) * offer.cost_nanousd + again) // 1_000)


def _against(offer: LaneOffer, reserve_s: float, patience_s: float) -> Sentence:
    if offer.unfit:
        return offer.unfit
    if offer.delay.usual_s > FLEX_TIMEOUT_S:
        return "{} takes {} for half of its answers".format, offer.lane, (_length, offer.delay.usual_s)
    needed = reserve_s + offer.delay.usual_s
    if patience_s < needed:
        late = "{} leaves no time for {} and a way back, which take {}".format
        return late, (_length, patience_s), offer.lane, (_length, needed)
    return ""


def _length(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:.3g} s"


class _Tries:
    """The last tries at one model in one lane."""

    __slots__ = ("ends", "seconds")

    def __init__(self) -> None:
        self.seconds: deque[float] = deque(maxlen=_KEPT)
        self.ends: deque[tuple[float, LaneEnd]] = deque(maxlen=_KEPT)


class LaneHistory:
    """How tries in lanes went, by model. Bounded; its owner holds the lock."""

    def __init__(self) -> None:
        self._tries: OrderedDict[tuple[ModelRef, Lane], _Tries] = OrderedDict()

    def observe(self, model: ModelRef, lane: Lane, end: LaneEnd, seconds: float, at: float) -> None:
        """Note one try.

        Args:
            model: Where it was sent, without parameters.
            lane: In which lane.
            end: How it ended.
            seconds: How long it took.
            at: Unix time of its end.
        """
        tries = self._tries.setdefault((model, lane), _Tries())
        self._tries.move_to_end((model, lane))
        if len(self._tries) > _MODELS:
            self._tries.popitem(last=False)
        if end != "refused":  # what was given up would have taken that long at least
            tries.seconds.append(seconds)
        tries.ends.append((at, end))

    def delay(self, model: ModelRef, lane: Lane) -> Delay:
        """How long answers of a model take in a lane."""
        tries = self._tries.get((model, lane))
        if tries is None or len(tries.seconds) < _LEARNED:
            return ASSUMED[lane]
        ranked = sorted(tries.seconds)
        return Delay(ranked[len(ranked) // 2], ranked[min(int(len(ranked) * _LATE), len(ranked) - 1)], len(ranked))

    def shares(self, model: ModelRef, lane: Lane, now: float) -> tuple[float, float]:
        """The shares of tries that are refused, and that are lost. Refusals are forgotten: capacity comes back."""
        tries = self._tries.get((model, lane))
        ends = tries.ends if tries is not None else ()
        lost = sum(end == "lost" for _, end in ends)
        recent = [end for at, end in ends if now - at < _CAPACITY_S]
        refused = sum(end == "refused" for end in recent)
        return (
            (refused + _DOUBTS * _ASSUMED_REFUSED) / (len(recent) + _DOUBTS),
            (lost + _DOUBTS * _ASSUMED_LOST) / (len(ends) + _DOUBTS),
        )
