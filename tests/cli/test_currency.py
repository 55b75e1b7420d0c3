"""Amounts of every command in the display currency, its rate said once; what programs read stays exact dollars."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import CostConfig, CostPipeline, CostTracker, cli, cost_context, process
from llm_cost_middleware.cli.app import app

FILE = """
[ledger]
url = "sqlite:///llm-cost.db"
[[budgets]]
scope = "global"
limit = 5
window = "month"
carry_over = "50%"
[prices]
currency = "EUR"
[prices.rate]
EUR = "0.86"
date = 2026-11-01
"""
RATE = "the rate of 2026-11-01"
SPENT = [
    ("report",), ("budgets",), ("budgets", "--all"), ("ledger", "status"), ("decisions",),
    ("budgets", "list"), ("budgets", "set", "user:7", "2"), ("budgets", "raise", "global", "9", "--window", "month"),
    ("estimate", "requests.jsonl"),
]  # fmt: skip
IN_DOLLARS = {
    "currency.py": "converts",
    "siblings.py": "list prices, as the providers quote them",
    "receipt.py": "the demonstration, which has no configuration of the user's",
}
"""Modules that write dollars themselves, and why they may."""


@pytest.fixture
def here(tmp_path, clients, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("llm-cost.toml").write_text(FILE)
    Path("requests.jsonl").write_text(
        json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9})
    )
    with CostPipeline(CostConfig.find()) as pipeline, cost_context(user="42"):
        process("hello", pipeline, CostTracker(None), client=clients["openai"])


def run(*words):
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("words", SPENT, ids=" ".join)
def test_a_command_shows_the_currency_and_its_rate_once(here, words):
    told = run(*words)
    assert re.search(r"EUR \d", told), told
    assert "$" not in told, told
    assert told.count(RATE) == 1, told


def test_limits_are_converted_and_stay_what_they_are(here):
    assert "EUR 4.30" in run("budgets")
    (row,) = json.loads(run("budgets", "--json"))
    assert row["limit"] == "5.000000000"
    assert json.loads(run("budgets", "list", "--json"))["budgets"][0]["limit"] == row["limit"]


@pytest.mark.parametrize(
    "words", [("report", "--json"), ("report", "--csv"), ("budgets", "export"), ("budgets", "--json")], ids=" ".join
)
def test_what_programs_read_has_no_currency(here, words):
    assert "EUR" not in run(*words)


def test_a_page_says_the_rate(here):
    run("report", "--html", "page.html")
    told = json.loads(re.search(r'id="document">(.*?)</script>', Path("page.html").read_text())[1])
    for part in told.values():
        assert (part["currency"]["sign"], part["currency"]["rate"]) == ("EUR ", "0.86")
        assert part["currency"]["note"].count(RATE) == 1


def test_the_next_command_shows_dollars_again(here):
    run("budgets")
    Path("llm-cost.toml").write_text(FILE.partition("[prices]")[0])
    assert "$5.00" in run("budgets")


def test_no_module_of_the_command_line_writes_dollars_past_the_one_place():
    found = set()
    for path in sorted(Path(cli.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        dollars = [
            node
            for node in ast.walk(tree)
            if (isinstance(node, ast.Name) and node.id in {"format_usd", "readable"})
            or (isinstance(node, ast.JoinedStr) and any("$" in str(getattr(part, "value", "")) for part in node.values))
        ]
        if dollars:
            found.add(path.name)
    assert found == set(IN_DOLLARS)
