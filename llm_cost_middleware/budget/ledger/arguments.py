"""Arguments of the façades: public values to the integers of a backend, ids, and when a sweep is due."""

from __future__ import annotations

import asyncio
import os
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, timedelta
from functools import partial, wraps
from itertools import count
from typing import Any, Literal, ParamSpec, TypeVar, get_args

from llm_cost_middleware.budget.model import (
    MAX_NANOUSD,
    RowStatus,
    bounded_nanousd,
    parse_scopes,
)
from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.budget.tallies import UnwrittenMemo, written_memo
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.fork import after_fork_in_child
from llm_cost_middleware.money import USD, NanoUSD
from llm_cost_middleware.natural_values import read_seconds
from llm_cost_middleware.periods import read_moment
from llm_cost_middleware.typed_fields import read_choice

Durability = Literal["full", "normal"]
OnExpiry = Literal["charge", "release"]
Lease = Literal["off", "auto"]
Seconds = float | timedelta | str
"""A length of time: a number of seconds, a ``timedelta``, text such as ``15m``."""
Moment = date | timedelta | float | str
"""A ``datetime``, a ``date``, seconds since the epoch, text such as ``2026-01-31`` or ``yesterday``; so long ago."""
SettlementStatus = Literal["exact", "estimated", "unconfirmed", "unpriced"]

SWEEP = 256
"""Reservations expired in one step: it bounds how long a caller waits for housekeeping."""

RENAMED = {"lease_s": "hold_ttl_s", "on_lapse": "on_expiry"}
"""Former names of options, accepted with a ``DeprecationWarning``."""

_ID_BYTES = 200
_ATTEMPT_BYTES = 10
"""What the number of an attempt adds to the id of its call, at most."""
_CHECKED = get_args(SettlementStatus)
P = ParamSpec("P")
T = TypeVar("T")


class _MachineClock:
    """Machine's time, for a ledger opened without a clock (``system_clock`` may not be imported from here)."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    asleep = staticmethod(asyncio.sleep)


MACHINE_CLOCK: Clock = _MachineClock()


class LedgerArguments:
    """Base of both façades: keeps the options, converts arguments, decides when a sweep is due."""

    _keeps_unwritten = False
    """The storage takes a memo unwritten, and writes it when a row is read."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        hold_ttl_s: float = 900,
        on_expiry: OnExpiry = "charge",
        url: str = "",
    ) -> None:
        read_choice(OnExpiry, on_expiry, "ledger.on_expiry")
        self.url = url
        self.options: dict[str, Any] = {"clock": clock, "hold_ttl_s": hold_ttl_s, "on_expiry": on_expiry, "url": url}
        self._hold_ttl, self._hold_ttl_s = to_ms(hold_ttl_s, "hold_ttl_s"), hold_ttl_s
        self._charge_expired = on_expiry == "charge"
        self._clock = clock or MACHINE_CLOCK
        self._monotonic = self._clock.monotonic
        # A release makes room, so every reserve sweeps first. A charge makes none, so now and then is enough.
        self._sweep_every = min(60.0, self._hold_ttl / 4000) if self._charge_expired else 0.0
        self._sweep_at = 0.0

    def _sweep_due(self) -> bool:
        now = self._monotonic()
        if now < self._sweep_at:
            return False
        self._sweep_at = now + self._sweep_every
        return True

    def _settle_arguments(
        self, id_: str, actual: USD | NanoUSD, status: SettlementStatus
    ) -> tuple[str, int, RowStatus]:
        return check_id(id_), to_nanousd(actual), check_status(status)

    def _since(self, when: Moment | None, what: str = "since") -> int | None:
        """Return a time in ms since the Unix epoch; what names no zone is in UTC. Raises ``ConfigurationError``."""
        return None if when is None else int(read_moment(when, what, now=self._clock.now, zone=UTC) * 1000)

    def _reserve_arguments(
        self,
        amount: USD | NanoUSD,
        scopes: Iterable[str],
        id_: str | None,
        ttl: float | timedelta | str | None,
        memo: bytes | UnwrittenMemo,
    ) -> tuple[str, int, tuple[str, ...], int, bytes]:
        return (
            unique_id() if id_ is None else check_id(id_),
            to_nanousd(amount),
            parse_scopes(scopes),
            self._hold_ttl if ttl is None or (type(ttl) is float and ttl == self._hold_ttl_s) else to_ms(ttl, "ttl"),
            self._memo(memo),
        )

    def _memo(self, memo: bytes | UnwrittenMemo) -> bytes:
        return memo if type(memo) is bytes or self._keeps_unwritten else written_memo(memo)  # type: ignore[return-value]  # as that storage takes it


