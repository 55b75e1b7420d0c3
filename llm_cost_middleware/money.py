"""Money: integer nano-dollars inside, ``Decimal`` US dollars at the edges. The only place that rounds.

A price is an integer number of pico-dollars (1e-12 USD) a token, an amount an integer number of nano-dollars
(1e-9 USD). Costs are rounded up, once a response; limits are rounded down: under one nano-dollar, on the safe side.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation
from numbers import Rational, Real
from typing import Any, NamedTuple, Self

from llm_cost_middleware.errors import InvalidAmountError

USD = Decimal | str | int | float
"""Accepted types for an amount of US dollars. A float is read by its shortest text, ``Decimal(repr(x))``."""

PICO_PER_NANO = 1_000
_NANO = Decimal("1e-9")
_WHOLE = re.compile(r"-?\d+\Z", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?\Z")
_WIDE = Context(prec=60)  # ample for any amount: the rounding below is then the only one


class NanoUSD(int):
    """Amount of money in nano-dollars (1e-9 USD). A class of its own so that a bare ``int`` always means dollars."""

    __slots__ = ()

    def __new__(cls, value: Any = 0) -> Self:
        """Take whole nano-dollars alone: ``int("0.5")`` fails without a word of units, ``int(0.5)`` is nothing."""
        if isinstance(value, int):  # first, and without super(): nine are made in a governed call
            return int.__new__(cls, value)
        if isinstance(value, str | bytes) and _WHOLE.match(value if isinstance(value, str) else value.decode()):
            return int.__new__(cls, value)  # as storages keep it
        # numpy's integers, whose lengths of time are integers, too
        if not (isinstance(value, Rational) and hasattr(value, "__index__")) or type(value).__name__ == "timedelta64":
            told = "is no whole number of nano-dollars; for dollars write the amount itself, such as '0.5'"
            raise InvalidAmountError("NanoUSD", value, told)
        return int.__new__(cls, value)

    @property
    def usd(self) -> Decimal:
        """Same amount in US dollars, exactly."""
        return Decimal(int(self)).scaleb(-9, _WIDE)

    def __repr__(self) -> str:
        return f"NanoUSD({int(self)})"

    def __str__(self) -> str:
        return format_usd(self)


ZERO = NanoUSD(0)
_of_int = int.__new__
"""Makes a ``NanoUSD`` of what is an ``int`` for certain, without the frame of its constructor."""


def parse_usd(value: USD | NanoUSD, *, what: str = "amount", allow_negative: bool = False) -> Decimal:
    """Read an amount of US dollars.

    Args:
        value: ``Decimal``, ``str`` (also ``"$1,234.50"`` and ``"5 USD"``), ``int``, ``float``, ``Fraction``, a number
            of numpy's (all US dollars) or a ``NanoUSD``.
        what: The name of the value, for the error.
        allow_negative: Accept amounts below zero.

    Raises:
        InvalidAmountError: Not a number, infinite, a ``bool``, or negative where that is not allowed.
    """
    amount = value.usd if isinstance(value, NanoUSD) else _read(value, what)
    if not amount.is_finite():
        raise InvalidAmountError(what, value, "must be finite")
    if amount < 0 and not allow_negative:
        raise InvalidAmountError(what, value, "must not be negative")
    return amount


def ceil_nanousd(value: USD | NanoUSD, *, what: str = "amount") -> NanoUSD:
    """Return an amount in nano-dollars, rounded up: for what is spent or reserved. Raises ``InvalidAmountError``."""
    return value if type(value) is NanoUSD and value >= 0 else _quantise(value, what, ROUND_CEILING)


def floor_nanousd(value: USD | NanoUSD, *, what: str = "limit") -> NanoUSD:
    """Return an amount in nano-dollars, rounded down: for what may be spent. Raises ``InvalidAmountError``."""
    return value if type(value) is NanoUSD and value >= 0 else _quantise(value, what, ROUND_FLOOR)


def add_usd(total: Decimal, amount: Decimal) -> Decimal:
    """Return the sum of two dollar amounts, exactly, independent of the caller's decimal context."""
    return _WIDE.add(total, amount)


def multiply_usd(amount: Decimal, factor: Decimal) -> Decimal:
    """Return a share of a dollar amount, likewise independent of the decimal context."""
    return _WIDE.multiply(amount, factor)


