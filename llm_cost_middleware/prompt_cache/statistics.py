"""Statistics of prefixes: when they came back, and which entries are warm. Fingerprints and counts, never text.

What the provider reports of the cache is the truth about warmth, whoever wrote the entry (``entries``); when prefixes
came back is learned from the arrivals alone (``returns``). A new prefix starts from its peers (``reuse``): the end of a
request from other ends at the same stage of the same traffic, an inner boundary from others that were seen as often. A
conversation that has come back before also has a rhythm of its own, which its later ends inherit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from math import exp

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.entries import Entry, learn_entries
from llm_cost_middleware.prompt_cache.insurance import WriteInsurance
from llm_cost_middleware.prompt_cache.layout import PromptLayout, tracked_boundaries
from llm_cost_middleware.prompt_cache.plan import LIFETIME_S, CachePlan, CachePrices
from llm_cost_middleware.prompt_cache.returns import NO_ODDS, Group, Returns, span_of
from llm_cost_middleware.prompt_cache.reuse import ENOUGH_SEEN, OWN_TRIALS, PEER_TRIALS, Estimate, PeerGroups
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.usage import TokenUsage

_ANSWER_S = 30.0
"""After so long an outstanding answer is taken to have begun."""
_AUTOMATIC_S, _AUTOMATIC = 600.0, "10m"
"""Assumed lifetime of OpenAI's automatic cache: the published five to ten minutes of inactivity."""
REQUESTS_PER_KEY = 15.0
"""Requests per minute and ``prompt_cache_key``, as OpenAI advises."""
_RATED_OVER_S = 300.0
"""A rate is an average over so long: a burst is none yet."""
_MAX_SHARDS = 1_024
_DENSITY_GAIN = 0.2
_NO_HOPE = Estimate(NO_ODDS, NO_ODDS)
_NO_RETURNS = Returns()
_READ_ALL = 0.9
"""Share of the tokens up to an end from which it counts as read."""


