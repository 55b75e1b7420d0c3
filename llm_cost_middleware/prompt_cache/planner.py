"""From a request to its cache plan.

``value`` holds the economics, ``statistics`` the evidence; here they meet a layout and the rules of a model. Writes
that would risk more than ``PrefixStatistics.allowance_pico`` are not made: whatever the traffic, caching stays within
about one per cent of what sending everything uncached would cost.
"""

from __future__ import annotations

from typing import NamedTuple

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.layout import BlockRef, Layout, anchors
from llm_cost_middleware.prompt_cache.plan import (
    DEFAULT_POLICY,
    NO_PLAN,
    CachePlan,
    CachePolicy,
    CachePrices,
    Mark,
    Odds,
)
from llm_cost_middleware.prompt_cache.prefix import cache_key
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.prompt_cache.value import Candidate, Choice, choose, write_value
from llm_cost_middleware.provider import CacheAbility
from llm_cost_middleware.request import Target

__all__ = ["NO_PLAN", "CachePlan", "CachePolicy", "CachePrices", "Mark", "plan"]

_LENIENT = 0.8
"""A prefix estimated at this share of the minimum is still worth a mark: one that proves too short is ignored free."""
_SURE: Odds = (0.9, 0.9, 0.9)
"""The odds of a prefix over which the application says it is about to fan out."""
_NOTHING_KNOWN = PrefixStatistics(0)


class _Case(NamedTuple):
    """What a decision is made on."""

    layout: Layout
    ability: CacheAbility
    prices: CachePrices
    known: PrefixStatistics
    policy: CachePolicy
    now: float
    target: Target | None
    density: float


def plan(
    layout: Layout,
    ability: CacheAbility,
    prices: CachePrices,
    statistics: PrefixStatistics | None = None,
    policy: CachePolicy = DEFAULT_POLICY,
    *,
    now: float,
    target: Target | None = None,
) -> CachePlan:
    """Decide the cache marks of one attempt.

    Args:
        layout: The request.
        ability: The cache rules of the model it goes to.
        prices: That model's prices.
        statistics: What is known of prefixes; without them every prefix is judged by its stage alone.
        policy: What the application wants.
        now: Seconds, on the clock the statistics are kept by.
        target: The model it goes to; ``None``: an entry at any model counts as warm.

    Returns:
        A plan that is valid by construction: at most ``ability.max_marks`` with the caller's, long lifetimes before
        short ones, none on a block that cannot bear one.
    """
    if policy.mode == "off" or ability.style == "none" or not layout.boundaries:
        return NO_PLAN
    known = _NOTHING_KNOWN if statistics is None else statistics
    density = known.density(target) or layout.tokens_per_byte
    if layout.size * density < ability.min_tokens * _LENIENT:
        return NO_PLAN
    case = _Case(layout, ability, prices, known, policy, now, target, density)
    return _automatic(case) if ability.style == "prefix" else _marked(case)


