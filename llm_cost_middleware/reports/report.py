"""The answer: lines of sums, their total, and what stands in several lines at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_cost_middleware.money import DisplayCurrency, NanoUSD, floor_picousd, format_usd
from llm_cost_middleware.reports import exports
from llm_cost_middleware.usage import TokenUsage

if TYPE_CHECKING:
    import os

OTHER = "other"
"""The name of the line that stands for all that are not among the ``top``."""


@dataclass(slots=True)
class Sums:
    """Sums of some calls. Money is in nano-dollars; ``None`` is not known, which is never zero."""

    calls: int = 0
    tokens: list[int] = field(default_factory=lambda: [0] * 12)
    """By bucket, in the order of ``TokenUsage``."""
    cost_nanousd: int = 0
    estimated_nanousd: int = 0
    unconfirmed_nanousd: int = 0
    unpriced: int = 0
    refused: int | None = 0
    list_picousd: int | None = None
    caching_picousd: int | None = None
    routing_picousd: int | None = None

    def add(self, other: Sums, times: int = 1) -> None:
        """Add the sums of other calls, ``times`` over."""
        self.calls += times * other.calls
        self.tokens = [mine + times * more for mine, more in zip(self.tokens, other.tokens, strict=True)]
        self.cost_nanousd += times * other.cost_nanousd
        self.estimated_nanousd += times * other.estimated_nanousd
        self.unconfirmed_nanousd += times * other.unconfirmed_nanousd
        self.unpriced += times * other.unpriced
        self.refused = _sum(self.refused, other.refused, times) if None not in (self.refused, other.refused) else None
        self.list_picousd = _sum(self.list_picousd, other.list_picousd, times)
        self.caching_picousd = _sum(self.caching_picousd, other.caching_picousd, times)
        self.routing_picousd = _sum(self.routing_picousd, other.routing_picousd, times)

    @property
    def usage(self) -> TokenUsage:
        """Tokens by bucket."""
        return TokenUsage(*self.tokens)


def _sum(mine: int | None, more: int | None, times: int = 1) -> int | None:
    return mine if more is None else (mine or 0) + times * more


def _usd(nano: int) -> Decimal:
    return NanoUSD(nano).usd


def _pico(pico: int | None) -> Decimal | None:
    return None if pico is None else floor_picousd(pico).usd


MEASURES = (
    "calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
    "web_searches", "cost_usd", "list_usd", "cache_saving_usd", "routing_saving_usd", "estimated_usd",
    "unconfirmed_usd", "unpriced_calls", "refused_calls",
)  # fmt: skip
"""The measures of a line, in their order. ``input_tokens`` counts every input token, cached and written ones too."""


class ReportRow(NamedTuple):
    """A line of a report."""

    keys: tuple[str | None, ...]
    """The values of the dimensions, in their order; ``None``: these calls have none."""
    sums: Sums

    @property
    def cost_usd(self) -> Decimal:
        """US dollars."""
        return _usd(self.sums.cost_nanousd)

    @property
    def cost_nanousd(self) -> NanoUSD:
        """Nano-dollars."""
        return NanoUSD(self.sums.cost_nanousd)

    def measures(self) -> dict[str, Any]:
        """The measures by name: whole numbers, ``Decimal`` US dollars, ``None`` where unknown."""
        sums, usage = self.sums, self.sums.usage
        values = (
            sums.calls, usage.input_tokens, usage.cache_read + usage.audio_cache_read, usage.cache_write,
            usage.output_tokens, usage.reasoning, usage.web_searches, _usd(sums.cost_nanousd), _pico(sums.list_picousd),
            _pico(sums.caching_picousd), _pico(sums.routing_picousd), _usd(sums.estimated_nanousd),
            _usd(sums.unconfirmed_nanousd), sums.unpriced, sums.refused,
        )  # fmt: skip
        return dict(zip(MEASURES, values, strict=True))


@dataclass(frozen=True, slots=True)
class Report:
    """Answer to a question. Iterating it gives its rows, the dearest first; ``over`` time they stand in its order.

    The rows add up to ``total`` and ``shared`` together: a call with two tags stands in the line of each, the total
    counts it once, and ``shared`` holds what the lines count more often.
    """

    columns: tuple[str, ...]
    """Names of the dimensions: ``over`` first, where time was asked for."""
    rows: tuple[ReportRow, ...]
    total: ReportRow
    shared: ReportRow
    since: float | None
    """Seconds since the Unix epoch; ``None``: from the beginning."""
    until: float | None
    notes: tuple[str, ...] = ()
    currency: DisplayCurrency | None = None
    """What ``shown`` writes amounts in; its rate stands in ``notes``. ``None``: US dollars."""

    def __iter__(self) -> Iterator[ReportRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def shown(self, usd: Decimal) -> str:
        """An amount of US dollars for people, in the display currency of the configuration."""
        return format_usd(usd) if self.currency is None else self.currency.format(usd)

    def spend(self) -> Mapping[str | tuple[str | None, ...] | None, Decimal]:
        """US dollars by the value of the dimension, or by the tuple of values where several were asked for."""
        return {row.keys[0] if len(row.keys) == 1 else row.keys: row.cost_usd for row in self.rows}

    def to_dicts(self) -> list[dict[str, Any]]:
        """A mapping for each row: its dimensions, then its measures."""
        return [dict(zip(self.columns, row.keys, strict=True)) | row.measures() for row in self.rows]

    def to_json(self) -> str:
        """The rows, the total and the period as JSON; amounts are text, exact."""
        return exports.to_json(self)

    def to_csv(self) -> str:
        """The rows as CSV (RFC 4180), amounts exact. No cell begins as a formula or holds a control character."""
        return exports.to_csv(self)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the rows to a Parquet file. Raises ``MissingExtraError`` without pyarrow."""
        exports.to_parquet(self, path)

    def dataframe(self) -> Any:
        """The rows as a dataframe of pandas or, where that is not installed, of polars; amounts are ``Decimal``.

        Raises:
            MissingExtraError: Neither is installed.
        """
        return exports.dataframe(self)
