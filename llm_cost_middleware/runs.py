"""The money of a run: slices of it for its children, and where it is going."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from itertools import count
from types import TracebackType
from typing import Any, NamedTuple, Self

from llm_cost_middleware.budget.ledger import unique_id
from llm_cost_middleware.budget.model import Row
from llm_cost_middleware.budget.rules.slices import SupportsSlices, slice_scope
from llm_cost_middleware.context import cost_context, current_context
from llm_cost_middleware.errors import ConfigurationError, LedgerError
from llm_cost_middleware.event_loops import in_thread
from llm_cost_middleware.foresight import Forecast
from llm_cost_middleware.lifecycle.drivers import running_loop
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.runtimes import RuntimePool
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.request import CallContext

_FEWEST = 3
"""Of runs, for a forecast."""
_log = logging.getLogger(__name__)
Seconds = float | timedelta | str


class RunPath(NamedTuple):
    """The bookings of a run in their order, nano-dollars, and whose run it is."""

    agent: str
    amounts: list[int]


def run_paths(rows: Iterable[Row]) -> dict[str, RunPath]:
    """Read runs, by their scope, out of the rows of a ledger."""
    paths: dict[str, RunPath] = {}
    for row in rows:
        if row.kind not in {"settle", "book"}:
            continue
        run = next((scope for scope in row.scopes if scope.startswith("run:")), None)
        if run is not None:
            agent = next((scope for scope in row.scopes if scope.startswith(("agent:", "site:"))), "")
            paths.setdefault(run, RunPath(agent, [])).amounts.append(int(row.amount_nanousd))
    return paths


def forecast_run(run: str, paths: Mapping[str, RunPath]) -> Forecast | None:
    """Compare a run with those of the same agent that came as far."""
    own = paths.get(run)
    if own is None:
        return None
    steps = len(own.amounts)
    others = (path for scope, path in paths.items() if scope != run and path.agent == own.agent)
    rest = sorted(sum(path.amounts[steps:]) for path in others if len(path.amounts) >= steps)
    if len(rest) < _FEWEST:
        return None
    mean = NanoUSD(-(-sum(rest) // len(rest)))
    median, high = (NanoUSD(rest[-(-len(rest) * tenths // 10) - 1]) for tenths in (5, 9))
    return Forecast(run, NanoUSD(sum(own.amounts)).usd, steps, mean.usd, median.usd, high.usd, len(rest))


class Slice:
    """A child's part of the money of a run: made by ``CostPipeline.slice``."""

    def __init__(
        self, runtimes: RuntimePool, flow: Callable[[], CallFlow], limit: NanoUSD, name: str, ttl: Seconds | None
    ) -> None:
        self._runtimes, self._flow, self._limit, self._name, self._ttl = runtimes, flow, limit, name, ttl
        self._block: cost_context | None = None
        self.scope = ""
        """Its scope, once it is entered; in observe mode, where nothing was left to set aside, it stays empty."""

    @property
    def limit(self) -> Decimal:
        """What it had at first, US dollars."""
        return self._limit.usd

    @property
    def spent(self) -> Decimal:
        """What its calls were booked at so far, US dollars."""
        return self._runtimes.ledger.balance(self.scope).settled if self.scope else Decimal(0)

    @property
    def left(self) -> Decimal:
        """What its next call may reserve at most, US dollars, until it ends; never negative."""
        if not self.scope:
            return self.limit
        balance = self._runtimes.ledger.balance(self.scope)
        return max(self.limit - balance.settled - balance.pending, Decimal(0))

    def _open(self) -> CallContext:
        if self._block is not None:
            raise ConfigurationError("is entered already; make one for each block", key="slice")
        ledger, flow, around = self._runtimes.ledger, self._flow(), current_context()
        if not isinstance(ledger.backend, SupportsSlices):
            raise ConfigurationError(f"{type(ledger.backend).__name__} has no slices", key="ledger.url")
        # An agent inside has a name of its own, and its parent's budget is not what it spends from.
        parents = tuple(scope for scope in around.scopes if not scope.startswith("agent:"))
        parents = flow.attribute(around._replace(scopes=parents), send=True).scopes
        scope = slice_scope(self._name, self._limit, unique_id().replace("-", ""))
        try:
            ledger.reserve(self._limit, parents, id=scope, ttl=self._ttl)
        except LedgerError:
            raise
        except Exception:
            if not flow.settings.observe:
                raise
            _log.warning("observe mode: a slice of %s for %s would have been refused", self._limit, self._name)
            return around
        self.scope = scope
        return around._replace(scopes=(*parents, scope))

    def _enter(self, context: CallContext) -> Self:
        self._block = cost_context.restore(context._asdict())
        self._block.__enter__()
        return self

    def _leave(self, error: tuple[Any, Any, Any]) -> None:
        if self._block is not None:
            self._block.__exit__(*error)

    def _close(self) -> None:
        """Give back what is left. What is in flight keeps what it holds, and is booked in the parents as well."""
        if not self.scope:
            return
        try:
            self._runtimes.orphans.settle()
            self._runtimes.ledger.void(self.scope)
        except LedgerError as failure:  # expired, or the storage is away: then it expires
            _log.info("slice %s: %s", self.scope, failure)

    def __enter__(self) -> Self:
        return self._enter(self._open())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave((kind, error, trace))
        self._close()

    async def __aenter__(self) -> Self:
        if not self._runtimes.blocks:
            return self._enter(self._open())
        running_loop(blocks=True)  # refused where it has none, before money is set aside
        ends = count()  # of two: the thread, and a cancellation; whichever is the second gives back

        def opened() -> CallContext:
            found = self._open()
            if next(ends):
                self._close()
            return found

        try:
            return self._enter(await in_thread(opened))
        except asyncio.CancelledError:
            if next(ends):
                await in_thread(self._close)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave((kind, error, trace))
        if self._runtimes.blocks:
            await in_thread(self._close)
        else:
            self._close()
