"""Threads that go on while something is done to what they work on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def working(work: Callable[[int], None], count: int = 2) -> Iterator[list[BaseException]]:
    """Threads repeat ``work(number)`` until the body ends; yields what they raised, which fails the test at its end."""
    over, failures = threading.Event(), []

    def repeat(number: int) -> None:
        try:
            while not over.is_set():
                work(number)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failures
