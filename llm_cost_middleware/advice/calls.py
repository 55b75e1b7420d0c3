"""The calls of a ledger in columns, by what they have in common: a million take about a hundred megabytes."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from llm_cost_middleware.budget.backend import SupportsBookings
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.rules.bookings import Booking, BookingSums, bookings
from llm_cost_middleware.metering.call_facts import SEEN, CallFacts, read_facts
from llm_cost_middleware.request import ModelRef

BUCKETS = (
    "uncached_input", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write_30m", "output", "reasoning",
)  # fmt: skip
"""The buckets of ``TokenUsage`` by which calls are priced again; those with others keep what they cost."""
INPUT, READ, WRITES, OUTPUT, REASONING = 0, 1, (2, 3, 4), 5, 6
_INDEX = {name: index for index, name in enumerate(BUCKETS)}
_TERMS = ("service_tier", "speed", "geo", "batch")
_STEP = 20_000
_MOST = 2**53

Tokens = tuple[int, ...]
"""Counts in the order of ``BUCKETS``."""


class GroupKey(NamedTuple):
    """What the calls of a group have in common."""

    site: str
    provider: str
    model: str
    """The model that was asked, by the name of the tier or of the call."""
    billed: str
    """The model that the answer names: the one that is billed."""
    arm: str
    tier: str
    asked: str
    """The model that the caller named, where it is another."""
    terms: tuple[tuple[str, Any], ...]
    failure: str
    """Why attempts failed that may have been billed; empty for those that were answered."""
    tools: tuple[tuple[str, int], ...]
    """Digest and characters of each tool that was sent."""
    known: bool
    """Their usage is known, in buckets that can be priced again."""

    @property
    def target(self) -> ModelRef:
        """The model that was asked."""
        return ModelRef(self.provider, self.model)


class CallGroup:
    """Some calls, in columns of one length."""

    __slots__ = (
        "amounts", "at", "attempts", "caps", "chars", "columns", "flags", "held", "ids", "key", "seen", "used",
    )  # fmt: skip

    def __init__(self, key: GroupKey) -> None:
        self.key = key
        self.ids: list[str] = []
        self.at, self.amounts, self.held = array("d"), array("q"), array("q")
        self.columns = tuple(array("q") for _ in BUCKETS)
        self.attempts, self.flags = array("H"), array("H")
        self.caps, self.chars = array("q"), array("q")
        self.used: dict[str, int] = {}
        """Calls of each tool that was called, by its digest."""
        self.seen = 0
        """Calls of which it is known what tools their answers call."""

    def __len__(self) -> int:
        return len(self.ids)

    def tokens(self) -> Iterator[Tokens]:
        """The usage of each call."""
        return zip(*self.columns, strict=True)

    def add(self, booking: Booking, id_: str, attempt: int, facts: CallFacts, usage: dict[str, int]) -> None:
        """Add a call; ``usage`` has no other buckets than ``BUCKETS``."""
        counts = [usage.get(name, 0) for name in BUCKETS]
        # Before anything is added: the columns stay of one length, whatever a row says.
        if type(id_) is not str or any(
            type(count) is not int or not 0 <= count <= _MOST for count in (*counts, attempt)
        ):
            raise ValueError("no row of a call")
        self.ids.append(id_)
        self.at.append(booking.at / 1000)
        self.amounts.append(booking.amount)
        self.held.append(booking.held)
        self.attempts.append(min(attempt, 65_535))
        self.flags.append(facts.flags & 65_535)
        self.caps.append(min(max(facts.cap, 0), _MOST))
        self.chars.append(min(max(facts.chars, 0), _MOST))
        for column, count in zip(self.columns, counts, strict=True):
            column.append(count)
        if facts.tools:
            self.seen += bool(facts.flags & SEEN)
            for mark in facts.used:
                self.used[mark] = self.used.get(mark, 0) + 1


class CallLog:
    """The calls of a stretch of time."""

    def __init__(self) -> None:
        self._groups: dict[GroupKey, CallGroup] = {}
        self.calls = self.unread = self.summed = 0
        """Attempts that were booked; of these, those whose row says nothing of them, and those only known in sums."""
        self.cost_nanousd = 0
        self.first: float | None = None
        self.last: float | None = None

    @property
    def groups(self) -> tuple[CallGroup, ...]:
        """The calls by what they have in common."""
        return tuple(self._groups.values())

    @classmethod
    def read(
        cls,
        ledger: Ledger,
        since: float | None = None,
        until: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> CallLog:
        """Read the calls that were reserved from ``since`` to before ``until`` (seconds since the Unix epoch)."""
        found = cls()
        first, end = (None if moment is None else round(moment * 1000) for moment in (since, until))
        backend = ledger.backend
        if isinstance(backend, SupportsBookings):
            stream = backend.bookings(first, end, BookingSums(each=True))
        else:
            stream = bookings(lambda: backend.rows(first, None), first, end)
        for number, booking in enumerate(stream, 1):
            found.add(booking)
            if progress is not None and not number % _STEP:
                progress(number)
        return found

    def add(self, booking: Booking) -> None:
        """Add what an id cost."""
        self.cost_nanousd += booking.amount
        attempts = 1
        try:
            data = json.loads(booking.memo) if booking.memo else {}
            attempts = int(data.get("calls", 1))
            if not data or data["v"] > 1 or not (data.get("at") or [""])[0]:
                self.unread += attempts
                return
            if attempts > 1 or booking.ids > 1 or booking.counts:
                self.summed += attempts
                return
            provider, model = map(str, data["at"])
            facts = read_facts(data["f"]) if "f" in data else CallFacts()
            items, usage, billed = data.get("items", ()), {}, model
            if len(items) == 1:
                billed, usage = str(items[0][0] or model), items[0][2]
            known = bool(usage) and usage.keys() <= _INDEX.keys() and booking.status in ("exact", "estimated")
            stated = data.get("terms") or {}
            terms = tuple([(name, stated[name]) for name in _TERMS if stated.get(name)]) if stated else ()
            key = GroupKey(
                facts.site or _site(booking.scopes), provider, model, billed, str(data.get("arm", "")),
                str(data.get("tier", "")), str(data.get("ask", "")), terms, facts.failure, facts.tools, known,
            )  # fmt: skip
            group = self._groups.get(key)
            if group is None:
                group = CallGroup(key)
            group.add(booking, data["call"], data["n"], facts, usage if known else {})
            self._groups[key] = group
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
            self.unread += attempts
            return
        finally:
            self.calls += attempts
        at = booking.at / 1000
        self.first = at if self.first is None or at < self.first else self.first
        self.last = at if self.last is None or at > self.last else self.last


def _site(scopes: str) -> str:
    return next((scope[5:] for scope in scopes.split(" ") if scope.startswith("site:")), "")
