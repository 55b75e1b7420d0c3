"""Values of the ledger: scopes, budgets, reservations, receipts, balances, rows.

Times are integer milliseconds since the Unix epoch inside this package, and seconds (``float``) in public values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from llm_cost_middleware.budget.carry_over import CarryOverLike, carry_cap, read_carry_over
from llm_cost_middleware.errors import ConfigurationError, InvalidAmountError, InvalidScopeError, UnknownKeyError
from llm_cost_middleware.money import USD, ZERO, NanoUSD, ceil_nanousd, floor_nanousd, multiply_usd, parse_usd
from llm_cost_middleware.natural_values import ENDLESS, read_share, read_timezone, read_window
from llm_cost_middleware.typed_fields import names_unknown_keys

ReservationState = Literal["pending", "settled", "voided", "expired", "refused"]
Verb = Literal["settle", "void", "expire", "reconcile", "book"]
RowKind = Literal["reserve", "reduce", "settle", "void", "expire", "reconcile", "book", "carried"]
UNSURE: frozenset[str] = frozenset({"estimated", "unconfirmed", "unpriced"})
"""Statuses of a cost that may still be corrected."""
RowStatus = Literal["reserved", "exact", "estimated", "unconfirmed", "unpriced", "void"]

GLOBAL = "global"
LIFETIME = ENDLESS
"""The window that never ends. Every scope is booked in it, with or without a budget."""
MAX_NANOUSD = 2**53 - 1
"""Largest amount or limit, about 9.0 million USD. Redis' Lua computes in doubles, and every backend has one rule."""

WindowLike = str | float | timedelta
"""A window as people write it: ``day``, ``daily``, ``24h``, a number of seconds, a ``timedelta``."""

_KIND = re.compile(r"[a-z][a-z0-9_]*\Z")
_SAFE = "-._~@+/:=,"  # no space among them: scopes are stored separated by spaces
_NAME_BYTES = 200  # scopes are parts of keys in every storage
_ROLLING = re.compile(r"([0-9]{1,9})s\Z")


def make_scope(kind: str, name: str) -> str:
    """Make a scope from a raw name with any characters: ``make_scope("user", "a b%")`` is ``user:a%20b%25``.

    Raises:
        InvalidScopeError: The kind is not ``[a-z][a-z0-9_]*``, or the name is empty or over 200 bytes of UTF-8.
    """
    return _scope(kind, name, f"{kind}:{name}")


def parse_scope(text: str, *, template: bool = False) -> str:
    """Return the canonical form of a scope: ``global`` or ``kind:name``, odd characters of the name percent-encoded.

    Args:
        text: The scope. Percent escapes in it are kept, so a canonical scope is returned unchanged.
        template: Allow ``kind:*``: in a budget it gives each name its own limit.

    Raises:
        InvalidScopeError: The text does not have this form.
    """
    if not isinstance(text, str):  # before the cache, which cannot hold a list
        raise InvalidScopeError(text, "must be a string such as 'team:search'")
    return _parse_scope(text, template=template)


# Cached, as the few scopes of an application come back on every call.
@lru_cache(maxsize=16_384)
def _parse_scope(text: str, *, template: bool) -> str:
    if text == GLOBAL:
        return text
    kind, colon, name = text.partition(":")
    if not colon:
        raise InvalidScopeError(text, "must be 'global' or 'kind:name', such as 'user:42'")
    if name == "*":
        if not template:
            raise InvalidScopeError(text, "a template stands in a budget; a call names one")
        _check_kind(kind, text)
        return text
    if template and "*" in name:  # taken for a name it would limit nobody
        told = f"a budget is of one name or of each ('{kind}:*'); a star in a name itself is written %2A"
        raise InvalidScopeError(text, told)
    try:
        raw = unquote_to_bytes(name).decode()  # decoded and encoded again: two spellings of a name are one scope
    except UnicodeError:
        raise InvalidScopeError(text, "the name is not UTF-8") from None
    return _scope(kind, raw, text)


def raw_name(scope: str) -> str:
    """Return the name in a canonical scope as it was written."""
    return unquote_to_bytes(scope.partition(":")[2]).decode()


