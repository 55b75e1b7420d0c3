"""Every command and option, by walking the parser: misspelt, on an empty ledger, with hostile names."""

import json
import re
from enum import Enum
from typing import get_args, get_type_hints

import pytest
from command_line import commands
from typer.testing import CliRunner

from llm_cost_middleware import Ledger
from llm_cost_middleware.cli import loading, tables
from llm_cost_middleware.cli.app import app
from llm_cost_middleware.metering import encode_memo
from llm_cost_middleware.request import ModelRef

runner = CliRunner()
HOSTILE = "=HYPERLINK(1)\x1b[31mred\x07\u202e"


EVERY = dict(commands())
OPTIONS = [
    (path, option)
    for path, command in EVERY.items()
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
    if option.startswith("--") and len(option) > 5
]


def run(*words, **rest):
    return runner.invoke(app, words, env={"COLUMNS": "120"}, **rest)


def test_the_walk_meets_every_command():
    assert {"report", "budgets", "doctor", "demo", "help"} <= {path[0] for path in EVERY}
    assert len(EVERY) >= 25
    assert len(OPTIONS) >= 90


def test_no_help_has_lost_a_name_in_brackets():
    for path, command in EVERY.items():
        for text in (command.help, *(getattr(one, "help", None) for one in command.params)):
            markup = re.findall(r"(?<!\\)\[[a-z.\[]+\]+", text or "")
            assert not markup, (path, markup, "brackets are markup here: write \\[ or other words")
        assert "[]" not in run(*path, "--help").output


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_misspelt_option_and_command_is_told_the_right_one(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for where, option in OPTIONS:
        if where == path:
            wrong = f"{option[:-2]}{option[-1]}x"
            told = run(*path, wrong)
            assert told.exit_code == 2, option
            assert option in told.output, (wrong, told.output)
    wrong = (*path[:-1], f"{path[-1][:-2]}{path[-1][-1]}x" if len(path[-1]) > 3 else f"{path[-1]}x")
    told = run(*wrong)
    assert told.exit_code == 2
    assert path[-1] in told.output, told.output


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_every_choice_that_is_misspelt_lists_the_right_ones(path):
    hints = get_type_hints(EVERY[path].callback)
    for parameter in EVERY[path].params:
        choices = [
            kind for kind in get_args(hints[parameter.name]) if isinstance(kind, type) and issubclass(kind, Enum)
        ]
        for choice in choices:
            told = run(*path, parameter.opts[0], "nonsense")
            assert told.exit_code == 2
            for known in choice:
                assert known.value in told.output


WRONG_WORDS = [
    (("report", "--over", "dya"), "did you mean 'day'"), (("report", "--by", "teams"), "did you mean 'team'"),
    (("report", "--by", "teem"), "did you mean team?"), (("report", "--where", "usr=x"), "did you mean user?"),
    (("report", "--timezone", "Europe/Viena"), "Europe/Vienna"), (("report", "--since", "yesterda"), "yesterday"),
    (("budgets", "set", "glbal", "5"), "did you mean 'global'"),
    (("budgets", "set", "global", "5", "--timezone", "Europe/Viena"), "Europe/Vienna"),
    (("decisions", "--outcome", "truncatd"), "did you mean truncated?"),
    (("decisions", "--policy", "lerned"), "did you mean learned?"),
    (("report", "--since", "yesteday"), "did you mean 'yesterday'"),
    (("report", "--during", "last moth"), "did you mean 'last month'"),
    (("report", "--where", "teem==a"), "did you mean team?"),
    (("budgets", "set", "global", "5", "--window", "mnth"), "did you mean 'month'"),
    (("budgets", "set", "global", "5", "--reserve", "x"), "SCOPE=SHARE"),
    (("help", "atribution"), "attribution"), (("prices", "claude-hiku-4-5"), "claude-haiku-4-5"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "told"), WRONG_WORDS, ids=[" ".join(words) for words, _ in WRONG_WORDS])
def test_a_misspelt_word_is_told_the_right_one(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        ledger.book("1", ["team:a"], id="1")
    result = run(*words, *([] if words[0] in {"help", "prices"} else ["--ledger", "l.db"]))
    assert told in result.output + str(result.exception)


_READING = {"report", "budgets", "list", "history", "export", "decisions", "cache", "status", "unconfirmed"}
READERS = [path for path in EVERY if path[-1] in _READING and path[0] != "alerts"]


@pytest.mark.parametrize("path", READERS, ids=" ".join)
def test_an_empty_answer_is_an_answer_in_every_form(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger.open("sqlite:///l.db").close()
    for parameter in [None, *EVERY[path].params]:
        option = parameter.opts[0] if parameter is not None else None
        if option in {None, "--json", "--csv", "--jsonl", "--all"}:
            told = run(*path, *([option] if option else []), "--ledger", "l.db")
            assert told.exit_code == 0, (option, told.output, told.exception)
            assert option == "--jsonl" or (path[-1], option) == ("export", "--json") or told.stdout.strip()


@pytest.mark.parametrize("path", READERS, ids=" ".join)
def test_no_name_reaches_a_terminal_or_a_spreadsheet_as_more_than_text(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        memo = encode_memo(call_id=HOSTILE, attempt=1, target=ModelRef("openai", HOSTILE), tier=HOSTILE, asked=HOSTILE)
        ledger.book("1", ["team:x"], id=HOSTILE, memo=memo, status="estimated")
        ledger.pause("team:x", reason=HOSTILE)
    for parameter in [None, *EVERY[path].params]:
        option = parameter.opts[0] if parameter is not None else None
        if option in {None, "--json", "--csv", "--jsonl", "--all"}:
            told = run(*path, *([option] if option else []), "--ledger", "l.db").output
            turning = "" if "json" in str(option) else "\u202e"  # JSON is for programs
            assert not re.search(rf"[\x00-\x08\x0b-\x1f\x7f{turning}]", told), (option, told)
            if option == "--csv" or path[-1] == "export":
                assert not re.search(r'(^|,)"?[=+@]', told, re.MULTILINE), told


def test_options_of_ledger_and_configuration_stand_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        ledger.book("1", ["team:a"], id="1")
    for path in READERS:
        words = list(path)
        wanted = run(*words, "--ledger", "l.db").output
        for at in range(len(words) + 1):
            for given in (["--ledger", "l.db"], ["--ledger=l.db"]):
                told = run(*words[:at], *given, *words[at:])
                assert (told.exit_code, told.output) == (0, wanted), (path, at)


def test_a_watched_budget_shows_itself_again_until_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        ledger.set_budget("global", "5")
    rounds = []

    def sleep(self, seconds):
        rounds.append(seconds)
        if len(rounds) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("llm_cost_middleware.system_clock.SystemClock.sleep", sleep)
    told = run("budgets", "--watch", "2", "--ledger", "l.db")
    assert rounds == [2, 2, 2]
    assert told.output.count("global") == 3
    assert told.exit_code == 130


def test_a_call_that_nobody_made_is_no(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger.open("sqlite:///l.db").close()
    assert run("decisions", "nobody", "--ledger", "l.db").exit_code == 1
    assert json.loads(run("report", "--json", "--ledger", "l.db").output)["rows"] == []


def test_a_line_for_people_is_one_line_in_a_pipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger.open("sqlite:///l.db").close()
    told = runner.invoke(app, ["tune", "--ledger", "l.db"], env={"COLUMNS": "40"})
    assert (
        "refused: nothing is known of how good these 0 calls were. That no failure was seen is no grade." in told.output
    )


def test_a_filter_may_be_written_with_two_signs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        ledger.book("1", ["team:a"], id="1")
        ledger.book("2", ["team:b"], id="2")
    for where, wanted in (("team==a", "1"), ("team=a", "1"), ("team!=a", "2")):
        told = run("report", "--by", "team", "--where", where, "--json", "--ledger", "l.db")
        assert json.loads(told.output)["total"]["cost_usd"] == f"{wanted}.000000000"


LONG = {
    ("report",): (), ("budgets",): (), ("budgets", "export"): (), ("decisions",): ("--jsonl",), ("cache",): (),
    ("ledger", "status"): (), ("ledger", "unconfirmed"): (), ("ledger", "archive"): ("--before", "90d"),
    ("ledger", "backup"): ("copy.db",), ("ledger", "prune"): ("--before", "90d"), ("ledger", "erase"): ("user:a",),
}  # fmt: skip
"""Commands whose work grows with the ledger, and what they need."""


@pytest.mark.parametrize("path", LONG, ids=" ".join)
def test_what_may_take_long_says_that_it_works(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        ledger.book("1", ["user:a"])
    told, real = [], tables.working

    def working(text):
        told.append(text)
        return real(text)

    monkeypatch.setattr(tables, "working", working)
    assert run(*path, *LONG[path], "--ledger", "l.db").exit_code == 0
    assert told


def test_a_decision_that_cannot_be_taken_says_what_can(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Ledger.open("sqlite:///l.db") as ledger:
        ledger.set_budget("team:a", "5", "day")
    told = run("budgets", "raise", "team:a", "9", "--ledger", "l.db")
    assert "team:a has no budget in the window 'none', but in 'day'" in str(told.exception)
    told = run("pause", "team:a", "--until", "never", "--ledger", "l.db")
    assert "'2h', '1d', 'tomorrow'" in str(told.exception)


def test_a_command_leaves_no_configuration_behind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "llm-cost.toml"
    for mode in ("observe", "enforce"):
        path.write_text(f"mode = '{mode}'\n[ledger]\nurl = 'sqlite:///l.db'\n")
        assert loading.load_config(path).mode == loading.load_config(None).mode == mode
        assert run("budgets", "set", "global", "5").exit_code == 0
        assert run("budgets", "--config", str(path)).exit_code == 0
