"""Events to OpenTelemetry: a span and three metrics per attempt, by the GenAI semantic conventions.

Only the API is used: spans and metrics go wherever the application's own SDK sends them. Names are those of
https://opentelemetry.io/docs/specs/semconv/gen-ai/; what has none there stands under ``llm_cost.``. No text of a prompt
or an answer is recorded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.events import BudgetRefused, CallFailed, Event, Reserved, Retried, Settled, Voided
from llm_cost_middleware.extras import needed_for

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

_NAME = "llm_cost_middleware"
_OPEN = 10_000  # attempts in flight that are remembered
_NANOSECONDS = 1_000_000_000


class OpenTelemetryObserver:
    """A span for every attempt that was sent, with its tokens and its cost, and metrics over all.

    Args:
        tracer_provider: Where spans go; the global provider, if ``None``.
        meter_provider: Where metrics go; the global provider, if ``None``.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        with needed_for("OpenTelemetryObserver"):
            from opentelemetry import metrics, trace
        self._trace = trace
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider)
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens by type.")
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", "s", "Attempts by length.")
        self._cost = meter.create_counter("llm_cost.cost", "{USD}", "US dollars booked.")
        self._refused = meter.create_counter("llm_cost.refused", "{call}", "Calls that did not fit a budget.")
        self._retried = meter.create_counter("llm_cost.retried", "{attempt}", "Attempts that failed and were followed.")
        self._open: OrderedDict[tuple[str, int], Reserved] = OrderedDict()

    def on_event(self, event: Event) -> None:
        """Record ``event``."""
        if isinstance(event, Reserved):
            self._open[event.call_id, event.attempt] = event
            # Attempts that never end, because their stream was lost, must not pile up: the oldest makes room.
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        elif isinstance(event, Settled):
            self._settled(event)
        elif isinstance(event, Voided):
            self._span(event.call_id, event.attempt, event.model, event.at, {}, error=(event.kind, event.reason))
        elif isinstance(event, Retried):
            self._retried.add(1, {**_who(event.model), "error.type": event.kind})
        elif isinstance(event, BudgetRefused):
            self._refused.add(1, {**_who(event.model), "llm_cost.enforced": event.enforced})
        elif isinstance(event, CallFailed):
            self._open.pop((event.call_id, event.attempts), None)

    def _settled(self, event: Settled) -> None:
        attributes: dict[str, Any] = {
            "llm_cost.cost_usd": float(event.amount_nanousd.usd),  # a telemetry value; the ledger keeps the exact one
            "llm_cost.status": event.status,
            "llm_cost.reservation_id": event.reservation_id,
        }
        who = _who(event.model)
        if event.response_id:
            attributes["gen_ai.response.id"] = event.response_id
        if event.usage is not None:
            usage = event.usage
            attributes |= {
                "gen_ai.usage.input_tokens": usage.input_tokens,
                "gen_ai.usage.output_tokens": usage.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cache_read + usage.audio_cache_read,
                "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
            }
            self._tokens.record(usage.input_tokens, {**who, "gen_ai.token.type": "input"})
            self._tokens.record(usage.output_tokens, {**who, "gen_ai.token.type": "output"})
        self._cost.add(float(event.amount_nanousd.usd), {**who, "llm_cost.status": event.status})
        self._span(event.call_id, event.attempt, event.model, event.at, attributes)

    def _span(
        self,
        call_id: str,
        attempt: int,
        model: str,
        at: float,
        attributes: dict[str, Any],
        *,
        error: tuple[str, str] | None = None,
    ) -> None:
        begun = self._open.pop((call_id, attempt), None)
        # Without a reservation (it did not fit, in observe mode) the start is unknown: an empty span is true, a guess
        # is not.
        started = begun.at if begun is not None else at
        who = _who(model)
        self._duration.record(max(at - started, 0.0), {**who, **({"error.type": error[0]} if error else {})})
        span = self._tracer.start_span(
            f"chat {who['gen_ai.request.model']}",
            kind=self._trace.SpanKind.CLIENT,
            start_time=int(started * _NANOSECONDS),
            attributes={**who, "llm_cost.call_id": call_id, "llm_cost.attempt": attempt, **attributes},
        )
        if begun is not None:
            span.set_attribute("llm_cost.reserved_usd", float(begun.amount_nanousd.usd))
            if begun.max_tokens is not None:
                span.set_attribute("gen_ai.request.max_tokens", begun.max_tokens)
        if error is not None:
            kind, reason = error
            span.set_attribute("error.type", kind)  # few values, as the conventions ask
            span.set_status(self._trace.StatusCode.ERROR, reason)
        span.end(end_time=int(at * _NANOSECONDS))


def _who(model: str) -> dict[str, Any]:
    provider, _, name = model.partition("/")
    return {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": name or model}