def parse_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return the canonical scopes of a call: ``global`` first (it is implied), then the others as given, each once.

    Raises:
        InvalidScopeError: One of them cannot be used.
    """
    if isinstance(scopes, str):
        return canonical_scopes((scopes,))
    try:  # tuples go through as they are: the same few combinations come back on every call, and are cached
        return canonical_scopes(scopes if type(scopes) is tuple else tuple(scopes))
    except TypeError:
        raise InvalidScopeError(scopes, "must be an iterable of strings") from None


@lru_cache(maxsize=16_384)
def canonical_scopes(scopes: tuple[str, ...]) -> tuple[str, ...]:
    """``parse_scopes`` of a tuple."""
    return tuple(dict.fromkeys((GLOBAL, *map(parse_scope, scopes))))


def _scope(kind: str, name: str, text: str) -> str:
    _check_kind(kind, text)
    try:
        size = len(name.encode())
    except UnicodeError:
        raise InvalidScopeError(text, "the name is not UTF-8") from None
    if not 0 < size <= _NAME_BYTES:
        raise InvalidScopeError(text, f"the name must have 1 to {_NAME_BYTES} bytes of UTF-8, not {size}")
    return f"{kind}:{quote(name, safe=_SAFE)}"


def _check_kind(kind: str, text: str) -> None:
    if not _KIND.match(kind) or kind == GLOBAL:
        raise InvalidScopeError(text, "the kind must match [a-z][a-z0-9_]* and not be 'global'")


def parse_window(value: object) -> str:
    """Return the canonical form of a window: ``none``, ``hour``, ``day``, ``week``, ``month`` or ``3600s`` (rolling).

    Raises:
        ConfigurationError: It is no window; ``read_window`` says what is.
    """
    return read_window(value)


def rolling_seconds(window: str) -> int | None:
    """Length of a rolling window in seconds; ``None`` for a calendar window and for ``none``."""
    match = _ROLLING.match(window)
    return int(match[1]) if match else None


def bounded_nanousd(value: USD | NanoUSD, *, what: str = "amount") -> NanoUSD:
    """Return an amount in nano-dollars, rounded up. Raises ``InvalidAmountError`` above ``MAX_NANOUSD``."""
    amount = ceil_nanousd(value, what=what)
    if amount > MAX_NANOUSD:
        raise InvalidAmountError(what, value, f"must be below {NanoUSD(MAX_NANOUSD + 1)}")
    return amount


@names_unknown_keys()
@dataclass(frozen=True, slots=True)
class Budget:
    """Limit on the spending of one scope in one window, its identity: another limit for the same replaces it.

    Args:
        scope: ``global``, ``kind:name``, or ``kind:*``, which gives each name its own budget of this size.
        limit: US dollars.
        window: ``none``, ``hour``, ``day``, ``week``, ``month`` (calendar, in ``timezone``), or rolling seconds
            (``3600s``, ``24h``, ``7d``, a number of seconds, a ``timedelta``); ``None`` is ``none``.
        timezone: An IANA name or a ``ZoneInfo``. Weeks start on Monday.
        warn_at: Share of the limit, above 0 and up to 1 (or ``"80%"``), from which on a settle reports a warning, once
            per window; several, such as ``[0.5, 0.8, 1.0]``, warn one after the other; ``None`` for never.
        reserve: Shares of the limit that are kept, by the scope they are kept for: with ``{"tag:checkout": 0.2}`` the
            last fifth goes to calls of that scope alone. A scope may be ``kind:*``. What such a call spends before
            counts as any other spending; the shares together are at most 1.
        carry_over: Add what the window before left unused to the limit: ``True`` for all of it, ``"50%"`` for at most
            that share of the limit, ``"$20"`` for at most so much. Calendar windows alone; one window back, counted
            anew whenever it is read (``budget.carry_over`` has the rule). ``warn_at`` and ``reserve`` are shares of
            the limit without it.

    Raises:
        InvalidScopeError, InvalidAmountError, ConfigurationError: A field that cannot be used.
    """

    scope: str
    limit: USD
    window: str = LIFETIME
    timezone: str = "UTC"
    warn_at: float | Sequence[float] | None = 0.8
    reserve: Mapping[str, USD] = field(default_factory=dict, compare=False)
    carry_over: CarryOverLike = False
    limit_nanousd: NanoUSD = field(init=False, repr=False, compare=False)
    shares: tuple[tuple[str, Decimal], ...] = field(init=False, repr=False)
    warn_nanousd: NanoUSD | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        limit = floor_nanousd(self.limit)  # down, as amounts go up: rounding must never let a call through
        if limit > MAX_NANOUSD:
            raise InvalidAmountError("limit", self.limit, f"must be below {NanoUSD(MAX_NANOUSD + 1)}")
        if not limit and parse_usd(self.limit, what="limit"):
            told = "is below a nano-dollar; the least limit is 0.000000001, and 0 is none at all"
            raise InvalidAmountError("limit", self.limit, told)
        set_ = object.__setattr__  # the class is frozen
        set_(self, "scope", parse_scope(self.scope, template=True))
        set_(self, "window", parse_window(self.window))
        set_(self, "timezone", read_timezone(self.timezone))
        set_(self, "limit", limit.usd)
        set_(self, "limit_nanousd", limit)
        set_(self, "warn_at", _read_warnings(self.warn_at))
        set_(self, "warn_nanousd", next(iter(self.warns_at(limit)), None))
        set_(self, "shares", shares := _shares(self.reserve))
        set_(self, "reserve", dict(shares))
        set_(self, "carry_over", read_carry_over(self.carry_over, self.window))

    def warns_at(self, limit: NanoUSD) -> tuple[NanoUSD, ...]:
        """From which sums on it warns, the lowest first; ``limit`` is its own, or one that it is raised to."""
        shares = self.warn_at if isinstance(self.warn_at, tuple) else (self.warn_at,)
        # repr: 0.8 means 0.8, not the double nearest to it
        return tuple(
            ceil_nanousd(multiply_usd(limit.usd, Decimal(repr(share)))) for share in shares if share is not None
        )

    def kept_from(self, scopes: Iterable[str], limit: NanoUSD) -> NanoUSD:
        """What of a limit, its own or one that it is raised to, is kept for others than a call of these scopes."""
        if not self.shares:
            return ZERO
        own = tuple(scopes)
        others = (share for pattern, share in self.shares if not any(scope_matches(pattern, scope) for scope in own))
        # Up: rounding must not take from what is kept.
        return min(ceil_nanousd(multiply_usd(limit.usd, sum(others, Decimal(0)))), limit)

    def carry_cap(self, limit: int) -> int:
        """Return the most that is carried of a window with this limit, nano-dollars."""
        return carry_cap(self.carry_over, limit)  # type: ignore[arg-type]  # read above

    @property
    def key(self) -> tuple[str, str]:
        """The identity of a budget: ``(scope, window)``."""
        return self.scope, self.window


def read_budget(value: object, *rest: Any) -> Budget:
    """Return a budget from one, from a mapping of its fields, or from the fields in their order.

    Raises:
        ConfigurationError: It is none of these, or as for ``Budget``.
    """
    if isinstance(value, Budget) and not rest:
        return value
    if isinstance(value, Mapping) and not rest:
        unknown = next((name for name in value if not isinstance(name, str)), None)
        if unknown is not None:  # Python would refuse it as a keyword before we could name it
            raise UnknownKeyError(repr(unknown), ())
        missing = [name for name in ("scope", "limit") if name not in value]
        if missing and not value.keys() - {field.name for field in fields(Budget)}:
            raise ConfigurationError(f"needs {', '.join(missing)}")
        return Budget(**value)
    if isinstance(value, str) and rest and len(rest) < len([field for field in fields(Budget) if field.init]):
        return Budget(value, *rest)
    form = "Budget('team:a', 5, 'day') or a mapping such as {'scope': 'team:a', 'limit': 5, 'window': 'day'}"
    raise ConfigurationError(f"must be a {form}, not {value!r}", key="budget")


def _read_warnings(value: object) -> float | tuple[float, ...] | None:
    """The shares of a limit from which on it warns: none, one, or several in their order."""
    if value is None:
        return None
    if not isinstance(value, list | tuple | set | frozenset):
        return read_share(value, "warn_at")
    shares = tuple(sorted({read_share(one, "warn_at") for one in value}))
    return shares if len(shares) > 1 else next(iter(shares), None)


def scope_matches(pattern: str, scope: str) -> bool:
    """Return whether a scope of a budget, which may be a template, applies to a call's scope."""
    return scope.startswith(pattern[:-1]) if pattern.endswith(":*") else scope == pattern


