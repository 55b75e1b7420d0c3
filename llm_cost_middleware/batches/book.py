"""The batches that a ledger knows: lines of its journal that are only ever added, and what they add up to.

A line is written before money is held and before anything is sent, so that no batch is forgotten, whatever ends the
process in between. No prompt and no answer is in them: the provider keeps those. Pruning leaves these lines alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from llm_cost_middleware.batches.limits import ranges, read_ranges
from llm_cost_middleware.batches.results import BatchProgress
from llm_cost_middleware.budget.backend import Journal
from llm_cost_middleware.budget.notes import BATCHES
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import NanoUSD

State = Literal["created", "sent", "settled", "given back"]
_VERSION = 1


@dataclass(frozen=True, slots=True)
class KnownBatch:
    """One batch of a provider, as its lines tell."""

    run: str
    """The work that it is a part of: what callers know as the batch's id."""
    key: str
    """Its own name: the beginning of the names of its requests."""
    provider: str
    endpoint: str
    model: str
    places: tuple[int, ...]
    """The places of its requests in the caller's list, in the order in which they are sent."""
    hold: str
    held_nanousd: int
    at: float
    deadline: float
    state: State = "created"
    provider_id: str = ""
    cost_nanousd: int | None = None
    answered: int = 0

    @property
    def open(self) -> bool:
        """Whether something is still to be collected or given back."""
        return self.state in {"created", "sent"}

    @property
    def progress(self) -> BatchProgress:
        """Where it stands, for people."""
        cost = None if self.cost_nanousd is None else NanoUSD(self.cost_nanousd)
        return BatchProgress(
            self.run, self.key, self.provider, self.provider_id, self.endpoint, self.model, len(self.places),
            self.state, self.at, self.deadline, NanoUSD(self.held_nanousd), cost, self.answered,
        )  # fmt: skip


class BatchBook:
    """The batches of one ledger.

    Args:
        journal: Of the ledger.
        clock: Time.
    """

    def __init__(self, journal: Journal | None, clock: Clock) -> None:
        if journal is None:
            raise ConfigurationError("keeps no journal, so a batch would be forgotten", key="ledger.url")
        self._journal, self._clock = journal, clock

    def create(self, batch: KnownBatch) -> None:
        """Note a batch that is about to be held and sent."""
        facts = {
            "v": _VERSION, "provider": batch.provider, "endpoint": batch.endpoint, "model": batch.model,
            "places": ranges(batch.places), "hold": batch.hold, "held": batch.held_nanousd, "deadline": batch.deadline,
        }  # fmt: skip
        self._add(batch, "created", facts)

    def sent(self, batch: KnownBatch, provider_id: str) -> KnownBatch:
        """Note that the provider has it."""
        self._add(batch, "sent", {"id": provider_id, "hold": batch.hold})
        return replace(batch, state="sent", provider_id=provider_id)

    def settled(self, batch: KnownBatch, cost_nanousd: int, answered: int) -> KnownBatch:
        """Note that it was collected and booked."""
        self._add(batch, "settled", {"cost": cost_nanousd, "answered": answered})
        return replace(batch, state="settled", cost_nanousd=cost_nanousd, answered=answered)

    def given_back(self, batch: KnownBatch) -> KnownBatch:
        """Note that it was never created, and its money given back."""
        self._add(batch, "given back", {})
        return replace(batch, state="given back")

    def _add(self, batch: KnownBatch, state: str, facts: dict[str, Any]) -> None:
        data = json.dumps({"state": state, "key": batch.key, **facts}, separators=(",", ":")).encode()
        self._journal.append(BATCHES, batch.run, self._clock.now(), data)

    def all(self) -> tuple[KnownBatch, ...]:
        """Every batch, in the order in which they were made."""
        known: dict[str, KnownBatch] = {}
        for line in self._journal.read(BATCHES):
            facts = json.loads(line.data)
            key = facts["key"]
            if facts["state"] == "created":
                known[key] = KnownBatch(
                    line.id, key, facts["provider"], facts["endpoint"], facts["model"], read_ranges(facts["places"]),
                    facts["hold"], facts["held"], line.at, facts["deadline"],
                )  # fmt: skip
            elif key in known:
                known[key] = _with(known[key], facts)
        return tuple(known.values())

    def find(self, name: str) -> tuple[KnownBatch, ...]:
        """The batches of a work, by its id, by the name of one of them, or by a provider's id.

        Raises:
            ConfigurationError: There is none.
        """
        every = self.all()
        run = next((one.run for one in every if name in {one.run, one.key, one.provider_id} and name), None)
        if run is None:
            raise ConfigurationError(f"this ledger knows no batch {name!r}; see `llm-cost batches list`", key="batch")
        return tuple(one for one in every if one.run == run)


def _with(batch: KnownBatch, facts: dict[str, Any]) -> KnownBatch:
    state = facts["state"]
    if state == "sent":
        batch = replace(batch, provider_id=facts["id"], hold=facts["hold"])
        return replace(batch, state="sent") if batch.state != "settled" else batch
    if state == "settled":
        return replace(batch, state="settled", cost_nanousd=facts["cost"], answered=facts["answered"])
    return replace(batch, state="given back") if batch.state == "created" else batch


def open_batches(batches: Iterable[KnownBatch]) -> list[KnownBatch]:
    """Those of which something is still to be collected or given back."""
    return [batch for batch in batches if batch.open]
