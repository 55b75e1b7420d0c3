"""Expected value of cache marks, and the best set of marks. Arithmetic only.

A prompt is a chain of segments between boundaries. Let ``u``, ``w``, ``r`` be the prices of a token that is sent
uncached, written and read, ``p`` the probability that its prefix comes back before the entry expires, and ``q`` that
it comes back once more after that. A token that is kept cached costs ``c = q r + (1 - q) w`` a call in the long run, so
from its next return on it costs ``m``, the least of ``u`` and of the ``c`` of each lifetime. A live entry at a return
then saves ``(m - r) / (1 - q)`` over a missing one: this return, and the ones after it for as long as it lives. So a
write is worth ``u - w + p (m - r) / (1 - q)``, however often the prefix returns in all, which cancels out. For one
lifetime and ``p = q`` that is ``u - w + p (w - r)``, which breaks even at ``p = (w - u) / (w - r)``: 0.22 for five
minutes at Anthropic's usual prices, 0.53 for an hour.

A mark caches everything before it, so the deepest mark goes where the running sum of these values peaks. Marks above it
cost nothing more, and keep shorter prefixes readable on their own. A mark that asks for an hour keeps also what is read
before it for an hour, at the price of the new tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llm_cost_middleware.named_tuples import made
from llm_cost_middleware.prompt_cache.plan import HORIZON_OF, CachePrices, ReuseProbability

_DISTINCT = 0.02
"""Least difference in reuse to the next deeper mark for which a mark is placed that does not end tools or system."""
_PROVEN = 0.9
"""Proven odds from which a write needs no allowance."""
_MOST_REUSE = 0.99
"""No prefix comes back for ever."""
_NEVER: ReuseProbability = (0.0, 0.0, 0.0)
_HORIZON = {**HORIZON_OF}
"""``HORIZON_OF`` itself, without its read-only view: it is read some twenty times for each plan."""


class CacheCandidate(NamedTuple):
    """Boundary that can be marked, or carries a mark of the caller."""

    at: int
    """Index in the layout."""
    number: int
    """Number of its block, as a lookback counts."""
    tokens: int
    reuse: ReuseProbability
    """Probability that its prefix comes back."""
    reuse_again: ReuseProbability
    """Probability that it then comes back once more."""
    proven: ReuseProbability = _NEVER
    """Probability of the first that evidence alone supports."""
    warm: str | None = None
    """Lifetime of the readable entry that ends here."""
    pending: bool = False
    """Another call is writing it."""
    mark: str | None = None
    """Lifetime of the caller's own mark here."""
    ttls: tuple[str, ...] = ()
    """Lifetimes that a mark of ours may have here, by the caller's marks before and behind it; empty: any."""
    presumed: bool = False
    """Previous request of this conversation ended here: an entry may exist that the statistics do not have."""
    ends_section: bool = False
    """The tools or the system prompt end here."""


class Choice(NamedTuple):
    """Chosen marks, with their expected effect."""

    marks: tuple[tuple[int, str], ...] = ()
    """(boundary, lifetime), shallow to deep."""
    read: int = 0
    """Tokens read."""
    write_cost_picousd: int = 0
    """Cost of the writes beyond uncached input."""
    write_risk_picousd: int = 0
    """The part of it that no evidence covers."""
    expected_value_picousd: int = 0
    """Saving of this call's reads, plus the value of its writes."""


def write_value(reuse: ReuseProbability, reuse_again: ReuseProbability, prices: CachePrices, ttl: str) -> float:
    """Return the value of writing one token for ``ttl``, in pico-dollars; negative if it does not pay."""
    horizon = _HORIZON[ttl]
    gain = _gain_at_return(reuse_again, prices, ttl)
    return prices.uncached - prices.write[ttl] + reuse[horizon] * gain


def _gain_at_return(reuse_again: ReuseProbability, prices: CachePrices, ttl: str) -> float:
    """Return what a live entry with a lifetime saves at a return, and after it, over one that has to be written."""
    again = reuse_again[_HORIZON[ttl]]
    again = again if again < _MOST_REUSE else _MOST_REUSE  # noqa: FURB136 - some twenty times for each plan
    return (_long_run(reuse_again, prices)[0] - prices.read) / (1.0 - again)


