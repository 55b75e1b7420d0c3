"""Models the simulated providers know: names, limits, abilities and prices, read from ``prices/*.toml``."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any, Literal

ProviderName = Literal["anthropic", "openai"]

_PICO_PER_TOKEN = 1_000_000  # one dollar a million tokens is a million pico-dollars a token


@dataclass(frozen=True, slots=True)
class RateCard:
    """Pico-dollars a token, by bucket."""

    input: int
    read: int
    write: int
    write_1h: int
    output: int


@dataclass(frozen=True, slots=True)
class SimModel:
    """One model as its provider serves it; `id` is the dated name that answers carry."""

    id: str
    provider: ProviderName
    window: int
    max_output: int
    rates: Mapping[str, RateCard] = field(repr=False)  # standard, batch, flex, priority, fast, each with *_long
    web_search_nanousd: int
    long_above: int = 0  # prompts longer than this pay the *_long card for every token; 0: no such tier
    cache_min: int = 1024
    cache: Literal["steps", "breakpoints", "marks", "none"] = "steps"
    geo: bool = False  # knows inference_geo
    reasons: bool = False

    def card(self, tier: str, prompt_tokens: int) -> RateCard:
        """Return the rates of a request: the tier's own card, the long one where the prompt is above the threshold."""
        base = tier if tier in self.rates else "standard"
        if self.long_above and prompt_tokens > self.long_above:
            return self.rates.get(base + "_long", self.rates[base])
        return self.rates[base]


@lru_cache(maxsize=1)
def catalogue() -> Mapping[str, SimModel]:
    """Every model by each of its names, dated and alias."""
    names: dict[str, SimModel] = {}
    for provider in ("anthropic", "openai"):
        table = tomllib.loads(files(__package__).joinpath("prices", f"{provider}.toml").read_text("utf-8"))
        search = int(Decimal(table["web_search"]) * 1_000_000_000)
        for name, row in table["models"].items():
            model = _model(name, provider, search, row)
            names.update(dict.fromkeys((name, *row.get("aliases", ())), model))
    return names


def _model(name: str, provider: str, search: int, row: Mapping[str, Any]) -> SimModel:
    known: dict[str, Any] = {key: row[key] for key in row.keys() - {"aliases", "rates"}}
    if provider == "anthropic":
        known["cache"] = "marks"
    cards = {tier: _card(prices) for tier, prices in row["rates"].items()}
    return SimModel(id=name, provider=provider, rates=cards, web_search_nanousd=search, **known)  # type: ignore[arg-type]  # the loop above yields the two literals


def _card(prices: Mapping[str, str]) -> RateCard:
    pico = {bucket: int(Decimal(price) * _PICO_PER_TOKEN) for bucket, price in prices.items()}
    return RateCard(**{bucket: pico.get(bucket, pico["input"]) for bucket in RateCard.__slots__})
