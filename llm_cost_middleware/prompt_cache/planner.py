"""Cache plan of a request, from its layout, the model's cache rules, the statistics and the prices.

``value`` holds the economics, ``statistics`` the evidence. Writes that would risk more than ``WriteInsurance`` allows
are not planned: where nothing comes back, caching costs at most about one per cent more than sending everything
uncached, or one and a half prompts; where what came back stops coming, at most a fifth more, or twelve prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llm_cost_middleware.money import floor_picousd
from llm_cost_middleware.named_tuples import made
from llm_cost_middleware.prompt_cache.digests import CallersMark
from llm_cost_middleware.prompt_cache.layout import PromptLayout
from llm_cost_middleware.prompt_cache.plan import (
    DEFAULT_POLICY,
    LIFETIME_S,
    NO_PLAN,
    CachePlan,
    CachePolicy,
    CachePrices,
    ReuseProbability,
)
from llm_cost_middleware.prompt_cache.returns import within
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.prompt_cache.value import CacheCandidate, Choice, choose, write_value
from llm_cost_middleware.provider import CacheCapabilities
from llm_cost_middleware.request import CacheBreakpoint, ModelRef
from llm_cost_middleware.sentences import Sentence

__all__ = ["NO_PLAN", "CachePlan", "CachePolicy", "CachePrices", "plan"]

_LENIENT = 0.8
"""Share of the minimum length from which a prefix is marked: a mark that proves too short is ignored at no cost."""
_SHOWN = 5.0
"""Ends of requests that must be seen to come back or not, before a provider's own breakpoint is switched off."""
_BESIDE_ITS_OWN = 3
"""Breakpoints that OpenAI writes beside its own one."""
_BEHIND_ALL, _ANY_LIFETIME_S = 1 << 30, 1e9
_SURE: ReuseProbability = (0.9, 0.9, 0.9)
"""Reuse of a prefix that the application announced with ``warm_first``."""
_NEVER: ReuseProbability = (0.0, 0.0, 0.0)
_NOTHING_KNOWN = PrefixStatistics(0)


class _PlanInput(NamedTuple):
    """Inputs of a decision."""

    layout: PromptLayout
    ability: CacheCapabilities
    prices: CachePrices
    known: PrefixStatistics
    policy: CachePolicy
    now: float
    target: ModelRef | None
    density: float


def plan(
    layout: PromptLayout,
    ability: CacheCapabilities,
    prices: CachePrices,
    statistics: PrefixStatistics | None = None,
    policy: CachePolicy = DEFAULT_POLICY,
    *,
    now: float,
    target: ModelRef | None = None,
) -> CachePlan:
    """Decide the cache marks of one attempt.

    Args:
        layout: The request.
        ability: The cache rules of the model it goes to.
        prices: That model's prices.
        statistics: Statistics of prefixes; without them every prefix is judged by its stage alone.
        policy: The application's policy.
        now: Seconds, on the clock of the statistics.
        target: The model it goes to; ``None``: an entry at any model counts as warm.

    Returns:
        A plan that is valid by construction: at most ``ability.max_marks`` with the caller's, long lifetimes before
        short ones, none on a block that cannot be marked.
    """
    if policy.mode == "off" or ability.style == "none" or not layout.boundaries:
        return NO_PLAN
    known = _NOTHING_KNOWN if statistics is None else statistics
    density = known.density(target) or layout.tokens_per_byte
    if layout.size * density < ability.min_tokens * _LENIENT:
        return NO_PLAN
    case = made(_PlanInput, (layout, ability, prices, known, policy, now, target, density))
    return _automatic(case) if ability.style == "automatic" else _marked(case)


def _automatic(case: _PlanInput) -> CachePlan:
    """Plan for a provider that caches by itself, with free writes: only a key that helps it to find the prefix."""
    layout, prices = case.layout, case.prices
    hit = case.known.deepest_warm(layout, case.target, case.now)
    warm = 0 if hit is None else int(layout.boundaries[hit].end * case.density)
    entry = None if hit is None else case.known.entry(layout.boundaries[hit].fingerprint, case.target, case.now)
    saving = prices.read_saving(warm)
    return CachePlan(
        cache_key=cache_key(layout, case.known, case.density, case.ability.min_tokens),
        retention="24h" if case.policy.ttl == "1h" and "24h" in case.ability.ttls else None,
        expected_saving_nanousd=saving,
        expected_now_nanousd=saving,
        reason="the provider caches by itself and writes are free",
        warm=warm,
        warm_s=entry.expires - entry.seen_at if entry is not None else 0.0,
        at=case.now,
        prices=prices,
    )


