"""``llm-cost ledger archive``, as a person would use it."""

import json

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import CostConfig, CostPipeline, CostTracker, process
from llm_cost_middleware.cli.app import app

runner = CliRunner()
URL = "sqlite:///llm-cost.db"


@pytest.fixture
def ledger(tmp_path, clients, monkeypatch):
    """Five calls, one reservation that is open, and one attempt whose cost is unconfirmed."""
    monkeypatch.chdir(tmp_path)
    with CostPipeline(CostConfig(ledger={"url": URL}, budgets=[{"scope": "global", "limit": "5"}])) as pipeline:
        for provider, calls in (("anthropic", 3), ("openai", 2)):
            for _ in range(calls):
                process("hello", pipeline, CostTracker(None), client=clients[provider])
        pipeline.ledger.reserve("0.01", ["user:42"], id="open", ttl=10**6)
        pipeline.ledger.settle(pipeline.ledger.reserve("0.01").id, "0.01", status="unconfirmed")
    return tmp_path


def _run(*arguments, code=0):
    result = runner.invoke(app, arguments, env={"COLUMNS": "140"})
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def _everything():
    questions = ["report", "report --json", "report --csv", "report --scope user:42", "report --since 2020-01-01"]
    return [_run(*ask.split(), "--ledger", URL) for ask in [*questions, "budgets --json", "ledger unconfirmed"]]


def test_an_archive_changes_no_report_and_no_balance(ledger):
    before = _everything()
    told = _run("ledger", "archive", "--before", "2100-01-01", "--ledger", URL)
    assert "10 rows" in told
    assert "2 attempts as old stay" in told
    assert _everything() == before
    (path,) = ledger.glob("*.jsonl")
    assert path.name in told
    _, *rows, sums = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == sums["rows"] == 10
    assert "carried" in _run("ledger", "status", "--ledger", URL)
    assert "nothing to archive" in _run("ledger", "archive", "--before", "2100-01-01", "--ledger", URL)
    assert _everything() == before
    assert len(list(ledger.glob("*.jsonl"))) == 1


def test_the_file_can_be_named_but_not_taken(ledger):
    before = _run("report", "--by", "model", "--json", "--ledger", URL)
    _run("ledger", "archive", "--before", "2100-01-01", "--to", "old.jsonl", "--ledger", URL)
    assert "rows restored" in _run("ledger", "restore", "old.jsonl", "again.db")
    again = _run("report", "--by", "model", "--json", "--ledger", "sqlite:///again.db")
    counted = {row["model"]: row["calls"] for row in json.loads(before)["rows"]}
    assert all(row["calls"] <= counted[row["model"]] for row in json.loads(again)["rows"]), "what is not exact stayed"
    _run("ledger", "restore", "old.jsonl", "again.db", code=1)  # it has rows of its own
    _run("ledger", "restore", "none.jsonl", "other.db", code=1)
    content = (ledger / "old.jsonl").read_bytes()
    assert content.startswith(b'{"archive":1,"ledger":"llm-cost.db","tenant":"default"')
    _run("ledger", "reconcile", json.loads(content.splitlines()[1])["id"], "1", "--ledger", URL, code=1)
    from llm_cost_middleware.budget.ledger import Ledger

    with Ledger.open(URL) as opened:
        opened.book("0.5")
    _run("ledger", "archive", "--before", "2100-01-01", "--to", "old.jsonl", "--ledger", URL, code=1)
    assert (ledger / "old.jsonl").read_bytes() == content


def test_an_erasure_of_nobody_is_no_success(ledger):
    assert "no row names user:43" in _run("ledger", "erase", "user:43", "--ledger", URL, code=1)
    assert "rows now say user:erased-" in _run("ledger", "erase", "user:42", "--ledger", URL)
    assert "no row names user:42" in _run("ledger", "erase", "user:42", "--ledger", URL, code=1)


def test_what_was_interrupted_is_finished_by_the_next(ledger, monkeypatch):
    from llm_cost_middleware.budget.backends.sqlite import archive

    before = _everything()
    monkeypatch.setattr(archive.Archive, "_move", lambda *_: 1 / 0)
    assert isinstance(
        runner.invoke(app, ["ledger", "archive", "--before", "2100-01-01", "--ledger", URL]).exception,
        ZeroDivisionError,
    )
    monkeypatch.undo()
    monkeypatch.chdir(ledger)
    told = _run("ledger", "archive", "--before", "2100-01-01", "--ledger", URL)
    assert "(begun before)" in told
    assert "nothing to archive" in told
    assert _everything() == before


def test_a_memory_ledger_reports_that_it_has_nothing_to_archive():
    result = runner.invoke(app, ["ledger", "archive", "--before", "2100-01-01", "--ledger", "memory://"])
    assert result.exit_code == 1
    assert "sqlite" in result.output
