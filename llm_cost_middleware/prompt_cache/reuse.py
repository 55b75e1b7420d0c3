"""Reuse of prefixes like this one: prior probabilities, and returns counted in groups of peers.

A group counts when prefixes of one kind came back. It is the prior of a prefix that was seen too seldom to have
statistics of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from llm_cost_middleware.named_tuples import made
from llm_cost_middleware.prompt_cache.layout import PromptLayout
from llm_cost_middleware.prompt_cache.returns import NO_ODDS, Group, Odds, Returns, odds_of

_STAGE_ODDS: Mapping[str, Odds] = {
    # The end of a request, before any evidence: agents go on, conversations often do, single questions do not.
    "first": odds_of((0.05, 0.06, 0.07)),
    # Tools answer within seconds, or their call was no first step of an agent's.
    "first_with_tools": (0.5, 0.2, 0.04, 0.04, 0.04, 0.0),
    "chat": odds_of((0.5, 0.55, 0.6)),
    "agent": odds_of((0.9, 0.92, 0.92)),
}
_HEAD_ODDS: tuple[Odds, ...] = (
    # Tools and system that were seen never, once, twice, more often. Applications send them again and again: above
    # the break-even of a five-minute write from the first call on, and below that of an hour's.
    odds_of((0.4, 0.45, 0.5)),
    odds_of((0.6, 0.65, 0.7)),
    odds_of((0.7, 0.75, 0.8)),
    odds_of((0.8, 0.85, 0.9)),
)
_INNER_ODDS: tuple[Odds, ...] = (
    # Other inner boundaries: questions, documents in front of questions.
    odds_of((0.1, 0.1, 0.1)),
    odds_of((0.5, 0.5, 0.5)),
    odds_of((0.6, 0.6, 0.6)),
    odds_of((0.7, 0.7, 0.7)),
)
ENOUGH_SEEN = len(_HEAD_ODDS) - 1
"""Arrivals from which a prefix has enough statistics of its own."""
PRIOR_TRIALS = 1.0
OWN_TRIALS = 1.0
"""What peers count as in the odds of a prefix, or of a conversation, that came back before itself."""
PEER_TRIALS = 1.0
"""What a wider group counts as in the odds of a closer one."""
DOUBT = 0.5
"""Failures that are added to what was seen, for what evidence proves."""
_HOPELESS_TRIALS, _HOPELESS_SHARE = 6, 0.2
"""Newcomers of one shape, and the share of them that came back at all, from and below which the next is not written.