def _marked(case: _PlanInput) -> CachePlan:
    layout, ability, prices = case.layout, case.ability, case.prices
    breakpoints = ability.style == "both"
    key = cache_key(layout, case.known, case.density, case.ability.min_tokens) if breakpoints else None
    automatic = _automatic_ttl(case)
    callers = _callers_marks(case, automatic)
    # Explicit breakpoints replace OpenAI's own one: adding ours to the caller's would change what they chose.
    if breakpoints and (callers or "prompt_cache_options" in layout.params):
        return CachePlan(cache_key=key, reason="the caller set breakpoints", at=case.now, prices=prices)
    ttls = tuple([ttl for ttl in ability.ttls if ttl in prices.write])
    if case.policy.ttl in ttls:
        ttls = (case.policy.ttl,)
    candidates = _candidates(case, callers, ttls, automatic)
    choice = _choice(case, candidates, ttls, ability.max_marks - len(callers))
    left_on = breakpoints and _writes_its_own_end(case, choice)
    if left_on:
        choice = _beside_its_own(case, choice)
    warm_s = 0.0
    for each in reversed(candidates):
        if each.warm:
            warm_s = LIFETIME_S.get(each.warm, 0.0)
            break
    why: Sentence = (_reason, choice.marks, choice.read)
    # The deepest pending prefix is the one to wait for: its entry covers every shorter prefix.
    waits = case.policy.warm_first and next((each for each in reversed(candidates) if each.pending), None)
    return CachePlan(
        marks=tuple([made(CacheBreakpoint, (layout.boundaries[at].ref, ttl)) for at, ttl in choice.marks]),
        cache_key=key,
        explicit=breakpoints and not left_on,
        marks_end=left_on,
        expected_saving_nanousd=floor_picousd(choice.expected_value_picousd),
        expected_now_nanousd=floor_picousd(choice.read * (prices.uncached - prices.read) - choice.write_cost_picousd),
        reason=why,
        warm=choice.read,
        warm_s=warm_s,
        wait_for=layout.boundaries[waits.at].fingerprint if waits else None,
        at=case.now,
        prices=prices,
        write_risk_picousd=choice.write_risk_picousd,
        proven_share=1.0 - choice.write_risk_picousd / choice.write_cost_picousd if choice.write_cost_picousd else 0.0,
    )


def _writes_its_own_end(case: _PlanInput, choice: Choice) -> bool:
    """Return whether OpenAI's own breakpoint at the end of the request stays on.

    It does until ends of this kind were seen not to come back, whatever it risks, so that a plan costs no more than
    leaving it alone.
    """
    last = len(case.layout.boundaries) - 1
    if any(at == last for at, _ in choice.marks):
        return True
    return case.known.peers.ends_seen(case.layout) < _SHOWN


def _own_write(case: _PlanInput, choice: Choice) -> int:
    """Return what OpenAI's own write at the end costs beyond uncached input and the marks that are chosen."""
    marked = max((case.layout.boundaries[at].end for at, _ in choice.marks), default=0)
    tokens = int((case.layout.size - marked) * case.density)
    return max(tokens, 0) * (max(case.prices.write.values(), default=0) - case.prices.uncached)


def _beside_its_own(case: _PlanInput, choice: Choice) -> Choice:
    """Return the marks that stand beside OpenAI's own one, which cost nothing more."""
    last = len(case.layout.boundaries) - 1
    beside = tuple(mark for mark in choice.marks if mark[0] != last)[-_BESIDE_ITS_OWN:]
    if len(beside) < len(choice.marks):
        return choice._replace(marks=beside)
    own = _own_write(case, choice)
    return choice._replace(
        marks=beside,
        write_cost_picousd=choice.write_cost_picousd + own,
        write_risk_picousd=choice.write_risk_picousd + own,
    )


