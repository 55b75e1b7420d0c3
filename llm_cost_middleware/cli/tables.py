"""Tables that cut nothing: in a terminal the widest column of names folds, in a pipe every line is whole.

Figures are never folded or cut, since a part of a figure is another figure. Where even they do not fit, a row becomes a
line of names with its figures below.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple, TypeVar

from rich.box import SIMPLE_HEAD
from rich.status import Status
from rich.table import Table
from rich.text import Text

from llm_cost_middleware.cli.loading import err, out

T = TypeVar("T")
_LEAST_NAME = 8
"""Terminal columns that a name is folded to at least."""
_EASY_NAME = 30
"""Terminal columns from which a name may be folded rather than a column left out."""
_GAP = 2
_EVERY = 1_000
_SOON_S = 1.0
"""Seconds after which work shows how far it is."""


class Column(NamedTuple):
    """A column: of figures, which stand to the right and are never folded, or of names."""

    name: str
    figures: bool = False
    whole: bool = False
    """Names that are short, such as times: never folded."""
    optional: bool = False
    """Left out where the terminal is too narrow for it, which is said."""


def names(*headers: str, whole: bool = False) -> list[Column]:
    """Columns of names."""
    return [Column(header, whole=whole) for header in headers]


def figures(*headers: str, optional: bool = False) -> list[Column]:
    """Columns of figures."""
    return [Column(header, figures=True, optional=optional) for header in headers]


def when(moment: float, *, now: float | None = None) -> str:
    """A moment in the machine's time zone, short: the year only where it is another, the time only if not midnight."""
    local = datetime.fromtimestamp(moment).astimezone()
    present = datetime.fromtimestamp(time.time() if now is None else now).astimezone()
    day = f"{local:%b} {local.day}" + ("" if local.year == present.year else f" {local.year}")
    return day if (local.hour, local.minute) == (0, 0) else f"{day} {local:%H:%M}"


def show(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    total: Sequence[str] | None = None,
) -> None:
    """Print a table, for a terminal or for a pipe.

    Args:
        columns: The columns, from the left.
        rows: Cells, as many as columns.
        title: Above it.
        total: The last row.
    """
    if not out.is_terminal:
        _print_plain(columns, [*rows, total] if total else rows, title)
        return
    if title:
        say(title)
    kept = _fitting(columns, rows, total)
    picked = [columns[index] for index in kept]
    cells = [[row[index] for index in kept] for row in rows]
    last = [total[index] for index in kept] if total else None
    table = _table(picked, cells, last)
    if _width(table) > out.width:
        _fold(table, picked, cells, last)
    if _width(table) > out.width:
        _print_stacked(picked, [*cells, last] if last else cells)
    else:
        out.print(table)
    left = [column.name.replace("\n", " ") for index, column in enumerate(columns) if index not in kept]
    if left:
        out.print(f"[dim]also {', '.join(left)}: in a wider terminal, or with --json[/]", highlight=False)


def empty(what: str, advice: str) -> None:
    """Say that there is nothing to show, and what to do next."""
    out.print(f"{what} {advice}", highlight=False, markup=False, soft_wrap=not out.is_terminal)


def say(text: str) -> None:
    """Print a line for people; in a pipe it stays one line."""
    out.print(text, highlight=False, markup=False, soft_wrap=not out.is_terminal)


def _print_plain(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str) -> None:
    headers = [column.name.replace("\n", " ") for column in columns]
    lines = [headers, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    if title:
        sys.stdout.write(f"{title}\n")
    for line in lines:
        cells = [
            cell.rjust(width) if column.figures else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        sys.stdout.write(f"{'  '.join(cells).rstrip()}\n")


def _table(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None) -> Table:
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, show_edge=False,
        show_footer=total is not None, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for index, column in enumerate(columns):
        footer = Text(total[index]) if total else ""
        table.add_column(
            column.name, footer=footer, justify="right" if column.figures else "left", overflow="fold",
            no_wrap=True, vertical="top",
        )  # fmt: skip
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _width(table: Table) -> int:
    return out.measure(table, options=out.options.update(max_width=10_000)).maximum


def _lengths(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None) -> list[int]:
    """The terminal columns that each column takes unfolded."""
    lines = [[column.name for column in columns], *rows, *([total] if total else [])]
    return [max(len(part) for line in lines for part in line[index].split("\n")) for index in range(len(columns))]


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None) -> list[int]:
    """The columns to show: optional ones are left out, from the right, until no name need be folded small."""
    kept, lengths = list(range(len(columns))), _lengths(columns, rows, total)
    needed = [
        length if column.figures or column.whole else min(length, _EASY_NAME)
        for length, column in zip(lengths, columns, strict=True)
    ]
    for index in reversed(range(len(columns))):
        if sum(needed[i] + _GAP for i in kept) <= out.width:
            break
        if columns[index].optional:
            kept.remove(index)
    return kept


def _fold(table: Table, columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None) -> None:
    """Fold names until the table fits, the widest column first."""
    lengths = _lengths(columns, rows, total)
    while (over := _width(table) - out.width) > 0:
        wide = [
            i for i, column in enumerate(columns)
            if not (column.figures or column.whole) and lengths[i] > _LEAST_NAME
        ]  # fmt: skip
        if not wide:
            return
        widest = max(wide, key=lambda i: lengths[i])
        second = max((lengths[i] for i in wide if i != widest), default=_LEAST_NAME)
        lengths[widest] = max(lengths[widest] - over, min(second, lengths[widest] - 1), _LEAST_NAME)
        table.columns[widest].no_wrap, table.columns[widest].width = False, lengths[widest]


def _print_stacked(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        named = [cell for cell, column in zip(row, columns, strict=True) if not column.figures and cell]
        out.print(Text("  ".join(named), style="bold", overflow="fold"))
        told = [
            f"{column.name} {cell}".replace("\n", " ")
            for cell, column in zip(row, columns, strict=True)
            if column.figures
        ]
        out.print(Text(f"  {', '.join(told)}"))


@contextmanager
def working(text: str) -> Iterator[Callable[[int], None]]:
    """Show on standard error how far something is that takes longer than a second; yields what tells the count."""
    began = time.monotonic()
    status = Status(text, console=err)
    shown = False

    def tell(number: int) -> None:
        nonlocal shown
        if not shown and time.monotonic() - began >= _SOON_S and err.is_terminal:
            status.start()
            shown = True
        if shown:
            status.update(f"{text}: {number:,}")

    try:
        yield tell
    finally:
        if shown:
            status.stop()


def counted(items: Iterable[T], text: str) -> Iterator[T]:
    """The items, with their count on standard error where they take longer than a second."""
    with working(text) as tell:
        for number, item in enumerate(items, 1):
            yield item
            if number % _EVERY == 0:
                tell(number)