def _automatic(case: _Case) -> CachePlan:
    """The provider caches by itself and writes are free: help it to find the prefix again."""
    layout, prices = case.layout, case.prices
    hit = case.known.deepest_warm(layout, case.target, case.now)
    warm = 0 if hit is None else int(layout.boundaries[hit].end * case.density)
    saving = NanoUSD(warm * (prices.uncached - prices.read) // 1_000)
    return CachePlan(
        cache_key=cache_key(layout, case.known, case.now),
        retention="24h" if case.policy.ttl == "1h" and "24h" in case.ability.ttls else None,
        expected_saving_nanousd=saving,
        expected_now_nanousd=saving,
        reason="the provider caches by itself and writes are free",
        warm=warm,
        at=case.now,
        prices=prices,
    )


def _marked(case: _Case) -> CachePlan:
    layout, ability, prices = case.layout, case.ability, case.prices
    breakpoints = ability.style == "prefix+marks"
    key = cache_key(layout, case.known, case.now) if breakpoints else None
    candidates = _candidates(case)
    callers = sum(1 for each in candidates if each.mark)
    if breakpoints and (callers or "prompt_cache_options" in layout.params):
        return CachePlan(cache_key=key, reason="the caller set breakpoints", at=case.now, prices=prices)
    choice = _choice(case, candidates, ability.max_marks - callers)
    waits = case.policy.warm_first and next((each for each in reversed(candidates) if each.pending), None)
    return CachePlan(
        marks=tuple(Mark(layout.boundaries[at].ref, ttl) for at, ttl in choice.marks),
        cache_key=key,
        explicit=breakpoints,
        expected_saving_nanousd=NanoUSD(choice.value_pico // 1_000),
        expected_now_nanousd=NanoUSD((choice.read * (prices.uncached - prices.read) - choice.risk_pico) // 1_000),
        reason=_reason(choice),
        warm=choice.read,
        wait_for=layout.boundaries[waits.at].print if waits else None,
        at=case.now,
        prices=prices,
        risk_pico=choice.risk_pico,
    )


def _candidates(case: _Case) -> list[Candidate]:
    """The boundaries worth weighing, shallow to deep. Odds do not rise: a prefix returns with every longer one."""
    layout, known, now = case.layout, case.known, case.now
    boundaries, last = layout.boundaries, len(layout.boundaries) - 1
    shortest = case.ability.min_tokens * _LENIENT
    claude = case.ability.style == "marks"
    automatic = layout.params.get("cache_control") if claude else None
    hit = known.deepest_warm(layout, case.target, now)
    watched = {*anchors(layout), *(at for at, each in enumerate(boundaries) if each.mark)}
    if hit is not None:
        watched.add(hit)
    found: list[Candidate] = []
    odds: Odds = (0.0, 0.0, 0.0)
    again: Odds = odds
    for at in sorted(watched, reverse=True):
        ref, number, end, _, prefix, mark, may_bear_mark = boundaries[at]
        if mark not in case.ability.ttls:
            mark = None
        if automatic and at == last:
            mark = automatic.get("ttl", "5m")
        tokens = int(end * case.density)
        if not mark and (not may_bear_mark or tokens < shortest or not (claude or _takes_breakpoint(layout, ref))):
            continue
        own, own_again = known.odds(layout, at, now)
        if case.policy.warm_first and (at != last or not at):
            own = own_again = _SURE
        odds = max(odds[0], own[0]), max(odds[1], own[1]), max(odds[2], own[2])
        again = max(again[0], own_again[0]), max(again[1], own_again[1]), max(again[2], own_again[2])
        pending = (hit is None or at > hit) and known.is_pending(prefix, now)
        found.append(Candidate(at, number, tokens, odds, again, at == hit, pending, mark, at == layout.previous))
    found.reverse()
    return found


def _takes_breakpoint(layout: Layout, ref: BlockRef) -> bool:
    """OpenAI takes none on tools, nor on the instructions of a response, which count as the first system message."""
    return ref.section == "messages" or (
        ref.section == "system" and (layout.endpoint != "responses" or ref.message > 0)
    )


def _choice(case: _Case, candidates: list[Candidate], slots: int) -> Choice:
    policy, prices = case.policy, case.prices
    ttls = tuple(ttl for ttl in case.ability.ttls if ttl in prices.write)
    if policy.ttl in ttls:
        ttls = (policy.ttl,)
    if not ttls or slots <= 0:
        return Choice()
    if policy.mode == "system":
        return _classic(case, candidates, ttls[0])
    return choose(
        candidates,
        prices,
        ttls,
        slots=slots,
        lookback=case.ability.lookback_blocks,
        allowance_pico=case.known.allowance_pico(int(case.layout.size * case.density) * prices.uncached),
    )


def _classic(case: _Case, candidates: list[Candidate], ttl: str) -> Choice:
    """One mark at the end of the system prompt, tools included, whatever it earns; none beside marks of the caller."""
    heads = [each for each in candidates if each.at < case.layout.head]
    if not heads or any(each.mark for each in candidates):
        return Choice()
    warm = max((each.tokens for each in heads if each.warm), default=0)
    written = heads[-1].tokens - warm
    risk = written * (case.prices.write[ttl] - case.prices.uncached)
    value = warm * (case.prices.uncached - case.prices.read) + written * write_value(
        heads[-1].odds, heads[-1].again, case.prices, ttl
    )
    return Choice(((heads[-1].at, ttl),), warm, risk, int(value))


def _reason(choice: Choice) -> str:
    if not choice.marks:
        return "reuse is not expected to pay for a write"
    lifetimes = "+".join(dict.fromkeys(ttl for _, ttl in choice.marks))
    return f"{len(choice.marks)} marks ({lifetimes}): {choice.read} tokens expected warm"