Six writes are what the first allowance pays for; below a fifth not even a write for five minutes pays.
"""
_AGES = 6
"""Turns of a conversation that are told apart one by one; older conversations by powers of two."""
_MAX_GROUPS = 1_024


class Estimate(NamedTuple):
    """Odds of a prefix."""

    odds: Odds
    proven: Odds | None
    """The odds that evidence alone supports, without any prior: a lower bound for what is risked. ``None``: not asked
    for."""

    def blend_after(self, returns: Returns, delay: float, weight: float) -> Estimate:
        """Return the estimate of the prefix itself, which has come back once more, after so many seconds."""
        proven = None if self.proven is None else returns.blend_after(delay, self.proven, DOUBT)
        return made(Estimate, (returns.blend_after(delay, self.odds, weight), proven))


class PeerGroups:
    """Bounded set of groups. Mutable; its owner holds the lock."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, Group] = OrderedDict()

    def peers(self, layout: PromptLayout, at: int, seen: int) -> tuple[Group, ...]:
        """Return the groups that a boundary counts in, the closest first."""
        if at == len(layout.boundaries) - 1:
            return self.peers_of_end(layout.traffic_key, layout.stage, layout.turns)
        return self._all_of(inner_keys(layout, at, seen))

    def counted_in(self, layout: PromptLayout, at: int, seen: int) -> tuple[Group, ...]:
        """Return the groups in which the trial of a boundary is counted: its peers, and newcomers of its shape."""
        found = self.peers(layout, at, seen)
        if not seen and at == layout.root and (key := shape_key(layout)):
            found = (*found, self.group(key))
        return found

    def is_hopeless(self, layout: PromptLayout) -> bool:
        """Return whether prompts that begin as this one does were new each time, and next to none came back.

        A date at the head of a long prompt makes every one of them new. Peers do not show it where other traffic
        comes back, and what that saves would pay for writes that nobody reads. What is open counts as not come back
        once a minute has passed: conversations that begin together have had no time before.
        """
        group = self.find(shape_key(layout))
        if group is None:
            return False
        came = sum(group.came)
        trials = came + group.passed[-1] + sum(1 for passed in group.open.values() if passed)
        return trials >= _HOPELESS_TRIALS and came < _HOPELESS_SHARE * trials

    def peers_of_end(self, traffic: bytes, stage: str, turns: int) -> tuple[Group, ...]:
        """Return the groups of ends at a stage of some traffic, the closest first."""
        return self._all_of(end_keys(traffic, stage, turns))

    def estimate(self, layout: PromptLayout, at: int, seen: int, *, proven: bool = True) -> Estimate:
        """Return what a boundary's peers say, the boundary itself not asked. ``proven``: also what is proven."""
        times = min(seen, ENOUGH_SEEN)
        if at == len(layout.boundaries) - 1:
            # A whole request that comes again is no step of a conversation: it is sent over and over.
            prior = _INNER_ODDS[times] if seen else _STAGE_ODDS[layout.stage]
        else:
            prior = (_HEAD_ODDS if at < layout.head else _INNER_ODDS)[times]
        weight = PRIOR_TRIALS
        # From the widest group to the closest: each corrects the one before it by its own evidence. The widest one
        # mixes what the prior tells apart, so it counts for what is proven alone.
        *closer, widest = self.peers(layout, at, seen)
        closer.reverse()
        shown = widest.blend(NO_ODDS, DOUBT) if proven else None
        for group in closer:
            prior, weight = group.blend(prior, weight), PEER_TRIALS
            if shown is not None:
                shown = group.blend(shown, DOUBT)
        return made(Estimate, (prior, shown))

    def ends_seen(self, layout: PromptLayout) -> float:
        """Return how many ends like this request's were seen to come back, or not to within five minutes."""
        found = [self.find(key) for key in end_keys(layout.traffic_key, layout.stage, layout.turns)[1:3]]
        return max((sum(group.came) + group.passed[1] for group in found if group is not None), default=0.0)

    def find(self, key: str) -> Group | None:
        """Return a group if it is there."""
        return self._groups.get(key)

    def _all_of(self, keys: tuple[str, ...]) -> tuple[Group, ...]:
        """Return the groups of these names; those that are not there are made, the first one first."""
        found = [group for group in map(self._groups.get, keys) if group is not None]
        return tuple(found if len(found) == len(keys) else [self.group(key) for key in keys])

    def group(self, key: str) -> Group:
        """Return a group; it is made where it is not there."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group()
            if len(self._groups) > _MAX_GROUPS:
                self._groups.popitem(last=False)
        return group


def end_keys(traffic: bytes, stage: str, turns: int) -> tuple[str, ...]:
    """Return the names of the groups of an end, the closest first."""
    # Conversations of one kind tend to end, or to be cut to a window, after as many turns.
    age = turns if turns < _AGES else _AGES + turns.bit_length()
    here = f"{traffic.hex()}.{stage}"
    return f"{here}.{age}", here, stage, "ends"


def inner_keys(layout: PromptLayout, at: int, seen: int) -> tuple[str, ...]:
    """Return the names of the groups of an inner boundary, the closest first."""
    return _section_keys(layout.boundaries[at].ref.section, min(seen, ENOUGH_SEEN))


def shape_key(layout: PromptLayout) -> str:
    """Return the name of the group of newcomers that begin as a request does: in so many blocks of about that size."""
    if layout.root is None:
        return ""
    root = layout.boundaries[layout.root]
    about = max(root.end.bit_length() - 3, 0)
    return f"new.{root.ref.section}.{root.number}.{root.end >> about << about}"


@cache
def _section_keys(section: str, seen: int) -> tuple[str, ...]:
    return f"{section}.{seen}", section
