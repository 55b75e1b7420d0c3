"""What was learned of prefixes: which came back, how soon, what is warm. Fingerprints and counts, never text.

Every arrival of a prefix opens a *trial*: would an entry written now be read before it expires? The next arrival of the
same prefix settles it, whether anything was written or not, so reuse is learned without paying for it. A prefix that
never comes back stays a failed trial. Arrivals while the first answer is still outstanding belong to the same trial: an
entry cannot be read before the answer of its writer has begun.

A new prefix borrows from its peers: the end of a request from other ends at the same stage of the same traffic, an
inner boundary from others that were seen as often.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from math import exp

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.layout import Layout, Section, anchors
from llm_cost_middleware.prompt_cache.plan import HORIZONS_S, LIFETIME_S, CachePlan, CachePrices, Odds
from llm_cost_middleware.request import Target
from llm_cost_middleware.usage import TokenUsage

_STAGE_ODDS: Mapping[str, Odds] = {
    # The end of a request, before anything is known: agents go on, conversations often do, single questions do not.
    "fresh": (0.05, 0.05, 0.05),
    "tooled": (0.5, 0.5, 0.5),
    "dialog": (0.5, 0.5, 0.5),
    "loop": (0.9, 0.9, 0.9),
}
_SEEN_ODDS: tuple[Odds, ...] = ((0.1, 0.1, 0.1), (0.5, 0.5, 0.5), (0.6, 0.6, 0.6), (0.7, 0.7, 0.7))
"""An inner boundary that was seen never, once, twice, more often."""
_SETTLED = len(_SEEN_ODDS) - 1
"""Seen so often, a prefix speaks for itself."""
_PRIOR_TRIALS = 1.0
_PEER_TRIALS = 3.0
_MEMORY = 200
"""Trials after which older ones count half."""
_ANSWER_S = 30.0
"""After so long an outstanding answer is taken to have begun."""
_AUTOMATIC_S = 600.0
"""How long OpenAI's automatic cache is counted on: the published five to ten minutes of inactivity."""
_DENSITY_GAIN = 0.2
_INSURED_SHARE = 100
"""Writes that come to nothing may cost one part in so many of all input, beyond what caching has saved."""
_COLD = (0.0, 0.0)
_GIVEN_PROMPTS = 2
_GROUPS = 1_024
_DUMPED = 512

_Group = list[float]
"""Trials, and how many of them came back within each horizon."""


class _Record:
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
        self.group: tuple[_Group, ...] = ()
        self.warm: dict[Target, tuple[float, float]] = {}


