"""What a cache mark is worth, and which marks are worth most together. Arithmetic only.

A prompt is a chain of segments between boundaries. Writing a segment costs ``w - u`` a token more than sending it
uncached (``u``, ``w``, ``r``: the prices of uncached input, of a write with that lifetime, of a read). If it comes back
before it expires, which happens with odds ``p``, that saves ``u - r``, and leaves an entry that is worth ``q (w - r)``
where it comes back once more with odds ``q``, but never more than writing it again, ``w - u``. So a write is worth
``u - w + p (u - r + min(w - u, q (w - r)))`` a token. In traffic that goes on and on this is the difference between
``u`` and the long-run cost of a segment that is kept cached, ``p r + (1 - p) w``; it breaks even at
``p = (w - u) / (w - r)``: 0.22 for five minutes at Anthropic's usual prices, 0.53 for an hour.

A mark caches everything before it, so the deepest mark goes where the running sum of these values peaks. Marks above it
cost nothing more, and keep shorter prefixes readable on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llm_cost_middleware.prompt_cache.plan import HORIZON_OF, LIFETIME_S, CachePrices, Odds

_DISTINCT = 0.02
"""A shallower mark is placed where its prefix is more likely to return than the next deeper mark's by so much."""


class Candidate(NamedTuple):
    """A boundary that may bear a mark, or bears one of the caller's."""

    at: int
    """Its number in the layout."""
    number: int
    """Its block, as a lookback counts."""
    tokens: int
    odds: Odds
    """How likely its prefix comes back."""
    again: Odds
    """How likely it then comes back once more."""
    warm: bool = False
    """An entry ends here and can be read."""
    pending: bool = False
    """Another call is writing it just now."""
    mark: str | None = None
    """The lifetime of a mark that the caller set here."""
    presumed: bool = False
    """The previous request of this conversation ended here: an entry may exist that nobody remembers."""


class Choice(NamedTuple):
    """Marks, and what they are expected to do."""

    marks: tuple[tuple[int, str], ...] = ()
    """(boundary, lifetime), shallow to deep."""
    read: int = 0
    """Tokens read."""
    risk_pico: int = 0
    """What the writes cost beyond uncached input."""
    value_pico: int = 0
    """What the marks are worth: the reads of this call, and the value of its writes."""


def write_value(odds: Odds, again: Odds, prices: CachePrices, ttl: str) -> float:
    """The worth of writing one token for ``ttl``, in pico-dollars; negative where it does not pay."""
    uncached, price, horizon = prices.uncached, prices.write[ttl], HORIZON_OF[ttl]
    read_back = price - prices.read
    return (
        uncached - price + odds[horizon] * (uncached - prices.read + min(price - uncached, again[horizon] * read_back))
    )


def choose(
    candidates: Sequence[Candidate],
    prices: CachePrices,
    ttls: tuple[str, ...],
    *,
    slots: int,
    lookback: int | None,
    allowance_pico: int,
) -> Choice:
    """Choose the marks that are worth most.

    Args:
        candidates: Boundaries from shallow to deep, with odds that do not rise.
        prices: The model's.
        ttls: The lifetimes to choose from, short to long; each has a price.
        slots: How many marks may be added to the caller's.
        lookback: Over how many blocks, its own included, a mark finds an entry; ``None``: at its own only.
        allowance_pico: The most that may be risked on writes; what would risk more is cut short.
    """
    hit = max((at for at, each in enumerate(candidates) if each.warm), default=-1)
    peak = _peak(candidates, prices, ttls, hit)
    choice = _place(candidates, prices, ttls, slots, lookback, hit, peak)
    while choice.risk_pico > allowance_pico and peak > hit:
        peak -= 1
        choice = _place(candidates, prices, ttls, slots, lookback, hit, peak)
    return choice


def _peak(candidates: Sequence[Candidate], prices: CachePrices, ttls: tuple[str, ...], hit: int) -> int:
    """The candidate at which the running value is highest; -1 where nothing pays."""
    callers = max((at for at, each in enumerate(candidates) if each.mark), default=-1)
    best, found, total, before = 0.0, -1, 0.0, 0
    for at, each in enumerate(candidates):
        if at <= hit:
            value = float(prices.uncached - prices.read)
        elif at <= callers:
            value = 0.0  # written whatever we do
        elif each.pending:
            value = float(prices.uncached - prices.write[ttls[0]])  # written twice over
        else:
            value = max(write_value(each.odds, each.again, prices, ttl) for ttl in ttls)
        total += value * (each.tokens - before)
        before = each.tokens
        if total > best:
            best, found = total, at
    return found


def _place(
    candidates: Sequence[Candidate],
    prices: CachePrices,
    ttls: tuple[str, ...],
    slots: int,
    lookback: int | None,
    hit: int,
    deepest: int,
) -> Choice:
    """Add the marks above ``deepest`` that cost nothing more, and give all their lifetimes."""
    callers = {at for at, each in enumerate(candidates) if each.mark}
    chosen = set(callers)
    if deepest >= 0:
        chosen.add(deepest)
    floor = max(chosen, default=-1)
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


def _within_reach(candidates: Sequence[Candidate], chosen: set[int], entry: int, lookback: int | None) -> bool:
    number = candidates[entry].number
    return any(entry <= at and candidates[at].number - number < (lookback or 1) for at in chosen)


def _worth_most(candidates: Sequence[Candidate], chosen: set[int], floor: int, horizon: int) -> int | None:
    """The unmarked candidate whose prefix is most often wanted without what follows it."""
    best, found = 0.0, None
    deeper = candidates[floor].odds[horizon] if floor >= 0 else 1.0
    for at in range(floor - 1, -1, -1):
        each = candidates[at]
        if at in chosen:
            deeper = each.odds[horizon]
            continue
        gain = each.odds[horizon] - deeper
        if gain > _DISTINCT and gain * each.tokens > best:
            best, found = gain * each.tokens, at
    return found


def _with_lifetimes(
    candidates: Sequence[Candidate], prices: CachePrices, ttls: tuple[str, ...], chosen: list[int], hit: int
) -> Choice:
    """The best assignment in which no short lifetime stands before a long one, the caller's marks included."""
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
            if ttl != each.mark if each.mark else ttl not in ttls:
                break
            fresh = max(each.tokens - before, 0)
            before = max(before, each.tokens)
            if not each.mark:
                marks.append((each.at, ttl))
                risk += fresh * (prices.write[ttl] - prices.uncached)
                value += fresh * write_value(each.odds, each.again, prices, ttl)
        else:
            if best is None or gain + value > best.value_pico:
                best = Choice(tuple(marks), read, risk, gain + int(value))
    return best or Choice()
