"""Memo of a ledger row: model, usage and terms of its attempt, as compact JSON with a version.

The ledger does not read it. It never contains text of a prompt or of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from msgspec import Struct, structs

from llm_cost_middleware.budget.tallies import TalliedMemo, UnwrittenMemo
from llm_cost_middleware.metering.call_facts import NO_FACTS, CallFacts, facts_text, read_facts
from llm_cost_middleware.metering.price import PricedCall, price_usage
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import EMPTY, ModelRef
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

_VERSION = 1
_TERMS = ("service_tier", "speed", "geo", "batch", "tool_calls")
_SHARED_TERMS = _TERMS[:-1]  # how many tools were called is of each call alone
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_quote = json.encoder.encode_basestring_ascii
_BUCKETS = tuple(bucket.name for bucket in fields(TokenUsage))
_ZERO = {name: f'"{name}":0' for name in _BUCKETS}
_tokens = attrgetter(*_BUCKETS)


class MemoItem(NamedTuple):
    """Billed item in a memo."""

    usage: TokenUsage
    model: str | None
    kind: str


@dataclass(frozen=True, slots=True)
class Memo:
    """Decoded memo of a row."""

    call_id: str
    attempt: int
    target: ModelRef | None
    status: str = ""
    price_version: str = ""
    response_id: str | None = None
    items: tuple[MemoItem, ...] = ()
    terms: Mapping[str, Any] = field(default_factory=lambda: EMPTY, hash=False)
    """Conditions that decided the bill beside model, time and usage: ``service_tier``, ``speed``, ``geo``, ``batch``,
    ``tool_calls``."""
    tier: str = ""
    """The tier of the model, where the call was routed."""
    asked: str = ""
    """The model that the caller named, where it is another than ``target``."""
    arm: str = ""
    """What the tier asked of the model beside the call: ``reasoning_effort=low``."""
    calls: int = 1
    """Number of attempts: one, or the number that an archive summed up."""
    facts: CallFacts = NO_FACTS
    """What else is known of the call."""


def encode_memo(
    *,
    call_id: str,
    attempt: int,
    target: ModelRef | None,
    priced: PricedCall | None = None,
    reading: UsageReport | None = None,
    tier: str = "",
    asked: str = "",
    facts: CallFacts | None = None,
) -> bytes:
    """Return the memo of a row as compact JSON, versioned; with its tally, where it says what was spent.

    Args:
        call_id: Names the call.
        attempt: Its number in the call, from 1.
        target: The model that was asked, or the arm of it.
        priced: What it cost.
        reading: What the answer reports.
        tier: The tier of the model, where the call was routed.
        asked: The model that the caller named, where it is another one.
        facts: What else is known of the call; no tally tells memos apart by it.
    """
    return AttemptMemo.of(call_id, attempt, target, priced, reading, tier, asked, facts).written()


class AttemptMemo(Struct, UnwrittenMemo, eq=False, gc=False):
    """``encode_memo`` put off: of a ledger in memory most rows are never read. ``of`` takes its arguments in order."""

    _facts: Any
    _text: bytes = b""

    @staticmethod
    def of(
        call_id: str,
        attempt: int,
        target: ModelRef | None,
        priced: PricedCall | None = None,
        reading: UsageReport | None = None,
        tier: str = "",
        asked: str = "",
        facts: CallFacts | None = None,
    ) -> AttemptMemo:
        """See ``encode_memo``."""
        status, version = (None, "") if priced is None else (priced.status, priced.price_version)
        if reading is not None and (reading.error is not None or reading.prices is not None):
            reading = structs.replace(reading, error=None, prices=None)  # nobody's words, and nobody's table, are kept
        return AttemptMemo((call_id, attempt, target, status, version, reading, tier, asked, facts))

    def written(self) -> bytes:
        """See ``UnwrittenMemo``; written once."""
        facts = self._facts
        if facts is not None:  # another thread may be writing the same
            self._text = _written(*facts)
            self._facts = None
        return self._text

    def __repr__(self) -> str:
        return repr(self.written())


def _written(
    call_id: str, attempt: int, target: ModelRef | None, status: str | None, version: str, reading: UsageReport | None,
    tier: str, asked: str, facts: CallFacts | None,
) -> bytes:  # fmt: skip
    # By hand: ``json.dumps`` of the same content costs some 33,000 instructions more (callgrind, CPython 3.11).
    shared = ""
    counts: tuple[int, ...] = ()
    if target is not None:
        shared += f',"at":{_at(target)}'
    if tier:
        shared += f',"tier":{_quote(tier)}'
    if asked:
        shared += f',"ask":{_quote(asked)}'
    text = f'{{"v":{_VERSION},"call":{_quote(call_id)},"n":{attempt}{shared}'
    if status is not None:
        text += f',"st":"{status}","pv":{_quote(version)}'
    if reading is not None:
        if reading.response_id:
            text += f',"rid":{_quote(reading.response_id)}'
        if reading.items:
            items, kinds, counts = _items(reading)
            text, shared = f'{text},"items":[{items}]', f'{shared},"items":[{kinds}]'
        text, shared = text + _terms(reading, _TERMS), shared + _terms(reading, _SHARED_TERMS)
    if facts is not None:
        text = f'{text},"f":{facts_text(facts)}'
    memo = f"{text}}}".encode()
    if reading is None and status is None:  # of a hold: nothing of it is ever added up
        return memo
    return TalliedMemo.of(memo, f'{{"v":{_VERSION},"call":"","n":0{shared}}}', counts)


def _terms(reading: UsageReport, names: Iterable[str]) -> str:
    terms = [f'"{name}":{_json(value)}' for name in names if (value := getattr(reading, name))]
    return f',"terms":{{{",".join(terms)}}}' if terms else ""


def _items(reading: UsageReport) -> tuple[str, str, tuple[int, ...]]:
    """The billed items, the same with zeros for their counts, and these."""
    items, kinds, counts = [], [], []
    for item in reading.items:
        buckets = zip(_BUCKETS, _tokens(item.usage))  # noqa: B905 - of one length; checking it is slow
        found = [pair for pair in buckets if pair[1]]
        head = f"[{_json(item.model or reading.model)},{_quote(item.kind)},{{"
        usage = ",".join([f'"{name}":{count}' for name, count in found])
        items.append(f"{head}{usage}}}]")
        kinds.append(f"{head}{','.join([_ZERO[name] for name, _ in found])}}}]")
        counts += [count for _, count in found]
    return ",".join(items), ",".join(kinds), tuple(counts)


def decode_memo(memo: bytes) -> Memo:
    """Read the memo of a row.

    Raises:
        ValueError: Not a memo, or written by a newer version.
    """
    try:
        data = json.loads(memo)
        if data["v"] > _VERSION:
            data = {}  # a newer version may have changed what a key means; the missing keys raise below
        target = data.get("at")
        return Memo(
            call_id=data["call"],
            attempt=data["n"],
            target=ModelRef(*target) if target else None,
            status=data.get("st", ""),
            price_version=data.get("pv", ""),
            response_id=data.get("rid"),
            items=tuple(MemoItem(TokenUsage(**usage), model, kind) for model, kind, usage in data.get("items", ())),
            terms=data.get("terms", EMPTY),
            tier=data.get("tier", ""),
            asked=data.get("ask", ""),
            arm=data.get("arm", ""),
            calls=data.get("calls", 1),
            facts=read_facts(data["f"]) if "f" in data else NO_FACTS,
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"not a memo that this version reads: {error!r}") from None


def reprice(memo: Memo, catalogue: Catalogue, *, at: float | None) -> PricedCall:
    """Return the price of a row's usage by another catalogue, at the time it was booked."""
    if memo.target is None or not memo.target.provider:
        return PricedCall(None, (), None, "unknown", ("the row names no model of a provider",), catalogue.version)
    reading = UsageReport(
        items=tuple(BilledItem(item.usage, item.model, item.kind) for item in memo.items),
        complete=True,
        response_id=memo.response_id,
        **{name: memo.terms[name] for name in _TERMS if name in memo.terms},
    )
    return price_usage(reading, get_provider(memo.target.provider), catalogue, at=at, requested_model=memo.target.model)


@lru_cache(maxsize=256)
def _at(target: ModelRef) -> str:
    names = f"[{_quote(target.provider)},{_quote(target.model)}]"
    stated = "+".join(f"{name}={value}" for name, value in target.parameters.items())
    return f'{names},"arm":{_quote(stated)}' if stated else names


def _json(value: Any) -> str:
    return _quote(value) if type(value) is str else _encode(value)
