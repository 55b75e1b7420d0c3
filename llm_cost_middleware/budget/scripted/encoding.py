"""Encoding of values in Redis: records as hashes, budgets as JSON, rows as stream entries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from llm_cost_middleware.budget.model import Budget, Row
from llm_cost_middleware.budget.rules import (
    ArchivedRow,
    BudgetIndex,
    BudgetRefusal,
    Crossed,
    EntryDelta,
    Overlay,
    ReservationRecord,
)
from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.money import NanoUSD

Fields = Mapping[bytes, bytes]
REGISTER = b"register"
"""Field of the hash of budgets that holds their register."""
_CROSSED = re.compile(r"(\S+) ([a-z0-9]+)(?: (\d+))?(?:,|\Z)")
_SCHEMA_1 = {"lapse": "expire", "lapsed": "expired"}  # old words: rows are never changed, and old hashes stay


_PACKED = (
    "scopes", "amount", "created", "expires", "state", "charged", "verb", "actual", "status", "late", "resolved",
    "reconciled", "warnings", "requested",
)  # fmt: skip
_USUAL = {"state": "settled", "verb": "settle", "status": "exact"}
"""What is kept of an archived reservation, in the order of ``carry.lua``: all that its id may be asked for again."""


def hash_fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the reply of ``HGETALL`` from inside a script as a mapping; or what an archived reservation left."""
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    packed = fields.pop(b"packed", None)
    return fields if packed is None else fields | unpack_record(packed)


def unpack_record(text: bytes) -> dict[bytes, bytes]:
    """Return the fields of an archived reservation, without its id. What is usual was left out."""
    try:
        values = {name: value for name, value in zip(_PACKED, json.loads(text), strict=False) if value}
    except (ValueError, TypeError):
        raise LedgerError("a reservation is damaged: its key holds something else") from None
    created = int(values.get("created", 0))
    for name in ("expires", "resolved"):
        values[name] = str(int(values.get(name, 0)) + created)
    values["actual"] = values.get("actual", values.get("charged", "0"))
    fields = _USUAL | {"archived": "1"} | values
    return {name.encode(): value.encode() for name, value in fields.items()}


def read_record(fields: Fields) -> tuple[ReservationRecord, BudgetRefusal | None]:
    """Read a reservation's hash: its record, and its refusal if it was refused."""

    def number(name: bytes) -> int:
        return int(fields.get(name, b"0"))

    text = {name.decode(): value.decode() for name, value in fields.items()}
    scopes = tuple(text["scopes"].split(" "))
    crossed = read_crossed(text.get("warnings", ""))
    facts: dict[str, Any] = {
        name: _SCHEMA_1.get(text[name], text[name]) for name in ("state", "verb", "status") if name in text
    }
    found = ReservationRecord(
        text["id"], scopes, number(b"amount"), number(b"created"), number(b"expires"),
        charged=number(b"charged"), actual=number(b"actual"), late=number(b"late") == 1, resolved=number(b"resolved"),
        reconciled=number(b"reconciled"), warnings=tuple(crossed), thresholds=tuple(crossed.values()),
        archived=b"archived" in fields, requested=number(b"requested") if "requested" in text else None, **facts,
    )  # fmt: skip
    if "refusal" not in text:
        return found, None
    # The end of the window is not stored: it follows from the budget (``ScriptedProtocol._with_reset``).
    scope, window, limit, settled, pending, *rest = text["refusal"].split(" ")
    sums = int(limit), int(settled), int(pending)
    return found, BudgetRefusal(scope, window, *sums, found.amount, None, carried=sum(map(int, rest)))


def account_name(scope: str, window: str) -> str:
    """Return the name of an account, also the field of a budget. A scope has no spaces."""
    return f"{scope} {window}"


def parse_account(name: str) -> tuple[str, str]:
    """Return scope and window of an account's name."""
    scope, _, window = name.partition(" ")
    return scope, window


def read_crossed(text: str) -> Crossed:
    """Read the accounts that warn, each with the sum that was crossed; schema 2 of Redis wrote none.

    They are separated by commas, which a scope may have in it, too: a sum, or else a window, ends each.
    """
    return {(scope, window): int(crossed or 0) for scope, window, crossed in _CROSSED.findall(text)}


def encode_budget(budget: Budget) -> str:
    """Return a budget's value in the hash of budgets; kept shares and a carry-over only where there are any."""
    rest: list[Any] = [{scope: f"{share:f}" for scope, share in budget.shares}, budget.carry_over]
    kept = rest if budget.carry_over else rest[:1] if budget.shares else []
    return json.dumps([budget.limit_nanousd, budget.timezone, budget.warn_at, *kept])


def read_budgets(fields: Fields) -> BudgetIndex:
    """Read the hash of budgets."""
    budgets = []
    for name, value in fields.items():
        scope, window = parse_account(name.decode())
        if window:  # else one of the hash's own: version, schema
            limit, timezone, warn_at, *kept = json.loads(value)
            shares = {name: Decimal(share) for name, share in kept[0].items()} if kept else {}
            budgets.append(Budget(scope, NanoUSD(limit), window, timezone, warn_at, shares, *kept[1:]))
    return BudgetIndex(budgets, Overlay.read(fields.get(REGISTER, b"")))


def read_row(stream_id: bytes, fields: Fields) -> Row:
    """Read a row from an entry of the stream."""
    text = {
        name: fields[name].decode() for name in (b"kind", b"id", b"at", b"amount", b"scopes", b"status", b"created")
    }
    kind = _SCHEMA_1.get(text[b"kind"], text[b"kind"])
    return Row(
        row_number(stream_id), kind, text[b"id"], int(text[b"at"]) / 1000, NanoUSD(text[b"amount"]),  # type: ignore[arg-type]  # written by the scripts
        tuple(text[b"scopes"].split(" ")), text[b"status"], int(text[b"created"]) / 1000, fields[b"memo"],  # type: ignore[arg-type]
    )  # fmt: skip


def read_archived(stream_id: bytes, fields: Fields) -> ArchivedRow:
    """Read a row with every stored field."""
    text = {name.decode(): value.decode() for name, value in fields.items() if name != b"memo"}
    numbers = {name: int(text[name]) for name in ("at", "amount", "created", "settled", "pending")}
    return ArchivedRow(
        row_number(stream_id), _SCHEMA_1.get(text["kind"], text["kind"]), text["id"], scopes=text["scopes"],
        status=text["status"], memo=fields[b"memo"], **numbers,
    )  # fmt: skip


def row_number(stream_id: bytes) -> int:
    """Return the sequence number of a row."""
    return int(stream_id.partition(b"-")[0])


def read_deltas(stream: Iterable[tuple[bytes, Fields]], since: int) -> Iterable[EntryDelta]:
    """Read the changes that rows made to the sums, of holds made from ``since`` (ms) on."""
    for _, fields in stream:
        created = int(fields[b"created"])
        if created >= since:
            scopes = tuple(fields[b"scopes"].decode().split(" "))
            yield EntryDelta(scopes, created, int(fields[b"settled"]), int(fields[b"pending"]))
