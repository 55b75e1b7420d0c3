"""Tables: nothing is cut, at any width, in a terminal or a pipe."""

import io
import re
import time
from decimal import Decimal

import pytest
from rich.console import Console

from llm_cost_middleware.cli import currency, tables
from llm_cost_middleware.money import NanoUSD

NAMES = [f"team:platform-{kind}-of-the-{place}" for kind in ("ingest", "search") for place in ("north", "south-east")]
COLUMNS = [
    *tables.names("when", whole=True), *tables.names("scope", "model"), *tables.figures("calls", "spent"),
    *tables.figures("saved by\ncaching", optional=True),
]  # fmt: skip
ROWS = [
    ["Nov 25 07:26", name, "anthropic/claude-haiku-4-5-20251001", "1,234,567", "$12,345.67", "$0.001683"]
    for name in NAMES
]


def printed(monkeypatch, width, *, terminal=True, columns=COLUMNS, rows=ROWS, total=None):
    text = io.StringIO()
    monkeypatch.setattr(tables, "out", Console(file=text, width=width, force_terminal=terminal, no_color=True))
    monkeypatch.setattr(tables.sys, "stdout", text)
    tables.show(columns, rows, title="a table", total=total)
    return re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("count", [1, 4])
def test_nothing_is_cut_at_any_width(monkeypatch, width, count):
    total = ["total", "", "", "4,938,268", "$49,382.68", "$0.006732"]
    text = printed(monkeypatch, width, rows=ROWS[:count], total=total)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    shown = re.sub(r"\s", "", text)
    for row in [*ROWS[:count], total]:
        for index, cell in enumerate(row):
            if index in {0, 3, 4}:  # times and figures stand whole on a line
                assert cell in text or width < 60
            elif index in {1, 2} and count == 1 and width >= 120:
                assert cell in text
    # every name is there, its parts in their order
    for name in [row[1] for row in ROWS[:count]]:
        parts = iter(shown)
        assert all(letter in parts for letter in name)


def test_a_column_that_is_left_out_is_named(monkeypatch):
    assert "also saved by caching" in printed(monkeypatch, 90)
    assert "also" not in printed(monkeypatch, 160)


def test_in_a_pipe_every_row_is_a_line(monkeypatch):
    lines = printed(monkeypatch, 20, terminal=False).splitlines()
    assert len(lines) == 2 + len(ROWS)
    for line, row in zip(lines[2:], ROWS, strict=True):
        assert re.split(r"  +", line) == row


def test_markup_in_a_name_is_a_name(monkeypatch):
    text = printed(monkeypatch, 80, columns=tables.names("user"), rows=[["[bold]x[/]"], ["[link=http://x]y"]])
    assert "[bold]x[/]" in text
    assert "[link=http://x]y" in text


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "$0.00"), ("0.001683350", "$0.001683"), ("0.000000001", "$0.000000001"), ("0.5", "$0.50"),
        ("9.9996", "$10.000"), ("12.345", "$12.34"), ("1234567.891", "$1,234,567.89"), ("-0.25", "-$0.25"),
        (None, "-"),
    ],
)  # fmt: skip
def test_an_amount_has_cents_and_four_digits_that_count(amount, shown):
    assert currency.amount(None if amount is None else Decimal(amount)) == shown
    if amount is not None and Decimal(amount) >= 0:
        assert currency.amount(NanoUSD(int(Decimal(amount) * 10**9))) == shown


def test_progress_is_silent_where_nobody_looks(capsys):
    assert list(tables.counted(range(2_000), "reading")) == list(range(2_000))
    assert capsys.readouterr().err == ""


def test_names_are_folded_where_a_reader_would():
    assert tables.fold("anthropic/claude-haiku-4-5-20251001", 26).split("\n") == [
        "anthropic/", "claude-haiku-4-5-20251001",
    ]  # fmt: skip
    assert tables.fold("it costs $1/$5 a million tokens", 20).split("\n") == ["it costs $1/$5 a", "million tokens"]
    assert tables.fold("x" * 25, 10).split("\n") == ["x" * 10, "x" * 10, "x" * 5]
    assert tables.fold("team:search-of-the-north", 12).split("\n") == ["team:search-", "of-the-north"]


def test_what_a_terminal_would_obey_is_blank(monkeypatch):
    text = printed(monkeypatch, 80, columns=tables.names("user"), rows=[["a\x1b]8;;http://x\x07b\u202ec"]])
    assert "a ]8;;http://x b c" in text


def test_a_column_in_which_nothing_stands_is_left_out(monkeypatch):
    columns = [*tables.names("a", "b", sparse=True), *tables.figures("c", sparse=True)]
    for terminal in (True, False):
        text = printed(monkeypatch, 80, terminal=terminal, columns=columns, rows=[["x", "", "-"], ["y", "-", "-"]])
        assert "a" in text.splitlines()[1]
        assert not {"b", "c"} & set(text.splitlines()[1].split())


def test_work_says_after_a_second_that_it_goes_on_though_it_counts_nothing(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(tables, "err", Console(file=text, width=80, force_terminal=True))
    monkeypatch.setattr(tables, "_SOON_S", 0.01)
    began = time.monotonic()
    with tables.working("adding up"):
        while "adding up" not in text.getvalue():
            assert time.monotonic() - began < 30
            time.sleep(0.01)
