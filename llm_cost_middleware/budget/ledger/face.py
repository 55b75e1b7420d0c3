"""What both façades do around a verb: read the caller's values, draw ids, know when a sweep is due."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from datetime import datetime
from itertools import count
from typing import Literal

from llm_cost_middleware.budget.model import MAX_NANOUSD, Status, bounded_nanousd, parse_scopes
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.fork import after_fork_in_child
from llm_cost_middleware.money import USD, NanoUSD

Durability = Literal["full", "normal"]
OnLapse = Literal["charge", "release"]
Outcome = Literal["exact", "estimated", "unconfirmed"]

SWEEP = 256
"""Reservations lapsed in one step: it bounds how long a caller may wait for housekeeping."""

_ID_BYTES = 200


class _MachineClock:
    """The machine's time, for a ledger that was handed no clock (``system_clock`` stands above this room)."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    asleep = staticmethod(asyncio.sleep)


machine: Clock = _MachineClock()


class Face:
    """What both façades do around a verb: read the caller's values, keep the options, know when a sweep is due."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        lease_s: float = 900,
        on_lapse: OnLapse = "charge",
        url: str = "",
    ) -> None:
        if on_lapse not in {"charge", "release"}:
            raise ConfigurationError(f"{on_lapse!r} is neither 'charge' nor 'release'", key="ledger.on_lapse")
        self.url = url
        self._lease = milliseconds(lease_s, "lease_s")
        self._charge = on_lapse == "charge"
        self._monotonic = (clock or machine).monotonic
        # What is released makes room: there a reserve sweeps first. What is charged does not: now and then will do.
        self._sweep_every = min(60.0, lease_s / 4) if self._charge else 0.0
        self._sweep_at = 0.0

    def _due(self) -> bool:
        now = self._monotonic()
        if now < self._sweep_at:
            return False
        self._sweep_at = now + self._sweep_every
        return True

    def _claim(
        self, amount: USD | NanoUSD, scopes: Iterable[str], id_: str | None, ttl: float | None, memo: bytes
    ) -> tuple[str, int, tuple[str, ...], int, bytes]:
        return (
            draw_id() if id_ is None else check_id(id_),
            nano(amount),
            parse_scopes(scopes),
            self._lease if ttl is None else milliseconds(ttl, "ttl"),
            memo,
        )


_prefix = os.urandom(6).hex()
_numbers = count(1)


def draw_id() -> str:
    """An id that no other process draws: twelve random digits a process, and a number."""
    return f"{_prefix}-{next(_numbers):x}"


@after_fork_in_child
def _redraw() -> None:
    global _prefix  # noqa: PLW0603 - a fork must not draw its parent's ids
    _prefix = os.urandom(6).hex()


def check_id(id_: str) -> str:
    """An id a caller made, if it can be used. Raises ``ConfigurationError``."""
    if type(id_) is str and id_.isascii() and 0 < len(id_) <= _ID_BYTES:
        return id_
    if not isinstance(id_, str) or not 0 < len(id_.encode(errors="replace")) <= _ID_BYTES:
        raise ConfigurationError(f"{id_!r} is not a string of 1 to {_ID_BYTES} bytes", key="id")
    return id_


def nano(amount: USD | NanoUSD) -> int:
    """An amount as a backend takes it. Raises ``InvalidAmountError``."""
    return amount if type(amount) is NanoUSD and 0 <= amount <= MAX_NANOUSD else bounded_nanousd(amount)


def outcome(status: Outcome) -> Status:
    """A status a caller may give. Raises ``ConfigurationError``."""
    if status not in {"exact", "estimated", "unconfirmed"}:
        raise ConfigurationError(f"{status!r} is none of exact, estimated, unconfirmed", key="status")
    return status


def milliseconds(seconds: float, what: str) -> int:
    """A length of time as a backend takes it. Raises ``ConfigurationError``."""
    if not 0 < seconds < 10**9:
        raise ConfigurationError(f"{seconds!r} is not a positive number of seconds", key=what)
    return max(1, int(seconds * 1000))


def since_ms(when: datetime | float | None) -> int | None:
    """A time as a backend takes it."""
    return None if when is None else int((when.timestamp() if isinstance(when, datetime) else when) * 1000)
