"""The commands over real files and a real ledger on disk."""

from __future__ import annotations

import json
import random
import re
from xml.etree import ElementTree as ET

import pytest
import typer
from typer.testing import CliRunner

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.cli.decisions import decisions
from llm_cost_middleware.cli.replay import replay
from llm_cost_middleware.cli.tune import tune
from llm_cost_middleware.errors import ConfigurationError, LLMCostError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.routing.decision_log import DecisionLog, LoggedCall, Outcome, Settlement
from llm_cost_middleware.routing.learned import LearnedPolicy

CONFIG = """
[[tiers]]
name = "small"
models = ["openai/gpt-5-mini"]
[[tiers]]
name = "large"
models = ["openai/gpt-5.1"]
[routing]
"""


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in (decisions, replay, tune):
        app.command()(command)

    def invoke(*words, code=0):
        result = CliRunner().invoke(app, list(map(str, words)))
        if isinstance(result.exception, LLMCostError):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return invoke


@pytest.fixture
def log(tmp_path, route, ask):
    """Two hundred calls with feedback, half explored, as an exported log."""
    from llm_cost_middleware.routing.policy import RoutingPolicy

    rng = random.Random(0)
    path = tmp_path / "log.jsonl"
    policy = RoutingPolicy(explore=0.5, tiers=("small", "large"))
    lines = []
    for number in range(200):
        decision = route(ask("x", context={"call_site": "ab"[number % 2]}), policy, seed=number)._replace(
            call_id=f"c{number}"
        )
        lines.append(
            LoggedCall(decision, (Outcome(f"c{number}", "feedback", float(rng.random() < 0.8), 0.0),)).to_json()
        )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def outcomes(tmp_path):
    rng = random.Random(0)
    path = tmp_path / "outcomes.jsonl"
    rows = []
    for number in range(600):
        hard = number % 4 == 0
        rows.append(
            {
                "prompt": f"{'prove the theorem' if hard else 'translate the word'} {number}",
                "site": "a",
                "score__gpt-5-mini": float(rng.random() < (0.3 if hard else 0.97)),
                "score__gpt-5.1": float(rng.random() < 0.98),
            }
        )
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_decisions_are_shown_filtered_and_explained(run, log):
    table = run("decisions", "--log", log)
    assert "decisions: the last 20" in table
    assert run("decisions", "--log", log, "--site", "a", "--jsonl").count("\n") == 100
    chosen = run("decisions", "--log", log, "--model", "openai/gpt-5.1", "--jsonl").splitlines()
    assert 20 < len(chosen) < 80
    assert {LoggedCall.from_json(line).decision.target.model for line in chosen} == {"gpt-5.1"}
    told = run("decisions", "c17", "--log", log)
    assert "characters < 10,000" in told
    assert "feedback:" in told
    assert "no decision begins with nobody" in run("decisions", "nobody", "--log", log, code=1)


def test_decisions_come_from_the_ledgers_journal(run, tmp_path, route, ask, models):
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        kept = DecisionLog(ledger.journal)
        kept.append(route(ask("x")))
        kept.settled(Settlement("call-1", models["mini"], NanoUSD(5_000), 3, 1.0))
    (line,) = run("decisions", "--ledger", url, "--jsonl").splitlines()
    entry = LoggedCall.from_json(line)
    assert (entry.decision.call_id, entry.settlement.cost_nanousd) == ("call-1", 5_000)


def test_a_damaged_log_names_its_line(run, log):
    log.write_text(log.read_text() + "nonsense\n")
    with pytest.raises(ConfigurationError, match=r"log\.jsonl line 201"):
        run("decisions", "--log", log)