class PrefixStatistics:
    """A bounded memory of prefixes. Mutable; its owner holds the lock.

    Args:
        max_prefixes: How many fingerprints to keep; the least recently seen go first.
    """

    def __init__(self, max_prefixes: int = 4_096) -> None:
        self._max = max_prefixes
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._groups: OrderedDict[tuple[object, ...], _Group] = OrderedDict()
        self._density: dict[Target, float] = {}
        self._ahead_pico = 0
        self._spent_pico = 0

    # What the planner asks.

    def odds(self, layout: Layout, at: int, now: float) -> tuple[Odds, Odds]:
        """How likely the prefix up to boundary ``at`` is to come back within each horizon, and then once more."""
        record = self._records.get(layout.boundaries[at].print)
        seen = 0 if record is None else record.seen
        open_trial = record is not None and now < record.ready
        odds, weight = _prior(layout, at, seen - open_trial), _PRIOR_TRIALS
        for group in reversed(self._peers(layout, at, seen - open_trial)):
            odds = _blend(group, odds, weight)
            weight = _PEER_TRIALS
        again = odds
        if seen < _SETTLED:
            again = self._inner_odds(layout.boundaries[at].ref.section, seen - open_trial + 1)
        if record is None or open_trial:
            return odds, again
        odds = _blend((record.seen, *record.hits), odds, weight)
        gap = now - record.last  # this arrival settles the open trial
        one = 1.0 / (record.seen + weight)
        odds = (
            odds[0] + (one if gap <= HORIZONS_S[0] else 0.0),
            odds[1] + (one if gap <= HORIZONS_S[1] else 0.0),
            odds[2] + (one if gap <= HORIZONS_S[2] else 0.0),
        )
        return odds, odds if seen >= _SETTLED else again

    def warm_until(self, prefix: bytes, target: Target | None, now: float) -> float:
        """When the entry of a prefix expires; 0 where there is none. ``target`` ``None``: at whichever model."""
        record = self._records.get(prefix)
        if record is None or not record.warm:
            return 0.0
        if target is not None:
            expires = record.warm.get(target, _COLD)[0]
        else:
            expires = max(expires for expires, _ in record.warm.values())
        return expires if expires > now else 0.0

    def is_pending(self, prefix: bytes, now: float) -> bool:
        """Whether a call that is still unanswered writes this prefix just now."""
        record = self._records.get(prefix)
        return record is not None and record.pending_until > now

    def rate(self, prefix: bytes, now: float) -> float:
        """Arrivals a minute, smoothed over a minute."""
        record = self._records.get(prefix)
        return 0.0 if record is None else record.rate * exp((record.rated_at - now) / 60.0)

    def density(self, target: Target | None) -> float | None:
        """Tokens a byte as this model's own usage shows them; ``None`` until it was seen."""
        return None if target is None else self._density.get(target)

    def allowance_pico(self, prefix_cost_pico: int) -> int:
        """What may be risked on writes: what caching saved so far, a share of all input, two prompts to begin with."""
        return self._ahead_pico + self._spent_pico // _INSURED_SHARE + _GIVEN_PROMPTS * prefix_cost_pico

    # What the owner tells.

    def begin(self, layout: Layout, plan: CachePlan, *, now: float) -> None:
        """Note that a request leaves. Call it once for each attempt, and ``observe`` once when its outcome is known."""
        deepest = max((at for at, _ in _marked(layout, plan)), default=-1)
        for at in anchors(layout):
            prefix = layout.boundaries[at].print
            record = self._record(prefix)
            record.rate = record.rate * exp((record.rated_at - now) / 60.0) + 1.0
            record.rated_at = now
            if at <= deepest and not any(expires > now for expires, _ in record.warm.values()):
                record.pending_until = now + _ANSWER_S
            if now < record.ready:
                continue
            self._settle(record, now)
            record.group = self._peers(layout, at, record.seen)
            for group in record.group:
                _count(group)
            record.seen += 1
            record.last = now
            record.ready = now + _ANSWER_S
        self._ahead_pico -= plan.risk_pico

    def observe(self, layout: Layout, target: Target, plan: CachePlan, usage: TokenUsage | None, *, now: float) -> None:
        """Note the outcome of an attempt.

        Args:
            layout: Of the request.
            target: The model that answered.
            plan: What it was sent with.
            usage: Its usage; ``None`` where the attempt failed or its usage is unknown.
            now: Seconds, on the clock that ``plan`` and ``begin`` were given.
        """
        self._ahead_pico += plan.risk_pico
        for at in anchors(layout):
            record = self._records.get(layout.boundaries[at].print)
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
        if prices is not None and prices.write:
            self._ahead_pico += int(prices.saving(usage)) * 1_000
            self._spent_pico += usage.input_tokens * prices.uncached

    def affinity(
        self, layout: Layout, targets: Mapping[Target, CachePrices], *, now: float
    ) -> Mapping[Target, NanoUSD]:
        """What is warm for this request at each model, as the money that reading it there saves on this call."""
        worth = {}
        for target, prices in targets.items():
            density = self._density.get(target, layout.tokens_per_byte)
            warm = self.deepest_warm(layout, target, now)
            tokens = 0 if warm is None else int(layout.boundaries[warm].end * density)
            worth[target] = NanoUSD(tokens * (prices.uncached - prices.read) // 1_000)
        return worth

    def deepest_warm(self, layout: Layout, target: Target | None, now: float) -> int | None:
        """The deepest boundary of a request whose prefix is warm."""
        for at in range(len(layout.boundaries) - 1, -1, -1):
            if self.warm_until(layout.boundaries[at].print, target, now):
                return at
        return None

    # Within.

    def _record(self, prefix: bytes) -> _Record:
        record = self._records.get(prefix)
        if record is None:
            record = self._records[prefix] = _Record()
            if len(self._records) > self._max:
                self._records.popitem(last=False)
        else:
            self._records.move_to_end(prefix)
        return record

    def _settle(self, record: _Record, now: float) -> None:
        """The prefix came back: its open trial succeeded within some horizons."""
        if not record.seen:
            return
        gap = now - record.last
        for at, horizon in enumerate(HORIZONS_S):
            if gap <= horizon:
                record.hits[at] += 1.0
                for group in record.group:
                    group[at + 1] += 1.0

    def _peers(self, layout: Layout, at: int, seen: int) -> tuple[_Group, ...]:
        """The groups that a boundary counts in, the closest first."""
        if at == len(layout.boundaries) - 1:
            return self._group((layout.root, layout.stage)), self._group((layout.stage,))
        return (self._group((layout.boundaries[at].ref.section, min(seen, _SETTLED))),)

    def _inner_odds(self, section: Section, seen: int) -> Odds:
        seen = min(seen, _SETTLED)
        return _blend(self._group((section, seen)), _SEEN_ODDS[seen], _PRIOR_TRIALS)

    def _group(self, key: tuple[object, ...]) -> _Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = [0.0] * (1 + len(HORIZONS_S))
            if len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)
        return group

    def _learn_warmth(self, layout: Layout, target: Target, plan: CachePlan, usage: TokenUsage) -> None:
        """Note which entries the answer wrote or renewed. Usage is the witness: without cached tokens, none exists."""
        marked = dict(_marked(layout, plan))
        if not marked:
            if plan.cache_key or usage.cache_read:
                life = LIFETIME_S.get(plan.retention or "", _AUTOMATIC_S)
                marked = dict.fromkeys(anchors(layout), life)
        elif not usage.cache_read + usage.cache_write:
            for at in marked:
                record = self._records.get(layout.boundaries[at].print)
                if record is not None:
                    record.warm.pop(target, None)
            return
        if usage.cache_read:
            hit = self.deepest_warm(layout, target, plan.at)
            if hit is not None:
                marked.setdefault(hit, 0.0)
        for at, life in marked.items():
            warm = self._record(layout.boundaries[at].print).warm
            expires, lifetime = warm.get(target, _COLD)
            if expires > plan.at:
                life = max(life, lifetime)  # noqa: PLW2901 - a read renews an entry for its own lifetime
            warm[target] = (max(expires, plan.at + life), life)

    # Kept by the journal.

    def dump(self) -> bytes:
        """The most recent records as versioned JSON: fingerprints and counts."""
        recent = list(self._records.items())[-_DUMPED:]
        return json.dumps(
            {
                "v": 1,
                "prefixes": [[key.hex(), record.seen, record.last, record.hits] for key, record in recent],
                "stages": {key[0]: group for key, group in self._groups.items() if len(key) == 1},
                "density": [[*target, ratio] for target, ratio in self._density.items()],
                "money": [self._ahead_pico, self._spent_pico],
            },
            separators=(",", ":"),
        ).encode()

    @classmethod
    def load(cls, data: bytes, max_prefixes: int = 4_096) -> PrefixStatistics:
        """Statistics as ``dump`` wrote them.

        Raises:
            ValueError: The data are not of a version this package reads.
        """
        state = json.loads(data)
        if not isinstance(state, dict) or state.get("v") != 1:
            raise ValueError("prefix statistics of an unknown version")
        loaded = cls(max_prefixes)
        for key, seen, last, hits in state["prefixes"]:
            record = loaded._record(bytes.fromhex(key))
            record.seen, record.last, record.hits = seen, last, hits
        for stage, group in state["stages"].items():
            loaded._groups[stage,] = group
        loaded._density = {Target(provider, model): ratio for provider, model, ratio in state["density"]}
        loaded._ahead_pico, loaded._spent_pico = state["money"]
        return loaded


