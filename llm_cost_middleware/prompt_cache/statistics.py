"""Statistics of prefixes: reuse, its delay, and warm entries. Fingerprints and counts, never text.

Every arrival of a prefix opens a *trial*: would an entry written now be read before it expires? The next arrival of the
same prefix settles it, whether anything was written or not, so reuse is learned without paying for it. A prefix that
never comes back stays a failed trial. Arrivals while the first answer is still outstanding belong to the same trial: an
entry cannot be read before the answer of its writer has begun.

A new prefix starts from its peers (see ``reuse``): the end of a request from other ends at the same stage of the same
traffic, an inner boundary from others that were seen as often.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from math import exp

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.layout import PromptLayout, tracked_boundaries
from llm_cost_middleware.prompt_cache.plan import HORIZONS_S, LIFETIME_S, CachePlan, CachePrices, ReuseProbability
from llm_cost_middleware.prompt_cache.reuse import ENOUGH_SEEN, PeerGroups, TrialCounts, blend, count_trial
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import TokenUsage

_ANSWER_S = 30.0
"""After so long an outstanding answer is taken to have begun."""
_AUTOMATIC_S = 600.0
"""Assumed lifetime of OpenAI's automatic cache: the published five to ten minutes of inactivity."""
_DENSITY_GAIN = 0.2
_INSURED_SHARE = 100
"""Writes that come to nothing may cost one part in so many of all input, beyond what caching has saved."""
_COLD = (0.0, 0.0)
_GIVEN_PROMPTS = 2
_DUMPED = 512


class _PrefixStats:
    """One fingerprint."""

    __slots__ = ("group", "hits", "last", "pending_until", "rate", "rated_at", "ready", "seen", "warm")

    def __init__(self) -> None:
        self.seen = 0
        self.hits = [0.0, 0.0, 0.0]
        self.last = 0.0
        self.ready = 0.0
        self.pending_until = 0.0
        self.rate = 0.0
        self.rated_at = 0.0
        self.group: tuple[TrialCounts, ...] = ()
        self.warm: dict[ModelRef, tuple[float, float]] = {}


