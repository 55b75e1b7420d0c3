"""The currency of a command's output: amounts as people are shown them, and once the rate that they are shown by."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from llm_cost_middleware.money import DisplayCurrency, NanoUSD, format_usd

_CENTS_FROM = 10
_DIGITS, _NANO_PLACES = 4, 9


@dataclass(slots=True)
class _Shown:
    """What one command shows: in which currency, whether it has shown any, and whether it has said the rate."""

    currency: DisplayCurrency | None = None
    used: bool = False
    told: bool = False


_shown: ContextVar[_Shown] = ContextVar("shown", default=_Shown())  # noqa: B039 - replaced where a command begins


def begin() -> None:
    """Begin a command: dollars, until a configuration says otherwise."""
    _shown.set(_Shown())


def show_in(currency: DisplayCurrency | None) -> None:
    """Show the amounts of this command in a currency; ``None``: in US dollars."""
    _shown.get().currency = currency


def unit() -> str:
    """What amounts are in, for a title: ``US dollars``, or the currency with the rate, which then is said."""
    shown = _shown.get()
    if shown.currency is None:
        return "US dollars"
    shown.told = True
    return shown.currency.note


def untold() -> str | None:
    """The rate that amounts were shown by, if nothing has said it."""
    shown = _shown.get()
    if shown.currency is None or not shown.used or shown.told:
        return None
    shown.told = True
    return shown.currency.note


def amount(value: Decimal | NanoUSD | None) -> str:
    """An amount of dollars: cents from ten on, four digits that count below; a dash where it is not known."""
    if value is None:
        return "-"
    sign, value = _converted(value)
    size = abs(value)
    places = 2 if size >= _CENTS_FROM or not size else min(max(_DIGITS - 1 - size.adjusted(), 2), _NANO_PLACES)
    shown = size.quantize(Decimal(1).scaleb(-places), context=Context(prec=60, rounding=ROUND_HALF_EVEN))
    whole, _, fraction = f"{shown:,f}".partition(".")
    if shown == size:  # nothing was rounded: the zeros say nothing
        fraction = fraction.rstrip("0").ljust(2, "0")
    return f"{'-' if value < 0 else ''}{sign}{whole}.{fraction}"


def exact(value: NanoUSD, *, places: int = 2) -> str:
    """An amount of dollars with every digit it has; in another currency, as exact as a rate can be."""
    return format_usd(value, places=places) if _shown.get().currency is None else amount(value)


def average(dollars: float) -> str:
    """A statistic, such as a mean cost: four places."""
    sign, value = _converted(Decimal(repr(dollars)))
    return f"{'-' if value < 0 else ''}{sign}{abs(value):.4f}"


def scaled(dollars: float) -> float:
    """A statistic as a number, for a chart."""
    return float(_converted(Decimal(repr(dollars)))[1])


def _converted(value: Decimal | NanoUSD) -> tuple[str, Decimal]:
    shown, dollars = _shown.get(), value.usd if isinstance(value, NanoUSD) else value
    if shown.currency is None:
        return "$", dollars
    shown.used = True
    return shown.currency.sign, shown.currency.convert(dollars)
