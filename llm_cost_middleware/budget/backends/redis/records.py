"""How values stand in Redis: hashes of a record, a budget as JSON, entries of the stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llm_cost_middleware.budget.model import Budget, Row
from llm_cost_middleware.budget.rules import Book, Entry, Record, Refusal
from llm_cost_middleware.money import NanoUSD

Fields = Mapping[bytes, bytes]


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """The reply of ``HGETALL`` from inside a script."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def record(fields: Fields) -> tuple[Record, Refusal | None]:
    """A reservation's hash."""

    def number(name: bytes) -> int:
        return int(fields.get(name, b"0"))

    text = {name.decode(): value.decode() for name, value in fields.items()}
    scopes = tuple(text["scopes"].split(" "))
    warnings = tuple(account_of(name) for name in text.get("warnings", "").split(",") if name)
    facts: dict[str, Any] = {name: text[name] for name in ("state", "verb", "status") if name in text}
    found = Record(
        text["id"], scopes, number(b"amount"), number(b"created"), number(b"expires"),
        charged=number(b"charged"), actual=number(b"actual"), late=number(b"late") == 1, resolved=number(b"resolved"),
        reconciled=number(b"reconciled"), warnings=warnings, **facts,
    )  # fmt: skip
    if "refusal" not in text:
        return found, None
    scope, window, limit, settled, pending = text["refusal"].split(" ")
    return found, Refusal(scope, window, int(limit), int(settled), int(pending), found.amount, None)


def account(scope: str, window: str) -> str:
    """The name of an account, and the field of a budget: a scope has no spaces."""
    return f"{scope} {window}"


def account_of(name: str) -> tuple[str, str]:
    """The scope and window of an account's name."""
    scope, _, window = name.partition(" ")
    return scope, window


def facts_of(budget: Budget) -> str:
    """A budget's value in the hash of budgets."""
    return json.dumps([budget.limit_nanousd, budget.timezone, budget.warn_at])


def book(fields: Fields) -> Book:
    """The hash of budgets."""
    budgets = []
    for name, value in fields.items():
        scope, window = account_of(name.decode())
        if window:  # else one of the hash's own: version, schema
            limit, timezone, warn_at = json.loads(value)
            budgets.append(Budget(scope, NanoUSD(limit), window, timezone, warn_at))
    return Book(budgets)


def row(stream_id: bytes, fields: Fields) -> Row:
    """An entry of the stream, as the caller sees it."""
    text = {
        name: fields[name].decode() for name in (b"kind", b"id", b"at", b"amount", b"scopes", b"status", b"created")
    }
    return Row(
        sequence(stream_id), text[b"kind"], text[b"id"], int(text[b"at"]) / 1000, NanoUSD(text[b"amount"]),  # type: ignore[arg-type]  # written by the scripts
        tuple(text[b"scopes"].split(" ")), text[b"status"], int(text[b"created"]) / 1000, fields[b"memo"],  # type: ignore[arg-type]
    )  # fmt: skip


def sequence(stream_id: bytes) -> int:
    """The number of a row."""
    return int(stream_id.partition(b"-")[0])


def entries(stream: Iterable[tuple[bytes, Fields]], since: int) -> Iterable[Entry]:
    """The entries that changed sums, of money reserved from ``since`` (ms) on."""
    for _, fields in stream:
        created = int(fields[b"created"])
        if created >= since:
            scopes = tuple(fields[b"scopes"].decode().split(" "))
            yield Entry(scopes, created, int(fields[b"settled"]), int(fields[b"pending"]))
