"""Abilities of a backend beside the money of a call: notes in its transaction, and a place for what it cannot take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.spool_place import SpoolPlace


class SharedChange(NamedTuple):
    """A change of shared values, as ``SharedState.change`` takes it."""

    keys: tuple[str, ...]
    to: Callable[[list[bytes | None]], Sequence[bytes]]
    at: float


class Notes:
    """What is written down beside money, in the transaction that resolves a reservation. ``written``: it was."""

    __slots__ = ("change", "lines", "written")

    def __init__(self, lines: Sequence[JournalEntry] = (), change: SharedChange | None = None) -> None:
        self.lines, self.change, self.written = tuple(lines), change, False

    def __repr__(self) -> str:
        return f"Notes({self.lines!r}, {self.change and self.change.keys!r})"


@runtime_checkable
class SupportsNotes(Protocol):
    """Ability of a backend to write notes in the transaction of a resolution: its ``resolve`` takes ``notes``.

    Notes never cost a resolution: what cannot be written of them is left out.
    """

    @property
    def takes_notes(self) -> bool:
        """True."""
        ...


@runtime_checkable
class SupportsSpool(Protocol):
    """Ability of a backend to say where what it could not take is kept for the next process."""

    @property
    def spool_place(self) -> SpoolPlace:
        """File, and the name of this ledger in it."""
        ...


BATCHES = "batches"
"""Kind of the lines that say which batches there are (``batches.book``)."""
LASTING = frozenset({BATCHES, "batch"})
"""Kinds of lines that no pruning and no archive takes away: a few for each batch, by which its hold is found again."""


@runtime_checkable
class SupportsPruning(Protocol):
    """Ability of a backend to remove old lines of its journal."""

    def prune_journal(self, before: int | None, keep: int | None, *, most: int | None = None) -> int:
        """Remove the lines before a time (ms), and all but the newest ``keep``, at most ``most``; return how many."""
        ...


@runtime_checkable
class SupportsResting(Protocol):
    """Ability of a backend to keep one short line of a run that is over in the place of its accounts."""

    def rest(self, idle: int) -> int:
        """Lay to rest what was idle for so long (ms), holds nothing and has no budget of its own; return how many.

        Runs, slices, threads and agents. No sum changes; whoever is used again goes on from what it had spent.
        """
        ...


@runtime_checkable
class SupportsRestore(Protocol):
    """Ability of a backend to take in what an archive holds, where it holds nothing yet."""

    def take_archive(self, path: Path) -> int:
        """Take in the rows of an archive and the lines that lie beside it; return how many rows."""
        ...
