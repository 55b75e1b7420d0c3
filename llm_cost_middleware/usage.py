"""Usage: tokens in disjoint buckets, so that a cost is a plain sum of products, and what a response reports of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from msgspec import Struct, structs

from llm_cost_middleware.errors import UnreadableUsageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What one billed item consumed. Every token stands in exactly one bucket, except ``reasoning``.

    Providers disagree on what "input tokens" contain: Anthropic reports them without the cached part, OpenAI and
    LangChain with it. The readers in ``providers`` convert once; the inclusive totals of OpenTelemetry's GenAI
    conventions are properties here.

    Raises:
        ValueError: A count is negative or not an integer.
    """

    uncached_input: int = 0
    """Text and image tokens read at the full price."""
    cache_read: int = 0
    """Tokens read from a prompt cache."""
    cache_write_5m: int = 0
    """Tokens written to a cache that lives five minutes (Anthropic)."""
    cache_write_1h: int = 0
    """Tokens written to a cache that lives an hour (Anthropic)."""
    cache_write_30m: int = 0
    """Tokens written to a cache that lives thirty minutes (OpenAI, GPT-5.6 and later)."""
    cache_write_12h: int = 0
    """Tokens written to a cache that lives twelve hours (OpenAI, GPT-5.6 and later)."""
    output: int = 0
    """Text tokens produced, reasoning included."""
    reasoning: int = 0
    """The part of ``output`` that was reasoning: information, not a bucket of its own."""
    audio_input: int = 0
    """Uncached audio tokens read."""
    audio_cache_read: int = 0
    """Audio tokens read from a prompt cache."""
    audio_output: int = 0
    """Audio tokens produced."""
    web_searches: int = 0
    """Web searches billed by the request (a count, not tokens)."""

    def __post_init__(self) -> None:
        try:  # one negative count makes the whole expression negative; what is no integer cannot be or-ed
            sound = (
                self.uncached_input | self.cache_read | self.cache_write_5m | self.cache_write_1h
                | self.cache_write_30m | self.cache_write_12h | self.output | self.reasoning
                | self.audio_input | self.audio_cache_read | self.audio_output | self.web_searches
            ) >= 0  # fmt: skip
        except TypeError:
            sound = False
        if not sound:
            wrong = {name: getattr(self, name) for name in _NAMES}
            raise ValueError(f"counts must be non-negative integers: {wrong}")

    @property
    def cache_write(self) -> int:
        """Tokens written to any cache."""
        return self.cache_write_5m + self.cache_write_1h + self.cache_write_30m + self.cache_write_12h

    @property
    def input_tokens(self) -> int:
        """All input tokens, cached and written ones included (``gen_ai.usage.input_tokens``)."""
        return self.uncached_input + self.cache_read + self.cache_write + self.audio_input + self.audio_cache_read

    @property
    def output_tokens(self) -> int:
        """All output tokens, reasoning and audio included (``gen_ai.usage.output_tokens``)."""
        return self.output + self.audio_output

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(*(getattr(self, name) + getattr(other, name) for name in _NAMES))


_NAMES = tuple(field.name for field in fields(TokenUsage))

NO_USAGE = TokenUsage()


class BilledItem(NamedTuple):
    """One item on the provider's bill: a response has one, or several where it compacted, advised or fell back."""

    usage: TokenUsage
    model: str | None = None
    """The model that this item is billed at, as the response names it; ``None``: the response's own."""
    kind: str = "message"