def _long_run(reuse_again: ReuseProbability, prices: CachePrices) -> tuple[float, int]:
    """Return the cost of a token a call in the long run, and what is paid for it where its entry is missing."""
    cost, paid = float(prices.uncached), prices.uncached
    read = prices.read
    for ttl, price in prices.write.items():
        again = reuse_again[_HORIZON[ttl]]
        again = again if again < _MOST_REUSE else _MOST_REUSE  # noqa: FURB136 - some twenty times for each plan
        kept = again * read + (1.0 - again) * price
        if kept < cost:
            cost, paid = kept, price
    return cost, paid


class _Written(NamedTuple):
    """Sums over the segments that are written."""

    value: float
    cost: int
    risk: float
    tokens: int
    """Tokens up to the end of the last one."""

    def with_segment(self, each: CacheCandidate, prices: CachePrices, ttl: str, *, written: bool) -> _Written:
        """Return the sums with one segment more, that ends here. ``written``: the caller's own mark writes it."""
        end = max(each.tokens, self.tokens)
        width = end - self.tokens
        if written:
            return made(_Written, (self.value, self.cost, self.risk, end))
        cost = width * (prices.write[ttl] - prices.uncached)
        if each.pending:  # the other call's write makes ours useless
            return made(_Written, (self.value - cost, self.cost + cost, self.risk + cost, end))
        gained = width * write_value(each.reuse, each.reuse_again, prices, ttl)
        risk = cost * (1.0 - each.proven[_HORIZON[ttl]])
        return made(_Written, (self.value + gained, self.cost + cost, self.risk + risk, end))


class _Reach(NamedTuple):
    """How deep to write: up to ``long`` with the longest lifetime, from there to ``end`` with the shortest."""

    long: int
    end: int
    value: float
    cost: int
    risk: int


def choose(
    candidates: Sequence[CacheCandidate],
    prices: CachePrices,
    ttls: tuple[str, ...],
    *,
    slots: int,
    lookback: int | None,
    write_allowance_picousd: int,
    trust_picousd: int,
) -> Choice:
    """Choose the marks with the highest value.

    Args:
        candidates: Boundaries from shallow to deep, with reuse that never rises.
        prices: Prices of the model.
        ttls: Lifetimes to choose from, short to long; each has a price.
        slots: Number of marks that may be added to the caller's.
        lookback: Blocks, its own included, over which a mark finds an entry; ``None``: its own only.
        write_allowance_picousd: Most that the writes may risk.
        trust_picousd: Most that the writes may cost, whatever evidence covers of it.
    """
    hit = len(candidates) - 1
    while hit >= 0 and not candidates[hit].warm:
        hit -= 1
    callers = [at for at, each in enumerate(candidates) if each.mark]
    deepest_mark = callers[-1] if callers else -1
    reach = _best_reach(candidates, prices, ttls, hit, deepest_mark, write_allowance_picousd, trust_picousd)
    chosen = _places(candidates, ttls, reach, hit, set(callers), slots, lookback)
    if not chosen:
        return Choice()
    deepest = max(*chosen, deepest_mark)
    read = candidates[hit].tokens if 0 <= hit <= deepest else 0
    gain = read * (prices.uncached - prices.read)
    marks = tuple([(candidates[at].at, chosen[at]) for at in sorted(chosen)])
    return made(Choice, (marks, read, reach.cost, reach.risk, gain + int(reach.value)))


def _best_reach(
    candidates: Sequence[CacheCandidate],
    prices: CachePrices,
    ttls: tuple[str, ...],
    hit: int,
    callers: int,
    allowance: int,
    trust: int,
) -> _Reach:
    """Return how deep to write, and for how long, at most at the risk that is allowed.

    ``callers``: the deepest mark of the caller's, which writes what is before it.
    """
    short, long = ttls[0], ttls[-1]
    best = made(_Reach, (hit, hit, 0.0, 0, 0))
    # Along each path, segments are written for the long lifetime up to a boundary, and for the short one behind it.
    so_far = made(_Written, (0.0, 0, 0.0, candidates[hit].tokens if hit >= 0 else 0))
    for turn in range(hit, len(candidates)):
        kept = 0.0
        if turn > hit:
            each = candidates[turn]
            so_far = so_far.with_segment(each, prices, long, written=turn <= callers)
            if not _may(each, long):
                continue
            if short != long:
                kept = _kept_longer(candidates[: hit + 1], each, prices, long)
            if so_far.value + kept > best.value and _is_covered(so_far, allowance, trust):
                best = made(_Reach, (turn, turn, so_far.value + kept, so_far.cost, int(so_far.risk)))
        tail = so_far
        for end in range(turn + 1, len(candidates) if short != long else 0):
            tail = tail.with_segment(candidates[end], prices, short, written=end <= callers)
            if _may(candidates[end], short) and tail.value + kept > best.value and _is_covered(tail, allowance, trust):
                best = made(_Reach, (turn, end, tail.value + kept, tail.cost, int(tail.risk)))
    return best


