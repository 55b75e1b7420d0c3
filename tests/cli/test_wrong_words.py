"""Words that no command can use: each is told in a line, and never by a traceback."""

import pytest
from command_line import commands
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


NEEDED = {
    "scope": "team:a", "limit": "7", "file": "r.jsonl", "policy": "p.toml", "before": "30d", "files": "wrong.bin",
    "batch": "x", "reservation_id": "r1", "actual": "1", "archived": "wrong.bin", "to": "copy.db",
}  # fmt: skip
"""What a command needs, by the name of the argument or option."""
WRONG = ("", "-1", "9" * 40, "nan", "1e400", "ü☃", "x" * 300, "http://x:y z", "=", ".", "wrong.bin", "no/such/file")
EVERY = dict(commands())
OTHERS = {("dashboard",), ("doctor",), ("demo",)}
"""Commands that serve, open every host, or play: tested where they are."""


def wrong_words(command):
    """Every argument and option of a command with everything that is wrong for some, the others as they should be."""
    needed = [one for one in command.params if one.required]
    for wrong in command.params:
        if wrong.param_type_name == "option" and (wrong.is_flag or wrong.name == "help"):
            continue
        for word in WRONG:
            given = {one: NEEDED[one.name] for one in needed} | {wrong: word}
            options = [f"{one.opts[-1]}={value}" for one, value in given.items() if one.param_type_name == "option"]
            yield *options, "--", *(value for one, value in given.items() if one.param_type_name == "argument")


@pytest.mark.parametrize("path", sorted(EVERY.keys() - OTHERS), ids=" ".join)
def test_no_wrong_word_ends_in_a_traceback(run, path, tmp_path):
    (tmp_path / "wrong.bin").write_bytes(bytes(range(256)))
    (tmp_path / "p.toml").write_text("[routing]")
    (tmp_path / "r.jsonl").write_text('{"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}')
    (tmp_path / "llm-cost.toml").write_text('[ledger]\nurl = "sqlite:///l.db"')
    known = set(tmp_path.iterdir())
    for words in wrong_words(EVERY[path]):
        run(*path, *words)
        done = run.last
        assert isinstance(done.exception, LLMCostError | OSError | SystemExit | None), (words, done.exception)
        if done.exit_code:
            assert "\n" not in str(done.exception), words
            assert f"{done.output}{done.exception}".strip(), words
        for made in set(tmp_path.iterdir()) - known:
            if made.is_file():
                made.unlink()


@pytest.mark.parametrize(("target", "meant"), [("htp://x/y", "http"), ("htps://x", "https"), ("HTTPSS://x", "https")])
def test_a_misspelt_webhook_is_no_service_of_apprise(target, meant):
    with pytest.raises(ConfigurationError, match=f"is no service; did you mean {meant}://"):
        CostConfig(alerts=[{"when": "threshold", "to": [target]}])


def test_who_has_no_configuration_is_told_what_he_can_give(run):
    assert "--config FILE, in Python a CostConfig. Or name a ledger alone: --ledger" in run("report")[1]
