"""Expected value of cache marks, and the best set of marks. Arithmetic only.

A prompt is a chain of segments between boundaries. Writing a segment costs ``w - u`` per token more than sending it
uncached (``u``, ``w``, ``r``: the prices of uncached input, of a write with that lifetime, of a read). If it comes back
before it expires (probability ``p``), that saves ``u - r``, and leaves an entry with the value ``q (w - r)`` if it
comes back once more (probability ``q``), but never more than writing it again, ``w - u``. So the value of a write is
``u - w + p (u - r + min(w - u, q (w - r)))`` per token. In steady traffic this is the difference between
``u`` and the long-run cost of a segment that is kept cached, ``p r + (1 - p) w``; it breaks even at
``p = (w - u) / (w - r)``: 0.22 for five minutes at Anthropic's usual prices, 0.53 for an hour.

A mark caches everything before it, so the deepest mark goes where the running sum of these values peaks. Marks above it
cost nothing more, and keep shorter prefixes readable on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llm_cost_middleware.prompt_cache.plan import HORIZON_OF, LIFETIME_S, CachePrices, ReuseProbability

_DISTINCT = 0.02
"""Least difference in reuse to the next deeper mark for which a shallower mark is placed."""


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
    warm: bool = False
    """Readable entry ends here."""
    pending: bool = False
    """Another call is writing it."""
    mark: str | None = None
    """Lifetime of the caller's own mark here."""
    ttls: tuple[str, ...] = ()
    """Lifetimes that a mark of ours may have here, by the caller's marks before and behind it; empty: any."""
    presumed: bool = False
    """Previous request of this conversation ended here: an entry may exist that the statistics do not have."""


class Choice(NamedTuple):
    """Chosen marks, with their expected effect."""

    marks: tuple[tuple[int, str], ...] = ()
    """(boundary, lifetime), shallow to deep."""
    read: int = 0
    """Tokens read."""
    write_risk_picousd: int = 0
    """Cost of the writes beyond uncached input."""
    expected_value_picousd: int = 0
    """Saving of this call's reads, plus the value of its writes."""


def write_value(reuse: ReuseProbability, reuse_again: ReuseProbability, prices: CachePrices, ttl: str) -> float:
    """Return the value of writing one token for ``ttl``, in pico-dollars; negative if it does not pay."""
    uncached, price, horizon = prices.uncached, prices.write[ttl], HORIZON_OF[ttl]
    read_back = price - prices.read
    # An entry that is left over is worth at most a new write: beyond that, it would be written again instead.
    left_over = min(price - uncached, reuse_again[horizon] * read_back)
    return uncached - price + reuse[horizon] * (uncached - prices.read + left_over)


def choose(
    candidates: Sequence[CacheCandidate],
    prices: CachePrices,
    ttls: tuple[str, ...],
    *,
    slots: int,
    lookback: int | None,
    write_allowance_picousd: int,
) -> Choice:
    """Choose the marks with the highest value.

    Args:
        candidates: Boundaries from shallow to deep, with reuse that never rises.
        prices: Prices of the model.
        ttls: Lifetimes to choose from, short to long; each has a price.
        slots: Number of marks that may be added to the caller's.
        lookback: Blocks, its own included, over which a mark finds an entry; ``None``: its own only.
        write_allowance_picousd: Most that the writes may risk; deeper marks are dropped until they fit.
    """
    hit = max((at for at, each in enumerate(candidates) if each.warm), default=-1)
    peak = _peak(candidates, prices, ttls, hit)
    choice = _place(candidates, prices, ttls, slots, lookback, hit, peak)
    while choice.write_risk_picousd > write_allowance_picousd and peak > hit:
        peak -= 1
        choice = _place(candidates, prices, ttls, slots, lookback, hit, peak)
    return choice