def accept_renamed(method: Callable[P, T]) -> Callable[P, T]:
    """Let a function take options under their former names too (``RENAMED``)."""

    @wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        for old in RENAMED.keys() & kwargs.keys():
            kwargs[new_name(old, kwargs)] = kwargs.pop(old)
        return method(*args, **kwargs)

    return wrapper


def new_name(old: str, options: Collection[str], *, section: str = "", stacklevel: int = 3) -> str:
    """Return the present name of an option, with a warning.

    Raises:
        ConfigurationError: The option is given under both names.
    """
    new = RENAMED[old]
    if new in options:
        raise ConfigurationError(f"is the former name of {new}: give one of the two", key=section + old)
    warnings.warn(f"{section}{old} is now called {new}", DeprecationWarning, stacklevel=stacklevel)
    return new


_prefix = os.urandom(6).hex()
_numbers = count(1)


def unique_id() -> str:
    """Make an id that no other process makes: twelve random hex digits per process, and a number."""
    # Cheaper than a UUID: one system call per process instead of one per id.
    return f"{_prefix}-{next(_numbers):x}"


@after_fork_in_child
def _redraw() -> None:
    global _prefix  # noqa: PLW0603 - a fork must not draw its parent's ids
    _prefix = os.urandom(6).hex()


def check_id(id_: str) -> str:
    """Return a caller's id if it can be used. Raises ``ConfigurationError``."""
    # ASCII first: it has one byte per character, so nothing need be encoded to be measured.
    if type(id_) is str and id_.isascii() and 0 < len(id_) <= _ID_BYTES:
        return id_
    if not isinstance(id_, str) or not 0 < len(id_.encode(errors="replace")) <= _ID_BYTES:
        raise ConfigurationError(f"{id_!r} is not a string of 1 to {_ID_BYTES} bytes", key="id")
    return id_


def checked_ids(new_id: Callable[[], str]) -> Callable[[], str]:
    """Return a function that makes ids as a caller's own does, each checked: it may be as long as its attempts' ids.

    It raises ``ConfigurationError``.
    """

    def checked() -> str:
        id_ = check_id(new_id())
        if len(id_.encode(errors="replace")) > _ID_BYTES - _ATTEMPT_BYTES:
            told = f"{id_!r} has no room for the number of an attempt: at most {_ID_BYTES - _ATTEMPT_BYTES} bytes"
            raise ConfigurationError(told, key="new_id")
        return id_

    return checked


def to_nanousd(amount: USD | NanoUSD) -> int:
    """Return an amount in nano-dollars. Raises ``InvalidAmountError``."""
    # The fast path: a ``NanoUSD`` was rounded and checked when it was made.
    return amount if type(amount) is NanoUSD and 0 <= amount <= MAX_NANOUSD else bounded_nanousd(amount)


def check_status(status: SettlementStatus) -> RowStatus:
    """Return a status if a caller may give it. Raises ``ConfigurationError``."""
    given: object = status
    if type(given) is not str or given not in _CHECKED:
        read_choice(SettlementStatus, status, "status")
    return status


def noting(resolve: Callable[..., T], notes: Notes | None) -> Callable[..., T]:
    """Return a backend's ``resolve`` that writes notes, where there are any: not every backend knows the argument."""
    return resolve if notes is None else partial(resolve, notes=notes)


def to_ms(seconds: Seconds, what: str) -> int:
    """Return a length of time in ms, at least 1. Raises ``ConfigurationError``."""
    read = seconds if type(seconds) is float else read_seconds(seconds, what)
    if not 0 < read < 10**9:  # false for NaN, too
        raise ConfigurationError(f"{seconds!r} is not a positive number of seconds", key=what)
    return max(1, int(read * 1000))