class PrefixStatistics:
    """Bounded memory of prefixes. Mutable; its owner holds the lock.

    Args:
        max_prefixes: Number of fingerprints to keep; the least recently seen go first.
    """

    def __init__(self, max_prefixes: int = 4_096) -> None:
        self._max = max_prefixes
        self._records: OrderedDict[bytes, _PrefixStats] = OrderedDict()
        self._peers = PeerGroups()
        self._density: dict[ModelRef, float] = {}
        self._savings_pool_picousd = 0
        self._input_cost_picousd = 0

    # Queries of the planner.

    def reuse(self, layout: PromptLayout, at: int, now: float) -> tuple[ReuseProbability, ReuseProbability]:
        """Return the probability that the prefix up to boundary ``at`` comes back per horizon, and then once more."""
        record = self._records.get(layout.boundaries[at].fingerprint)
        seen = 0 if record is None else record.seen
        open_trial = record is not None and now < record.ready
        reuse, weight = self._peers.prior(layout, at, seen - open_trial)
        reuse_again = reuse
        if seen < ENOUGH_SEEN:
            reuse_again = self._peers.inner_reuse(layout.boundaries[at].ref.section, seen - open_trial + 1)
        if record is None or open_trial:
            return reuse, reuse_again
        reuse = blend((record.seen, *record.hits), reuse, weight)
        gap = now - record.last  # this arrival settles the open trial
        one = 1.0 / (record.seen + weight)
        reuse = (
            reuse[0] + (one if gap <= HORIZONS_S[0] else 0.0),
            reuse[1] + (one if gap <= HORIZONS_S[1] else 0.0),
            reuse[2] + (one if gap <= HORIZONS_S[2] else 0.0),
        )
        return reuse, reuse if seen >= ENOUGH_SEEN else reuse_again

    def warm_until(self, prefix: bytes, target: ModelRef | None, now: float) -> float:
        """Return when the entry of a prefix expires; 0 if there is none. ``target`` ``None``: at any model."""
        record = self._records.get(prefix)
        if record is None or not record.warm:
            return 0.0
        if target is not None:
            expires = record.warm.get(target, _COLD)[0]
        else:
            expires = max(expires for expires, _ in record.warm.values())
        return expires if expires > now else 0.0

    def is_pending(self, prefix: bytes, now: float) -> bool:
        """Return whether a call that is still unanswered is writing this prefix."""
        record = self._records.get(prefix)
        return record is not None and record.pending_until > now

    def rate(self, prefix: bytes, now: float) -> float:
        """Return arrivals per minute, smoothed over a minute."""
        record = self._records.get(prefix)
        return 0.0 if record is None else record.rate * exp((record.rated_at - now) / 60.0)

    def density(self, target: ModelRef | None) -> float | None:
        """Return tokens per byte from this model's own usage; ``None`` until it was seen."""
        return None if target is None else self._density.get(target)

    def write_allowance_picousd(self, prefix_cost_pico: int) -> int:
        """Return the most that writes may cost: past savings, a share of all input, and two prompts to start with."""
        share = self._input_cost_picousd // _INSURED_SHARE
        return self._savings_pool_picousd + share + _GIVEN_PROMPTS * prefix_cost_pico

    # Events from the owner.

    def begin(self, layout: PromptLayout, plan: CachePlan, *, now: float) -> None:
        """Record that a request is sent. Call it once per attempt, and ``observe`` once when its outcome is known."""
        deepest = max((at for at, _ in _marked(layout, plan)), default=-1)
        for at in tracked_boundaries(layout):
            prefix = layout.boundaries[at].fingerprint
            record = self._record(prefix)
            record.rate = record.rate * exp((record.rated_at - now) / 60.0) + 1.0
            record.rated_at = now
            # Without a warm entry this call's mark writes one; others may wait for its answer (``warm_first``).
            if at <= deepest and not any(expires > now for expires, _ in record.warm.values()):
                record.pending_until = now + _ANSWER_S
            if now < record.ready:
                continue  # its writer has no answer yet: this arrival could not have read anything
            self._settle(record, now)
            record.group = self._peers.peers(layout, at, record.seen)
            for group in record.group:
                count_trial(group)
            record.seen += 1
            record.last = now
            record.ready = now + _ANSWER_S
        # Taken from the pool until the outcome is known: concurrent calls must not risk the same savings twice.
        self._savings_pool_picousd -= plan.write_risk_picousd

    def observe(
        self, layout: PromptLayout, target: ModelRef, plan: CachePlan, usage: TokenUsage | None, *, now: float
    ) -> None:
        """Record the outcome of an attempt.

        Args:
            layout: PromptLayout of the request.
            target: The model that answered.
            plan: The plan it was sent with.
            usage: Its usage; ``None`` if the attempt failed or its usage is unknown.
            now: Seconds, on the clock that ``plan`` and ``begin`` were given.
        """
        self._savings_pool_picousd += plan.write_risk_picousd
        for at in tracked_boundaries(layout):
            record = self._records.get(layout.boundaries[at].fingerprint)
            if record is not None:
                record.ready = min(record.ready, now)
                record.pending_until = 0.0
        if usage is None:
            return
        self._learn_warmth(layout, target, plan, usage)
        if layout.size and usage.input_tokens:
            seen = usage.input_tokens / layout.size
            known = self._density.get(target, seen)
            self._density[target] = known + _DENSITY_GAIN * (seen - known)
        prices = plan.prices
        if prices is not None and prices.write:  # free writes risk nothing, so they need no allowance
            self._savings_pool_picousd += int(prices.saving(usage)) * 1_000
            self._input_cost_picousd += usage.input_tokens * prices.uncached

    def affinity(
        self, layout: PromptLayout, targets: Mapping[ModelRef, CachePrices], *, now: float
    ) -> Mapping[ModelRef, NanoUSD]:
        """Return the saving on this call from reading what is warm, per model."""
        savings = {}
        for target, prices in targets.items():
            density = self._density.get(target, layout.tokens_per_byte)
            warm = self.deepest_warm(layout, target, now)
            tokens = 0 if warm is None else int(layout.boundaries[warm].end * density)
            savings[target] = prices.read_saving(tokens)
        return savings

    def deepest_warm(self, layout: PromptLayout, target: ModelRef | None, now: float) -> int | None:
        """Return the deepest boundary of a request whose prefix is warm."""
        for at in range(len(layout.boundaries) - 1, -1, -1):
            if self.warm_until(layout.boundaries[at].fingerprint, target, now):
                return at
        return None

    # Internals.

    def _record(self, prefix: bytes) -> _PrefixStats:
        record = self._records.get(prefix)
        if record is None:
            record = self._records[prefix] = _PrefixStats()
            if len(self._records) > self._max:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(prefix)
        return record

    def _settle(self, record: _PrefixStats, now: float) -> None:
        """Settle the open trial of a prefix that came back: it succeeded within some horizons."""
        if not record.seen:
            return
        gap = now - record.last
        for at, horizon in enumerate(HORIZONS_S):
            if gap <= horizon:
                record.hits[at] += 1.0
                for group in record.group:
                    group[at + 1] += 1.0

    def _learn_warmth(self, layout: PromptLayout, target: ModelRef, plan: CachePlan, usage: TokenUsage) -> None:
        """Update cache entries from the reported usage; if it shows no cached tokens, the entry does not exist."""
        marked = dict(_marked(layout, plan))
        if not marked:
            if plan.cache_key or usage.cache_read:
                life = LIFETIME_S.get(plan.retention or "", _AUTOMATIC_S)
                marked = dict.fromkeys(tracked_boundaries(layout), life)
        elif not usage.cache_read + usage.cache_write:
            for at in marked:
                record = self._records.get(layout.boundaries[at].fingerprint)
                if record is not None:
                    record.warm.pop(target, None)
            return
        if usage.cache_read:
            hit = self.deepest_warm(layout, target, plan.at)
            if hit is not None:
                marked.setdefault(hit, 0.0)
        for at, life in marked.items():
            warm = self._record(layout.boundaries[at].fingerprint).warm
            expires, lifetime = warm.get(target, _COLD)
            if expires > plan.at:
                life = max(life, lifetime)  # noqa: PLW2901 - a read renews an entry for its own lifetime
            warm[target] = (max(expires, plan.at + life), life)

    # Persistence in the journal.

    def dump(self) -> bytes:
        """Return the most recent records as versioned JSON: fingerprints and counts."""
        recent = list(self._records.items())[-_DUMPED:]
        return json.dumps(
            {
                "v": 1,
                "prefixes": [[key.hex(), record.seen, record.last, record.hits] for key, record in recent],
                "stages": self._peers.stages(),
                "density": [[*target, ratio] for target, ratio in self._density.items()],
                "money": [self._savings_pool_picousd, self._input_cost_picousd],
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def load(cls, data: bytes, max_prefixes: int = 4_096) -> PrefixStatistics:
        """Read statistics that ``dump`` wrote.

        Raises:
            ValueError: Unknown version.
        """
        state = json.loads(data)
        if not isinstance(state, dict) or state.get("v") != 1:
            raise ValueError("prefix statistics of an unknown version")
        loaded = cls(max_prefixes)
        for key, seen, last, hits in state["prefixes"]:
            record = loaded._record(bytes.fromhex(key))
            record.seen, record.last, record.hits = seen, last, hits
        loaded._peers.restore(state["stages"])
        loaded._density = {ModelRef(provider, model): ratio for provider, model, ratio in state["density"]}
        loaded._savings_pool_picousd, loaded._input_cost_picousd = state["money"]
        return loaded


def _marked(layout: PromptLayout, plan: CachePlan) -> Iterable[tuple[int, float]]:
    """Yield the marked boundaries, the caller's included, with the lifetime of the mark."""
    ours = {mark.position: mark.ttl for mark in plan.marks}
    for at, boundary in enumerate(layout.boundaries):
        ttl = ours.get(boundary.ref) or boundary.mark
        if ttl:
            yield at, LIFETIME_S.get(ttl, 300.0)
    automatic = layout.params.get("cache_control")
    if automatic and layout.boundaries:
        yield len(layout.boundaries) - 1, LIFETIME_S.get(automatic.get("ttl", "5m"), 300.0)
