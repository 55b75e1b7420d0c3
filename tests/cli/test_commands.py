"""The command line, as a person would use it."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import urllib.request
from decimal import Decimal

import lease_worker
import pytest
from leased import AT_ONCE
from typer.testing import CliRunner

from llm_cost_middleware import Budget, CostConfig, CostPipeline, CostTracker, process
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.errors import ConfigurationError

runner = CliRunner()


@pytest.fixture
def ledger(tmp_path, clients, monkeypatch):
    """A SQLite ledger with five calls of two models in it, two of them of user 42."""
    monkeypatch.chdir(tmp_path)
    url = "sqlite:///llm-cost.db"
    config = CostConfig(
        ledger={"url": url},
        budgets=[{"scope": "global", "limit": "5"}, {"scope": "user:42", "limit": "1", "window": "day"}],
    )
    from llm_cost_middleware import cost_context

    with CostPipeline(config) as pipeline:
        for _ in range(3):
            process("hello", pipeline, CostTracker(None), client=clients["anthropic"])
        with cost_context(user="42"):
            for _ in range(2):
                process("hello", pipeline, CostTracker(None), client=clients["openai"])
        settled = pipeline.ledger.balance("global").settled_nanousd
    return url, settled


def _run(*arguments, code=0):
    result = runner.invoke(app, arguments, env={"COLUMNS": "140"})
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_a_report_adds_up(ledger):
    url, settled = ledger
    told = json.loads(_run("report", "--ledger", url, "--json"))
    lines = told["rows"]
    assert sum(line["calls"] for line in lines) == told["total"]["calls"] == 5
    assert sum(Decimal(line["cost_usd"]) for line in lines) == Decimal(told["total"]["cost_usd"]) == settled.usd
    table = _run("report", "--ledger", url)
    assert "claude-haiku-4-5-20251001" in table
    assert "total" in table
    assert json.loads(_run("report", "--ledger", url, "--json", "--scope", "user:42"))["total"]["calls"] == 2
    rows = list(csv.DictReader(io.StringIO(_run("report", "--ledger", url, "--csv"))))
    assert {row["model"] for row in rows} == {line["model"] for line in lines}


def test_who_spent_what_is_one_command(ledger):
    url, settled = ledger
    asked = ("report", "--by", "user", "--over", "day", "--since", "yesterday", "--until", "now", "--ledger", url)
    told = json.loads(_run(*asked, "--json"))
    assert {line["user"]: line["calls"] for line in told["rows"]} == {"42": 2, None: 3}
    assert Decimal(told["total"]["cost_usd"]) == settled.usd
    assert "(no user)" in _run(*asked)
    only = json.loads(_run("report", "--by", "model", "--where", "user=42", "--top", "1", "--json", "--ledger", url))
    assert only["total"]["calls"] == 2
    assert "nothing was booked in this time" in _run("report", "--during", "last month", "--ledger", url)


@pytest.mark.parametrize(
    "words",
    [
        ("--ledger", "URL", "report"), ("report", "--ledger", "URL"), ("--ledger=URL", "budgets", "export"),
        ("budgets", "export", "--ledger", "URL"), ("budgets", "--ledger", "URL", "export"),
        ("ledger", "status", "--ledger=URL"), ("--ledger", "URL", "ledger", "status"),
    ],
)  # fmt: skip
def test_the_ledger_is_named_where_people_type_it(ledger, words):
    assert _run(*(word.replace("URL", ledger[0]) for word in words))


def test_one_output_at_once(ledger, tmp_path):
    said = runner.invoke(app, ["report", "--ledger", ledger[0], "--csv", "--html", str(tmp_path / "x.html")])
    assert "one of --json" in str(said.exception)


def _document(path):
    return json.loads(re.search(r'id="document">(.*?)</script>', path.read_text())[1])


def test_a_report_is_a_page_to_look_at(ledger, tmp_path):
    url, settled = ledger
    file = tmp_path / "report.html"
    _run("report", "--ledger", url, "--html", str(file))
    told = _document(file)["spending"]
    assert told["total"]["cost_usd"] == f"{settled.usd:f}"
    assert "gpt-5-mini" in {line["name"] for line in told["dimensions"]["model"]["top"]}
    assert {"model", "team", "user", "site"} <= told["dimensions"].keys()


@pytest.mark.parametrize(
    ("choice", "calls"),
    [
        ("--where user=42", 2), ("--scope user:42", 2), ("--scope global", 5), ("--during today --over hour", 5),
        ("--by user --until now", 5), ("--since 2020-01-01 --until 2020-02-01", 0), ("--where model=claude-*", 3),
    ],
)  # fmt: skip
def test_a_page_takes_the_choices_of_a_report(ledger, tmp_path, choice, calls):
    file = tmp_path / "report.html"
    _run("report", "--ledger", ledger[0], "--html", str(file), "--timezone", "UTC", *choice.split())
    assert _document(file)["spending"]["total"]["calls"] == calls


def test_a_page_has_lists_of_its_own(ledger, tmp_path):
    said = runner.invoke(app, ["report", "--ledger", ledger[0], "--html", str(tmp_path / "x.html"), "--top", "3"])
    assert isinstance(said.exception, ConfigurationError), "what the page does not do is not left out silently"


def test_a_dashboard_runs_until_it_is_interrupted(ledger):
    start = "from llm_cost_middleware.cli import main; main()"
    command = [sys.executable, "-c", start, "dashboard", "--ledger", ledger[0], "--port", "0"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = running.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{url}data/spending?by=user") as answer:  # noqa: S310 - of its own
            assert json.load(answer)["total"]["calls"] == 5
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def test_budgets_are_shown_set_and_exported(ledger):
    url, settled = ledger
    scope_balances = {line["scope"]: line for line in json.loads(_run("budgets", "--ledger", url, "--json"))}
    assert Decimal(scope_balances["global"]["limit"]) == 5
    assert scope_balances["user:42"]["window"] == "day"
    assert scope_balances["user:42"]["resets"]
    assert "left" in _run("budgets", "--ledger", url)
    assert "model:" not in _run("budgets", "--ledger", url)
    assert "model:" in _run("budgets", "--ledger", url, "--all")
    assert "$2.50" in _run("budgets", "--ledger", url, "set", "team:a", "2.50", "--window", "month")
    assert "team:a" in _run("budgets", "--ledger", url)
    rows = [json.loads(line) for line in _run("budgets", "--ledger", url, "export", "--json").splitlines()]
    assert sum(round(float(row["amount_usd"]) * 1e9) for row in rows if row["kind"] == "settle") == settled
    assert _run("budgets", "--ledger", url, "export").startswith("seq,at,kind,id")
    assert "0 reservations expired" in _run("budgets", "--ledger", url, "sweep")


def test_a_budget_of_a_kind_that_no_call_has_is_told(tmp_path):
    url = f"sqlite:///{tmp_path / 'kinds.db'}"

    def told(scope):
        return _run("budgets", "--ledger", url, "set", scope, "1")

    assert "nothing is booked under users:* so far: did you mean user:1?" in told("users:1")
    assert "did you mean team:*?" in told("taem:*")
    assert "nothing is booked under customer:* so far: is that how calls name it?" in told("customer:acme")
    for scope in ("customer:other", "global", "user:2", "tag:a", "model:gpt-5-mini", "provider:openai", "run:*"):
        assert "nothing is booked" not in told(scope)


def test_a_block_that_nobody_hands_back_is_said_to_stay(tmp_path):
    url = f"sqlite:///{tmp_path}/l.db"
    with lease_worker.leased(url, AT_ONCE) as opened:
        opened.set_budget(Budget("global", "1"))
        for _ in range(3):
            opened.settle(opened.reserve("0.001", ["user:a"]).id, "0.0005")
        told = " ".join(_run("budgets", "--ledger", url).split())
    assert "that of a process that was killed stays until one with leases opens the ledger, or a sweep" in told
    assert "leased" not in _run("budgets", "--ledger", url), "it was handed back"


def test_rows_can_be_read_and_corrected(ledger):
    url, _ = ledger
    assert "settle" in _run("ledger", "status", "--ledger", url)
    assert "every attempt is confirmed" in _run("ledger", "unconfirmed", "--ledger", url)
    rows = [json.loads(line) for line in _run("budgets", "--ledger", url, "export", "--json").splitlines()]
    assert "$0.50" in _run("ledger", "reconcile", rows[-1]["id"], "0.50", "--ledger", url)
    lines = json.loads(_run("report", "--ledger", url, "--json"))["rows"]
    assert any(line["cost_usd"].startswith("0.5") for line in lines)


def test_a_memory_ledger_reports_that_there_is_nothing_to_read_and_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm-cost.toml").write_text('[ledger]\nurl = "memory://"\n')
    for command in (("report",), ("budgets",), ("ledger", "status")):
        result = runner.invoke(app, command)
        assert result.exit_code == 1
        assert "sqlite:///llm-cost.db" in result.output


@pytest.mark.parametrize("command", ["report", "cache", "decisions", "tune", "budgets"])
def test_a_ledger_whose_name_is_misspelt_is_not_made(command, tmp_path):
    said = runner.invoke(app, [command, "--ledger", f"sqlite:///{tmp_path}/typo.db"])
    assert "there is no ledger" in str(said.exception)
    assert not list(tmp_path.iterdir())


def test_a_budget_may_be_set_before_the_first_call(tmp_path):
    url = f"sqlite:///{tmp_path}/new.db"
    _run("budgets", "--ledger", url, "set", "global", "5")
    assert "5" in _run("budgets", "--ledger", url)


def test_init_writes_a_file_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "(delete [[tiers]] for none)" in _run("init")
    assert CostConfig.from_toml("llm-cost.toml", env={}).budgets == ()
    assert "--force" in _run("init", code=1)
    _run("init", "--force")


def test_doctor_names_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    told = _run("doctor")
    assert "no key in ANTHROPIC_API_KEY" in told
    assert "key in OPENAI_API_KEY" in told
    assert "memory" in told
    _run("doctor", "--strict", code=1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["report", "--ledger", "mysql://x"], "memory://"),
        (["report", "--config", "absent.toml"], "cannot read"),
        (["budgets", "--ledger", "sqlite:///x.db", "set", "global", "lots"], "limit"),
        (["budgets", "--ledger", "sqlite:///x.db", "set", "no scope", "1"], "scope"),
        (["demo", "--conversations", "absent.jsonl"], "cannot read"),
        (["tune", "absent.jsonl"], "absent.jsonl"),
        (["decisions", "--log", "[/absent].jsonl"], "[/absent].jsonl"),
        (["prices", "no-such-model"], "[prices."),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, told, tmp_path):
    code = f"import sys; sys.argv = ['llm-cost', *{arguments!r}]; from llm_cost_middleware.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_the_table_of_a_configuration():
    assert "[routing]" in _run("replay", "--help")


def test_the_version_is_shown():
    import llm_cost_middleware

    assert _run("--version").strip() == llm_cost_middleware.__version__


def test_the_package_runs_as_the_command():
    command = [sys.executable, "-m", "llm_cost_middleware"]
    done = subprocess.run([*command, "help", "exit-codes"], capture_output=True, text=True, check=True)
    assert done.stdout == _run("help", "exit-codes")
    assert subprocess.run([*command, "nope"], capture_output=True, check=False).returncode == 2
