"""Events to OpenTelemetry: a span for each attempt, under the span of the caller, and metrics over all.

Only the API is used: spans and metrics go wherever the application's own SDK sends them. Names are those of the GenAI
conventions (https://github.com/open-telemetry/semantic-conventions-genai); what has none there stands under
``llm_cost.``, money above all. No text of a prompt or an answer is recorded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from llm_cost_middleware.events import CallFailed, Event, Reserved, Settled, Voided
from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.observers.metrics import (
    DIMENSIONS,
    DURATION_BUCKETS,
    MOST,
    NAME,
    TOKEN_BUCKETS,
    CostMetrics,
)
from llm_cost_middleware.tracker import CostRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from llm_cost_middleware.budget.rules import ScopeBalance

_OPEN = 10_000  # attempts in flight that are remembered
_NANOSECONDS = 1_000_000_000


class _Begun(NamedTuple):
    event: Reserved
    context: Context
    """Of the caller: a stream may be settled where his span is no longer the current one."""


class OpenTelemetryObserver:
    """A span for every attempt that was sent, with its tokens and its cost, and metrics over all.

    Args:
        tracer_provider: Where spans go; the global provider, if ``None``.
        meter_provider: Where metrics go; the global provider, if ``None``.
        dimensions: Kinds of scopes that become attributes of the metrics (``llm_cost.team``). Spans have every scope.
        most_values: Values of each dimension that metrics tell apart; the rest is ``other``.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        dimensions: Iterable[str] = DIMENSIONS,
        most_values: int = MOST,
    ) -> None:
        with needed_for("OpenTelemetryObserver"):
            from opentelemetry import context, metrics, trace
        self._trace, self._context = trace, context
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens by type.", explicit_bucket_boundaries_advisory=TOKEN_BUCKETS
        )
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Attempts by length.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )  # fmt: skip
        self.metrics = CostMetrics(meter_provider, dimensions=dimensions, most_values=most_values)
        self._open: OrderedDict[tuple[str, int], _Begun] = OrderedDict()

    def watch_ledger(self, balances: Callable[[], Iterable[ScopeBalance]]) -> None:
        """Say where the gauges of budgets are read; the pipeline does."""
        self.metrics.watch_ledger(balances)

    def on_record(self, record: CostRecord) -> None:
        """Add what was booked."""
        self.metrics.on_record(record)

    def on_event(self, event: Event) -> None:
        """Record ``event``."""
        if isinstance(event, Reserved):
            self._open[event.call_id, event.attempt] = _Begun(event, self._context.get_current())
            # Attempts that never end, because their stream was lost, must not pile up: the oldest makes room.
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        elif isinstance(event, Settled):
            self._settled(event)
        elif isinstance(event, Voided):
            self._span(event.call_id, event.attempt, event.model, event.at, {}, error=(event.kind, event.reason))
        elif isinstance(event, CallFailed):
            self._open.pop((event.call_id, event.attempts), None)
        self.metrics.on_event(event)

    def _settled(self, event: Settled) -> None:
        attributes: dict[str, Any] = {
            "llm_cost.cost_usd": float(event.amount_nanousd.usd),  # a telemetry value; the ledger keeps the exact one
            "llm_cost.status": event.status,
            "llm_cost.reservation_id": event.reservation_id,
            "gen_ai.response.model": event.model.partition("/")[2] or event.model,
        }
        if event.response_id:
            attributes["gen_ai.response.id"] = event.response_id
        if event.usage is not None:
            usage = event.usage
            attributes |= {
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cache_read + usage.audio_cache_read,
                "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
                "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
            }
            begun = self._open.get((event.call_id, event.attempt))
            who = _who(event.model, begun) | {"gen_ai.request.model": self._named(event.model)}
            self._tokens.record(usage.input_tokens, {**who, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, {**who, "gen_ai.token.type": "output"})
        error = (event.failure, "") if event.failure else None
        self._span(event.call_id, event.attempt, event.model, event.at, attributes, error=error, scopes=event.scopes)

    def _named(self, model: str) -> str:
        return self.metrics.bounded("model", model.partition("/")[2] or model)

    def _span(
        self,
        call_id: str,
        attempt: int,
        model: str,
        at: float,
        attributes: dict[str, Any],
        *,
        error: tuple[str, str] | None = None,
        scopes: tuple[str, ...] = (),
    ) -> None:
        begun = self._open.pop((call_id, attempt), None)
        # Without a reservation (it did not fit, in observe mode) the start is unknown: an empty span is true, a guess
        # is not.
        started = begun.event.at if begun is not None else at
        who = _who(begun.event.model if begun is not None else model, begun)
        counted = who | {"gen_ai.request.model": self._named(model)}
        self._duration.record(max(at - started, 0.0), {**counted, **({"error.type": error[0]} if error else {})})
        span = self._tracer.start_span(
            f"{who['gen_ai.operation.name']} {who['gen_ai.request.model']}",
            context=begun.context if begun is not None else None,
            kind=self._trace.SpanKind.CLIENT,
            start_time=int(started * _NANOSECONDS),
            attributes={**who, "llm_cost.call_id": call_id, "llm_cost.attempt": attempt, **attributes},
        )
        span.set_attributes(_scopes(scopes or (begun.event.scopes if begun is not None else ())))
        if begun is not None:
            span.set_attribute("llm_cost.reserved_usd", float(begun.event.amount_nanousd.usd))
            if begun.event.max_tokens is not None:
                span.set_attribute("gen_ai.request.max_tokens", begun.event.max_tokens)
        if error is not None:
            kind, reason = error
            span.set_attribute("error.type", kind)  # few values, as the conventions ask
            span.set_status(self._trace.StatusCode.ERROR, reason or None)
        span.end(end_time=int(at * _NANOSECONDS))


def _who(model: str, begun: _Begun | None) -> dict[str, Any]:
    provider, _, name = model.partition("/")
    operation = "embeddings" if begun is not None and begun.event.endpoint == "embeddings" else "chat"
    return {"gen_ai.operation.name": operation, "gen_ai.provider.name": provider, "gen_ai.request.model": name or model}


def _scopes(scopes: tuple[str, ...]) -> dict[str, str]:
    """The scopes of a call by kind, ``llm_cost.team``; several of one kind as one text."""
    found: dict[str, str] = {}
    for scope in scopes:
        kind, _, name = scope.partition(":")
        if name and kind not in {"model", "provider"}:  # which have names in the conventions
            key = f"llm_cost.{kind}"
            found[key] = f"{found[key]},{unquote(name)}" if key in found else unquote(name)
    return found
