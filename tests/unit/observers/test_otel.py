"""Spans and metrics, by the GenAI conventions, through OpenTelemetry's own SDK."""

import pytest

from llm_cost_middleware import CostConfig, CostPipeline, CostTracker, process
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.testing import FakeClock

pytest.importorskip("opentelemetry.sdk", reason="needs the otel extra: opentelemetry-sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llm_cost_middleware.observers.otel import OpenTelemetryObserver


def test_every_attempt_is_a_span_with_its_tokens_and_its_cost(sim, clients):
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    observer = OpenTelemetryObserver(tracers, meters)
    sim.script(Fault.status(529, provider="anthropic"))
    pipeline = CostPipeline(CostConfig(), observers=[observer], clock=FakeClock())
    result, _ = process("a secret question", pipeline, CostTracker(), client=clients["anthropic"])

    failed, answered = exporter.get_finished_spans()
    assert failed.name == answered.name == "chat claude-haiku-4-5-20251001"
    assert failed.attributes["error.type"] == "overloaded"
    assert "529" in failed.status.description
    assert answered.attributes["gen_ai.provider.name"] == "anthropic"
    assert answered.attributes["gen_ai.usage.input_tokens"] == result.record.input_tokens
    assert answered.attributes["gen_ai.response.id"] == result.response.id
    assert answered.attributes["llm_cost.cost_usd"] == pytest.approx(float(result.record.cost_usd))
    assert answered.end_time >= answered.start_time >= failed.start_time
    assert "secret" not in str([dict(span.attributes) for span in (failed, answered)])

    scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for scope in scopes for metric in scope.metrics}
    (cost,) = metrics["llm_cost.cost"].data.data_points
    assert cost.value == pytest.approx(float(result.record.cost_usd))
    points = metrics["gen_ai.client.token.usage"].data.data_points
    assert {point.attributes["gen_ai.token.type"] for point in points} == {"input", "output"}
    assert metrics["llm_cost.retried"].data.data_points[0].value == 1


def test_errors_are_distinguished_by_their_kind_on_metrics_too(sim, clients):
    """``error.type`` has few values, whatever the provider's sentences say: a metric has one series for each."""
    reader = InMemoryMetricReader()
    observer = OpenTelemetryObserver(TracerProvider(), MeterProvider([reader]))
    pipeline = CostPipeline(CostConfig(), observers=[observer], clock=FakeClock())
    for status in (529, 503, 502, 500):
        sim.script(Fault.status(status, provider="anthropic"))
        process(f"question {status}", pipeline, CostTracker(), client=clients["anthropic"])
    scopes = reader.get_metrics_data().resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for scope in scopes for metric in scope.metrics}
    points = metrics["gen_ai.client.operation.duration"].data.data_points
    kinds = {point.attributes["error.type"] for point in points if "error.type" in point.attributes}
    assert kinds == {"overloaded", "server_error"}


def test_an_observer_that_fails_is_logged_and_breaks_nothing(clients, caplog):
    class Broken:
        def on_event(self, event):
            raise RuntimeError("no")

    pipeline = CostPipeline(CostConfig(), observers=[Broken()])
    result, _ = process("hello", pipeline, CostTracker(), client=clients["openai"])
    assert result.text
    assert "failed on Routed" in caplog.text
