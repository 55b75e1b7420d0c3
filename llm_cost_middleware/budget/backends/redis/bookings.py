"""What ids finally cost, on Redis: of old days from the rows that carry sums, of the rest from the stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.budget.backends.redis.storage import RedisCommand
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules.bookings import RESOLVED, Booking, booking_of, bookings
from llm_cost_middleware.budget.scripted import encoding
from llm_cost_middleware.budget.scripted.commands import Script

if TYPE_CHECKING:
    from llm_cost_middleware.budget.backends.redis.client import RedisBackend

_STEP = 200
_ALWAYS = 2**53
"""A time, ms, after all others; a score of Redis is a float."""


def read_bookings(backend: RedisBackend, since: int | None, until: int | None) -> Iterator[Booking]:
    """Stream what ids cost that were reserved from ``since`` to before ``until`` (ms); no archive disturbs it."""
    protocol = backend.protocol
    reader = protocol.new_reader()
    backend.drive(protocol.read_block(0, reader, most=1))  # from here on nothing is archived
    try:
        low, high = (-_ALWAYS if since is None else since), (_ALWAYS if until is None else until)
        for row in _carried(backend, low, high):
            yield booking_of(row)
        horizon = int(backend.execute(RedisCommand(("HGET", protocol.key("archive"), "horizon"))) or 0)
        if low < horizon:
            left = _left(backend, low, min(high, horizon))
            if left is None:
                horizon = low
            else:
                yield from left
        start = max(low, horizon)
        if start < high:

            def rows() -> Iterator[Row]:
                first = None if start == -_ALWAYS else start
                return (row for row in backend.read_rows(first, reader) if row.kind != "carried")

            yield from bookings(rows, start, until)
    finally:
        backend.drive(protocol.end_reading(reader))


def _carried(backend: RedisBackend, low: int, high: int) -> Iterator[Row]:
    """The rows that carry the sums of what was reserved from ``low`` to before ``high``."""
    key = backend.protocol.key
    offset = 0
    while True:
        words: tuple[Any, ...] = ("ZRANGEBYSCORE", key("carried"), low, f"({high}", "LIMIT", offset, _STEP)
        numbers = backend.execute(RedisCommand(words))
        for found in backend.execute(Script("rows", [key("rows")], numbers)) if numbers else ():
            if found:
                yield encoding.read_row(found[0], encoding.hash_fields(found[1]))
        if len(numbers) < _STEP:
            return
        offset += _STEP


def _left(backend: RedisBackend, low: int, high: int) -> list[Booking] | None:
    """What attempts cost that are old and could not be archived; ``None``: the stream must be asked."""
    key = backend.protocol.key
    names = backend.execute(RedisCommand(("ZRANGEBYSCORE", key("left"), low, f"({high}")))
    made = []
    for at in range(0, len(names), _STEP):
        keys = [key("rows"), *(key(f"r:{name.decode()}") for name in names[at : at + _STEP])]
        for found in backend.execute(Script("last", keys, [])):
            if not found:
                return None
            state, (place, fields), memo = found
            row = encoding.read_row(place, encoding.hash_fields(fields))
            if state in {b"pending", b"voided"}:
                continue
            if row.kind not in RESOLVED:
                return None
            made.append(booking_of(row if row.memo else row._replace(memo=memo)))
    return made
