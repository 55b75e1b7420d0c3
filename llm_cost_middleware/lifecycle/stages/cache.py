"""Where an attempt carries cache marks, and what its usage shows of the provider's cache."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from llm_cost_middleware.budget.backend import SharedState
from llm_cost_middleware.budget.notes import SharedChange
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import ReservedAttempt, RoutedCall, Settings
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.prompt_cache.layout import PromptLayout, read_layout
from llm_cost_middleware.prompt_cache.planner import CachePlan, CachePolicy, CachePrices, plan
from llm_cost_middleware.prompt_cache.sharing import absorb, changed_keys, keys_of, merge
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import MARKED_BY_HOST, CallRequest, ModelRef
from llm_cost_middleware.routing.router import Candidate
from llm_cost_middleware.usage import UsageReport

_log = logging.getLogger(__name__)
CACHE_WORTHY = 1_024
"""Characters below which no model caches a prefix."""
_MARKED = frozenset({"explicit", "both"})
_MOST_UNSAVED = 4_096
_KEPT = 1_024
_AWAY_S = 60.0
"""Seconds for which a storage that failed is not asked again."""
_PRICED_WRITES = frozenset({"5m", "1h", "30m", "12h"})


class _Known(Struct, frozen=True, gc=False):
    """What caching costs at a model, and what that holds for."""

    table: Any
    """The catalogue's table: another one stands for other prices."""
    since: float
    until: float
    prices: CachePrices


