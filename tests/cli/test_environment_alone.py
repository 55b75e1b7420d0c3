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
