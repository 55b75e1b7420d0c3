"""Spans and metrics, by the GenAI conventions, through OpenTelemetry's own SDK."""

import asyncio
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
import pytest

from llm_cost_middleware import (
    BudgetExceededError,
    ConfigurationError,
    CostConfig,
    CostPipeline,
    CostTracker,
    cost_context,
    process,
)
from llm_cost_middleware.context import read_context
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.provider import FailureKind
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.testing import FakeClock
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

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


@pytest.mark.parametrize("after", [0, 3])
def test_an_attempt_that_failed_and_may_be_billed_is_an_error_too(sim, clients, after):
    """A stream that opened is booked, wherever it failed: its span says why it ended, beside what it cost."""
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    config = CostConfig(retry={"max_attempts": 1})
    client = wrap_openai(
        clients["openai"], CostPipeline(config, observers=[OpenTelemetryObserver(tracers, MeterProvider())])
    )
    sim.script(Fault.error_event(after=after))
    ask = [{"role": "user", "content": "Count to five."}]
    with suppress(openai.APIError):
        list(client.chat.completions.create(model="gpt-5-mini", max_completion_tokens=40, messages=ask, stream=True))
    (span,) = exporter.get_finished_spans()
    assert span.attributes["llm_cost.cost_usd"] > 0
    assert FailureKind(span.attributes["error.type"])
    assert not span.status.is_ok


def test_an_observer_that_fails_is_logged_and_breaks_nothing(clients, caplog):
    class Broken:
        def on_event(self, event):
            raise RuntimeError("no")

    pipeline = CostPipeline(CostConfig(), observers=[Broken()])
    result, _ = process("hello", pipeline, CostTracker(), client=clients["openai"])
    assert result.text
    assert "failed on Routed" in caplog.text


# --- dimensions, gauges, parents -------------------------------------------------------------------------------------


def _points(reader):
    found = reader.get_metrics_data()
    scopes = found.resource_metrics[0].scope_metrics if found is not None else []
    return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


def test_cost_and_tokens_have_the_dimensions_of_the_attribution_and_bounded_names(clients):
    reader = InMemoryMetricReader()
    observer = OpenTelemetryObserver(TracerProvider(), MeterProvider([reader]), dimensions=("team",), most_values=2)
    with CostPipeline(CostConfig(), observers=[observer]) as pipeline:
        for team in ("a", "b", "c", "d", "a"):
            with cost_context(team=team, user=f"u{team}"):
                process("hello", pipeline, CostTracker(), client=clients["openai"])
        records = pipeline.records()
    points = _points(reader)
    cost = {point.attributes["llm_cost.team"]: point.value for point in points["llm_cost.cost"]}
    assert cost.keys() == {"a", "b", "other"}
    assert sum(cost.values()) == pytest.approx(float(sum(record.cost_usd for record in records)))
    tokens = sum(point.value for point in points["llm_cost.tokens"])
    assert tokens == sum(record.input_tokens + record.output_tokens for record in records)
    types = {point.attributes["llm_cost.token.type"] for point in points["llm_cost.tokens"]}
    assert types == {"uncached_input", "output"}
    assert not [point for point in points["llm_cost.cost"] if "llm_cost.user" in point.attributes]
    assert sum(point.value for point in points["llm_cost.bookings"]) == 5


def test_what_is_booked_without_a_call_is_counted_too():
    reader = InMemoryMetricReader()
    with CostPipeline(
        CostConfig(), observers=[OpenTelemetryObserver(TracerProvider(), MeterProvider([reader]))]
    ) as pipeline:
        usage = UsageReport(items=(BilledItem(TokenUsage(uncached_input=1000, output=10)),), complete=True)
        pipeline.book(usage, ModelRef("openai", "gpt-5-mini"), read_context({"team": "a"}), id="b1")
    (point,) = _points(reader)["llm_cost.cost"]
    assert point.value > 0
    assert point.attributes["llm_cost.team"] == "a"


def test_what_is_left_of_each_budget_comes_from_the_ledger(tmp_path):
    reader, url = InMemoryMetricReader(), f"sqlite:///{tmp_path}/ledger.db"
    observer = OpenTelemetryObserver(TracerProvider(), MeterProvider([reader]), most_values=2)
    clock = FakeClock()
    with CostPipeline({"ledger": {"url": url}}, observers=[observer], clock=clock) as pipeline:
        for team, limit in (("a", 10), ("b", 1), ("c", 5)):
            pipeline.ledger.set_budget(f"team:{team}", limit, "day")
        with CostPipeline({"ledger": {"url": url}}, clock=clock) as other:
            other.ledger.book("0.75", ["team:a", "team:b"])  # another process
        left = {
            point.attributes["llm_cost.scope"]: point.value for point in _points(reader)["llm_cost.budget.remaining"]
        }
        assert left == {"team:b": 0.25, "team:a": 9.25}  # those of which most is used
        assert {point.value for point in _points(reader)["llm_cost.budget.leased"]} == {0}
        # As a block of another process is made.
        pipeline.ledger.backend.reserve("lease:x-1", 10**9, ("team:a",), 60_000, b"", fresh=True)
        clock.advance(11)
        leased = {
            point.attributes["llm_cost.scope"]: point.value for point in _points(reader)["llm_cost.budget.leased"]
        }
        assert leased == {"team:b": 0, "team:a": 1}
        pipeline.ledger.backend.resolve("void", "lease:x-1", 0, status="void")
        clock.advance(11)
        pipeline.ledger.book("0.25", ["team:b"])
        points = _points(reader)
        assert {point.value for point in points["llm_cost.budget.remaining"]} == {0, 9.25}
        assert {point.value for point in points["llm_cost.budget.limit"]} == {1, 10}
        assert {point.attributes["llm_cost.window"] for point in points["llm_cost.budget.spent"]} == {"day"}
    clock.advance(11)
    assert "llm_cost.budget.remaining" not in _points(reader)  # the ledger is closed: no figure, and no error