class PrefixStats:
    """One fingerprint."""

    __slots__ = (
        "base", "cache_key", "entries", "foreign", "groups", "last", "pending_until", "rate", "rated_at", "ready",
        "returns", "rhythm", "seen", "shards", "was_end",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seen = 0
        self.last = 0.0
        self.ready = 0.0
        self.pending_until = 0.0
        self.rate = 0.0
        self.shards = 1
        self.cache_key: str | None = None
        """Key with which a conversation began here."""
        self.rated_at = 0.0
        self.returns = Returns()
        self.rhythm: Returns | None = None
        """Returns of the earlier ends of the conversation that a request with this end belongs to."""
        self.was_end = False
        """A request ended here."""
        self.foreign = False
        """A request went on from here that none had ended at: another process sent that, or the history was changed."""
        self.groups: tuple[Group, ...] = ()
        """Where its open trial, which began with its last arrival, is counted."""
        self.entries: dict[ModelRef, Entry] = {}
        self.base: tuple[int, Returns] = (0, Returns())
        """How often it was seen, and came back, as other processes know it."""

    def arrived(self, now: float) -> None:
        """Count an arrival in the rate, and split the traffic into keys by it."""
        self.rate = self.rate * exp((self.rated_at - now) / _RATED_OVER_S) + 60.0 / _RATED_OVER_S
        self.rated_at = now
        # Split late and joined later still: every change moves conversations away from what is warm.
        if self.rate > self.shards * REQUESTS_PER_KEY and self.shards < _MAX_SHARDS:
            self.shards *= 2
        elif self.shards > 1 and self.rate < self.shards * REQUESTS_PER_KEY / 4:
            self.shards //= 2


class PrefixStatistics:
    """Bounded memory of prefixes. Mutable; its owner holds the lock.

    Args:
        max_prefixes: Number of fingerprints to keep; the least recently seen go first.
    """

    def __init__(self, max_prefixes: int = 4_096) -> None:
        self._max = max_prefixes
        self.records: OrderedDict[bytes, PrefixStats] = OrderedDict()
        self.peers = PeerGroups()
        self.densities: dict[ModelRef, float] = {}
        self.insurance = WriteInsurance()
        self.account_base: tuple[int, int, int, dict[int, int]] = (0, 0, 0, {})
        """Savings, input, calls and loans of the insurance, as other processes know them."""

    # Queries of the planner.

    def estimate(
        self, layout: PromptLayout, at: int, now: float, *, proven: bool = True, newcomers: bool = True
    ) -> tuple[Estimate, Estimate]:
        """Return the odds that the prefix up to boundary ``at`` comes back, and that it then comes back once more.

        ``proven``: what evidence alone supports, too, for the first of them. ``newcomers``: none for what begins as
        others did that were new each time.
        """
        record, is_end = self.records.get(layout.boundaries[at].fingerprint), at == len(layout.boundaries) - 1
        seen = 0 if record is None else record.seen
        outstanding = record is not None and now < record.ready
        if newcomers and not seen and self._is_hopeless(layout):
            return _NO_HOPE, _NO_HOPE
        found = self.peers.estimate(layout, at, seen - outstanding, proven=proven)
        if is_end:
            before = self._previous(layout)
            if before is not None and before.was_end:  # this conversation has a rhythm
                found = found.blend_after(before.rhythm or _NO_RETURNS, now - before.last, OWN_TRIALS)
        if record is None or not seen or outstanding:
            return found, found if at >= layout.head else self._again(layout, at, seen - outstanding)
        own, delay = record.returns, now - record.last  # this arrival settles the open trial
        found = found.blend_after(own, delay, PEER_TRIALS if is_end else OWN_TRIALS)
        if seen >= ENOUGH_SEEN or at >= layout.head:
            return found, found
        # A prefix keeps the rhythm that it has shown: what its own gaps were counts for the returns after the next too.
        return found, self._again(layout, at, seen - outstanding).blend_after(own, delay, OWN_TRIALS)

    def _is_hopeless(self, layout: PromptLayout) -> bool:
        """Return whether a request begins as others did that were new each time, and is new as well."""
        if layout.root is None:
            return False
        record = self.records.get(layout.boundaries[layout.root].fingerprint)
        return (record is None or not record.seen) and self.peers.is_hopeless(layout)

    def _again(self, layout: PromptLayout, at: int, seen: int) -> Estimate:
        return self.peers.estimate(layout, at, seen + 1, proven=False)

    def tracked(self, layout: PromptLayout) -> list[int]:
        """Return the boundaries whose reuse is counted.

        The latest answer is one where the turn before it was no request that is known: it may be an example, sent in
        front of every question. In a conversation that goes on, it comes back with the turn behind it.
        """
        found = tracked_boundaries(layout)
        if layout.answer is not None:
            before = self._previous(layout)
            if before is None or not before.was_end:
                found.insert(-1, layout.answer)
        return found

    def entry(self, prefix: bytes, target: ModelRef | None, now: float) -> Entry | None:
        """Return the warm entry of a prefix. ``target`` ``None``: at any model."""
        record = self.records.get(prefix)
        return None if record is None or not record.entries else _live(record.entries, target, now)

    def is_pending(self, prefix: bytes, now: float) -> bool:
        """Return whether a call that is still unanswered is writing this prefix."""
        record = self.records.get(prefix)
        return record is not None and record.pending_until > now

    def shards(self, prefix: bytes) -> int:
        """Return into how many keys the traffic of a prefix is split."""
        record = self.records.get(prefix)
        return 1 if record is None else record.shards

    def density(self, target: ModelRef | None) -> float | None:
        """Return tokens per byte from this model's own usage; ``None`` until it was seen."""
        return None if target is None else self.densities.get(target)

    # Events from the owner.

    def begin(self, layout: PromptLayout, plan: CachePlan, *, now: float) -> None:
        """Record that a request is sent. Call it once per attempt, and ``observe`` once when its outcome is known."""
        rhythm = self._rhythm(layout, now)
        deepest = max((at for at, _ in marked_boundaries(layout, plan)), default=-1)
        last = len(layout.boundaries) - 1
        for at in self.tracked(layout):
            record = self.record(layout.boundaries[at].fingerprint)
            if at == layout.previous and not record.seen:
                record.foreign = True
            record.arrived(now)
            # Without a warm entry this call's mark writes one; others may wait for its answer (``warm_first``).
            if at <= deepest and not any(each.expires > now for each in record.entries.values()):
                record.pending_until = now + _ANSWER_S
            if now < record.ready:
                continue  # its writer has no answer yet: this arrival could not have read anything
            if record.seen:
                record.returns.settle_gap(now - record.last)
                for group in record.groups or self._opened_in(layout, at, record):
                    group.settle(record.last, span_of(now - record.last))
            record.groups = self.peers.counted_in(layout, at, record.seen)
            for group in record.groups:
                group.advance(now)
                group.begin(now)
            record.seen += 1
            record.last = now
            record.ready = now + _ANSWER_S
            if at == last:
                record.was_end, record.rhythm = True, rhythm
        if plan.cache_key is not None and not layout.turns and layout.first_turn:
            self.record(layout.conversation_key).cache_key = plan.cache_key
        self.insurance.hold(plan.write_risk_picousd)

    def observe(
        self,
        layout: PromptLayout,
        target: ModelRef,
        plan: CachePlan,
        usage: TokenUsage | None,
        *,
        now: float,
        billed: bool = True,
    ) -> None:
        """Record the outcome of an attempt.

        Args:
            layout: PromptLayout of the request.
            target: The model that answered.
            plan: The plan it was sent with.
            usage: Its usage; ``None``, or no input, if it is unknown, or the attempt failed.
            now: Seconds, on the clock that ``plan`` and ``begin`` were given.
            billed: Without usage: whether it may have been billed, so that what it risked counts as lost.
        """
        self.insurance.release(plan.write_risk_picousd)
        for at in self.tracked(layout):
            record = self.records.get(layout.boundaries[at].fingerprint)
            if record is not None:
                record.ready = min(record.ready, now)
                record.pending_until = 0.0
        if usage is None or not usage.input_tokens:
            if billed:
                self.insurance.lose(plan.write_risk_picousd)
            return
        if layout.size:
            seen = usage.input_tokens / layout.size
            known = self.densities.get(target, seen)
            self.densities[target] = known + _DENSITY_GAIN * (seen - known)
        self._note_continuation(layout, usage)
        self._learn_entries(layout, target, plan, usage)
        prices = plan.prices
        if prices is not None and prices.write:  # free writes risk nothing, so they need no allowance
            self.insurance.book(int(prices.saving(usage)) * 1_000, usage.input_tokens * prices.uncached)

    def affinity(
        self, layout: PromptLayout, targets: Mapping[ModelRef, CachePrices], *, now: float
    ) -> Mapping[ModelRef, NanoUSD]:
        """Return the saving on this call from reading what is warm, per model."""
        savings, entered = {}, self._entered(layout)
        for target, prices in targets.items():
            tokens = 0
            for at, entries in entered:
                if _live(entries, target, now) is not None:
                    density = self.densities.get(target, layout.tokens_per_byte)
                    tokens = int(layout.boundaries[at].end * density)
                    break
            savings[target] = prices.read_saving(tokens)
        return savings

    def deepest_warm(self, layout: PromptLayout, target: ModelRef | None, now: float) -> int | None:
        """Return the deepest boundary of a request whose prefix is warm."""
        for at, entries in self._entered(layout):
            if _live(entries, target, now) is not None:
                return at
        return None

    def _entered(self, layout: PromptLayout) -> list[tuple[int, dict[ModelRef, Entry]]]:
        """Return the boundaries that have had an entry anywhere, with their entries, deep to shallow."""
        found, find = [], self.records.get
        for at in range(len(layout.boundaries) - 1, -1, -1):
            record = find(layout.boundaries[at].fingerprint)
            if record is not None and record.entries:
                found.append((at, record.entries))
        return found

    # Internals.

    def record(self, prefix: bytes) -> PrefixStats:
        """Return the record of a prefix; it is made where there is none."""
        record = self.records.get(prefix)
        if record is None:
            record = self.records[prefix] = PrefixStats()
            if len(self.records) > self._max:
                self.records.popitem(last=False)
        else:
            self.records.move_to_end(prefix)
        return record

    def _opened_in(self, layout: PromptLayout, at: int, record: PrefixStats) -> tuple[Group, ...]:
        """Return the groups in which another process counts the open trial of a prefix."""
        if at == layout.previous and record.was_end:
            return self.peers.peers_of_end(layout.traffic_key, layout.previous_stage, layout.turns - 1)
        return self.peers.counted_in(layout, at, record.seen - 1)

    def _previous(self, layout: PromptLayout) -> PrefixStats | None:
        if layout.previous is None:
            return None
        return self.records.get(layout.boundaries[layout.previous].fingerprint)

    def _rhythm(self, layout: PromptLayout, now: float) -> Returns | None:
        """Return when the earlier ends of this conversation came back, this arrival included; ``None``: unknown."""
        before = self._previous(layout)
        if before is None or not before.was_end:
            return None
        rhythm = Returns() if before.rhythm is None else Returns(before.rhythm.came, before.rhythm.passed)
        rhythm.settle_gap(now - before.last)
        return rhythm

    def _note_continuation(self, layout: PromptLayout, usage: TokenUsage) -> None:
        """Count the return of an end that another process sent, and give up one of ours in its place.

        Where turns of a conversation go to several processes, each sees ends that never come back to it and
        continuations of ends that it never sent, as many of either. That it is one, and not a history that was cut or
        rewritten, is proven by the provider: it read what was written up to there.
        """
        before = self._previous(layout)
        if layout.previous is None or before is None or not before.foreign:
            return
        before.foreign = False
        end = layout.boundaries[layout.previous].end * usage.input_tokens / layout.size
        if usage.cache_read < _READ_ALL * end:
            return
        for group in self.peers.peers_of_end(layout.traffic_key, layout.previous_stage, layout.turns - 1):
            # When it had been sent is not known: as those of its kind whose delay is known.
            group.withdraw()
            group.came_back(max(range(len(group.came)), key=group.came.__getitem__))

    def _learn_entries(self, layout: PromptLayout, target: ModelRef, plan: CachePlan, usage: TokenUsage) -> None:
        marked = dict(marked_boundaries(layout, plan))
        if not marked:
            if plan.cache_key or usage.cache_read:  # the provider caches by itself
                life = LIFETIME_S.get(plan.retention or "", _AUTOMATIC_S)
                for at in self.tracked(layout):
                    entries = self.record(layout.boundaries[at].fingerprint).entries
                    entries[target] = Entry(plan.at + life, _AUTOMATIC, 0, plan.at)
            return
        read, fresh = learn_entries(layout, target, usage, marked, at=plan.at, find=self.records.get, make=self.record)
        for entry in read:
            if entry.loan is not None:
                self.insurance.repay(entry.loan)
                entry.loan = None
        if fresh is not None and plan.prices is not None and plan.proven_share:
            premium = (
                usage.cache_read * (plan.prices.uncached - plan.prices.read) - int(plan.prices.saving(usage)) * 1_000
            )
            fresh.loan = self.insurance.lend(int(premium * plan.proven_share), fresh.expires)


def _live(entries: Mapping[ModelRef, Entry], target: ModelRef | None, now: float) -> Entry | None:
    """Return the entry that can be read now; ``target`` ``None``: at any model."""
    found = entries.get(target) if target is not None else max(entries.values(), key=lambda each: each.expires)
    return found if found is not None and found.expires > now else None


def marked_boundaries(layout: PromptLayout, plan: CachePlan) -> Iterable[tuple[int, str]]:
    """Yield the marked boundaries, the caller's included, with the lifetime that the mark asks for."""
    if plan.marks or layout.callers:
        ours = {mark.position: mark.ttl for mark in plan.marks}
        for at, boundary in enumerate(layout.boundaries):
            ttl = ours.get(boundary.ref) or boundary.mark
            if ttl:
                yield at, ttl
    if plan.marks_end and layout.boundaries:
        yield len(layout.boundaries) - 1, "30m"
    automatic = layout.params.get("cache_control")
    if automatic and layout.boundaries:
        yield len(layout.boundaries) - 1, automatic.get("ttl") or "5m"
