"""Blocking façade of an asynchronous backend, so that one suite tests both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

from llm_cost_middleware.budget.backend import AsyncBackend
from llm_cost_middleware.budget.model import Row


class BlockingFacade:
    """``Backend`` over an ``AsyncBackend``, on an event loop of its own."""

    def __init__(self, backend: AsyncBackend) -> None:
        self._backend, self._runner, self._closed = backend, asyncio.Runner(), False

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._backend, name)
        if not inspect.iscoroutinefunction(verb):  # the journal, which blocks anyway
            return verb
        return lambda *args, **kwargs: self._runner.run(verb(*args, **kwargs))

    def rows(self, since: int | None, scope: str | None) -> Iterator[Row]:
        """See ``Backend``. All rows are fetched at once."""

        async def fetch() -> list[Row]:
            return [row async for row in self._backend.rows(since, scope)]

        return iter(self._runner.run(fetch()))

    def close(self) -> None:
        """Close the backend and the loop."""
        if self._closed:
            return
        self._closed = True
        self._runner.run(self._backend.close())
        self._runner.close()
