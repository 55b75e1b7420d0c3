"""``CostPipeline``: the composition root. It owns every mutable state of the package and the locks around it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from random import Random, SystemRandom
from threading import Lock
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

from llm_cost_middleware.budget.ledger import AsyncLedger, Ledger, draw_id
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.candidates import Candidates
from llm_cost_middleware.config.settings import read_settings
from llm_cost_middleware.errors import (
    ConfigurationError,
    LedgerError,
    LedgerUnavailableError,
    UnsupportedRequestError,
)
from llm_cost_middleware.events import Observer, Ungoverned
from llm_cost_middleware.lifecycle import (
    Answer,
    AsyncGovernedStream,
    Bookkeeper,
    Engine,
    GovernedStream,
    World,
    adrive,
    drive,
    life,
)
from llm_cost_middleware.lifecycle.batches import BatchQuote, quote_batch
from llm_cost_middleware.lifecycle.chronicle import Chronicle
from llm_cost_middleware.lifecycle.held import Held, hold
from llm_cost_middleware.lifecycle.state import Call
from llm_cost_middleware.observers.logging import LoggingObserver
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import Attempt, CallRequest, CallResult, CallStream
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.decisions import FEEDBACK
from llm_cost_middleware.system_clock import SystemClock
from llm_cost_middleware.tracker import CostRecord, CostTracker

_log = logging.getLogger(__name__)


class CostPipeline:
    """Governs calls: routes them, holds them against budgets, retries them, plans their cache marks, books them.

    One pipeline is shared by any number of threads, tasks and hosts. It is a context manager, sync and async.

    Args:
        config: The configuration; the defaults, if ``None``.
        clock: Time; the machine's own, if ``None``.
        rng: Randomness for jitter and exploration.
        observers: Told of every event, beside the logging observer.
        new_id: Makes call ids; ones that no other process draws, if ``None``. An id must never repeat.

    Raises:
        ConfigurationError: A URL or a budget that cannot be used.
        LedgerUnavailableError: The ledger's storage cannot be opened.
    """

    def __init__(
        self,
        config: CostConfig | None = None,
        *,
        clock: Clock | None = None,
        rng: Random | None = None,
        observers: Sequence[Observer] = (),
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self.config = config = config if config is not None else CostConfig()
        self.clock: Clock = clock if clock is not None else SystemClock()
        self._ledger_options: dict[str, Any] = {
            "clock": self.clock,
            "tenant": config.ledger.tenant,
            "durability": config.ledger.durability,
            "lease_s": config.ledger.lease_s,
            "on_lapse": config.ledger.on_lapse,
        }
        self._ledger = Ledger.open(config.ledger.url, **self._ledger_options)
        for budget in config.budgets:
            self._ledger.set_budget(budget)
        self._blocking = not config.ledger.url.startswith("memory:")
        self._threaded = None
        if config.ledger.url.startswith("sqlite:"):
            options = {name: self._ledger_options[name] for name in ("clock", "lease_s", "on_lapse")}
            self._threaded = AsyncLedger.over(self._ledger, **options)
        self._async_ledgers: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncLedger] = WeakKeyDictionary()
        self._abandoned: deque[Callable[[], None]] = deque()
        self._lock = Lock()
        self.catalogue = Catalogue(config.prices, update_prices=config.update_prices)
        self._chronicle = Chronicle(self._ledger.journal if self._blocking else None, self.clock)
        self._engine = Engine(
            settings=read_settings(config),
            catalogue=self.catalogue,
            candidates=Candidates(config, self.catalogue, self.clock),
            routing=config.routing,
            retry=config.retry,
            cache=config.cache,
            chronicle=self._chronicle,
            clock=self.clock,
            rng=rng if rng is not None else SystemRandom(),
            new_id=new_id if new_id is not None else draw_id,
            books=Bookkeeper(self.clock, (LoggingObserver(), *observers)),
        )
        self._closed = False
        if not self._blocking and any(budget.window != "none" for budget in config.budgets):
            _log.warning(
                "budgets with a window on a memory ledger are forgotten when the process ends; "
                "set ledger.url to sqlite:///llm-cost.db to keep them"
            )

    @classmethod
    def default(cls) -> CostPipeline:
        """The pipeline of this process, made on first use from ``LLM_COST_CONFIG`` or ``./llm-cost.toml``.

        Raises:
            ConfigurationError: There is no such file; the message says how to write one.
        """
        with _default_lock:
            if not _default:
                _default.append(cls(CostConfig.find()))
            return _default[0]

    @classmethod
    def of(cls, pipeline: CostPipeline | CostConfig | None) -> CostPipeline:
        """What a host's ``pipeline`` argument means: a pipeline, a configuration for a new one, or the default."""
        if isinstance(pipeline, CostPipeline):
            return pipeline
        if pipeline is None:
            return cls.default()
        if isinstance(pipeline, CostConfig):
            return cls(pipeline)
        raise ConfigurationError(f"expected a CostPipeline, a CostConfig or None, not {pipeline!r}", key="pipeline")

    # --- calls -----------------------------------------------------------------------------------------------------

    def run(
        self,
        request: CallRequest,
        send: Callable[[Attempt], CallResult | CallStream],
        *,
        providers: frozenset[str] | None = None,
        prepared: Call | None = None,
        accept: Callable[[CallResult], bool] | None = None,
    ) -> Any:
        """Govern one call.

        Args:
            request: What the caller wants.
            send: Sends one attempt and returns its ``CallResult``, or an open ``CallStream``. Called once an attempt,
                with retries of its own switched off.
            providers: The providers that ``send`` can reach; ``None``: those with a key in the environment.
            prepared: What ``prepare`` returned for this request; it is used once.
            accept: Checks an answer. One that it rejects is paid for, and asked again of a model a tier up, where the
                budget allows; streams are not checked.

        Returns:
            The host's response, or a ``GovernedStream`` that settles however it is left.

        Raises:
            BudgetExceededError: It does not fit. NoEligibleModelError, PriceNotFoundError, CircuitOpenError,
            LedgerUnavailableError: as named. Otherwise what the last attempt raised.
        """
        answer = self.call(request, send, providers=providers, prepared=prepared, accept=accept)
        return answer.response if isinstance(answer, Answer) else answer

    def call(
        self,
        request: CallRequest,
        send: Callable[[Attempt], CallResult | CallStream],
        *,
        providers: frozenset[str] | None = None,
        prepared: Call | None = None,
        accept: Callable[[CallResult], bool] | None = None,
    ) -> Answer | GovernedStream:
        """``run``, but what is returned for a plain answer also tells how it was routed and what was booked."""
        self._settle_abandoned()
        world = World(self._ledger, self.clock, send, None, self._abandoned)
        steps = life(self._engine, request, providers=providers, prepared=prepared, accept=accept)
        answer: Answer | GovernedStream = drive(steps, world)
        return answer

    async def arun(
        self,
        request: CallRequest,
        send: Callable[[Attempt], Awaitable[CallResult | CallStream]],
        *,
        providers: frozenset[str] | None = None,
        prepared: Call | None = None,
        accept: Callable[[CallResult], bool] | None = None,
    ) -> Any:
        """Govern one call on an event loop; returns an ``AsyncGovernedStream`` for a stream. As ``run`` otherwise."""
        answer = await self.acall(request, send, providers=providers, prepared=prepared, accept=accept)
        return answer.response if isinstance(answer, Answer) else answer

    async def acall(
        self,
        request: CallRequest,
        send: Callable[[Attempt], Awaitable[CallResult | CallStream]],
        *,
        providers: frozenset[str] | None = None,
        prepared: Call | None = None,
        accept: Callable[[CallResult], bool] | None = None,
    ) -> Answer | AsyncGovernedStream:
        """``arun``, but what is returned for a plain answer also tells how it was routed and what was booked."""
        await self._asettle_abandoned()
        world = World(self._ledger, self.clock, send, self._async_ledger(), self._abandoned)
        steps = life(self._engine, request, providers=providers, prepared=prepared, accept=accept)
        answer: Answer | AsyncGovernedStream = await adrive(steps, world)
        return answer

    def prepare(
        self, request: CallRequest, *, providers: frozenset[str] | None = None, may_block: bool = False
    ) -> Call | None:
        """Route a call ahead of running it, for hosts that name the model first, in a trace or a cache key.

        Args:
            request: What the caller wants.
            providers: As for ``run``.
            may_block: The caller is no event loop: the storage of the ledger may be asked what is left.

        Returns:
            What ``run`` takes as ``prepared``; ``None`` where the policy looks at the budget and only the call itself
            can ask for it.

        Raises:
            NoEligibleModelError: No model may take it. LedgerUnavailableError: The policy needs to know what is left.
        """
        headroom = None
        if self._engine.routes_by_budget:
            if self._blocking and not may_block:
                return None
            try:
                headroom = self._ledger.headroom(request.context.scopes)
            except LedgerUnavailableError:
                if not self._engine.settings.allow_unavailable:
                    raise
        call = self._engine.begin(request, providers)
        self._engine.route(call, headroom)
        return call

    def hold(self, request: CallRequest) -> Held:
        """Set money aside for a call that somebody else sends; end it through what is returned. Raises as ``run``."""
        self._settle_abandoned()
        return hold(self._engine, self._ledger, self.clock, request)

    def quote(self, requests: Iterable[CallRequest], *, providers: frozenset[str] | None = None) -> BatchQuote:
        """What requests would cost, each at the model it would be routed to. Nothing is sent or reserved.

        Raises:
            PriceNotFoundError, NoEligibleModelError: As a call would.
        """
        return quote_batch(self._engine, requests, providers)

    def ungoverned(self, what: str, advice: str) -> None:
        """Report a call that goes past the middleware, as ``on_ungoverned`` says.

        Raises:
            UnsupportedRequestError: ``on_ungoverned`` is ``deny``.
        """
        if self.config.on_ungoverned == "deny":
            raise UnsupportedRequestError(what, advice)
        if self.config.on_ungoverned == "warn":
            _log.warning("%s is not governed: %s", what, advice)
        self._engine.books.emit(Ungoverned("", self.clock.now(), what, advice))

    # --- what was done ---------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The ledger. Streams that were dropped unfinished are settled first."""
        self._settle_abandoned()
        return self._ledger

    @property
    def tracker(self) -> CostTracker:
        """What was spent through this pipeline since it was opened, as an immutable value."""
        self._settle_abandoned()
        return self._engine.books.tracker

    def records(self) -> tuple[CostRecord, ...]:
        """The latest records, oldest first, ten thousand at least. The ledger keeps every row."""
        return self.tracker.records

    def record(self, record: CostRecord) -> None:
        """Keep the record of a bill that a host has booked in the ledger by itself."""
        self._engine.books.add(record)

    def decisions(self) -> tuple[RoutingDecision, ...]:
        """The latest routing decisions, oldest first."""
        return self._chronicle.decisions()

    def feedback(self, call_id: str, score: float, *, name: str = FEEDBACK) -> None:
        """Say how good an answer was, from 0 to 1, so that routing can learn from it.

        Args:
            call_id: The call.
            score: Its quality.
            name: Who says so. What is said as ``feedback`` wins; of all others the worst counts.

        Raises:
            ConfigurationError: The score is outside 0 to 1.
        """
        self._chronicle.feedback(call_id, score, name)

    # --- housekeeping ----------------------------------------------------------------------------------------------

    def _async_ledger(self) -> AsyncLedger | None:
        if not self._blocking or self._threaded is not None:
            return self._threaded
        loop = asyncio.get_running_loop()
        with self._lock:
            ledger = self._async_ledgers.get(loop)
            if ledger is None:
                ledger = self._async_ledgers[loop] = AsyncLedger.open(self.config.ledger.url, **self._ledger_options)
            return ledger

    def _settle_abandoned(self) -> None:
        while self._abandoned:
            try:
                settle = self._abandoned.popleft()
            except IndexError:
                return
            settle()

    async def _asettle_abandoned(self) -> None:
        if self._abandoned:
            await asyncio.to_thread(self._settle_abandoned)

    def close(self) -> None:
        """Settle what was dropped, and close the ledger. Safe to call twice."""
        self._settle_abandoned()
        self._remember()
        self._ledger.close()

    def _remember(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(LedgerError):  # what was learned is a convenience
                self._engine.remember()

    async def aclose(self) -> None:
        """The same on an event loop; also closes that loop's connections."""
        await self._asettle_abandoned()
        await asyncio.to_thread(self._remember)
        ledger = self._threaded or self._async_ledgers.pop(asyncio.get_running_loop(), None)
        if ledger is not None:
            await ledger.aclose()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


_default: list[CostPipeline] = []
_default_lock = Lock()
