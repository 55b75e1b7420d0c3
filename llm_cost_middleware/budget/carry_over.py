"""Carry-over: the unused rest of a window is added to the limit of the next one.

The rule, in every storage:

* Unused of the window before is its limit less what is settled and pending in it, never below zero, at most the cap.
* The limit of the window before is the least that stood in it. A budget that did not stand, with its carry-over, from
  the beginning of that window carries nothing. A raise for a time gives nothing to carry.
* What was carried into the window before does not count as its limit: one window back, and nothing compounds. Over any
  stretch of windows no more is spent than their limits together.
* It is computed anew whenever it is read, from the sums as they are then: money that is pending counts as spent, and a
  settle, a booking or a correction that comes late changes what is carried from then on. What was reserved before stays
  reserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from llm_cost_middleware.errors import ConfigurationError, InvalidAmountError
from llm_cost_middleware.money import NanoUSD, floor_nanousd, format_usd, multiply_usd, parse_usd
from llm_cost_middleware.natural_values import CALENDAR

CarryOverLike = bool | str | NanoUSD | None
Stood = Sequence[Sequence[int]]
"""Since when (ms) which limit (nano-dollars) stood, in the order in which it was decided."""

_FORM = "must be true, a share of the limit such as '50%', or dollars such as '$20'"
_MOST_LIMITS = 20
"""Changes of a limit that are remembered: beyond them the budget counts as newer, and carries less."""


class Carry(NamedTuple):
    """What a posting may carry: the cell of the window before, its limit, and the most that is carried of it."""

    before: int
    limit: int
    cap: int

    def unused(self, settled: int, pending: int) -> int:
        """Return what is carried, nano-dollars, of a window with these sums."""
        return max(min(self.limit - settled - pending, self.cap), 0)


def read_carry_over(value: object, window: str) -> bool | str:
    """Return a carry-over in its one form: ``False``, ``True``, ``50%`` or ``$20.00``.

    Raises:
        ConfigurationError: It is none of these, or the window never ends or is rolling: none goes before it.
    """
    if value is None or value is False:
        return False
    if window not in CALENDAR:
        told = f"needs a window that begins anew: hour, day, week or month, not {window!r}"
        raise ConfigurationError(told, key="carry_over")
    if value is True:
        return True
    try:
        return _read_cap(value)
    except InvalidAmountError:
        raise ConfigurationError(f"{_FORM}, not {value!r}", key="carry_over") from None


def _read_cap(value: object) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if text.endswith("%"):
        percent = parse_usd(text[:-1].strip(), what="carry_over")
        if "$" in text or not 0 < percent <= 100:  # noqa: PLR2004 - percent
            raise ConfigurationError(f"{value!r}: the share is above 0% and at most 100%", key="carry_over")
        return f"{percent.normalize():f}%"
    # A bare number could be meant as either.
    if not isinstance(value, NanoUSD) and not ("$" in text or "usd" in text.lower() or "dollars" in text):
        raise ConfigurationError(f"{_FORM}, not {value!r}", key="carry_over")
    cap = floor_nanousd(value if isinstance(value, NanoUSD) else text, what="carry_over")
    if not cap:
        raise ConfigurationError(f"{value!r} carries nothing; leave it out", key="carry_over")
    return format_usd(cap)


def carry_cap(carry_over: bool | str, limit: int) -> int:
    """Return the most that is carried of a window with this limit, nano-dollars, rounded down."""
    if carry_over is True:
        return limit
    if not isinstance(carry_over, str):
        return 0
    if carry_over.endswith("%"):
        share = multiply_usd(Decimal(carry_over[:-1]), Decimal("0.01"))
        return int(floor_nanousd(multiply_usd(NanoUSD(limit).usd, share)))
    return int(floor_nanousd(carry_over))


def stood_on(earlier: Stood, at: int, limit: int) -> list[list[int]]:
    """Return what stood, with a limit that is decided at ``at`` (ms)."""
    stood = [list(one) for one in earlier]
    if not stood or stood[-1][1] != limit:
        stood.append([max(at, stood[-1][0]) if stood else at, limit])  # a clock may have been set back
    return stood[-_MOST_LIMITS:]


def least_limit(stood: Stood, start: int, end: int) -> int:
    """Return the least limit that stood from ``start`` to before ``end`` (ms); 0 if none stood from the start on."""
    first = [limit for at, limit in stood if at <= start][-1:]
    return min(*first, *(limit for at, limit in stood if start < at < end), first[0]) if first else 0
