"""What callers get of batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from llm_cost_middleware.batches.errors import BatchItemError
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.tracker import CostRecord


class ItemResult(NamedTuple):
    """The end of one request."""

    outcome: CallOutcome | None = None
    error: Exception | None = None
    lane: str = "batch"
    """``batch``, or ``standard``: an ordinary call."""
    reason: str = ""
    """Why it was no batch, where it was none."""


@dataclass(frozen=True, slots=True)
class BatchAnswers:
    """The answers to a list of requests, in its order. A sequence of responses, with exceptions where there is none."""

    batch_id: str
    """The id under which the ledger knows it; empty where no batch was made."""
    results: tuple[ItemResult, ...]

    @property
    def responses(self) -> tuple[Any, ...]:
        """The SDK's own objects, an exception where a request has no answer."""
        return tuple(each.outcome.response if each.outcome is not None else each.error for each in self.results)

    @property
    def records(self) -> tuple[CostRecord, ...]:
        """A record of every billed attempt, in the order of the requests."""
        return tuple(record for each in self.results if each.outcome is not None for record in each.outcome.records)

    @property
    def cost(self) -> Decimal:
        """US dollars that the answers cost."""
        return sum((record.cost_usd for record in self.records), Decimal(0))

    @property
    def lanes(self) -> dict[str, int]:
        """How many answers came by each lane."""
        lanes = [each.lane for each in self.results if each.outcome is not None]
        return {lane: lanes.count(lane) for lane in dict.fromkeys(lanes)}

    def __iter__(self) -> Iterator[Any]:
        return iter(self.responses)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, at: int) -> Any:
        return self.responses[at]


class BatchProgress(NamedTuple):
    """Where one batch of a provider stands, by the ledger alone."""

    batch_id: str
    """Of the whole work; it may be several batches of providers."""
    key: str
    """Of this one."""
    provider: str
    provider_batch_id: str
    """Empty where it is not known whether it was created."""
    endpoint: str
    model: str
    requests: int
    state: str
    """``created`` (held, about to be sent), ``sent``, ``settled`` or ``given back``."""
    at: float
    """When it was made: seconds since the Unix epoch."""
    deadline: float
    """When its answers are wanted."""
    held_nanousd: NanoUSD
    cost_nanousd: NanoUSD | None = None
    """What it cost, once it is settled."""
    answered: int = 0
    """Requests with an answer, once it is settled."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What there is of a batch now: answers and errors by the place of their request, and how many are missing."""

    batch_id: str
    responses: dict[int, Any] = field(default_factory=dict)
    records: dict[int, CostRecord] = field(default_factory=dict)
    errors: dict[int, BatchItemError] = field(default_factory=dict)
    pending: int = 0
    """Requests of batches that are on their way."""
    cost_nanousd: NanoUSD = ZERO
    """What the collected ones cost."""
