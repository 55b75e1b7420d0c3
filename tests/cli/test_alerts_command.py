"""``llm-cost alerts``: from cron, tried out, and listed."""

import pytest
from alert_receiver import Receiver
from typer.testing import CliRunner

from llm_cost_middleware import Ledger
from llm_cost_middleware.cli.app import app


@pytest.fixture
def told(tmp_path):
    """A configuration with a budget that is nearly spent, and a receiver."""
    with Receiver() as receiver:
        path, ledger = tmp_path / "llm-cost.toml", f"sqlite:///{tmp_path}/ledger.db"
        path.write_text(f'[ledger]\nurl = "{ledger}"\n[[alerts]]\nwhen = "threshold"\nto = ["{receiver.url}"]\n')
        with Ledger.open(ledger) as opened:
            opened.set_budget("team:search", 1, "month")
            opened.book("0.9", ["team:search"])
        yield path, receiver


def _run(*arguments):
    return CliRunner().invoke(app, ["alerts", *map(str, arguments)])


def test_check_tells_what_is_new_and_says_what_could_not_be_told(told):
    path, receiver = told
    done = _run("check", "-c", path)
    assert done.exit_code == 1, done.output
    assert "team:search has spent 90 %" in done.output
    assert "1 new, 0 told, 1 could not be told yet" in done.output
    assert "SECRET" not in done.output
    receiver.up()
    done = _run("check", "-c", path)
    assert (done.exit_code, "0 new, 1 told, 0 could not" in done.output) == (0, True), done.output
    assert _run("check", "-c", path).output == "0 new, 0 told, 0 could not be told yet\n"
    assert len(receiver.ids) == 1


def test_list_shows_what_was_raised_and_whether_it_was_told(told):
    path, receiver = told
    assert "no alert was raised yet" in _run("list", "-c", path).output
    _run("check", "-c", path)
    assert "0 of 1" in _run("list", "-c", path).output
    receiver.up()
    _run("check", "-c", path)
    listed = _run("list", "-c", path).output
    assert "1 of 1" in listed
    assert receiver.ids[0] in listed


def test_every_target_is_tried_by_test(told):
    path, receiver = told
    failed = _run("test", "-c", path)
    assert failed.exit_code == 1
    assert "http://127.0.0.1/…: ConnectionRefusedError" in failed.output
    receiver.up()
    done = _run("test", "-c", path)
    assert (done.exit_code, done.output) == (0, "http://127.0.0.1/…: told\n")
    assert receiver.ids == ["test"]


def test_without_rules_the_way_to_some_is_told(tmp_path):
    path = tmp_path / "llm-cost.toml"
    path.write_text("")
    done = _run("check", "-c", path)
    assert "llm-cost help alerts" in str(done.exception)
