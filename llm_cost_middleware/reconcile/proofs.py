"""Attempts whose cost nobody knew, settled where the provider's counts prove it.

A day proves something only where nothing else can be in what the ledger does not know. Nothing of the provider is left
over: then nothing was billed. Or what is left over belongs, model by model, to one attempt each, and costs no more than
was held for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.metering import Memo, PricedCall, decode_memo, encode_memo, price_usage
from llm_cost_middleware.money import ZERO, NanoUSD
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.reconcile.matching import DAY_S, REQUESTS, Place, same_model
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

_EMPTY = Memo("", 0, None)
_LATEST_S = 3600.0  # that an answer may take


class Proof(NamedTuple):
    """What an attempt cost, as the provider's counts show."""

    id: str
    booked_nanousd: NanoUSD
    amount_nanousd: NanoUSD
    place: Place
    memo: bytes
    """What the corrected row says of it."""


def unsure_attempts(ledger: Ledger, since: float, until: float) -> list[tuple[Row, Memo]]:
    """Return the attempts of a stretch of time that nobody knows the usage of, with what their memos say."""
    memos: dict[str, bytes] = {}
    last: dict[str, Row] = {}
    for row in ledger.rows(since):
        if not since <= row.reserved_at < until:
            continue
        if row.memo:
            memos[row.id] = row.memo
        if row.kind not in {"reserve", "reduce"}:
            last[row.id] = row
    found = ((row, _memo(memos.get(row.id, b""))) for row in last.values() if row.status == "unconfirmed")
    return [(row, memo) for row, memo in found if not memo.items and memo.target is not None]


def proofs_of(
    residuals: Mapping[Place, Mapping[str, int]],
    attempts: Iterable[tuple[Row, Memo]],
    catalogue: Catalogue,
    *,
    now: float,
) -> Iterator[Proof]:
    """Return what is proven.

    Args:
        residuals: What the provider has more than the ledger knows, at every place.
        attempts: The attempts of unknown usage.
        catalogue: The prices.
        now: Seconds since the Unix epoch: a day that is not over proves nothing.
    """
    days: dict[tuple[str, int], dict[Place, dict[str, int]]] = {}
    for place, left in residuals.items():
        days.setdefault((place.provider, place.day), {})[place] = dict(left)
    attempts = list(attempts)
    for (provider, day), places in days.items():
        here = [(row, memo) for row, memo in attempts if _of_day(row, memo, provider, day)]
        if here and day + DAY_S <= now:
            yield from _of_places(places, here, catalogue)


def _of_places(
    places: Mapping[Place, dict[str, int]], here: Sequence[tuple[Row, Memo]], catalogue: Catalogue
) -> Iterator[Proof]:
    """What one day of a provider proves. Another name or tier than the ledger's must not pass for nothing."""
    requests = {place: left.pop(REQUESTS, None) for place, left in places.items()}
    open_ = {place: left for place, left in places.items() if any(left.values())}
    if any(more < 0 for left in open_.values() for more in left.values()):
        return  # the report lacks what the ledger has: it is not whole, or of another account
    if not open_:
        if not any(requests.values()):
            anywhere = next(iter(places))
            for row, memo in here:
                if row.reserved_at + _LATEST_S < anywhere.day + DAY_S:  # later ones may be counted on the day after
                    yield _proof(row, memo, anywhere, ZERO, None, None)
        return
    taken = [(place, [one for one in here if _is_of(one[1], place)]) for place in open_]
    if any(len(found) != 1 or requests[place] not in {None, 1} for place, found in taken):
        return
    if len({found[0][0].id for _, found in taken}) < len(taken):
        return  # one attempt has one model and one tier
    for place, ((row, memo),) in taken:
        found = _priced(place, open_[place], row, memo, catalogue)
        if found is not None:
            yield found


def _priced(place: Place, tokens: Mapping[str, int], row: Row, memo: Memo, catalogue: Catalogue) -> Proof | None:
    target = memo.target
    if target is None or place.tier is None or place.model is None:
        return None
    tier = place.tier if place.tier not in {"standard", "batch"} else None
    item = BilledItem(TokenUsage(**dict(tokens)), target.model)
    reading = UsageReport(items=(item,), complete=True, service_tier=tier, batch=place.tier == "batch")
    try:
        provider = get_provider(place.provider)
        priced = price_usage(reading, provider, catalogue, at=row.reserved_at, requested_model=target.model)
    except PriceNotFoundError:
        return None
    cost = priced.cost_nanousd
    if cost is None or cost > row.amount_nanousd:
        return None
    return _proof(row, memo, place, cost, priced, reading)


def settle(ledger: Ledger, proofs: Iterable[Proof]) -> int:
    """Correct attempts by new rows; return how many. The old rows stay, and a second time nothing changes."""
    number = 0
    for proof in proofs:
        ledger.reconcile(proof.id, proof.amount_nanousd, memo=proof.memo, status="exact")
        number += 1
    return number


def _of_day(row: Row, memo: Memo, provider: str, day: int) -> bool:
    target = memo.target
    return target is not None and target.provider == provider and int(row.reserved_at) // DAY_S * DAY_S == day


def _is_of(memo: Memo, place: Place) -> bool:
    named = memo.target.model.lower() if memo.target is not None else ""
    return place.model is not None and (named == place.model or same_model(named, place.model))


def _proof(
    row: Row, memo: Memo, place: Place, amount: NanoUSD, priced: PricedCall | None, reading: UsageReport | None
) -> Proof:
    said = encode_memo(
        call_id=memo.call_id, attempt=memo.attempt, target=memo.target, priced=priced, reading=reading, tier=memo.tier,
        asked=memo.asked,
    )  # fmt: skip
    return Proof(row.id, row.amount_nanousd, amount, place, said)


def _memo(data: bytes) -> Memo:
    try:
        return decode_memo(data)
    except ValueError:
        return _EMPTY
