"""The immutable view of what was spent: ``CostRecord`` and ``CostTracker``, as the classic pattern has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, make_dataclass
from datetime import UTC
from decimal import Decimal
from functools import reduce
from typing import Any, Literal, NamedTuple, cast

from msgspec import Struct

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.money import USD, NanoUSD, add_usd, ceil_nanousd, parse_usd
from llm_cost_middleware.natural_values import read_whole
from llm_cost_middleware.periods import read_moment
from llm_cost_middleware.usage import TokenUsage

Status = Literal["exact", "estimated", "unconfirmed", "unpriced", "unknown"]


@dataclass(frozen=True, slots=True)
class CostRecord:
    """One billed attempt. ``cost_usd`` accepts any USD form and is kept as an exact ``Decimal``.

    Raises:
        InvalidAmountError: The cost is not a usable amount.
        ConfigurationError: A token count that is no whole number from 0 on, or ``at`` is no time.
    """

    model: str
    input_tokens: int
    """All input tokens, cached ones included."""
    output_tokens: int
    cost_usd: Decimal
    usage: TokenUsage | None = None
    """The buckets, where they are known."""
    at: float | None = None
    """When it was settled: seconds since the Unix epoch (a ``datetime`` is taken too)."""
    status: Status = "exact"
    provider: str = ""
    call_id: str = ""
    attempt: int = 1
    tier: str = ""
    requested_model: str = ""
    """The model the caller named."""
    response_id: str | None = None
    price_version: str = ""
    max_tokens_injected: bool = False
    """The output cap was not the caller's own."""
    reserved_nanousd: NanoUSD | None = None
    cache_saving_nanousd: int = 0
    """What reading from the cache saved, less what writing to it cost, in nano-dollars. Negative: it cost money."""
    expected_cache_saving_nanousd: int = 0
    """What the cache plan expected, in nano-dollars."""
    scopes: tuple[str, ...] = ()
    service_tier: str = ""
    """The service tier that the answer names; ``flex`` of a try there that was lost; empty where it is not known."""

    def __post_init__(self) -> None:
        if type(self.cost_usd) is not Decimal or not self.cost_usd.is_finite() or self.cost_usd < 0:
            object.__setattr__(self, "cost_usd", parse_usd(self.cost_usd, what="cost_usd"))
        for name in ("input_tokens", "output_tokens"):
            count = read_whole(getattr(self, name), name)
            if count < 0:
                raise ConfigurationError(f"a token count must not be negative, as {count} is", key=name)
            object.__setattr__(self, name, count)
        if self.at is not None and type(self.at) is not float:
            object.__setattr__(self, "at", read_moment(self.at, "at", zone=UTC, relative=False))

    @classmethod
    def of_checked(cls, *values: Any) -> CostRecord:
        """Return a record of values that need no check: of every field, in their order.

        A frozen dataclass sets each field through ``object.__setattr__``: this way saves 51,000 instructions
        (callgrind, CPython 3.11).
        """
        # Filled as a draft, by place: a frozen dataclass pays for object.__setattr__ once per field.
        record: Any = _Draft(*values)
        record.__class__ = cls
        return cast("CostRecord", record)

    def as_dict(self) -> dict[str, Any]:
        """This record in types that JSON has; the cost as text, exactly."""
        plain = asdict(self)
        return plain | {"cost_usd": f"{self.cost_usd:f}", "scopes": list(self.scopes)}

    @property
    def cost_nanousd(self) -> NanoUSD:
        """The cost in nano-dollars (exact: records of the pipeline carry whole nano-dollars)."""
        return ceil_nanousd(self.cost_usd)


class Booked(Struct, frozen=True, gc=False):
    """What the pipeline knows of one billed attempt. Most are never read: ``record`` makes the record of it."""

    target: tuple[str, str]
    """Provider and model."""
    amount: NanoUSD
    usage: TokenUsage | None
    at: float
    status: Status
    call_id: str
    attempt: int
    tier: str
    requested_model: str
    response_id: str | None
    price_version: str
    max_tokens_injected: bool
    reserved_nanousd: NanoUSD | None
    cache_saving_nanousd: int
    expected_cache_saving_nanousd: int
    scopes: tuple[str, ...]
    service_tier: str

    def record(self) -> CostRecord:
        """The record."""
        provider, model = self.target
        tokens = (self.usage.input_tokens, self.usage.output_tokens) if self.usage is not None else (0, 0)
        known = self.usage, self.at, self.status, provider, self.call_id, self.attempt, self.tier, self.requested_model
        rest = (
            self.response_id, self.price_version, self.max_tokens_injected, self.reserved_nanousd,
            self.cache_saving_nanousd, self.expected_cache_saving_nanousd, self.scopes, self.service_tier,
        )  # fmt: skip
        return CostRecord.of_checked(model, *tokens, self.amount.usd, *known, *rest)  # in the order of its fields


_Draft: Any = make_dataclass("_Draft", [field.name for field in fields(CostRecord)], slots=True)
"""Mutable class with the same slots, whose instances become records by a change of class."""


