"""Budgets with a life, and the stop button, from the command line."""

import json
import time
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import Budget, CostPipeline, Ledger
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.errors import ConfigurationError, ScopePausedError
from llm_cost_middleware.periods import coming_day

RUNNER = CliRunner()


@pytest.fixture
def url(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Ledger.open(url) as ledger:
        ledger.configure_budgets([Budget("team:search", 5, "month", reserve={"tag:checkout": 0.25})])
    return url


def run(url, *words):
    before = ["budgets", "--ledger", url] if words[0] not in {"pause", "resume"} else []
    after = ["--ledger", url] if words[0] in {"pause", "resume"} else []
    return RUNNER.invoke(app, [*before, *words, *after], catch_exceptions=False)


def listed(url, *options):
    return json.loads(run(url, "list", "--json", *options).output)


def test_a_list_shows_where_each_comes_from_and_what_it_keeps(url):
    (row,) = listed(url)["budgets"]
    assert (row["scope"], row["source"], row["keeps"]) == (
        "team:search",
        "configuration:default",
        {"tag:checkout": "0.25"},
    )
    assert "team:search" in run(url, "list").output


def test_raise_remove_and_history(url):
    assert "$9" in run(url, "raise", "team:search", "9", "--window", "month", "--until", "2h").output
    (row,) = listed(url)["budgets"]
    assert row["raised_to"] == "9.000000000"
    assert datetime.fromisoformat(row["since"]) < datetime.fromisoformat(row["raised_until"])
    assert run(url, "remove", "team:search", "--window", "month").exit_code == 0
    assert listed(url)["budgets"] == []
    assert listed(url, "--all")["budgets"][0]["state"] == "removed"
    told = json.loads(run(url, "history", "--json").output)
    assert [line["action"] for line in told] == ["removed", "raised", "set"]
    assert datetime.fromisoformat(told[0]["at"]) >= datetime.fromisoformat(row["since"])


def test_pause_and_resume_reach_an_open_ledger(url):
    with Ledger.open(url) as running:
        running.void(running.reserve("0.01", ["team:search"]).id)
        assert "paused" in run(url, "pause", "team:search", "--until", "1h", "--reason", "incident 7").output
        with pytest.raises(ScopePausedError, match="incident 7"):
            running.reserve("0.01", ["team:search"])
        assert listed(url)["paused"][0]["reason"] == "incident 7"
        assert "goes on" in run(url, "resume", "team:search").output
        running.reserve("0.01", ["team:search"])


def test_a_budget_that_carries_over_says_so(url):
    assert run(url, "set", "team:ads", "5", "--window", "day", "--carry-over", "50%").exit_code == 0
    assert run(url, "set", "team:all", "5", "--window", "day", "--carry-over", "all").exit_code == 0
    found = {row["scope"]: row["carry_over"] for row in listed(url)["budgets"]}
    assert found == {"team:ads": "50%", "team:all": True, "team:search": False}
    assert "carries over" in run(url, "list").output
    told = RUNNER.invoke(app, ["budgets", "--ledger", url, "--json"]).output
    assert {row["carried"] for row in json.loads(told)} == {"0.000000000"}
    assert "carried" in RUNNER.invoke(app, ["budgets", "--ledger", url]).output


def test_a_raise_of_what_a_template_limits_names_the_template_and_the_command(url):
    run(url, "set", "team:*", "5", "--window", "day")
    with pytest.raises(ConfigurationError) as caught:
        run(url, "raise", "team:ads", "50", "--window", "day")
    assert "that of team:* applies" in str(caught.value)
    command = str(caught.value).partition("llm-cost budgets ")[2].replace("DOLLARS", "50").split()
    assert run(url, *command).exit_code == 0
    assert run(url, "raise", "team:ads", "60", "--window", "day").exit_code == 0
    with pytest.raises(ConfigurationError) as caught:
        run(url, "raise", "user:7", "50", "--window", "day")
    assert "set" not in str(caught.value)


def test_a_raise_without_the_window_names_those_that_there_are(url):
    run(url, "set", "team:*", "5", "--window", "day")
    run(url, "set", "team:ads", "50", "--window", "month")
    with pytest.raises(ConfigurationError, match=r"window 'none', but in 'day', 'month'$"):
        run(url, "raise", "team:ads", "60")
    with pytest.raises(ConfigurationError, match=r"window 'none'$"):
        run(url, "raise", "user:7", "60")


@pytest.mark.parametrize("word", ["today", "tomorrow", " Monday"])
def test_the_end_of_a_raise_or_a_pause_may_be_a_day(url, word):
    begun = time.time()
    end = coming_day(word, now=begun, zone=UTC)
    assert run(url, "raise", "team:search", "9", "--window", "month", "--until", word).exit_code == 0
    assert run(url, "pause", "team:search", "--until", word).exit_code == 0
    with Ledger.open(url) as ledger:
        ends = {ledger.budget_lives()[0].raised_until, ledger.pauses()[0].until / 1000}
    assert ends <= {end, coming_day(word, now=time.time(), zone=UTC)}  # midnight may pass meanwhile


TOML = """
[ledger]
url = "sqlite:///ledger.db"

[attribution.names]
team = ["search", "svc-*"]

[[budgets]]
scope = "team:search"
limit = 5

[[budgets]]
scope = "global"
limit = 50
window = "month"
"""


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A folder with a configuration that no process has started with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    (tmp_path / "llm-cost.toml").write_text(TOML)


def told(*words):
    return " ".join(RUNNER.invoke(app, words, catch_exceptions=False).output.split())


@pytest.mark.usefixtures("configured")
def test_a_pause_of_a_name_that_there_is_not_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match=r"pause.*did you mean 'search'"):
        told("pause", "team:serach")
    for scope in ("team:search", "team:svc-7", "team:*", "team:unassigned", "global", "model:gpt-5"):
        assert "is paused" in told("pause", scope)
    assert "team:search is paused" in told("budgets")
    assert "team:search is paused" in told("budgets", "list")
    assert "goes on" in told("resume", "team:search")
    assert "team:search is paused" not in told("budgets")