def _shares(value: object) -> tuple[tuple[str, Decimal], ...]:
    """The kept shares of a budget, canonical and sorted."""
    if not isinstance(value, Mapping):
        form = 'a table of shares by scope, such as {"tag:checkout" = 0.2}'
        raise ConfigurationError(f"must be {form}, not {value!r}", key="reserve")
    shares: dict[str, Decimal] = {}
    for name, part in value.items():
        scope, share = parse_scope(name, template=True), parse_usd(part, what="reserve")
        if scope == GLOBAL or not 0 < share <= 1:
            told = "each share is above 0 and at most 1, and none is of 'global'"
            raise ConfigurationError(f"{name!r}: {part!r}: {told}", key="reserve")
        shares[scope] = share
    if sum(shares.values()) > 1:
        raise ConfigurationError("the shares together are more than the whole limit", key="reserve")
    return tuple(sorted(shares.items()))


class Reservation(Struct, frozen=True, gc=False):
    """Money held for a call (an authorization). ``created_at`` and ``expires_at`` are seconds since the Unix epoch."""

    id: str
    amount_nanousd: NanoUSD
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float
    state: ReservationState

    @property
    def amount(self) -> Decimal:
        """``amount_nanousd`` in US dollars."""
        return self.amount_nanousd.usd


