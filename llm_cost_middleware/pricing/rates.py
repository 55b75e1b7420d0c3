"""Compiled rates: integer pico-dollars per token, flat, so that a cost is a handful of multiplications.

Pure: no clock, no files, no floats. ``catalogue`` compiles; this module only computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import NamedTuple

from llm_cost_middleware.errors import PriceNotFoundError
from llm_cost_middleware.money import NanoUSD, ceil_picousd
from llm_cost_middleware.usage import TokenUsage


class Level(NamedTuple):
    """Prices at one context length, in pico-dollars (1e-12 USD) per token; the fields are ``TokenUsage``'s buckets."""

    above: int
    """Input tokens above which the level applies, to every token of the request."""
    uncached_input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    cache_write_30m: int
    cache_write_12h: int
    output: int
    audio_input: int | None
    """``None``: no known price for audio, so audio cannot be priced."""
    audio_cache_read: int | None
    audio_output: int | None
    web_searches: int
    """Pico-dollars per search."""


REQUEST_FEE = "request"
"""Among the fees: what each answer costs, of a model that searches every time."""
_BUCKETS = Level._fields[1:]
_tokens = attrgetter(*_BUCKETS)
_WRITES = {name.rpartition("_")[2]: name for name in _BUCKETS if name.startswith("cache_write_")}
_AUDIO = ("audio_input", "audio_cache_read", "audio_output")


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices of a model at one time, tier, speed and place.

    Args:
        provider: Name of the provider.
        model: Name of the model in the catalogue.
        levels: By context length, ascending; the first is above 0.
        fees: Pico-dollars per call of the provider's own tools, by the type of the call.
        notes: Assumptions that were needed, because of which the bill may differ. Usually empty.
    """

    provider: str
    model: str
    levels: tuple[Level, ...]
    fees: Mapping[str, int]
    notes: tuple[str, ...] = ()
    contract: str = ""
    """The contract, and what it takes off the list price, such as ``openai -15%``; empty: this is the list price."""
    _highest: dict[tuple[int, tuple[str, ...]], tuple[int, int]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    """``max_picousd`` by the number of levels that can apply and the cache writes: every quote asks for it."""

    @property
    def long_context_from(self) -> int | None:
        """Input tokens above which a higher level begins; ``None`` for a flat price."""
        return self.levels[1].above if len(self.levels) > 1 else None

    def most_times(self, other: Rates) -> float:
        """How many times the price of ``other`` a token costs here, at most."""
        pairs = zip(self.levels, other.levels, strict=False)
        prices = [each for a, b in pairs for each in ((a.uncached_input, b.uncached_input), (a.output, b.output))]
        return max((high / low for high, low in prices if low), default=1.0)

    def level(self, input_tokens: int) -> Level:
        """Return the level for ``input_tokens`` of input, cached ones included."""
        found = self.levels[0]
        for level in self.levels[1:]:
            if input_tokens <= level.above:
                break
            found = level
        return found

    def picousd(self, usage: TokenUsage, *, short: bool = False) -> int:
        """Return the cost of ``usage`` in pico-dollars, exactly.

        Args:
            usage: Consumed tokens by bucket.
            short: Price at the shortest context, whatever the count: for a count that sums several turns.

        Raises:
            PriceNotFoundError: It has audio tokens and the model has no known price for audio.
        """
        at = self.levels[0] if short or len(self.levels) == 1 else self.level(usage.input_tokens)
        total = usage.uncached_input * at.uncached_input + usage.output * at.output
        if usage.cache_read:
            total += usage.cache_read * at.cache_read
        if usage.cache_write_5m or usage.cache_write_1h or usage.cache_write_30m or usage.cache_write_12h:
            total += (
                usage.cache_write_5m * at.cache_write_5m
                + usage.cache_write_1h * at.cache_write_1h
                + usage.cache_write_30m * at.cache_write_30m
                + usage.cache_write_12h * at.cache_write_12h
            )
        if usage.web_searches:
            total += usage.web_searches * at.web_searches
        # Audio apart: its prices may be unknown, which must raise only if there is audio.
        if usage.audio_input or usage.audio_output or usage.audio_cache_read:
            total += sum(getattr(usage, name) * self._audio(at, name) for name in _AUDIO if getattr(usage, name))
        return total

    def cost(self, usage: TokenUsage) -> NanoUSD:
        """Return the cost of ``usage``, rounded up once. Raises like ``picousd``."""
        return ceil_picousd(self.picousd(usage))

    def cost_with_output(self, usage: TokenUsage, output_tokens: int) -> NanoUSD:
        """Return the cost of ``usage`` with at least ``output_tokens`` of output: the most a cut stream can cost."""
        whole = replace(usage, output=max(usage.output, output_tokens))
        return ceil_picousd(self.picousd(whole) + self.fees.get(REQUEST_FEE, 0))

    def components(self, usage: TokenUsage, *, short: bool = False) -> dict[str, int]:
        """Return the cost by bucket in pico-dollars, without empty buckets; the sum is ``picousd``. Raises like it."""
        at = self.levels[0] if short or len(self.levels) == 1 else self.level(usage.input_tokens)
        parts: dict[str, int] = {}
        for name, tokens in zip(_BUCKETS, _tokens(usage), strict=True):
            if tokens:
                parts[name] = tokens * (self._audio(at, name) if name in _AUDIO else getattr(at, name))
        return parts

    def max_picousd(
        self, input_tokens: int, writes: tuple[str, ...] = (), *, audio: bool = False, audio_output: bool = False
    ) -> tuple[int, int]:
        """Return the highest prices of one input and one output token in a request of at most ``input_tokens``.

        Args:
            input_tokens: Upper bound of the request's input; levels above it cannot apply.
            writes: Lifetimes of the cache writes that may happen: ``5m``, ``1h``, ``30m``, ``12h``.
            audio: The request contains audio.
            audio_output: The answer may be audio.

        Raises:
            PriceNotFoundError: Audio without a known price for it.
        """
        levels = self.levels
        applies = len(levels)
        while applies > 1 and levels[applies - 1][0] >= input_tokens:
            applies -= 1  # levels ascend, and the first always applies
        if not (audio or audio_output) and (found := self._highest.get((applies, writes))) is not None:
            return found
        inward = outward = 0
        # A shorter context may have the higher price of a bucket, so every level that can apply is looked at.
        for level in levels[:applies]:
            inward = max(inward, level.uncached_input, level.cache_read)
            for ttl in writes:
                inward = max(inward, getattr(level, _WRITES[ttl]))
            outward = max(outward, level.output)
            if audio:
                inward = max(inward, self._audio(level, "audio_input"))
            if audio_output:
                outward = max(outward, self._audio(level, "audio_output"))
        if not (audio or audio_output):
            self._highest[applies, writes] = inward, outward
        return inward, outward

    def _audio(self, level: Level, name: str) -> int:
        rate: int | None = getattr(level, name)
        if rate is None:
            raise PriceNotFoundError(self.provider, f"{self.model} (audio)")
        return rate
