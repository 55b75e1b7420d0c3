"""Money: integer nano-dollars inside, ``Decimal`` US dollars at the edges. The only place that rounds.

A price is an integer number of pico-dollars (1e-12 USD) a token, an amount an integer number of nano-dollars
(1e-9 USD). Costs are rounded up, once a response; limits are rounded down: under one nano-dollar, on the safe side.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation

from llm_cost_middleware.errors import InvalidAmountError

USD = Decimal | str | int | float
"""Accepted types for an amount of US dollars. A float is read by its shortest text, ``Decimal(repr(x))``."""

PICO_PER_NANO = 1_000
_NANO = Decimal("1e-9")
_WIDE = Context(prec=60)  # ample for any amount: the rounding below is then the only one


class NanoUSD(int):
    """Amount of money in nano-dollars (1e-9 USD). A class of its own so that a bare ``int`` always means dollars."""

    __slots__ = ()

    @property
    def usd(self) -> Decimal:
        """Same amount in US dollars, exactly."""
        return Decimal(int(self)).scaleb(-9, _WIDE)

    def __repr__(self) -> str:
        return f"NanoUSD({int(self)})"

    def __str__(self) -> str:
        return format_usd(self)


ZERO = NanoUSD(0)


def parse_usd(value: USD | NanoUSD, *, what: str = "amount", allow_negative: bool = False) -> Decimal:
    """Read an amount of US dollars.

    Args:
        value: ``Decimal``, ``str``, ``int``, ``float`` (all US dollars) or a ``NanoUSD``.
        what: The name of the value, for the error.
        allow_negative: Accept amounts below zero.

    Raises:
        InvalidAmountError: Not a number, infinite, a ``bool``, or negative where that is not allowed.
    """
    if isinstance(value, NanoUSD):
        amount = value.usd
    elif isinstance(value, bool) or not isinstance(value, Decimal | str | int | float):
        raise InvalidAmountError(what, value, "expected US dollars as Decimal, str, int or float")
    else:
        try:
            amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        except InvalidOperation:
            raise InvalidAmountError(what, value, "not a number") from None
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
    return NanoUSD(-(-pico // PICO_PER_NANO))


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


def _quantise(value: USD | NanoUSD, what: str, rounding: str) -> NanoUSD:
    amount = parse_usd(value, what=what)
    try:
        steps = amount.quantize(_NANO, rounding=rounding, context=_WIDE).scaleb(9, _WIDE)
    except InvalidOperation:
        raise InvalidAmountError(what, value, "too large") from None
    return NanoUSD(int(steps))
