"""genai-prices as a source: its dated, reviewed prices as plain cards. The only module that imports that package.

Its list is read when the first price is needed, without the package around it where that can be done: importing that
takes ten times as long.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.pricing.cards import KEYS, Card, Price, TieredPrice
from llm_cost_middleware.pricing.genai import types

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

_log = logging.getLogger(__name__)
_LIST = "genai_prices.data"

_TAIL = re.compile(r"(?:[-@.:]?\d{2,}+|[-@](?:latest|preview|exp|v\d++(?::\d++)?))*+")
"""Suffixes after which a name still means the same model: a date, a version, ``latest``, ``preview``.

Possessive: a name may be a client's, and a long run of digits could be divided in endless ways.
"""
_SNAPSHOT = re.compile(r"(.+?)-(?:20\d\d-\d\d-\d\d|20\d{6})")
_LONGEST = 256
"""Characters of a model's name; a longer one is none."""
# Models priced in these units cannot be priced from token counts, so they are left out of the catalogue.
_OTHER_UNITS = frozenset({"input_image_mtok", "audio_hours", "input_audio_hours", "input_mchars"})


class Period(NamedTuple):
    """Card with the moment it begins, in seconds since the epoch."""

    start: float
    card: Card


class Variant(NamedTuple):
    """Prices on another term, such as ``("service_tier", "flex")``, and the moment since which they are recorded."""

    when: tuple[str, str]
    start: float
    card: Card


class Listing(NamedTuple):
    """Prices and context window of one model in a source."""

    id: str
    periods: tuple[Period, ...]
    variants: tuple[Variant, ...]
    context_window: int | None

    def standard(self, at: float) -> Card:
        """Return the card of standard processing at a moment; before the first period, the first."""
        card = self.periods[0].card
        for period in self.periods:
            if period.start <= at:
                card = period.card
        return card


class GenaiPrices:
    """Snapshot of prices: the one in the installed genai-prices or, with ``update``, the one it publishes."""

    def __init__(self, *, update: bool | str = False) -> None:
        providers, self.version = _bundled() if not update else _published(update)
        self._providers = {p.id: p for p in providers}

    def names(self, provider: str) -> tuple[str, ...]:
        """Return the ids of the models priced in tokens, without ids that mean another model."""
        known = self._providers.get(provider)
        models = known.models if known else ()
        return tuple(m.id for m in models if _in_tokens(m) and _is_same_model(m.match, m.id.lower()))

    def find(self, provider: str, model: str) -> Listing | None:
        """Return the listing of a model, by any of its names; ``None`` if there is none, or not in tokens."""
        known = self._providers.get(provider)
        found = known.find_model(model) if known and len(model) <= _LONGEST else None
        if found is None or not _in_tokens(found) or not _is_same_model(found.match, model.lower()):
            return None
        return Listing(
            found.id,
            tuple(_periods(found)),
            tuple(
                Variant(next(iter(v.when.items())), _start(v.constraint), _card(v.prices))
                for v in found.price_variants or ()
                if len(v.when) == 1  # rates are looked up by one term at a time
            ),
            found.context_window,
        )


@cache
def installed_version() -> str:
    """Return the version of genai-prices, without importing it; ``unknown`` where it has no metadata."""
    # Not an error here: a price that is needed fails by itself, with the command that installs the package.
    try:
        return version("genai-prices")
    except PackageNotFoundError:
        return "unknown"


def _bundled() -> tuple[Iterable[Any], str]:
    if _LIST not in sys.modules:
        with suppress(Exception):  # it is written in another way, or not installed: the import says so
            return _read_list(), installed_version()
    with needed_for("a price"):
        from genai_prices.data import providers
    return providers, installed_version()


def _read_list() -> Any:
    """Run the installed list with the records of ``types`` here in place of genai-prices' own."""
    package: Any = find_spec("genai_prices")
    spec: Any = PathFinder.find_spec(_LIST, package.submodule_search_locations)
    read: dict[str, Any] = {"__name__": _LIST, "__package__": __name__}
    exec(spec.loader.get_code(_LIST), read)  # noqa: S102 - the module that an import would run
    return read["providers"]


def _published(update: bool | str) -> tuple[Iterable[Any], str]:
    """Fetch the snapshot that the project publishes today; the bundled one if that fails."""
    with needed_for("a price"):
        from genai_prices import UpdatePrices

    updater = UpdatePrices() if isinstance(update, bool) else UpdatePrices(url=update)
    try:
        snapshot = updater.fetch()
    except Exception as error:  # noqa: BLE001  any network or data fault: the shipped prices are still right
        _log.warning("prices could not be updated (%s); using the installed snapshot", type(error).__name__)
        snapshot = None
    if snapshot is None:
        return _bundled()
    # A digest in the version, because two fetches on two days may differ under one package version.
    digest = hashlib.sha256(repr([(p.id, p.models) for p in snapshot.providers]).encode()).hexdigest()
    return snapshot.providers, f"{installed_version()}~{digest[:8]}"


def _periods(model: ModelInfo) -> Iterator[Period]:
    if not isinstance(model.prices, list):
        yield Period(float("-inf"), _card(model.prices))
        return
    for conditional in model.prices:
        yield Period(_start(conditional.constraint), _card(conditional.prices))


def _start(constraint: Any) -> float:
    day = getattr(constraint, "start_date", None)
    return float("-inf") if day is None else datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def _card(prices: ModelPrice) -> Card:
    return {key: _price(value) for key, value in _by_name(prices).items() if value is not None and key in KEYS}


def _by_name(prices: Any) -> Mapping[str, Any]:
    """Prices of either kind: as they are read here, or of genai-prices itself."""
    return prices if isinstance(prices, dict) else vars(prices)


def _price(value: Any) -> Price:
    if isinstance(value, Decimal):
        return value
    return TieredPrice(value.base, tuple(sorted((tier.start, tier.price) for tier in value.tiers)))


def _in_tokens(model: ModelInfo) -> bool:
    cards = model.prices if isinstance(model.prices, list) else [model]
    priced = [{key for key, value in _by_name(c.prices).items() if value is not None} for c in cards]
    return all("input_mtok" in keys and not _OTHER_UNITS & keys for keys in priced)


def _is_same_model(clause: Any, model: str) -> bool:
    """Return whether a matching name, in lower case, means this model: ``claude-sonnet-4-5-any`` is not Sonnet 4.5."""
    if hasattr(clause, "or_"):
        return any(_is_same_model(inner, model) for inner in clause.or_)
    if hasattr(clause, "starts_with"):
        head = clause.starts_with.lower()
        return model.startswith(head) and (head.startswith("ft:") or names_model(head, model))
    if hasattr(clause, "contains"):
        return False  # "contains" would also match a fine-tuned or renamed model with another price
    return bool(clause.is_match(model)) or bool(clause.is_match(types.dashed(model)))


def names_model(model: str, ref: str) -> bool:
    """Return whether ``ref`` is ``model``, or that with a date, a version, ``latest`` or ``preview`` after it."""
    return ref.startswith(model) and _TAIL.fullmatch(ref, len(model)) is not None


def family_of(model: str) -> str | None:
    """The model of which a dated name is a snapshot; ``None`` for a name without a date."""
    found = _SNAPSHOT.fullmatch(model) if len(model) <= _LONGEST else None
    return found[1] if found else None