class UsageReport(Struct, frozen=True, gc=False):
    """The usage that a response reports. No items and no error means unknown, never zero."""

    items: tuple[BilledItem, ...] = ()
    model: str | None = None
    """The model that answered, as the response names it."""
    response_id: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    geo: str | None = None
    batch: bool = False
    complete: bool = False
    """The provider finished the answer and reported its final usage."""
    finish_reason: str | None = None
    error: str | None = None
    """An error in the response's place (or at its end), in the provider's words."""
    pending: bool = False
    """The provider still works on the answer: its usage comes with the answer that is retrieved by ``response_id``."""
    unbilled: bool = False
    """Nothing is billed for it: an error response, a local cache hit, a count of tokens."""
    tool_calls: Mapping[str, int] | None = None
    """Provider-side tool calls that carry a fee of their own, by the provider's item type."""
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """Why the counts may not be the whole bill: its price is then an estimate."""
    served_by: tuple[str, str] | None = None
    """Provider and model that were asked, where a host chose among several; ``None``: those of the attempt."""
    prices: Any = None
    """The catalogue of prices that holds where a host chose among several; ``None``: that of the attempt."""
    in_vain: bool = False
    """The call failed on this machine, and another attempt would fail as well."""

    @property
    def truncated(self) -> bool:
        """Whether the answer ends where its output cap, or the context window, cut it off."""
        return self.finish_reason in CUT_OFF

    @property
    def declined(self) -> bool:
        """Whether the provider reports that the model, or a filter of its own, declined to answer."""
        return self.finish_reason in DECLINED

    @property
    def usage(self) -> TokenUsage:
        """All items together: for reports, not for pricing."""
        # Almost every answer: no sum is built.
        if len(self.items) == 1:
            return self.items[0].usage
        total = TokenUsage()
        for item in self.items:
            total = total + item.usage
        return total


DECLINED = frozenset({"refusal", "content_filter"})  # Anthropic's stop_reason; OpenAI's finish_reason
CUT_OFF = frozenset({"max_tokens", "length", "max_output_tokens", "model_context_window_exceeded"})


_ATTACHED = "_llm_cost_usage"


NOT_SENT = UsageReport(unbilled=True, complete=True, warnings=("nothing was sent",))
"""The usage of an attempt that failed before anything left."""
FAILED_LOCALLY = structs.replace(
    NOT_SENT, warnings=("it failed on this machine before anything was sent",), in_vain=True
)
"""The same where this machine is why, so that another attempt would fail as well."""
LOST_LOCALLY = UsageReport(warnings=("it failed on this machine after it was sent",), in_vain=True)
"""The usage, unknown, of an attempt that failed on this machine after it was sent: it may be billed."""


def read_or_unknown(read: Callable[..., UsageReport], *answer: Any) -> UsageReport:
    """What ``read`` makes of an answer; unknown usage, with the reason, where it raises.

    For the way of a paid answer to its caller: whatever is odd in its usage must not take the answer away.
    """
    try:
        return read(*answer)
    except UnreadableUsageError as error:
        return UsageReport(warnings=(str(error),))
    except Exception as error:  # noqa: BLE001 - a host's own object may raise anything; its text may be the answer's
        _log.error("the usage of an answer could not be read: %s", type(error).__qualname__)
        return UsageReport(warnings=(f"the usage could not be read: {type(error).__qualname__}",))


def without_zero_input(reading: UsageReport) -> UsageReport:
    """A reading without items that count no input: no request has none, so zeros stand for counts that never came."""
    if not reading.items or reading.usage.input_tokens:
        return reading
    return without_items(reading, "it counts no input: no usage was reported")


def without_items(reading: UsageReport, why: str) -> UsageReport:
    """A reading whose counts are not to be believed: its usage is unknown."""
    return structs.replace(reading, items=(), complete=False, warnings=(*reading.warnings, why))


def without_model(reading: UsageReport) -> UsageReport:
    """A reading that is priced by what was asked for, whatever model the answer names."""
    return structs.replace(reading, model=None, items=tuple(item._replace(model=None) for item in reading.items))


def without_zero_output(reading: UsageReport, host: str) -> UsageReport:
    """A reading without items that count no output: such a host writes zero where the provider's count was null."""
    if not reading.items or reading.usage.output_tokens:
        return reading
    return without_items(reading, f"{host} reports no output: its count may be missing")


def attach_usage(error: BaseException, usage: UsageReport) -> None:
    """Attach to an exception the usage of the answer that it stands for: a host could not parse what was billed.

    Called by a host's ``send``; the call is then booked at this usage. An exception that takes no attributes is left
    as it is, and the call is booked at its reservation.
    """
    # An exception with slots takes no attribute, and must still reach its caller.
    if hasattr(error, "__dict__"):
        vars(error)[_ATTACHED] = usage


def attached_usage(error: BaseException) -> UsageReport | None:
    """The usage attached to an exception; ``None`` without one."""
    usage = getattr(error, _ATTACHED, None)
    return usage if isinstance(usage, UsageReport) else None