class CacheStage:
    """Plans caches and learns which prefixes come back. Safe to share between threads.

    Args:
        settings: Whether anything may be changed at all.
        policy: The application's wishes.
        catalogue: The prices of reading and writing.
        shared: Where processes share what they have learned; ``None``: nowhere.
        clock: Time.
    """

    _lock = ForkSafeLock()

    def __init__(
        self, settings: Settings, policy: CachePolicy, catalogue: Catalogue, shared: SharedState | None, clock: Clock
    ) -> None:
        self._settings, self._policy, self._catalogue, self._clock = settings, policy, catalogue, clock
        self._known: dict[ModelRef, _Known] = {}
        self._statistics, self._shared = PrefixStatistics(), shared
        self.in_memory = shared is None
        self._unsaved: dict[str, None] = {}
        self._away_until = 0.0
        self.warms_first = policy.warm_first and not settings.observe
        """Whether a call waits while another one writes the prefix that both share."""

    def take_over(self, before: CacheStage) -> None:
        """Go on with what another one has learned."""
        self._statistics, self._unsaved, self._away_until = before._statistics, before._unsaved, before._away_until

    def layout(self, request: CallRequest) -> PromptLayout | None:
        """How the prompt divides into cacheable sections; ``None`` where caches are off."""
        if self._policy.mode == "off":
            return None
        if request.asides:
            request = request._replace(messages=request.messages[: -request.asides])
        return read_layout(request, shared=self._shared is not None)

    def affinity(
        self, layout: PromptLayout, candidates: Iterable[Candidate], now: float, prices: Any = None
    ) -> Mapping[ModelRef, int]:
        """What a warm cache is expected to save this call at each model, in nano-dollars."""
        # A model that cannot be used may have no price to weigh a cache by.
        priced = {c.target.plain: self._prices(c.target, now, prices) for c in candidates if c.unavailable is None}
        with self._lock:
            return self._statistics.affinity(layout, priced, now=now)

    def must_wait(self, call: RoutedCall, target: ModelRef) -> bool:
        """Whether another call is writing the prefix that this one could read in a moment."""
        made = self.plan(call, target)
        return made is not None and made.wait_for is not None

    def begin(self, call: RoutedCall, made: CachePlan | None) -> None:
        """Note that an attempt with this plan is about to leave."""
        if call.layout is not None and made is not None:
            with self._lock:
                self._statistics.begin(call.layout, made, now=self._clock.now())

    def plan(self, call: RoutedCall, target: ModelRef) -> CachePlan | None:
        """The marks that an attempt would carry now."""
        target = target.plain
        if call.layout is None or self._settings.observe or call.request.is_bare(target):
            return None
        ability = get_provider(target.provider).cache_capabilities(target.model)
        if ability.style == "none" or (call.sent_externally and ability.style == "explicit"):
            return None  # the marks of a request that the caller sends are not ours to set
        if MARKED_BY_HOST in call.request.params:
            return None  # ours could only be too many, or in the wrong order of lifetimes
        now = self._clock.now()
        try:
            prices = self._prices(target, now, call.request.prices)
        except PriceNotFoundError:  # sent at an estimate: there is nothing to weigh a mark by
            return None
        with self._lock:
            return plan(call.layout, ability, prices, self._statistics, self._policy, now=now, target=target)

    def observe_result(
        self, call: RoutedCall, reserved: ReservedAttempt, reading: UsageReport | None, *, billed: bool = True
    ) -> None:
        """Learn from what an answer reports; from ``None``, or no items, that its marks came to nothing.

        A stream tells in its first event what was read and written, however it ends.

        ``billed``: whether it may have been paid for all the same.
        """
        if call.layout is not None and reserved.plan is not None:
            usage = reading.usage if reading is not None else None
            billed = billed and (reading is None or not reading.unbilled)
            with self._lock:
                target, now = reserved.attempt.target, self._clock.now()
                self._statistics.observe(call.layout, target, reserved.plan, usage, now=now, billed=billed)
                if self._shared is not None and len(self._unsaved) < _MOST_UNSAVED:
                    self._unsaved.update(dict.fromkeys(changed_keys(self._statistics, call.layout)))

    def shares(self, call: RoutedCall) -> bool:
        """Whether other processes may know what the plan of a call needs."""
        if self._shared is None or self._settings.observe or call.layout is None or not call.layout.boundaries:
            return False
        ability = get_provider(call.target.provider).cache_capabilities(call.target.model)
        return ability.style in _MARKED and not call.sent_externally and self._clock.now() >= self._away_until

    def recall(self, call: RoutedCall) -> None:
        """Read what other processes have learned of the prefixes of a call. May block, and never raises."""
        if self._shared is None or call.layout is None:
            return
        keys = keys_of(call.layout)
        try:
            values = self._shared.read(keys)
        except Exception as error:  # noqa: BLE001 - whatever the storage raises: it costs a saving, and no call
            self._leave_alone(error)
            return
        with self._lock:
            for key, data in zip(keys, values, strict=True):
                absorb(self._statistics, key, data, self._clock.now())

    def save(self) -> None:
        """Write down what was learned, for other processes and for the next one. May block, and never raises."""
        change = self.take_unsaved()
        if change is None or self._shared is None:
            return
        try:
            self._shared.change(*change)
        except Exception as error:  # noqa: BLE001 - as above
            self._leave_alone(error)

    def take_unsaved(self) -> SharedChange | None:
        """What was learned and not written down yet, as a change of shared values."""
        if self._shared is None or not self._unsaved or self._clock.now() < self._away_until:
            return None
        with self._lock:
            keys, self._unsaved = tuple(self._unsaved), {}

        def merged(values: list[bytes | None]) -> list[bytes]:
            now = self._clock.now()
            with self._lock:
                pairs = zip(keys, values, strict=True)
                return [merge(self._statistics, key, data, now) for key, data in pairs]

        return SharedChange(keys, merged, self._clock.now()) if keys else None

    def keep_unsaved(self, change: SharedChange) -> None:
        """Take back what could not be written."""
        with self._lock:
            self._unsaved.update(dict.fromkeys(change.keys))

    def _leave_alone(self, error: Exception) -> None:
        _log.debug("what was learned of prompt caches is not shared for a while: %s", error)
        self._away_until = self._clock.now() + _AWAY_S

    def prices(self, target: ModelRef, catalogue: Any = None) -> CachePrices:
        """What caching costs at a model now. Raises ``PriceNotFoundError``."""
        return self._prices(target, self._clock.now(), catalogue)

    def _prices(self, target: ModelRef, now: float, catalogue: Any) -> CachePrices:
        catalogue = catalogue or self._catalogue
        known, table = self._known.get(target), catalogue.table
        if known is not None and known.table is table and known.since <= now < known.until:
            return known.prices
        level = catalogue.rates(target.provider, target.model, at=now).levels[0]
        ability = get_provider(target.provider).cache_capabilities(target.model)
        paid = ability.ttls if ability.writes_are_paid else ()
        made = CachePrices(
            read=level.cache_read,
            write={ttl: getattr(level, f"cache_write_{ttl}") for ttl in paid if ttl in _PRICED_WRITES},
            uncached=level.uncached_input,
        )
        since, until = catalogue.priced(*target).period(now)
        if len(self._known) >= _KEPT:
            self._known.clear()  # callers may name any model
        self._known[target] = _Known(table, since, until, made)
        return made
