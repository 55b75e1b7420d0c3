"""How far many texts are: a bar, a function of the caller's, and the list that several threads work off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from llm_cost_middleware.extras import needed_for

ShowProgress = bool | Callable[[int, int], object]


class Shared:
    """An iterator of which each element goes to one of several threads."""

    def __init__(self, inner: Iterator[tuple[int, str]]) -> None:
        self._inner, self._lock, self._stopped = inner, Lock(), False

    def stop(self) -> None:
        """No further element."""
        self._stopped = True

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        with self._lock:
            if self._stopped:
                raise StopIteration
            return next(self._inner)


def tell_nobody(done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def progress_bar(total: int, *, show: ShowProgress) -> Iterator[Callable[[int, int], object]]:
    """Show a progress bar on standard error, or none; yields a function that is told how far it is.

    Args:
        total: How many there are.
        show: Whether to show a bar; or the function itself.
    """
    if callable(show):
        yield show
        return
    if not show:
        yield tell_nobody
        return
    with needed_for("a progress bar"):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("calls", total=total)
        yield lambda done, _: bar.update(task, completed=done)