def test_a_pause_of_what_no_call_was_for_asks_whether_it_is_spelt_so(url):
    with Ledger.open(url) as ledger:
        ledger.book("0.01", ["team:ads", "model:gpt-5"])
    for scope in ("global", "team:ads", "model:gpt-5", "team:*", "user:*"):
        assert "is that how" not in run(url, "pause", scope).output
    for scope in ("tema:ads", "model:gpt5", "team:adds"):
        told = run(url, "pause", scope)
        assert told.exit_code == 0
        assert f"nothing is booked under {scope} so far" in told.output


@pytest.mark.usefixtures("configured")
def test_a_pause_of_a_snapshot_says_that_the_alias_goes_on():
    assert "pause model:claude-haiku-4-5 to stop it" in told("pause", "model:anthropic/claude-haiku-4-5-20251001")
    assert "go on: pause" not in told("pause", "model:claude-haiku-4-5")
    assert "model:claude-haiku-4-5-20251001 goes on" in told("resume", "model:claude-haiku-4-5-20251001")


@pytest.mark.usefixtures("configured")
def test_budgets_that_no_process_has_put_in_force_yet_are_told_of():
    for words in (["budgets"], ["budgets", "list"]):
        assert "the configuration has 2 budgets; the next process that starts with it" in told(*words)
    with CostPipeline("llm-cost.toml") as pipeline:
        pipeline.ledger.remove_budget("team:search")
        pipeline.ledger.remove_budget("global", "month")
    for words in (["budgets"], ["budgets", "list"]):  # a line that says the same as ever does not bring them back
        assert "the configuration has" not in told(*words)


@pytest.mark.parametrize(
    "words",
    [["report"], ["budgets"], ["budgets", "set", "global", "5"], ["pause", "global"], ["ledger", "status"], ["cache"]],
    ids=" ".join,
)
def test_a_command_without_a_configuration_names_the_option_that_does_without(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    with pytest.raises(ConfigurationError, match=r"llm-cost init.*--ledger URL_OR_FILE"):
        told(*words)
    with pytest.raises(ConfigurationError, match="llm-cost init") as caught:
        told("litellm-config")  # which has no such option
    assert "--ledger" not in str(caught.value)


@pytest.mark.parametrize("until", ["1764201600000", "inf", "1e300", "99999999999999", "10000000000d"])
def test_an_end_that_no_date_can_be_made_of_is_refused(url, until):
    for words in (("pause", "team:search", "--until", until), ("raise", "team:search", "9", "--until", until)):
        with pytest.raises(ConfigurationError, match="until"):
            run(url, *words, *(["--window", "month"] * (words[0] == "raise")))


@pytest.mark.parametrize("scope", ["team:%5B/%5D", "team:x", "tag:fire"])
def test_the_name_of_a_scope_is_told_as_it_is(url, scope):
    for words in (("set", scope, "1"), ("raise", scope, "2"), ("remove", scope)):
        told = run(url, *words)
        assert told.exit_code == 0
        assert scope in told.output