def _is_covered(written: _Written, allowance: int, trust: int) -> bool:
    """Return whether the allowance covers what is risked, or evidence all but a tenth of what is written."""
    _, cost, risk, _ = written
    return cost <= trust and (risk <= allowance or risk <= (1.0 - _PROVEN) * cost)


def _may(each: CacheCandidate, ttl: str) -> bool:
    """Return whether a mark of this lifetime may stand here: one of ours, or the caller's own."""
    return each.mark == ttl if each.mark else not each.ttls or ttl in each.ttls


def _kept_longer(read: Sequence[CacheCandidate], each: CacheCandidate, prices: CachePrices, long: str) -> float:
    """Return the value of keeping for the long lifetime what is read, where its own entry would expire sooner."""
    if not read or read[-1].warm == long:
        return 0.0
    own, kept, value, before = _HORIZON.get(read[-1].warm or "", 0), each.reuse[_HORIZON[long]], 0.0, 0
    for _, _, tokens, reuse, reuse_again, *_ in read:
        more = kept - reuse[own]
        if more > 0.0:
            value += more * (tokens - before) * (_long_run(reuse_again, prices)[1] - prices.read)
        before = tokens
    return value


def _places(
    candidates: Sequence[CacheCandidate],
    ttls: tuple[str, ...],
    reach: _Reach,
    hit: int,
    callers: set[int],
    slots: int,
    lookback: int | None,
) -> dict[int, str]:
    """Return the candidates to mark, with lifetimes: the reach, what must be found, and marks that cost nothing."""
    short, long = ttls[0], ttls[-1]
    # An entry that lives an hour gets no mark of five minutes, which would shorten it once it has to be written again.
    longest = max(reach.long, hit)
    while 0 <= longest <= hit and candidates[longest].warm != long:
        longest -= 1
    wanted: list[int] = [reach.end] if reach.end >= 0 else []
    floor = max(reach.end, *callers, -1)
    if hit < reach.long < reach.end:
        wanted.append(reach.long)
    # A mark finds an older entry only within its lookback: farther back, a mark of its own must reach it.
    presumed = floor - 1
    while presumed >= 0 and not candidates[presumed].presumed:
        presumed -= 1
    for needed in (hit,) if presumed == hit else (hit, presumed):
        if 0 <= needed < floor and not _within_reach(candidates, [*callers, *wanted], needed, lookback):
            wanted.append(needed)
    horizon = _HORIZON[long if longest >= 0 else short]
    chosen: dict[int, str] = {}
    for at in wanted:
        _add(chosen, candidates, at, long if at <= longest else short, slots)
    while len(chosen) < slots:
        extra = _worth_most(candidates, callers.union(chosen), floor, horizon)
        if extra is None or not _add(chosen, candidates, extra, long if extra <= longest else short, slots):
            break
    return chosen


def _add(chosen: dict[int, str], candidates: Sequence[CacheCandidate], at: int, ttl: str, slots: int) -> bool:
    each = candidates[at]
    if len(each.ttls) == 1:  # what the caller's marks leave
        ttl = each.ttls[0]
    if each.mark or at in chosen or len(chosen) >= slots or not _may(each, ttl):
        return False
    chosen[at] = ttl
    return True


def _within_reach(
    candidates: Sequence[CacheCandidate], chosen: Sequence[int], entry: int, lookback: int | None
) -> bool:
    reached = candidates[entry].number + (lookback or 1)
    for at in chosen:  # noqa: SIM110 - for each plan: without the frame of a generator
        if entry <= at and candidates[at].number < reached:
            return True
    return False


def _worth_most(candidates: Sequence[CacheCandidate], chosen: set[int], floor: int, horizon: int) -> int | None:
    """Return the unmarked candidate whose prefix comes back most often without the rest, ends of sections first."""
    best, found = -1.0, None
    deeper = candidates[floor].reuse[horizon] if floor >= 0 else 1.0
    for at in range(floor - 1, -1, -1):
        each = candidates[at]
        if at in chosen:
            deeper = each.reuse[horizon]
            continue
        more = each.reuse[horizon] - deeper
        # A slot that is left costs nothing, and the next conversation may share no more than tools and system.
        worth = more * each.tokens if more > _DISTINCT else 0.0 if each.ends_section else -1.0
        if worth > best:
            best, found = worth, at
    return found
