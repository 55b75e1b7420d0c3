"""Display currency: in what people are shown amounts, by a rate of a day. The ledger stays in US dollars.

As it stands in a configuration::

    [prices]
    currency = "EUR"

    [prices.rate]                          # units of a currency for one US dollar
    EUR = "0.86"                           # text: a float would not be exact
    date = 2026-11-01                      # whose rate it is; said wherever it is used

Nothing fetches a rate, and nothing is decided by it: limits and what is booked are in dollars, and so is everything
that programs read (JSON, CSV, Parquet, events, logs). Prices are shown as the provider quotes them, in dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.money import DisplayCurrency

CURRENCY, RATE = "currency", "rate"
_DATE = "date"
_USD = "USD"
_LONG = 16
_LEAST, _MOST, _DIGITS = Decimal("1e-9"), Decimal(10**12), 28
"""Of a rate. Amounts are shown exactly with them; the worst inflation on record ended with a new currency before."""
_FORM = '[prices.rate] EUR = "0.86", date = 2026-11-01'
_CODES = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP
    CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF
    IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD
    MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB
    RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD
    UYU UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG
"""
CODES = frozenset(_CODES.split())
"""Currencies of ISO 4217 that are in use."""


def read_display_currency(prices: Mapping[str, Any]) -> DisplayCurrency | None:
    """Read the display currency of a ``[prices]`` table; ``None`` where amounts are shown in US dollars.

    Raises:
        ConfigurationError: An unknown currency, or one without a dated, exact rate; the message shows the right form.
    """
    code, table = prices.get(CURRENCY, _USD), prices.get(RATE, {})
    _check_code(code, f"prices.{CURRENCY}")
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"must be a table such as {_FORM}, not {table!r}", key=f"prices.{RATE}")
    rates = {name: _rate(name, value) for name, value in table.items() if name != _DATE}
    if code == _USD:
        return None
    if code not in rates:
        raise ConfigurationError(f"there is no rate for {code}; write {_FORM.replace('EUR', code)}", key="prices.rate")
    return DisplayCurrency(code, rates[code], _day(table.get(_DATE)))


def _check_code(code: object, key: str) -> None:
    if not isinstance(code, str) or code not in CODES:
        near = (
            get_close_matches(code.upper(), sorted(CODES), n=3) if isinstance(code, str) and len(code) < _LONG else []
        )
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ConfigurationError(f"must be a currency of ISO 4217 such as 'EUR', not {code!r}{hint}", key=key)


def _rate(code: object, value: object) -> Decimal:
    key = f"prices.{RATE}.{code}"
    _check_code(code, key)
    told = f'must be units of {code} for one US dollar as text, such as {code} = "0.86", not {value!r}'
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ConfigurationError(told, key=key)
    try:
        rate = Decimal(value)
    except InvalidOperation:
        raise ConfigurationError(told, key=key) from None
    if not rate.is_finite() or rate <= 0:
        raise ConfigurationError(told, key=key)
    if not _LEAST <= rate <= _MOST or len(rate.as_tuple().digits) > _DIGITS:
        shown = f"{value}"[:_DIGITS]
        raise ConfigurationError(f"{shown}: no rate is below {_LEAST:f} or above {_MOST:f}", key=key)
    return rate


def _day(value: object) -> str:
    try:
        return date.fromisoformat(value).isoformat() if isinstance(value, str) else date.isoformat(value)  # type: ignore[arg-type]  # refused below
    except (TypeError, ValueError):
        told = f"must be the day of the rate: {_FORM}" + ("" if value is None else f", not {value!r}")
        raise ConfigurationError(told, key=f"prices.{RATE}.{_DATE}") from None
