"""Tables that cut nothing: in a terminal the widest column of names folds, in a pipe every line is whole.

Figures are never folded or cut, since a part of a figure is another figure. Where even they do not fit, a row becomes a
line of names with its figures below.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Timer
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from rich.box import SIMPLE_HEAD
from rich.status import Status
from rich.table import Table
from rich.text import Text

from llm_cost_middleware.cli.loading import clean, err, out

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
    sparse: bool = False
    """Left out where no row says anything in it."""
    styles: Mapping[str, str] = MappingProxyType({})
    """The colours of cells, by what they say."""


def names(*headers: str, whole: bool = False, sparse: bool = False) -> list[Column]:
    """Columns of names."""
    return [Column(header, whole=whole, sparse=sparse) for header in headers]


def figures(*headers: str, optional: bool = False, sparse: bool = False) -> list[Column]:
    """Columns of figures."""
    return [Column(header, figures=True, optional=optional, sparse=sparse) for header in headers]


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
    lines = [row for row in (*rows, total) if row is not None]
    told = [
        index for index, column in enumerate(columns)
        if not column.sparse or any(line[index] not in {"", "-"} for line in lines)
    ]  # fmt: skip
    columns = [columns[index] for index in told]
    rows = [[clean(row[index]) for index in told] for row in rows]
    total = [clean(total[index]) for index in told] if total else None
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
    if (over := _width(table) - out.width) > 0:
        widths = _folded(picked, cells, last, over)
        table = _table(
            picked, [list(map(fold, row, widths)) for row in cells], list(map(fold, last, widths)) if last else None
        )
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
        sys.stdout.write(f"{clean(title)}\n")
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
        table.add_row(*(Text(cell, column.styles.get(cell, "")) for cell, column in zip(row, columns, strict=True)))
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


def _folded(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], total: Sequence[str] | None, over: int
) -> list[int]:
    """The terminal columns of each column once names are folded until the table fits, the widest column first."""
    lengths = _lengths(columns, rows, total)
    while over > 0:
        wide = [
            i for i, column in enumerate(columns)
            if not (column.figures or column.whole) and lengths[i] > _LEAST_NAME
        ]  # fmt: skip
        if not wide:
            break
        widest = max(wide, key=lambda i: lengths[i])
        second = max((lengths[i] for i in wide if i != widest), default=_LEAST_NAME)
        less = max(lengths[widest] - over, min(second, lengths[widest] - 1), _LEAST_NAME)
        over, lengths[widest] = over - (lengths[widest] - less), less
    return lengths


def fold(text: str, width: int) -> str:
    """A text in lines of a width, broken between words, else behind a slash, else behind a dash or the like."""
    lines = []
    while len(text) > width:
        head = text[: width + 1]
        cut = head.rfind(" ")
        if cut <= 0:
            head = text[:width]
            cut = head.rfind("/") + 1 or max(head.rfind(sign) + 1 for sign in "-:_.") or width
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return "\n".join([*lines, text])


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
    status = Status(text, console=err)
    # By a timer, not by the count: SQL adds up a million rows before it hands on the first sum.
    soon = Timer(_SOON_S, status.start)
    soon.daemon = True

    def tell(number: int) -> None:
        status.update(f"{text}: {number:,}")

    if err.is_terminal:
        soon.start()
    try:
        yield tell
    finally:
        soon.cancel()
        if soon.ident is not None:
            soon.join()  # or it could start after it was stopped
        status.stop()


def counted(items: Iterable[T], text: str) -> Iterator[T]:
    """The items, with their count on standard error where they take longer than a second."""
    with working(text) as tell:
        for number, item in enumerate(items, 1):
            yield item
            if number % _EVERY == 0:
                tell(number)
