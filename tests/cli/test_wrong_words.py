"""Words that no command can use: each is told in a line, and never by a traceback."""

import pytest
from typer.testing import CliRunner

from llm_cost_middleware import ConfigurationError, CostConfig, Ledger, LLMCostError
from llm_cost_middleware.cli.app import app


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        ledger.set_budget("team:a", "5")
        ledger.reserve("1", ["user:b"], id="r1")

    def command(*words, **env):
        done = command.last = CliRunner().invoke(app, words, env={"COLUMNS": "200", **env})
        return done.exit_code, f"{done.output}{done.exception or ''}"

    return command


@pytest.mark.parametrize(
    "words",
    [
        ("budgets", "set", "user:1", "-5"), ("budgets", "set", "user:1", "-.5"), ("budgets", "set", "user:1", "-$5"),
        ("budgets", "raise", "team:a", "-5"), ("ledger", "reconcile", "r1", "-0.1"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_negative_amount_is_told_as_one(run, words):
    code, told = run(*words, "--ledger", "l.db")
    assert code == 2
    assert "no amount is negative" in told
    code, told = run(*words[:-1], "--ledger", "l.db", "--", words[-1])
    assert code
    assert "negative" in told


@pytest.mark.parametrize(
    "words",
    [
        ("report", "--parquet", "user:"), ("report", "--parquet", "\udcff"), ("report", "--parquet", "http://x y"),
        ("ledger", "reconcile", "\udcff", "1"), ("ledger", "prune", "--keep", "9" * 40),
        ("export", "focus", "--account", "\udcff"), ("prices", "\udcff"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_word_that_cannot_be_used_is_told_and_is_no_fault_of_ours(run, words):
    try:
        code, told = run(*words, *(() if words[0] == "prices" else ("--ledger", "l.db")))
    except UnicodeEncodeError as error:  # of the test's own terminal
        raise AssertionError(words) from error
    assert "Traceback" not in told
    assert isinstance(run.last.exception, LLMCostError | OSError | SystemExit | None), run.last.exception
    assert code or words[1:] == ("--parquet", "user:") or words[-1] == "\udcff"


def test_a_misspelt_short_option_is_still_one(run):
    code, told = run("budgets", "set", "user:1", "5", "-z", "--ledger", "l.db")
    assert code == 2
    assert "No such option: -z" in told


def test_a_scope_that_is_none_has_no_history(run):
    assert "'team'" in run("budgets", "history", "--scope", "team", "--ledger", "l.db")[1]
    assert "team:a" in run("budgets", "history", "--scope", "team:a", "--ledger", "l.db")[1]


def test_files_topics_and_numbers(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file; name a folder" in run("monitoring", "file")[1]
    assert "llm-cost report --help" in run("help", "report")[1]
    assert run("cache", "--limit", "-1", "--ledger", "l.db")[0] == 2
    assert run("demo", "--limit", "0")[0] == 2


@pytest.mark.parametrize("address", ["http://x:abc", "http://x y", "http://:80", "https://x:99999", "http://x/a b"])
def test_an_address_that_none_can_call_is_refused(address):
    with pytest.raises(ConfigurationError, match="must be an address such as"):
        CostConfig(providers={"openai": {"base_url": address}})


@pytest.mark.parametrize("address", ["http://x:80", "https://[::1]:8080/v1", "HTTP://Host/v1", "https://u:p@host/v1/"])
def test_an_address_that_can_be_called_is_taken(address):
    assert CostConfig(providers={"openai": {"base_url": address}}).providers["openai"].base_url == address


def test_nothing_follows_the_end_of_a_call():
    with pytest.raises(ConfigurationError, match="nothing can follow 'raise'"):
        CostConfig(output={"on_insufficient": ["raise", "cap_output"]})
