"""The money of a run: slices of it for its children, and where it is going. A part of ``CostPipeline``."""

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
from llm_cost_middleware.budget.model import Row, bounded_nanousd, make_scope
from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.budget.rules.slices import SupportsSlices, slice_scope
from llm_cost_middleware.call_ids import call_id_of
from llm_cost_middleware.context import cost_context, current_context
from llm_cost_middleware.errors import ConfigurationError, LedgerError
from llm_cost_middleware.foresight import Forecast, Foresight
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.runtimes import RuntimePool
from llm_cost_middleware.lifecycle.stages import Stages
from llm_cost_middleware.money import USD, ZERO, NanoUSD
from llm_cost_middleware.request import CallContext

_FEWEST = 3
"""Of runs, for a forecast."""
_FORESEEN_DAYS, _FRESH_S = 1.0, 60.0
_OF_RUNS = ("run:", "slice:")
_log = logging.getLogger(__name__)
Seconds = float | timedelta | str


class RunMoney:
    """What a pipeline does with the money of a run as a whole. The pipeline sets what it works on."""

    _read: tuple[float, dict[str, RunPath]] | None = None
    """When runs were read for refusals, and what was found."""
    _flow: CallFlow
    _runtimes: RuntimePool
    _stages: Stages

    @property
    def ledger_blocks(self) -> bool:
        """Whether a verb of the ledger may wait for storage: then it is no work for an event loop."""
        return self._runtimes.blocks

    def told(self, answer: Any, scopes: tuple[str, ...] | None = None) -> Mapping[str, str]:
        """What there is to say of a call that was booked a moment ago, US dollars as text; through every host.

        Nothing is written on an SDK's or LiteLLM's own object: this is where it says what it cost. LangChain's messages
        carry the same under ``llm_cost`` in their ``response_metadata``, the proxy's answers in headers.

        Args:
            answer: What a governed host returned, as ``call_id_of`` takes it; or the call's id.
            scopes: Its scopes; ``None``: those of its records.

        Returns:
            ``call_id``, of an answer; ``cost``, where it is among the latest; ``run_left``, where its run or its slice
            has a limit.

        Raises:
            ConfigurationError: No call of this process is known to have returned it.
        """
        facts: dict[str, str] = {}
        call_id = answer
        if not isinstance(answer, str):
            facts["call_id"] = call_id = call_id_of(answer)
        records = self._stages.record.tracker.of_call(call_id)
        if records:
            facts["cost"] = f"{sum((record.cost_usd for record in records), Decimal(0)):f}"
        if scopes is None:
            scopes = records[0].scopes if records else ()
        left = self.left_of_run(scopes)
        if left is not None:
            facts["run_left"] = f"{max(left.available_nanousd, ZERO).usd:f}"
        return facts

    def left_of_run(self, scopes: tuple[str, ...]) -> Headroom | None:
        """What the run among some scopes has left, or the slice that it runs in; ``None`` where neither has a limit."""
        own = tuple(scope for scope in scopes if scope.startswith(_OF_RUNS))
        if not own:
            return None
        try:
            return self._runtimes.ledger.headroom(own)
        except LedgerError:  # a figure more or less: neither a call nor an answer is lost for want of it
            return None

    def forecast(self, run: str | None = None, *, days: float = 7) -> Forecast | None:
        """What a run is expected to spend until its end, from earlier runs of the same agent.

        Runs are compared at the same number of steps: what those that came as far spent afterwards is what there is to
        expect. It reads the rows of the ledger, so it is nothing for every call.

        Args:
            run: Its name, or its scope; that of the running block, if ``None``.
            days: How far back runs are compared with it.

        Returns:
            ``None`` where there is no such run, or fewer than three others came as far: that is not known.
        """
        scope = run if run is not None else next((one for one in current_context().scopes if one[:4] == "run:"), None)
        if scope is None:
            return None
        scope = scope if scope.startswith("run:") else make_scope("run", scope)
        return forecast_run(scope, self._paths(days))

    def _paths(self, days: float) -> dict[str, RunPath]:
        since = self._runtimes.sync.clock.now() - days * 86_400
        return run_paths(self._runtimes.ledger.rows(since=since))

    def _foresee(self, run: str) -> Foresight:
        """The forecast of a run as a refusal carries it. A burst of them reads the ledger once."""

        def ask() -> Forecast | None:
            monotonic = self._runtimes.sync.clock.monotonic()
            try:
                if self._read is None or monotonic - self._read[0] > _FRESH_S:
                    self._read = monotonic, self._paths(_FORESEEN_DAYS)
                return forecast_run(run, self._read[1])
            except LedgerError:  # a figure more or less
                return None

        return Foresight(ask, waiting=lambda: self.ledger_blocks and _on_event_loop())

    def slice(self, limit: USD, *, name: str = "slice", ttl: Seconds | None = None) -> Slice:
        """A part of the money that is left, for what a block calls: ``with pipeline.slice("0.50", name="search"):``.

        Everything governed that the block starts spends from it, in this process or, by ``context.export()``, in
        another one, and from nothing else; it is set aside in one step in every budget of the block around it, so
        slices never sum above them. What is left when the block ends goes back. Slices nest.

        Args:
            limit: US dollars.
            name: Tells it from others, in the scope ``slice:NAME~...`` that its calls are booked under.
            ttl: How long it may be idle; then, as after a crash, what it has left goes back, and its calls are refused.
                ``[ledger] hold_ttl_s``, if ``None``. Every call that is made in it begins that time anew.

        Returns:
            A context manager, sync and async. Entering it raises ``BudgetExceededError`` where so much is not left,
            and ``ConfigurationError`` where the storage of the ledger has no slices.

        Raises:
            ConfigurationError: It has no money, or no name.
        """
        amount = bounded_nanousd(limit, what="limit")
        if not amount:
            raise ConfigurationError("a slice of $0 pays for nothing: give it an amount above zero", key="limit")
        if not str(name).strip():
            raise ConfigurationError("must not be empty: it tells the slice from others in reports", key="name")
        return Slice(self._runtimes, lambda: self._flow, amount, str(name), ttl)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


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
        ends = count()  # of two: the thread, and a cancellation; whichever is the second gives back

        def opened() -> CallContext:
            found = self._open()
            if next(ends):
                self._close()
            return found

        try:
            return self._enter(await asyncio.to_thread(opened))
        except asyncio.CancelledError:
            if next(ends):
                await asyncio.to_thread(self._close)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave((kind, error, trace))
        if self._runtimes.blocks:
            await asyncio.to_thread(self._close)
        else:
            self._close()
