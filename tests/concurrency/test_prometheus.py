"""Metrics of several processes at ports of their own; a real Prometheus scrapes four and fires the shipped rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port

from llm_cost_middleware import CostPipeline, Ledger, cost_context
from llm_cost_middleware.cli.monitoring_files import _FILES
from llm_cost_middleware.events import AlertRaised, ModelUnpriced, PolicyDrifted, Retried, ThresholdCrossed
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Simulator

pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs the otel extra: its exporter")
WORKER = Path(__file__).parent.parent / "support" / "metrics_worker.py"
METRIC = re.compile(r"\b(?:llm_cost_[a-z_]+|gen_ai_client_[a-z_]+)\b")
PATIENCE_S = 60


def _text(name):
    return _FILES.joinpath(name).read_text(encoding="utf-8")


def _expressions():
    """Every expression of the shipped rules and of the dashboard, its variables filled in."""
    found = re.findall(r"^ +expr: (.+)$", _text("prometheus-rules.yml"), re.MULTILINE)
    panels = json.loads(_text("grafana-dashboard.json"))["panels"]
    found += [target["expr"] for panel in panels for target in panel["targets"]]
    values = {"$team": ".*", "$model": ".*", "$__range": "1h", "$__rate_interval": "1m"}
    return [re.sub(r"\$\w+", lambda name: values[name[0]], text) for text in found]


def _scrape(port):
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return [sample for family in families for sample in family.samples]


def test_what_the_shipped_rules_and_the_dashboard_ask_for_is_served(sim, clients, tmp_path):
    config = {
        "ledger": {"url": f"sqlite:///{tmp_path}/ledger.db"}, "metrics": {"prometheus_port": 0},
        "budgets": [{"scope": "team:a", "limit": 1, "window": "day"}],
    }  # fmt: skip
    with CostPipeline(config) as pipeline:
        (endpoint,) = pipeline._listeners.metrics
        with cost_context(team="a"):
            wrap_openai(clients["openai"], pipeline).chat.completions.create(
                model="gpt-5-mini", messages=[{"role": "user", "content": "hello"}]
            )
        pipeline.ledger.book("0.5", ["team:a"])
        for event in (
            Retried("c", 0.0, 1, "openai/gpt-5-mini", "overloaded", "529", 1.0, "openai/gpt-5-mini"),
            ThresholdCrossed("c", 0.0, "team:a", "day"), ModelUnpriced("c", 0.0, "openai/gpt-99"),
            PolicyDrifted("", 0.0, "v", "r"), AlertRaised("", 0.0, "i", "rate", "global", "day", "t"),
        ):  # fmt: skip
            pipeline.emit(event)
        pipeline._stages.record.emit(_refusal())
        served = _scrape(endpoint.port)
        (record,) = pipeline.records()
    names, labels = {sample.name for sample in served}, {label for sample in served for label in sample.labels}
    for text in _expressions():
        assert set(METRIC.findall(re.sub(r"\([a-z_, ]+\) ?(?=\()|llm_cost:[a-z_:]+", "", text))) - labels <= names, text
        assert {label for found in re.findall(r"by \(([a-z_, ]+)\)", text) for label in found.split(", ")} <= labels
    (cost,) = [sample for sample in served if sample.name == "llm_cost_cost_total"]
    assert cost.value == pytest.approx(float(record.cost_usd))
    assert cost.labels["llm_cost_team"] == "a"
    (left,) = [sample for sample in served if sample.name == "llm_cost_budget_remaining"]
    assert left.value == pytest.approx(0.5 - float(record.cost_usd))
    with pytest.raises(OSError, match="refused"):
        _scrape(endpoint.port)


def _refusal():
    from llm_cost_middleware.events import BudgetRefused
    from llm_cost_middleware.money import NanoUSD

    return BudgetRefused("c", 0.0, "openai/gpt-5-mini", "team:a", NanoUSD(1), enforced=True)


def test_every_pipeline_has_a_port_and_none_that_is_left_is_told(caplog):
    first = free_port()
    options = {"metrics": {"prometheus_port": first, "prometheus_ports": 2}}
    with CostPipeline(options) as one, CostPipeline(options) as two, CostPipeline(options) as three:
        ports = [pipeline._listeners.metrics[0].port for pipeline in (one, two, three)]
    assert ports == [first, first + 1, None]
    assert "raise metrics.prometheus_ports" in caplog.text


@contextmanager
def _workers(folder, ledger, teams, how=""):
    with Simulator() as sim:
        first = free_port()
        command = [sys.executable, "-W", "ignore", str(WORKER), ledger, sim.openai_url, str(first)]
        workers = [
            subprocess.Popen([*command, team, "3", how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for team in teams
        ]
        try:
            yield [int(worker.stdout.readline()) for worker in workers]
        finally:
            for worker in workers:
                worker.stdin.close()
                worker.wait(20)
                worker.stdout.close()


def test_a_forked_process_serves_its_own_counts_at_its_own_port(tmp_path):
    with _workers(tmp_path, f"sqlite:///{tmp_path}/ledger.db", ["child"], "fork") as (port,):
        bookings = [sample for sample in _scrape(port) if sample.name == "llm_cost_bookings_total"]
        teams = {sample.labels["llm_cost_team"]: sample.value for sample in bookings}
        assert teams == {"child": 3}


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus")
def test_a_real_prometheus_scrapes_four_processes_and_fires_the_shipped_rules(tmp_path):
    ledger, teams = f"sqlite:///{tmp_path}/ledger.db", ["a", "b", "c", "d"]
    with _workers(tmp_path, ledger, teams) as ports:
        assert len(set(ports)) == 4
        rules = re.sub(r"for: \d+m", "for: 1s", _text("prometheus-rules.yml"))
        (tmp_path / "prometheus-rules.yml").write_text(rules)
        targets = _text("prometheus.yml").replace("15s", "1s")
        for number, port in enumerate(ports):
            targets = targets.replace(f":{9464 + number}\n", f":{port}\n")
        (tmp_path / "prometheus.yml").write_text(targets)
        own = free_port()
        server = subprocess.Popen(
            [
                shutil.which("prometheus"), f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{own}",
            ], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wanted = {
                *(("LLMBudgetNearlySpent", f"team:{team}") for team in teams),
                *(("LLMCallsRefused", f"team:{team}") for team in teams),
            }
            firing = set()
            deadline = time.monotonic() + PATIENCE_S
            while not wanted <= firing and time.monotonic() < deadline:
                time.sleep(0.5)
                alerts = _ask(own, "alerts").get("alerts", [])
                firing = {
                    (one["labels"]["alertname"], one["labels"].get("llm_cost_scope"))
                    for one in alerts
                    if one["state"] == "firing"
                }
            assert wanted <= firing
            assert {name for name, _ in firing} == {"LLMBudgetNearlySpent", "LLMCallsRefused"}
            up = _ask(own, "query", query="sum(up)")["result"][0]["value"][1]
            assert up == "4"
            with Ledger.open(ledger) as opened:
                booked = opened.balance("global").settled
            counted = float(_ask(own, "query", query="sum(llm_cost_cost_total)")["result"][0]["value"][1])
            assert counted == pytest.approx(float(booked) - 4 * 0.85)  # what was booked by hand is in the ledger alone
            for text in _expressions():
                _ask(own, "query", query=text)
        finally:
            server.terminate()
            server.wait(20)


def _ask(port, what, **query):
    url = f"http://127.0.0.1:{port}/api/v1/{what}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError((query, error.read())) from None
    except OSError:
        return {}
