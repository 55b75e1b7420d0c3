"""Bookings as rows of FOCUS, the FinOps Open Cost and Usage Specification: 1.4, or 1.2 for tools that read no newer.

One row for each day (UTC), set of scopes, model, tier, status and type of tokens. ``BilledCost`` and ``EffectiveCost``
are what the ledger booked, to the nano-dollar: they add up to it. ``ListCost`` and ``ContractedCost`` are the tokens at
the price list and at the contract's price, of short contexts: a sum does not say how long each call was. 1.4 has no
columns for tokens or models: these stand in the quantities, the SKU and its details.

Columns and values: https://focus.finops.org/focus-specification/ (Cost and Usage).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reports.charges import Charge
from llm_cost_middleware.usage import TokenUsage

FocusVersion = Literal["1.4", "1.2"]
_DAY_S = 86_400
_MILLION, _THOUSAND = 10**6, 10**3
_METERS = {
    "uncached_input": "Input Tokens",
    "cache_read": "Cached Input Tokens",
    "cache_write_5m": "Cache Write Tokens (5 minutes)",
    "cache_write_1h": "Cache Write Tokens (1 hour)",
    "cache_write_30m": "Cache Write Tokens (30 minutes)",
    "cache_write_12h": "Cache Write Tokens (12 hours)",
    "output": "Output Tokens",
    "audio_input": "Audio Input Tokens",
    "audio_cache_read": "Cached Audio Input Tokens",
    "audio_output": "Audio Output Tokens",
    "web_searches": "Web Searches",
}
_REQUESTS = "requests"
_PROVIDERS = {"anthropic": ("Anthropic", "Claude API"), "openai": ("OpenAI", "OpenAI API")}
_UNKNOWN = "Unknown"
_SINCE_1_3 = ("ServiceProviderName", "HostProviderName", "InvoiceDetailId")


class _Part(NamedTuple):
    """What a charge cost by one meter. Prices are pico-dollars of one unit, ``None`` where nobody knows them."""

    model: str
    meter: str
    units: int
    list_pico: int | None
    contracted_pico: int | None


def focus_rows(
    charges: Iterable[Charge], catalogue: Catalogue, *, version: FocusVersion = "1.4", account: str = "default"
) -> Iterator[dict[str, str]]:
    """Return rows of FOCUS, with the same columns each; an empty text is null.

    Args:
        charges: What was booked.
        catalogue: The prices of the configuration.
        version: Of the specification.
        account: Names the billing account at the provider, which the ledger does not know.
    """
    at_list = catalogue.without_contracts()
    for charge in charges:
        parts = list(_parts(charge, catalogue, at_list))
        weights = [part.units * (part.contracted_pico or 0) for part in parts]
        for part, nano in zip(parts, split(charge.amount_nanousd, weights), strict=True):
            yield _row(charge, part, nano, version, account)


def to_csv(rows: Iterable[dict[str, str]], version: FocusVersion = "1.4") -> Iterator[str]:
    """Return the rows as lines of CSV, its head first. No cell begins with what a user named."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(version), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row)
        yield out.getvalue()
        out.seek(0)
        out.truncate()
    yield out.getvalue()


def columns(version: FocusVersion = "1.4") -> tuple[str, ...]:
    """Return the columns of a version, in their order."""
    empty = Charge(0, (), "", "", {}, "exact")
    return tuple(_row(empty, _Part("", _REQUESTS, 0, None, None), 0, version, ""))


