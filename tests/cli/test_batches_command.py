"""``llm-cost batches``: batches of another process, shown, collected and cancelled."""

from __future__ import annotations

import json
import stat

import anthropic
import openai
import pytest
from batch_bodies import chat_bodies, claude_bodies
from typer.testing import CliRunner

from llm_cost_middleware.batches import BatchPendingError
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import BatchPace, Simulator, fill

HOUR_S = 3_600


@pytest.fixture
def sim():
    with Simulator(responder=fill) as simulator:
        simulator.batch_pace = BatchPace(delay_s=2 * HOUR_S)
        yield simulator


@pytest.fixture
def made(sim, tmp_path, monkeypatch):
    """A batch at each provider, by a process that is gone; returns its id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    providers = {"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}}
    text = '[ledger]\nurl = "sqlite:///ledger.db"\n[[budgets]]\nscope = "global"\nlimit = "5"\n'
    text += "".join(f'[providers.{name}]\nbase_url = "{each["base_url"]}"\n' for name, each in providers.items())
    (tmp_path / "llm-cost.toml").write_text(text)
    with (
        CostPipeline("llm-cost.toml") as pipeline,
        anthropic.Anthropic(base_url=sim.anthropic_url, api_key="key") as claude,
        openai.OpenAI(base_url=sim.openai_url, api_key="key") as gpt,
        pytest.raises(BatchPendingError) as caught,
    ):
        pipeline.batch([*claude_bodies(12), *chat_bodies(12)], client=[claude, gpt], timeout=0)
    return caught.value.batch_id


def run(*words):
    return CliRunner().invoke(app, ["batches", *words], env={"COLUMNS": "200"})


def test_a_batch_of_another_process_is_listed_shown_and_collected(sim, made, tmp_path):
    listed = json.loads(run("list", "--json").output)
    assert [(one["batch_id"], one["state"], one["requests"]) for one in listed] == [(made, "sent", 12)] * 2
    assert made in run("list").output
    sim.clock.advance(HOUR_S)
    shown = run("show", made).output
    assert "in_progress, 6 of 12 answered" in shown
    file = tmp_path / "answers.jsonl"
    early = run("collect", made, "--to", str(tmp_path / "none.jsonl"))
    assert not (tmp_path / "none.jsonl").exists()
    assert (early.exit_code, "24 on their way" in early.output) == (1, True)
    sim.clock.advance(HOUR_S)
    lost = run("collect", made, "--to", str(tmp_path / "nowhere" / "answers.jsonl"))
    assert "--to: there is no folder" in str(lost.exception)
    collected = run("collect", made, "--to", str(file))
    assert (collected.exit_code, "24 answered" in collected.output) == (0, True)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["place"] for line in lines] == list(range(24))
    assert {line["response"]["object"] for line in lines if "object" in line["response"]} == {"chat.completion"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("collect", made, "--to", str(file)).exit_code != 0  # no file is written over
    assert run("collect", made).exit_code == 0  # and again changes nothing
    with CostPipeline("llm-cost.toml") as pipeline:
        balance = pipeline.ledger.balance("global")
    assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd, 0)
    assert balance.limit_nanousd == 5 * 10**9  # a look changes no budget
    assert "no batch is on its way" in run("list").output
    assert len(json.loads(run("list", "--all", "--json").output)) == 2


def test_a_batch_of_another_process_is_cancelled(sim, made):
    sim.clock.advance(HOUR_S)
    run("cancel", made)
    done = run("collect", made)
    assert (done.exit_code, "12 answered, 12 without an answer" in done.output) == (0, True)
    with CostPipeline("llm-cost.toml") as pipeline:
        balance = pipeline.ledger.balance("global")
    assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd, 0)


def test_what_is_not_there_is_said(made, monkeypatch):
    assert "knows no batch" in str(run("show", "nothing").exception)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "OPENAI_API_KEY" in str(run("collect", made).exception)
    assert run("show", made).exit_code == 0


def test_a_batch_at_azure_is_collected_at_its_place(sim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key")
    root = sim.openai_url.removesuffix("/v1")
    text = '[ledger]\nurl = "sqlite:///ledger.db"\n[platforms.azure]\nbase_url = "' + root + '"\n'
    text += '[platforms.azure.deployments.eu--gpt-5-mini]\nmodel = "gpt-5-mini"\ntype = "DataZoneBatch"\n'
    (tmp_path / "llm-cost.toml").write_text(text + 'region = "swedencentral"\n')
    client = openai.AzureOpenAI(azure_endpoint=root, api_key="key", api_version="2025-04-01-preview")
    bodies = [{**body, "model": "eu--gpt-5-mini"} for body in chat_bodies(12)]
    with CostPipeline("llm-cost.toml") as pipeline, client, pytest.raises(BatchPendingError) as caught:
        pipeline.batch(bodies, client=client, timeout=0)
    sim.clock.advance(2 * HOUR_S)
    monkeypatch.delenv("OPENAI_API_VERSION", raising=False)
    assert "version" in str(run("collect", caught.value.batch_id).exception)
    monkeypatch.setenv("OPENAI_API_VERSION", "2025-04-01-preview")
    assert "12 answered" in run("collect", caught.value.batch_id).output
    with CostPipeline("llm-cost.toml") as pipeline:
        balance = pipeline.ledger.balance("provider:azure")
    assert balance.pending_nanousd == 0
    rounded = sim.bill.total_nanousd - balance.settled_nanousd  # a line of the bill up to a whole nano-dollar
    assert 0 <= rounded < 12