def ceil_picousd(pico: int) -> NanoUSD:
    """Convert integer pico-dollars to nano-dollars, rounded up: the one rounding of a response's cost."""
    return _of_int(NanoUSD, -(-pico // PICO_PER_NANO))


def floor_picousd(pico: int) -> NanoUSD:
    """Convert integer pico-dollars to nano-dollars, rounded down: for savings, which must not be reported too high."""
    return NanoUSD(pico // PICO_PER_NANO)


def format_usd(amount: NanoUSD | Decimal, *, places: int = 2) -> str:
    """Format a dollar amount for people: at least ``places`` decimals, more if it has more. ``$0.0012``."""
    value = amount.usd if isinstance(amount, NanoUSD) else amount
    text = f"{abs(value):f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(places, "0")
    return f"{'-' if value < 0 else ''}${int(whole):,}.{fraction}"


class DisplayCurrency(NamedTuple):
    """A currency that people are shown amounts in; nothing is booked or decided in it.

    ``code`` is of ISO 4217, ``rate`` its units for one US dollar, ``date`` the day of the rate (ISO 8601).
    """

    code: str
    rate: Decimal
    date: str

    @property
    def sign(self) -> str:
        """What stands before an amount."""
        return f"{self.code} "

    @property
    def note(self) -> str:
        """The rate, to be said once."""
        return f"{self.code} at {self.rate:f} for a US dollar, the rate of {self.date}; the ledger is in US dollars"

    def convert(self, usd: Decimal) -> Decimal:
        """Return an amount of US dollars in this currency, unrounded."""
        return multiply_usd(usd, self.rate)

    def format(self, amount: NanoUSD | Decimal, *, places: int = 2) -> str:
        """Format an amount of US dollars for people, in this currency: rounded to ``places``, half to even."""
        value = self.convert(amount.usd if isinstance(amount, NanoUSD) else amount)
        return f"{'-' if value < 0 else ''}{self.sign}{_WIDE.quantize(abs(value), Decimal(1).scaleb(-places)):,f}"


def _read(value: object, what: str) -> Decimal:
    if isinstance(value, str):
        return _read_text(value, what)
    if isinstance(value, float):
        return Decimal(float.__repr__(value))  # not ``repr``: numpy's doubles are floats with another one
    if isinstance(value, Decimal) or type(value) is int:
        return Decimal(value)
    try:
        if not isinstance(value, bool) and isinstance(value, Rational):  # Fraction, numpy's integers
            return _WIDE.divide(Decimal(int(value.numerator)), Decimal(int(value.denominator)))
        if not isinstance(value, bool) and isinstance(value, Real):  # by its text: the number that was written
            return Decimal(str(value))
    except (InvalidOperation, TypeError, ValueError):  # numpy's lengths of time are integers too
        pass
    raise InvalidAmountError(what, value, "expected US dollars as Decimal, str, int or float")


def _read_text(value: str, what: str) -> Decimal:
    text = value.strip()
    bare = text.removeprefix("-").removeprefix("$")
    dollars = bare != text.removeprefix("-")
    for unit in ("USD", "usd", "US dollars", "dollars"):
        if not dollars and (bare.endswith(unit) or bare.startswith(unit)):
            bare, dollars = bare.removesuffix(unit).removeprefix(unit).strip(), True
    digits = bare.replace(",", "")
    if _GROUPED.match(bare) and ("." in bare or dollars):  # as this package prints it: $1,234.50
        bare = digits
    elif _GROUPED.match(bare):
        raise InvalidAmountError(what, value, f"thousands or decimals? For thousands write '{digits}'")
    try:
        amount = Decimal(bare)
    except InvalidOperation:
        raise InvalidAmountError(what, value, "not a number") from None
    return amount.copy_negate() if text.startswith("-") else amount


def _quantise(value: USD | NanoUSD, what: str, rounding: str) -> NanoUSD:
    amount = parse_usd(value, what=what)
    try:
        steps = amount.quantize(_NANO, rounding=rounding, context=_WIDE).scaleb(9, _WIDE)
    except InvalidOperation:
        raise InvalidAmountError(what, value, "too large") from None
    return NanoUSD(int(steps))