def _peak(candidates: Sequence[CacheCandidate], prices: CachePrices, ttls: tuple[str, ...], hit: int) -> int:
    """Return the candidate at which the running value is highest; -1 if nothing pays."""
    callers = max((at for at, each in enumerate(candidates) if each.mark), default=-1)
    best, found, total, before = 0.0, -1, 0.0, 0
    for at, each in enumerate(candidates):
        if at <= hit:
            value = float(prices.uncached - prices.read)
        elif at <= callers:
            value = 0.0  # the caller's own mark writes it in any case
        elif each.pending:
            value = float(prices.uncached - prices.write[ttls[0]])  # the other call's write makes ours useless
        else:
            value = max(write_value(each.reuse, each.reuse_again, prices, ttl) for ttl in each.ttls or ttls)
        total += value * (each.tokens - before)
        before = each.tokens
        if total > best:
            best, found = total, at
    return found


def _place(
    candidates: Sequence[CacheCandidate],
    prices: CachePrices,
    ttls: tuple[str, ...],
    slots: int,
    lookback: int | None,
    hit: int,
    deepest: int,
) -> Choice:
    """Add the marks above ``deepest`` that cost nothing more, and assign lifetimes to all."""
    callers = {at for at, each in enumerate(candidates) if each.mark}
    chosen = set(callers)
    if deepest >= 0:
        chosen.add(deepest)
    floor = max(chosen, default=-1)
    # A mark finds an older entry only within its lookback: farther back, a mark of its own must reach it.
    for needed in (hit, max((at for at, each in enumerate(candidates[:floor]) if each.presumed), default=-1)):
        if 0 <= needed < floor and not _within_reach(candidates, chosen, needed, lookback):
            chosen.add(needed)
    horizon = HORIZON_OF[ttls[-1]]
    while len(chosen) - len(callers) < slots:
        extra = _worth_most(candidates, chosen, floor, horizon)
        if extra is None:
            break
        chosen.add(extra)
    if len(chosen) - len(callers) > slots:
        chosen = callers | set(sorted(chosen - callers, reverse=True)[:slots])
    return _with_lifetimes(candidates, prices, ttls, sorted(chosen), hit)


def _within_reach(candidates: Sequence[CacheCandidate], chosen: set[int], entry: int, lookback: int | None) -> bool:
    number = candidates[entry].number
    return any(entry <= at and candidates[at].number - number < (lookback or 1) for at in chosen)


def _worth_most(candidates: Sequence[CacheCandidate], chosen: set[int], floor: int, horizon: int) -> int | None:
    """Return the unmarked candidate whose prefix comes back most often without the rest."""
    best, found = 0.0, None
    deeper = candidates[floor].reuse[horizon] if floor >= 0 else 1.0
    for at in range(floor - 1, -1, -1):
        each = candidates[at]
        if at in chosen:
            deeper = each.reuse[horizon]
            continue
        gain = each.reuse[horizon] - deeper
        if gain > _DISTINCT and gain * each.tokens > best:
            best, found = gain * each.tokens, at
    return found


def _with_lifetimes(
    candidates: Sequence[CacheCandidate], prices: CachePrices, ttls: tuple[str, ...], chosen: list[int], hit: int
) -> Choice:
    """Return the best assignment of lifetimes, long ones before short ones, the caller's marks included."""
    # The Messages API refuses a long lifetime behind a short one, so an assignment is one number: how many are long.
    best: Choice | None = None
    read = candidates[hit].tokens if chosen and 0 <= hit <= chosen[-1] else 0
    gain = read * (prices.uncached - prices.read)
    callers = {mark for each in candidates if (mark := each.mark)}
    lifetimes = sorted(callers.union(ttls), key=LIFETIME_S.__getitem__) if callers else ttls
    short, long = lifetimes[0], lifetimes[-1]
    for longs in range(len(chosen) + 1 if short != long else 1):
        marks, risk, value, before = [], 0, 0.0, read
        for number, at in enumerate(chosen):
            each = candidates[at]
            ttl = long if number < longs else short
            if ttl != each.mark if each.mark else ttl not in (each.ttls or ttls):
                break
            fresh = max(each.tokens - before, 0)
            before = max(before, each.tokens)
            if not each.mark:
                marks.append((each.at, ttl))
                risk += fresh * (prices.write[ttl] - prices.uncached)
                value += fresh * write_value(each.reuse, each.reuse_again, prices, ttl)
        else:
            if best is None or gain + value > best.expected_value_picousd:
                best = Choice(tuple(marks), read, risk, gain + int(value))
    return best or Choice()
