"""The evidence for advice, read from a ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo

from llm_cost_middleware.advice.calls import CallLog
from llm_cost_middleware.advice.evidence import Evidence
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.metering.refused import REFUSAL, read_refusal
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.prompt_cache.trace import KIND, Trace
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.policy import Tier


def gather(
    ledger: Ledger,
    catalogue: Catalogue,
    *,
    since: float | None = None,
    until: float | None = None,
    tiers: Sequence[Tier] = (),
    successors: Mapping[ModelRef, tuple[ModelRef, ...]] | None = None,
    zone: tzinfo | None = None,
    progress: Callable[[int], None] | None = None,
) -> Evidence:
    """Read what advice rests on.

    Args:
        ledger: Read, never written. It must stay open while advice is worked out.
        catalogue: The prices.
        since: The first moment, seconds since the Unix epoch.
        until: The moment after the last.
        tiers: The configured tiers, for the lines to write.
        successors: Models that follow others under another name.
        zone: The time zone of nights; ``None``: the machine's.
        progress: Told now and then how many calls were read.
    """
    journal = ledger.journal

    def traces() -> Iterator[Trace]:
        if journal is not None:
            for line in journal.read(KIND, since):
                if until is None or line.at < until:
                    yield Trace.decode(line.data, at=line.at, call_id=line.id)

    refused = [
        (found, line.at)
        for line in (journal.read(REFUSAL, since) if journal is not None else ())
        if (until is None or line.at < until) and (found := read_refusal(line.data)) is not None
    ]
    log = CallLog.read(ledger, since, until, progress)
    return Evidence(
        log, catalogue, tiers, dict(successors or {}), traces, refused,
        lambda at: datetime.fromtimestamp(at, zone).hour,
    )  # fmt: skip