def _callers_marks(case: _PlanInput, automatic: str | None) -> tuple[CallersMark, ...]:
    """Return the marks that count against the provider's limit: on blocks, and the automatic one at the end."""
    if not automatic and not case.layout.callers:
        return ()
    found = tuple([each for each in case.layout.callers if each.ttl in case.ability.ttls])
    # Anthropic, "Prompt caching": automatic caching takes one of the four slots.
    return (*found, CallersMark(_BEHIND_ALL, automatic)) if automatic else found


def _automatic_ttl(case: _PlanInput) -> str | None:
    """Return the lifetime of the caller's top-level ``cache_control``, which marks the last block."""
    control = case.layout.params.get("cache_control") if case.ability.style == "explicit" else None
    return str(control.get("ttl") or "5m") if isinstance(control, Mapping) else None


def _lifetimes_at(number: int, callers: Sequence[CallersMark], ttls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lifetimes that a mark on a block may have between the caller's marks.

    The Messages API refuses one that is longer than one before it, or shorter than one behind it.
    """
    most = min((LIFETIME_S[each.ttl] for each in callers if each.number <= number), default=_ANY_LIFETIME_S)
    least = max((LIFETIME_S[each.ttl] for each in callers if each.number > number), default=0.0)
    return tuple(ttl for ttl in ttls if least <= LIFETIME_S[ttl] <= most)


def _candidates(
    case: _PlanInput, callers: Sequence[CallersMark], ttls: tuple[str, ...], automatic: str | None
) -> list[CacheCandidate]:
    """Return the boundaries to weigh, shallow to deep. Reuse never rises: a prefix returns with every longer one."""
    layout, known, now = case.layout, case.known, case.now
    boundaries, last = layout.boundaries, len(layout.boundaries) - 1
    shortest = case.ability.min_tokens * _LENIENT
    claude = case.ability.style == "explicit"
    hit = known.deepest_warm(layout, case.target, now)
    watched = {*known.tracked(layout)}
    if layout.callers:
        watched.update(at for at, each in enumerate(boundaries) if each.mark)
    if hit is not None:
        watched.add(hit)
    found: list[CacheCandidate] = []
    reuse = proven = _NEVER
    for at in sorted(watched, reverse=True):
        cut = boundaries[at]
        mark = cut.mark
        if mark and mark not in case.ability.ttls:
            mark = None
        if automatic and at == last:
            mark = automatic
        tokens = int(cut.end * case.density)
        if not mark and (not cut.markable or tokens < shortest or not (claude or _takes_breakpoint(layout, at))):
            continue
        allowed = _lifetimes_at(cut.number, callers, ttls) if callers else ttls
        if not mark and not allowed:
            continue
        behind = hit is None or at > hit  # what is warm is not written, and needs no proof
        # OpenAI writes newcomers by itself: a minute without a return is no reason to stop it.
        first, again = known.estimate(layout, at, now, proven=behind, newcomers=claude)
        own = within(first.odds)
        own_again = own if again is first else within(again.odds)
        own_proven = within(first.proven) if first.proven is not None else proven
        if case.policy.warm_first and (at != last or not at):
            own = own_again = own_proven = _SURE
        # A prefix comes back with every longer one. What happens after that is its own.
        reuse = own if reuse is _NEVER else _higher(reuse, own)
        if own_proven is not proven:
            proven = _higher(proven, own_proven)
        entry = None if behind else known.entry(cut.fingerprint, case.target, now)
        pending = behind and known.is_pending(cut.fingerprint, now)
        found.append(
            made(
                CacheCandidate,
                (
                    at,
                    cut.number,
                    tokens,
                    reuse,
                    own_again,
                    proven,
                    entry.ttl if entry is not None else None,
                    pending,
                    mark,
                    allowed,
                    at == layout.previous,
                    at == layout.head - 1 or (at < layout.head and _ends_tools(layout, at)),
                ),
            )
        )
    found.reverse()
    return found


def _higher(one: ReuseProbability, other: ReuseProbability) -> ReuseProbability:
    one1, one2, one3 = one
    other1, other2, other3 = other
    return (
        one1 if one1 > other1 else other1,  # noqa: FURB136 - runs for every boundary: a third of the time of max()
        one2 if one2 > other2 else other2,  # noqa: FURB136
        one3 if one3 > other3 else other3,  # noqa: FURB136
    )


def _ends_tools(layout: PromptLayout, at: int) -> bool:
    boundaries = layout.boundaries
    return boundaries[at].ref.section == "tools" and (
        at + 1 == len(boundaries) or boundaries[at + 1].ref.section != "tools"
    )


def _takes_breakpoint(layout: PromptLayout, at: int) -> bool:
    """Return whether OpenAI accepts a breakpoint: not on tools, answers, or instructions (its first message)."""
    ref = layout.boundaries[at].ref
    if at == layout.answer:
        return False
    return ref.section == "messages" or (
        ref.section == "system" and (layout.endpoint != "responses" or ref.message > 0)
    )


def _choice(case: _PlanInput, candidates: list[CacheCandidate], ttls: tuple[str, ...], slots: int) -> Choice:
    prices = case.prices
    prompt_cost = int(case.layout.size * case.density) * prices.uncached
    if not ttls or slots <= 0:
        return Choice()
    if case.policy.mode == "system":
        return _classic(case, candidates, ttls[0])
    return choose(
        candidates,
        prices,
        ttls,
        slots=slots,
        lookback=case.ability.lookback_blocks,
        write_allowance_picousd=case.known.insurance.allowance(prompt_cost, case.now),
        trust_picousd=case.known.insurance.trust(prompt_cost),
    )


def _classic(case: _PlanInput, candidates: list[CacheCandidate], ttl: str) -> Choice:
    """Choose one mark at the end of the system prompt, tools included, whatever it saves; none beside the caller's."""
    heads = [each for each in candidates if each.at < case.layout.head]
    if not heads or case.layout.callers or any(each.mark for each in candidates):
        return Choice()
    warm = max((each.tokens for each in heads if each.warm), default=0)
    written = heads[-1].tokens - warm
    risk = written * (case.prices.write[ttl] - case.prices.uncached)
    value = warm * (case.prices.uncached - case.prices.read) + written * write_value(
        heads[-1].reuse, heads[-1].reuse_again, case.prices, ttl
    )
    return Choice(((heads[-1].at, ttl),), warm, risk, risk, int(value))


def _reason(marks: Sequence[tuple[int, str]], read: int) -> str:
    if not marks:
        return "reuse is not expected to pay for a write"
    lifetimes = "+".join(dict.fromkeys([ttl for _, ttl in marks]))
    return f"{len(marks)} marks ({lifetimes}): {read} tokens expected warm"


def cache_key(layout: PromptLayout, statistics: PrefixStatistics, density: float, shortest: int) -> str | None:
    """Return OpenAI's ``prompt_cache_key`` for this request; ``None`` if the caller set one or nothing is shared.

    Requests are routed to a machine by the start of the prompt and the key together; past about fifteen a minute for
    one pair they spill over to other machines and miss (developers.openai.com, "Prompt caching"). So what can share a
    prefix shares a key, as it would without one: the key names the shortest prefix that is cached at all. Only above
    that rate it names a longer one of tools and system, and above it again it is split by conversation.
    """
    if layout.params.get("prompt_cache_key"):
        return None
    # A conversation keeps its key: another one would lead away from what is warm.
    began = statistics.records.get(layout.conversation_key) if layout.turns else None
    if began is not None and began.cache_key is not None:
        return began.cache_key
    # What follows tools and system may be shared in part, wherever it is cut: it must not tell keys apart.
    if not layout.head:
        return None
    heads = layout.boundaries[: layout.head]
    root = next((at for at, each in enumerate(heads) if each.end * density >= shortest), layout.head - 1)
    while root + 1 < layout.head and statistics.shards(layout.boundaries[root].fingerprint) > 1:
        root += 1
    key = layout.boundaries[root].fingerprint
    # Powers of two, so that growth moves few conversations.
    shard = int.from_bytes(layout.conversation_key[:4], "big") % statistics.shards(key)
    return f"{key[:12].hex()}-{shard:x}" if shard else key[:12].hex()