def split(amount: int, weights: list[int]) -> list[int]:
    """Split an amount by weights; the parts add up to it. Without any weight the first takes all."""
    total = sum(weights)
    if not total:
        return [amount, *(0 for _ in weights[1:])] if weights else []
    parts = [amount * weight // total for weight in weights]
    # What rounding left goes to those that lost most of it.
    order = sorted(range(len(parts)), key=lambda index: (-(amount * weights[index] % total), index))
    for index in order[: amount - sum(parts)]:
        parts[index] += 1
    return parts


def _parts(charge: Charge, catalogue: Catalogue, at_list: Catalogue) -> Iterator[_Part]:
    found = False
    for model, usage in charge.usage().items():
        listed, contracted = (_prices(one, charge, model, usage) for one in (at_list, catalogue))
        for name in _METERS:
            count = getattr(usage, name)
            if count:
                found = True
                yield _Part(model, name, count, listed.get(name), contracted.get(name))
    if not found:
        yield _Part(charge.model, _REQUESTS, charge.calls, None, None)


def _prices(catalogue: Catalogue, charge: Charge, model: str, usage: TokenUsage) -> dict[str, int]:
    """Pico-dollars a token by bucket, at the shortest context."""
    terms = {name: value for name, value in charge.terms.items() if name != "tool_calls" and value}
    try:
        rates = catalogue.rates(charge.provider, model, charge.day + 1, **terms)
        return {name: pico // getattr(usage, name) for name, pico in rates.components(usage, short=True).items()}
    except PriceNotFoundError:
        return {}


def _row(charge: Charge, part: _Part, nano: int, version: FocusVersion, account: str) -> dict[str, str]:
    began = datetime.fromtimestamp(charge.day, UTC)
    month = began.replace(day=1)
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    provider, service = _PROVIDERS.get(charge.provider, (charge.provider or _UNKNOWN, charge.provider or _UNKNOWN))
    tags, booked = _tags(charge.scopes), _usd(nano)
    host = next((tags[kind] for kind in ("platform",) if kind in tags), provider)
    model = part.model or charge.model or "unknown"
    sku = f"{charge.provider or 'unknown'}/{model}/{part.meter}"
    quantity, unit, size, consumed = _quantity(part)
    listed, contracted = (None if pico is None else Decimal(pico * size) / 10**12 for pico in part[3:])
    if listed is None or contracted is None:  # nobody knows the price of a unit: one charge of what was booked
        quantity, unit, listed, contracted = Decimal(1), "Charges", Decimal(booked), Decimal(booked)
    meter = _METERS.get(part.meter, "Requests")
    row = {
        "BilledCost": booked, "BillingAccountId": account, "BillingAccountName": account,
        "BillingAccountType": "API Account", "BillingCurrency": "USD", "BillingPeriodEnd": _time(following),
        "BillingPeriodStart": _time(month), "ChargeCategory": "Usage", "ChargeClass": "",
        "ChargeDescription": f"{meter} of {model}, {charge.tier}", "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _time(datetime.fromtimestamp(charge.day + _DAY_S, UTC)), "ChargePeriodStart": _time(began),
        "CommitmentDiscountStatus": "",
        "ConsumedQuantity": _number(Decimal(part.units)), "ConsumedUnit": consumed,
        "ContractedCost": _number(contracted * quantity), "ContractedUnitPrice": _number(contracted),
        "EffectiveCost": booked, "HostProviderName": host, "InvoiceDetailId": "", "InvoiceId": "",
        "InvoiceIssuerName": provider, "ListCost": _number(listed * quantity), "ListUnitPrice": _number(listed),
        "PricingCategory": "Standard", "PricingCurrency": "USD",
        "PricingCurrencyContractedUnitPrice": _number(contracted), "PricingCurrencyEffectiveCost": booked,
        "PricingCurrencyListUnitPrice": _number(listed), "PricingQuantity": _number(quantity),
        "PricingUnit": unit, "RegionId": "", "RegionName": "", "ServiceCategory": "AI and Machine Learning",
        "ServiceName": service, "ServiceProviderName": provider, "ServiceSubcategory": "Generative AI", "SkuId": sku,
        "SkuMeter": meter, "SkuPriceDetails": _json({
            "x_ModelDeveloper": provider, "x_ModelId": model, "x_ServiceTier": charge.tier, "x_TokenType": part.meter,
        }), "SkuPriceId": f"{sku}/{charge.tier}", "SubAccountId": "", "SubAccountName": "", "SubAccountType": "",
        "Tags": _json(tags), "x_BookingStatus": charge.status, "x_Requests": str(charge.calls),
    }  # fmt: skip
    if version == "1.2":
        row |= {"ProviderName": provider, "PublisherName": provider}
        for name in _SINCE_1_3:
            del row[name]
    return dict(sorted(row.items()))


def _quantity(part: _Part) -> tuple[Decimal, str, int, str]:
    """What is priced, its unit, how many make one unit, and what is counted."""
    if part.meter == "web_searches":
        return Decimal(part.units) / _THOUSAND, "1000 Requests", _THOUSAND, "Requests"
    if part.meter == _REQUESTS:
        return Decimal(part.units), "Requests", 1, "Requests"
    return Decimal(part.units) / _MILLION, "1000000 Tokens", _MILLION, "Tokens"


def _tags(scopes: tuple[str, ...]) -> dict[str, Any]:
    """The scopes of a call as tags: ``team``, ``user`` … ; a second name of one kind is a tag without a value."""
    tags: dict[str, Any] = {}
    for scope in scopes:
        kind, _, name = scope.partition(":")
        if not name or kind in {"model", "provider"}:
            continue
        if kind == "tag" or kind in tags:
            tags[f"{kind}/{unquote(name)}"] = True
        else:
            tags[kind] = unquote(name)
    return tags


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"), sort_keys=True)


def _usd(nano: int) -> str:
    return _number(Decimal(nano) / 10**9)


def _number(value: Decimal) -> str:
    """A number as NumericFormat has it: no exponent; with a point, so that a column of whole ones is decimal too."""
    text = f"{value:f}".rstrip("0") if "." in f"{value:f}" else f"{value:f}."
    return f"{text}0" if text.endswith(".") else text


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