def test_what_is_no_log_and_no_table_is_refused_by_its_name(run, tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b"\x00\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"log\.jsonl line 1"):
        run("decisions", "--log", "log.jsonl")
    with pytest.raises(ConfigurationError, match=r"log\.jsonl line 1"):
        run("tune", "log.jsonl", *PAIR)
    pytest.importorskip("pyarrow")
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ConfigurationError, match=r"table\.parquet: cannot be read"):
        run("tune", "table.parquet", *PAIR)


def test_ids_are_shown_whole_and_an_id_means_that_call_alone(run, log, monkeypatch):
    told = run("decisions", "c17", "--log", log)
    assert told.count("characters < 10,000") == 1  # not c170 to c179 as well
    assert run("decisions", "c17", "--log", log, "--jsonl").count("\n") == 11
    monkeypatch.setenv("COLUMNS", "80")
    table = run("decisions", "--log", log, "--last", "3")
    assert "c199" in table
    assert "gpt-5" in table
    assert "10,000" in table  # in a pipe the reason stands beside the call, whatever the width


def test_replay_shows_the_bill_under_another_policy(run, log, tmp_path):
    policy = tmp_path / "new.toml"
    policy.write_text(CONFIG + 'ceiling = "small"')
    plot = tmp_path / "plot.svg"
    table = run("replay", log, "--policy", policy, "--plot", plot)
    assert "before → after" in table
    *sites, total = json.loads(run("replay", log, "--policy", policy, "--json").partition("wrote")[0])
    assert [row["calls"] for row in (*sites, total)] == [100, 100, 200]
    assert total["after_nanousd"][0] < total["paid_nanousd"]
    assert ET.parse(plot).getroot().tag.endswith("svg")  # noqa: S314  # our own file


@pytest.mark.parametrize("text", ["[routing", CONFIG + "text_treshold = 5", CONFIG + 'policy = "learned"'])
def test_a_policy_that_cannot_be_used_is_refused(run, log, tmp_path, text):
    policy = tmp_path / "new.toml"
    policy.write_text(text)
    with pytest.raises(ConfigurationError):
        run("replay", log, "--policy", policy)


PAIR = ("--weak", "openai/gpt-5-mini", "--strong", "openai/gpt-5.1", "--costs", "0.001", "0.01")


def test_tune_writes_a_policy_that_replay_and_the_configuration_can_use(run, outcomes, log, tmp_path):
    pytest.importorskip("sklearn")
    plot = tmp_path / "curve.svg"
    told = run("tune", outcomes, *PAIR, "--plot", plot, "-o", "policy.json")
    assert "of the strong model's quality" in told
    assert "+++ policy.json (new)" in told
    policy = LearnedPolicy.parse((tmp_path / "policy.json").read_text())
    assert policy.fitted["labels"] == 600
    assert ET.parse(plot).getroot().tag.endswith("svg")  # noqa: S314  # our own file
    config = tmp_path / "new.toml"
    config.write_text(CONFIG + 'policy = "learned"\npolicy_file = "policy.json"')
    assert json.loads(run("replay", log, "--policy", config, "--json"))[-1]["calls"] == 200
    again = run("tune", outcomes, *PAIR, "-o", "policy.json", "--dry-run")
    assert "+++" not in again  # the same labels, the same policy: nothing differs


def test_tune_refuses_and_writes_nothing_where_the_data_do_not_support_it(run, outcomes, tmp_path):
    pytest.importorskip("sklearn")
    lines = outcomes.read_text().splitlines()
    outcomes.write_text("\n".join(lines[:50]))
    told = run("tune", outcomes, *PAIR, "-o", "policy.json", code=1)
    assert "refused: 50 labels are too few" in told
    assert not (tmp_path / "policy.json").exists()


def test_tune_reports_the_calls_of_a_log_that_it_cannot_use(run, log, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(CONFIG)
    log.write_text(re.sub(r'"grams":\[[^]]*\]', '"grams":[]', log.read_text()))
    told = run("tune", "--log", log, "--config", config, code=1)
    assert "no n-grams (learning was off)" in told
    assert "0 labels are too few" in told