def test_refusals_name_the_budget(clients):
    reader = InMemoryMetricReader()
    config = {"budgets": [{"scope": "team:*", "limit": "0.0000001"}], "output": {"on_insufficient": ["raise"]}}
    observer = OpenTelemetryObserver(TracerProvider(), MeterProvider([reader]))
    with CostPipeline(config, observers=[observer]) as pipeline:
        with cost_context(team="a"), pytest.raises(BudgetExceededError):
            process("hello", pipeline, CostTracker(), client=clients["openai"])
        pipeline.close()
    (point,) = _points(reader)["llm_cost.refused"]
    assert (point.value, point.attributes["llm_cost.scope"]) == (1, "team:a")


def _request(tracers):
    return tracers.get_tracer("app").start_as_current_span("request")


def _traced():
    exporter, tracers = InMemorySpanExporter(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter, tracers


def test_spans_hang_under_the_callers_also_for_a_stream_that_ends_elsewhere(sim, clients):
    exporter, tracers = _traced()
    pipeline = CostPipeline(CostConfig(), observers=[OpenTelemetryObserver(tracers, MeterProvider())])
    client = wrap_openai(clients["openai"], pipeline)
    body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
    with tracers.get_tracer("app").start_as_current_span("request") as caller:
        client.chat.completions.create(**body)
        stream = client.chat.completions.create(stream=True, **body)
    with tracers.get_tracer("app").start_as_current_span("another request"):
        list(stream)
    pipeline.close()
    ours = [span for span in exporter.get_finished_spans() if span.name.startswith("chat ")]
    assert len(ours) == 2
    for span in ours:
        assert span.parent.span_id == caller.get_span_context().span_id
        assert span.context.trace_id == caller.get_span_context().trace_id
        assert span.attributes["gen_ai.response.model"].startswith("gpt-5-mini")


async def test_spans_of_tasks_hang_under_the_span_of_each(sim, async_clients):
    exporter, tracers = _traced()
    pipeline = CostPipeline(CostConfig(), observers=[OpenTelemetryObserver(tracers, MeterProvider())])
    client, parents = wrap_openai(async_clients["openai"], pipeline), {}

    async def ask(name):
        with tracers.get_tracer("app").start_as_current_span(name) as span, cost_context(team=name):
            parents[name] = span.get_span_context().span_id
            await client.chat.completions.create(model="gpt-5-mini", messages=[{"role": "user", "content": name}])

    await asyncio.gather(*map(ask, "abc"))
    await pipeline.aclose()
    ours = [span for span in exporter.get_finished_spans() if span.name.startswith("chat ")]
    assert {span.attributes["llm_cost.team"]: span.parent.span_id for span in ours} == parents


def test_a_collector_receives_spans_under_the_callers_over_otlp(sim, clients):
    """The exporter of OpenTelemetry posts to a stand-in of a collector, which reads what the protocol says."""
    otlp = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", reason="needs the tools extra")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        tracers = TracerProvider()
        exporter = otlp.OTLPSpanExporter(f"http://127.0.0.1:{server.server_port}/v1/traces")
        tracers.add_span_processor(BatchSpanProcessor(exporter))
        observer = OpenTelemetryObserver(tracers, MeterProvider())
        with CostPipeline(CostConfig(), observers=[observer]) as pipeline, _request(tracers):
            result, _ = process("a secret question", pipeline, CostTracker(), client=clients["anthropic"])
        tracers.shutdown()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    sent = [ExportTraceServiceRequest.FromString(body) for body in received]
    scopes = [scope for one in sent for resource in one.resource_spans for scope in resource.scope_spans]
    spans = {span.name: span for scope in scopes for span in scope.spans}
    ours, caller = spans["chat claude-haiku-4-5-20251001"], spans["request"]
    assert (ours.parent_span_id, ours.trace_id) == (caller.span_id, caller.trace_id)
    attributes = {one.key: one.value for one in ours.attributes}
    assert attributes["gen_ai.usage.output_tokens"].int_value == result.record.output_tokens
    assert attributes["llm_cost.cost_usd"].double_value == pytest.approx(float(result.record.cost_usd))
    assert b"secret" not in b"".join(received)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prometheus_port": 70_000}, "65535"), ({"prometheus_ports": 0, "prometheus_port": 9464}, "65535"),
        ({"most_values": 0}, "1 or more"), ({"dimensions": ["Team"]}, "kind"),
        ({"dimensions": ["team:search"]}, "without a name"),
        ({"prometheus_prt": 1}, "prometheus_port"),
    ],
)  # fmt: skip
def test_metrics_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(ConfigurationError, match=said):
        CostConfig(metrics=options)
