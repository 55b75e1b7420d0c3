"""Commands where nothing but the environment configures anything."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import Budget, Ledger
from llm_cost_middleware.cli.app import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)

    def command(*words, **env):
        return CliRunner().invoke(app, words, env={"COLUMNS": "200", **env})

    return command


def test_a_ledger_of_the_environment_is_read(run, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    with Ledger.open(url) as ledger:
        ledger.set_budget(Budget("team:search", "3"))
    done = run("budgets", LLM_COST_LEDGER__URL=url)
    assert "team:search" in done.output
    assert done.exit_code == 0


def test_a_misspelt_variable_is_told(run):
    for words in (["report"], ["doctor"]):
        done = run(*words, LLM_COST_MODE="enfroce")
        assert done.exit_code != 0
        assert "set by the environment variable LLM_COST_MODE" in f"{done.output}{done.exception}"
    done = run("report", LLM_COST_LEDGRE__URL="x")
    assert f"{done.output}{done.exception}".count("set by the environment variable") == 1


def test_a_variable_of_somebody_else_is_left_alone(run):
    for words in (["prices", "gpt-5-mini"], ["budgets", "--ledger", "sqlite:///y.db", "set", "global", "1"]):
        done = run(*words, LLM_COST_CENTER="marketing", LLM_COST_NOTEBOOK_ROWS="9")
        assert (done.exit_code, done.exception) == (0, None)
    done = run("report", LLM_COST_CENTER="marketing")
    assert "no configuration" in f"{done.output}{done.exception}"


def test_what_is_told_of_budgets_and_names(run, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    assert "$3.00 without a window: for good" in run("budgets", "set", "team:search", "3", "--ledger", url).output
    assert "$3.00 a day window" in run("budgets", "set", "user:1", "3", "--window", "day", "--ledger", url).output
    assert "did you mean 'team:search'?" in str(run("budgets", "raise", "team:searc", "4", "--ledger", url).exception)
    raised = str(run("budgets", "raise", "team:search", "1", "--ledger", url).exception)
    assert raised.endswith("to lower it, llm-cost budgets set")
    removed = str(run("budgets", "remove", "user:1", "--ledger", url).exception)
    assert removed.endswith("user:1 has no budget in the window 'none', but in 'day'")
    assert "did you mean 'team:search'?" in str(run("budgets", "remove", "team:searc", "--ledger", url).exception)
    assert str(run("help", "nosuch").exception).startswith("there is no topic 'nosuch'. Topics are")
    (tmp_path / "r.jsonl").write_text('{"model": "smart", "messages": [{"role": "user", "content": "hi"}]}')
    assert "A name that is routed, such as smart, has none" in run("estimate", "r.jsonl").output