class ModelTotals(NamedTuple):
    """The sum over one model."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal


_NOTHING = ModelTotals(0, 0, 0, Decimal(0))


_BETWEEN = 16
"""Records of other calls between two attempts of one, at most, where its records are looked for."""


class _Log:
    """An append-only buffer that many tracker versions share; each sees its own prefix."""

    lock = ForkSafeLock()

    def __init__(self, entries: Iterable[CostRecord | Booked]) -> None:
        self.entries = list(entries)

    def record(self, at: int) -> CostRecord:
        """The record at a place, made when it is first read."""
        entry = self.entries[at]
        if isinstance(entry, Booked):
            entry = self.entries[at] = entry.record()
        return entry


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class CostTracker:
    """What was spent against a limit, as an immutable value.

    ``add`` returns a NEW tracker and never touches the old one. It costs the same at ten records and at a million:
    versions share one buffer, and only adding to an old version copies it.

    Args:
        budget_limit: US dollars; ``None`` for no limit.
        records: What was spent before.

    Raises:
        InvalidAmountError: The limit is not a usable amount.
    """

    budget_limit: Decimal | None
    _log: _Log
    _count: int
    _total: Decimal
    _carried: Mapping[str, ModelTotals]

    def __init__(self, budget_limit: USD | None = "1.00", records: Iterable[CostRecord] = ()) -> None:
        log = _Log(records)
        limit = None if budget_limit is None else parse_usd(budget_limit, what="budget_limit")
        total = reduce(add_usd, (log.record(at).cost_usd for at in range(len(log.entries))), Decimal(0))
        _fill(self, limit, log, len(log.entries), total, {})

    def add(self, record: CostRecord) -> CostTracker:
        """A new tracker with ``record`` added."""
        return self.add_all((record,))

    __add__ = add

    def add_all(self, records: Sequence[CostRecord | Booked]) -> CostTracker:
        """A new tracker with all of ``records`` added, in their order."""
        log, total = self._log, self._total
        with log.lock:
            # The newest version of its log: the buffer can be shared.
            if len(log.entries) == self._count:
                log.entries.extend(records)
            else:  # somebody added to this version before: fork
                log = _Log((*log.entries[: self._count], *records))
        # One by one: add_usd keeps every sum exact, whatever the exponents.
        for record in records:
            total = add_usd(total, record.amount.usd if isinstance(record, Booked) else record.cost_usd)
        return _make(self.budget_limit, log, self._count + len(records), total, self._carried)

    @property
    def records(self) -> tuple[CostRecord, ...]:
        """The records, oldest first."""
        return tuple(self._read(self._count))

    def of_call(self, call_id: str, within: int = 256) -> tuple[CostRecord, ...]:
        """The records of a call among the newest ones, the newest first."""
        found: list[CostRecord] = []
        entries, others = self._log.entries, 0
        for at in range(self._count - 1, max(self._count - within, 0) - 1, -1):
            if entries[at].call_id == call_id:
                found.append(self._log.record(at))
                others = 0
            elif found and (others := others + 1) > _BETWEEN:
                break
        return tuple(found)

    @property
    def total_cost(self) -> Decimal:
        """US dollars spent."""
        return self._total

    @property
    def over_budget(self) -> bool:
        """Whether more was spent than the limit. At exactly the limit it is not over."""
        return self.budget_limit is not None and self._total > self.budget_limit

    def by_model(self) -> dict[str, ModelTotals]:
        """Calls, tokens and cost of each model."""
        return self._totals(self._count)

    def compact(self, keep: int) -> CostTracker:
        """A tracker with the same totals that holds only the last ``keep`` records."""
        # Totals are carried over: only the records themselves are dropped.
        start = max(self._count - keep, 0)
        return _make(
            self.budget_limit, _Log(self._log.entries[start : self._count]), self._count - start, self._total,
            self._totals(start),
        )  # fmt: skip

    def _totals(self, stop: int) -> dict[str, ModelTotals]:
        totals = dict(self._carried)
        for record in self._read(stop):
            before = totals.get(record.model, _NOTHING)
            totals[record.model] = ModelTotals(
                before.calls + 1,
                before.input_tokens + record.input_tokens,
                before.output_tokens + record.output_tokens,
                add_usd(before.cost_usd, record.cost_usd),
            )
        return totals

    def _read(self, stop: int) -> Iterator[CostRecord]:
        return map(self._log.record, range(stop))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[CostRecord]:
        return iter(self.records)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CostTracker):
            return NotImplemented
        return (self.budget_limit, self._carried, self.records) == (other.budget_limit, other._carried, other.records)

    def __hash__(self) -> int:
        return hash((self.budget_limit, self._total, self._count))

    def __reduce__(self) -> tuple[Any, ...]:
        state = (self.budget_limit, self.records, self._total, dict(self._carried))
        return _restore, state

    def __repr__(self) -> str:
        return f"CostTracker(total_cost={self._total}, budget_limit={self.budget_limit}, records={self._count})"


def _fill(
    tracker: CostTracker,
    limit: Decimal | None,
    log: _Log,
    count: int,
    total: Decimal,
    carried: Mapping[str, ModelTotals],
) -> None:
    put = object.__setattr__
    put(tracker, "budget_limit", limit)
    put(tracker, "_log", log)
    put(tracker, "_count", count)
    put(tracker, "_total", total)
    put(tracker, "_carried", carried)


def _make(
    limit: Decimal | None, log: _Log, count: int, total: Decimal, carried: Mapping[str, ModelTotals]
) -> CostTracker:
    tracker = CostTracker.__new__(CostTracker)
    _fill(tracker, limit, log, count, total, carried)
    return tracker


def _restore(
    limit: Decimal | None, records: tuple[CostRecord, ...], total: Decimal, carried: Mapping[str, ModelTotals]
) -> CostTracker:
    return _make(limit, _Log(records), len(records), total, carried)
