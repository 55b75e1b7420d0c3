"""Watches whether the calls of learned policies are still like those that they were fitted on.

Counts are kept by policy version and shared by the processes of a ledger. A policy that has drifted past its limit
falls back to the stronger model in every process, until a new one is tuned.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from llm_cost_middleware.budget.backend import SharedState
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.state import RoutedCall
from llm_cost_middleware.routing.drift import DriftCounts, DriftReference
from llm_cost_middleware.routing.policy import RoutingPolicy

_log = logging.getLogger(__name__)
_EVERY = 25  # calls of a policy between two looks
_CALLS = 10_000  # calls remembered for the reports of their quality
_KEY = "drift."


class _Watched(NamedTuple):
    reference: DriftReference
    limit: float
    counts: DriftCounts
    """Of all processes, as last read, and those of this one."""
    fresh: DriftCounts
    """Of this one since then."""


class DriftStage:
    """Safe to share between threads.

    Args:
        policy: The routing policy, with those of its sites.
        shared: Where processes share counts; ``None``: nowhere.
        clock: Time.
    """

    _lock = ForkSafeLock()

    def __init__(self, policy: RoutingPolicy, shared: SharedState | None, clock: Clock) -> None:
        self._shared, self._clock = shared, clock
        self.in_memory = shared is None
        self._watched: dict[str, _Watched] = {}
        for own in (policy, *policy.sites.values()):
            reference = own.learned.drift if own.learned is not None and own.kind == "learned" else None
            if reference is not None and own.learned is not None and own.drift_limit:
                self._watched[own.learned.version] = _Watched(reference, own.drift_limit, DriftCounts(), DriftCounts())
        self._versions = {
            own.version: own.learned.version
            for own in (policy, *policy.sites.values())
            if own.learned is not None and own.learned.version in self._watched
        }
        self._calls: OrderedDict[str, str] = OrderedDict()
        self.fallen_back: Mapping[str, str] = {}
        """The policies that fell back, with the reason, by version."""
        self._due: set[str] = set()
        self.untold: list[tuple[str, str]] = []
        """What ``news`` would tell."""
        for version in self._watched:  # another process may have seen it before
            self._take_up(version)

    def news(self) -> list[tuple[str, str]]:
        """The policies that fell back since this was last asked: version and reason. Each is told once."""
        with self._lock:
            told, self.untold = self.untold, []
        return told

    @property
    def due(self) -> bool:
        """Whether enough calls were counted to look again."""
        return bool(self._due)

    def observe(self, call: RoutedCall) -> None:
        """Count a call that has ended."""
        decision = call.decision
        version = self._versions.get(decision.policy_version)
        if version is None or decision.score is None:
            return
        with self._lock:
            watched = self._watched[version]
            watched.fresh.observe(watched.reference, decision.score, decision.site, decision.groups)
            self._calls[call.id] = version
            if len(self._calls) > _CALLS:
                self._calls.popitem(last=False)
            if watched.fresh.calls >= _EVERY:
                self._due.add(version)

    def look(self) -> None:
        """Share the counts of the policies that are due, and judge them. May block, and never raises."""
        with self._lock:
            due, self._due = self._due, set()
        for version in due:
            self._look(version)

    def feedback(self, call_id: str, quality: float) -> None:
        """Count what the application reports of a call, where this process made it."""
        with self._lock:
            version = self._calls.get(call_id)
            if version is not None:
                self._watched[version].fresh.outcome(quality)

    def _take_up(self, version: str) -> None:
        """Read what other processes counted, and judge by it. Nothing was seen here, so nothing is written."""
        if self._shared is not None:
            try:
                (stored,) = self._shared.read([_KEY + version])
            except Exception as error:  # noqa: BLE001 - as in ``_look``
                _log.debug("drift is not shared for now: %s", error)
                return
            self._watched[version] = self._watched[version]._replace(counts=DriftCounts.load(stored))
        self._judge(version)

    def _look(self, version: str) -> None:
        """Share the counts of a policy, and judge it by those of all processes."""
        watched = self._watched[version]
        with self._lock:
            fresh = watched.fresh
            seen = DriftCounts()
            seen.add(watched.counts)
            seen.add(fresh)
            self._watched[version] = watched._replace(counts=seen, fresh=DriftCounts())
        if self._shared is not None:
            try:
                self._exchange(version, fresh)
            except Exception as error:  # noqa: BLE001 - whatever the storage raises: this process goes by its own
                _log.debug("drift is not shared for now: %s", error)
        self._judge(version)

    def _judge(self, version: str) -> None:
        with self._lock:
            watched = self._watched[version]
            reason = watched.counts.judge(watched.reference, watched.limit)
            if reason and version not in self.fallen_back:
                self.fallen_back = {**self.fallen_back, version: reason}
                self.untold.append((version, reason))

    def _exchange(self, version: str, fresh: DriftCounts) -> None:
        def merged(values: list[bytes | None]) -> list[bytes]:
            total = DriftCounts.load(values[0])
            total.add(fresh)
            total.judge(self._watched[version].reference, self._watched[version].limit)
            with self._lock:
                self._watched[version] = self._watched[version]._replace(counts=total)
            return [total.dump()]

        if self._shared is not None:
            self._shared.change([_KEY + version], merged, self._clock.now())