def _prior(layout: Layout, at: int, seen: int) -> Odds:
    if at == len(layout.boundaries) - 1:
        return _STAGE_ODDS[layout.stage]
    return _SEEN_ODDS[min(seen, _SETTLED)]


def _blend(group: Sequence[float], prior: Odds, weight: float) -> Odds:
    """The posterior odds of a group whose prior counts as ``weight`` trials."""
    trials, first, second, third = group
    n = trials + weight
    return (first + weight * prior[0]) / n, (second + weight * prior[1]) / n, (third + weight * prior[2]) / n


def _count(group: _Group) -> None:
    """One more trial; old ones fade."""
    group[0] += 1.0
    if group[0] > _MEMORY:
        group[:] = [each / 2 for each in group]


def _marked(layout: Layout, plan: CachePlan) -> Iterable[tuple[int, float]]:
    """The boundaries that carry a mark, the caller's included, with the lifetime it asks for."""
    ours = {mark.position: mark.ttl for mark in plan.marks}
    for at, boundary in enumerate(layout.boundaries):
        ttl = ours.get(boundary.ref) or boundary.mark
        if ttl:
            yield at, LIFETIME_S.get(ttl, 300.0)
    automatic = layout.params.get("cache_control")
    if automatic and layout.boundaries:
        yield len(layout.boundaries) - 1, LIFETIME_S.get(automatic.get("ttl", "5m"), 300.0)