class Reduction(NamedTuple):
    """Result of a reduction: what is held now, and what came free by it.

    Only a pending reservation is reduced, and none is ever raised: ``released_nanousd`` is zero for one that holds no
    more than was asked for, or that was resolved before (``state`` says how), or that is ``unknown``.
    """

    id: str
    amount_nanousd: NanoUSD
    released_nanousd: NanoUSD
    state: ReservationState | Literal["unknown"]

    @property
    def amount(self) -> Decimal:
        """``amount_nanousd`` in US dollars."""
        return self.amount_nanousd.usd

    @property
    def released(self) -> Decimal:
        """``released_nanousd`` in US dollars."""
        return self.released_nanousd.usd


class Receipt(Struct, frozen=True, gc=False):
    """Result of a resolution or a booking. The same settle again returns the first receipt, marked ``repeated``.

    ``overrun_nanousd`` is what was spent beyond the reservation; ``late``: the hold had expired before; ``warnings``
    holds the ``(scope, window)`` of every budget whose ``warn_at`` this booking crossed, first in its window.
    ``repeated`` is true if an earlier call booked it, in this process or another: then this call changed nothing.
    """

    id: str
    kind: Verb
    amount_nanousd: NanoUSD
    reserved_nanousd: NanoUSD
    overrun_nanousd: NanoUSD
    status: RowStatus
    late: bool
    warnings: tuple[tuple[str, str], ...]
    at: float
    repeated: bool = False
    thresholds: tuple[NanoUSD, ...] = ()
    """The sum that was crossed, for each of the ``warnings``."""

    @property
    def amount(self) -> Decimal:
        """``amount_nanousd`` in US dollars."""
        return self.amount_nanousd.usd


class Row(NamedTuple):
    """Row of the ledger: appended, never changed. ``memo`` is opaque to the ledger.

    ``amount_nanousd`` is the amount reserved, reduced to, spent, charged or corrected to (zero for a void). ``at`` is
    when the row was written; ``reserved_at`` decides in which window the money counts: both are seconds since the Unix
    epoch. A ``carried`` row (carried forward) has the sum and the latest times of rows that were moved to an archive.
    """

    seq: int
    kind: RowKind
    id: str
    at: float
    amount_nanousd: NanoUSD
    scopes: tuple[str, ...]
    status: RowStatus
    reserved_at: float
    memo: bytes

    @property
    def amount(self) -> Decimal:
        """``amount_nanousd`` in US dollars."""
        return self.amount_nanousd.usd
