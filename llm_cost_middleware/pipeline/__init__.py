"""``CostPipeline``: the composition root. It owns every mutable state of the package and the locks around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from llm_cost_middleware.errors import LedgerUnavailableError
from llm_cost_middleware.fork import ModuleLock
from llm_cost_middleware.pipeline import named
from llm_cost_middleware.pipeline.batching import Batching
from llm_cost_middleware.pipeline.by_hand import BookingByHand
from llm_cost_middleware.pipeline.reloading import Reloading
from llm_cost_middleware.pipeline.run_money import RunMoney

__all__ = ["CostPipeline", "PipelineSource"]


class CostPipeline(BookingByHand, Batching, Reloading, RunMoney):
    """Governs calls: routes them, holds them against budgets, retries them, plans their cache marks, books them.

    One pipeline is shared by any number of threads, tasks and hosts. It is a context manager, sync and async.

    Args:
        config: The configuration, a mapping of its shape, or the path of a TOML file; the defaults, if ``None``:
            ``./llm-cost.toml`` is read by ``CostConfig.find()`` and ``default()``.
        clock: Time; the machine's own, if ``None``.
        rng: Randomness for jitter and exploration.
        observers: Told of every event, beside the logging observer: objects with ``on_event``, or plain functions.
        new_id: Makes call ids; ones that no other process draws, if ``None``. An id must never repeat.
        ledger: A ledger or a backend to use instead of the configured URL. Its opener closes it, not the pipeline.

    Raises:
        ConfigurationError: It is no configuration, or has a URL or a budget that cannot be used.
        LedgerUnavailableError: The ledger's storage cannot be opened.
    """

    def __init__(
        self,
        config: named.ConfigSource | None = None,
        *,
        clock: named.Clock | None = None,
        rng: named.Random | None = None,
        observers: Sequence[named.Observer | Callable[[named.Event], object]]
        | named.Observer
        | Callable[[named.Event], object] = (),
        new_id: Callable[[], str] | None = None,
        ledger: named.Ledger | named.Backend | None = None,
    ) -> None:
        from llm_cost_middleware.pipeline import parts  # a tenth of a second: for who makes one, not for who names it

        if config is None:
            parts.tell_of_unused_file()
        self.config = config = parts.CostConfig() if config is None else parts.CostConfig.read(config)
        self.clock: named.Clock = clock if clock is not None else parts.SystemClock()
        self.catalogue = parts.Catalogue(config.prices, update_prices=config.update_prices)
        parts.check_listeners(config)
        # Budgets before the first call: a scope without one is unlimited.
        if ledger is None:
            # The clock that was given, or none: a server then decides by its own, which all machines share.
            opened = parts.open_or_await(config, clock, self.clock.monotonic)
        else:
            opened = parts.open_ledger(config.ledger, clock=clock, given=ledger)
            parts.put_budgets_in_force(opened, config)
        plan = parts.read_upkeep(config.ledger)
        self._runtimes = parts.RuntimePool(opened, self.clock, owned=ledger is None, plan=plan)
        self._rng, self._new_id = rng or parts.SystemRandom(), parts.checked_ids(new_id) if new_id else parts.unique_id
        told = parts.listed(observers)
        self._listeners = parts.Listeners(config, opened, self.catalogue, self.clock, self.emit, told)
        observing = parts.LoggingObserver(), *told, *self._listeners.metrics, self._listeners
        self._record = parts.CallRecorder(self.clock, observing)
        self._record.foresee = self._foresee
        self._go_over_to(self._make_flow(config))
        self._watch = parts.FileWatch(config, self.clock)
        parts.warn_of_forgetting(config, opened)
        self._listeners.start()

    def _make_flow(self, config: named.CostConfig, before: named.Stages | None = None) -> named.CallFlow:
        from llm_cost_middleware.pipeline import parts

        clock, catalogue, rng = self.clock, self.catalogue, self._rng
        settings, models = parts.read_settings(config), parts.ConfiguredModels(config, catalogue, clock)
        shared = self._runtimes.shared_state
        # One instance of each: statistics and breakers are of use only where all calls share them.
        cache = parts.CacheStage(settings, config.cache, catalogue, shared, clock)
        same = before is not None and config.routing == self.config.routing
        drift = before.drift if same and before else parts.DriftStage(config.routing, shared, clock)
        stages = parts.Stages(
            parts.RouteStage(settings, config.routing, models.for_providers, cache, drift, clock, rng),
            cache,
            parts.PriceStage(settings, catalogue, models.for_providers, clock),
            parts.HealthStage(settings, config.retry, clock, rng),
            self._record,
            before.decisions
            if before is not None
            else parts.DecisionRecorder(self._runtimes.journal, clock, rides=self._runtimes.takes_notes),
            before.counts if before is not None else parts.ProviderCounts(clock),
            before.waiting if before is not None else parts.WaitingCalls(),
            before.deferred if before is not None else parts.DeferredBills(self._runtimes.ledger, clock),
            drift,
            self._runtimes.spool,
            parts.LaneStage(settings, config.routing, config.retry, catalogue, self._runtimes.journal, clock, rng),
        )
        if before is not None:
            stages.route.take_over(before.route)
            cache.take_over(before.cache)
            stages.price.take_over(before.price)
            stages.health.take_over(before.health)
            stages.lanes.take_over(before.lanes)
        deadline, reduces = config.retry.stream_deadline_s, self._runtimes.ledger.reduces
        return parts.CallFlow(stages, settings, clock, self._new_id, deadline, reduces=reduces)

    def _go_over_to(self, flow: named.CallFlow) -> None:
        from llm_cost_middleware.pipeline import parts

        if not self.config.update_prices:  # those are asked for at the first call: a network is nothing to wait for
            flow.load_ahead()
        self._flow, self._stages = flow, flow.stages
        self._clerk = parts.Clerk(flow, self._runtimes.ledger, self.clock)

    @classmethod
    def default(cls) -> CostPipeline:
        """The pipeline of this process, made on first use from ``LLM_COST_CONFIG`` or ``./llm-cost.toml``.

        Raises:
            ConfigurationError: There is no such file; the message names the command that writes one.
        """
        from llm_cost_middleware.config import CostConfig

        # Two threads may make their first call at once: one ledger, not two.
        with _default_lock.held:
            if not _default:
                _default.append(cls(CostConfig.find()))
            return _default[0]

    @classmethod
    def resolve(cls, pipeline: named.PipelineSource | None) -> CostPipeline:
        """What a host's ``pipeline`` argument means: a pipeline, the configuration of a new one, or the default.

        Raises:
            ConfigurationError: It is none of these; the message shows what is.
        """
        if isinstance(pipeline, CostPipeline):
            return pipeline
        return cls.default() if pipeline is None else cls(pipeline)

    # --- calls -----------------------------------------------------------------------------------------------------

    def run(
        self,
        request: named.CallRequest,
        send: Callable[[named.Attempt], named.CallResult | named.CallStream],
        *,
        providers: frozenset[str] | None = None,
        prepared: named.RoutedCall | None = None,
        accept: Callable[[named.CallResult], bool] | None = None,
        counter: named.InputCounter | None = None,
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
            counter: Asks the provider for the call's input tokens, where the host can.

        Returns:
            The host's response, or a ``GovernedStream`` that settles however it is left.

        Raises:
            BudgetExceededError: It does not fit. NoEligibleModelError, PriceNotFoundError, CircuitOpenError,
            LedgerUnavailableError: as named. Otherwise what the last attempt raised.
        """
        answer = self.call(request, send, providers=providers, prepared=prepared, accept=accept, counter=counter)
        return answer.response if isinstance(answer, tuple) else answer

    def call(
        self,
        request: named.CallRequest,
        send: Callable[[named.Attempt], named.CallResult | named.CallStream],
        *,
        providers: frozenset[str] | None = None,
        prepared: named.RoutedCall | None = None,
        accept: Callable[[named.CallResult], bool] | None = None,
        counter: named.InputCounter | None = None,
    ) -> named.CallOutcome | named.GovernedStream:
        """As ``run``, but a plain answer comes with its decision and what was booked for it."""
        self._keep_up()
        # Here, because a finaliser may not: it can run under any lock.
        if self._runtimes.orphans:
            self._runtimes.orphans.settle()
        steps = self._flow.start(request, providers=providers, prepared=prepared, accept=accept, counter=counter)
        return self._flow.drive(steps, self._runtimes.sync, send)

    async def arun(
        self,
        request: named.CallRequest,
        send: Callable[[named.Attempt], Awaitable[named.CallResult | named.CallStream]],
        *,
        providers: frozenset[str] | None = None,
        prepared: named.RoutedCall | None = None,
        accept: Callable[[named.CallResult], bool] | None = None,
        counter: named.InputCounter | None = None,
    ) -> Any:
        """Govern one call on an event loop; returns an ``AsyncGovernedStream`` for a stream. As ``run`` otherwise."""
        answer = await self.acall(request, send, providers=providers, prepared=prepared, accept=accept, counter=counter)
        return answer.response if isinstance(answer, tuple) else answer

    async def acall(
        self,
        request: named.CallRequest,
        send: Callable[[named.Attempt], Awaitable[named.CallResult | named.CallStream]],
        *,
        providers: frozenset[str] | None = None,
        prepared: named.RoutedCall | None = None,
        accept: Callable[[named.CallResult], bool] | None = None,
        counter: named.InputCounter | None = None,
    ) -> named.CallOutcome | named.AsyncGovernedStream:
        """As ``arun``, but a plain answer comes with its decision and what was booked for it."""
        await self._akeep_up()
        await self._runtimes.orphans.asettle()
        if not self._flow.is_ready:
            await self._flow.make_ready(request, providers)
        steps = self._flow.start(request, providers=providers, prepared=prepared, accept=accept, counter=counter)
        return await self._flow.adrive(steps, self._runtimes.of_loop(), send)

    def prepare(
        self, request: named.CallRequest, *, providers: frozenset[str] | None = None, may_block: bool = False
    ) -> named.RoutedCall | None:
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
        route, headroom, request = self._stages.route, None, self._flow.attributed(request)
        if route.needs_headroom:
            # The storage would block the event loop; the call itself can wait for it.
            if self._runtimes.blocks and not may_block:
                return None
            try:
                headroom = self._runtimes.ledger.headroom(request.context.scopes)
            except LedgerUnavailableError:
                if not self._flow.settings.allow_unavailable:
                    raise
        return route.keep_for_one_run(self._flow.route(request, providers, headroom))

    def emit(self, event: named.Event) -> None:
        """Tell the observers of something that a host saw."""
        self._stages.record.emit(event)

    # --- what was done ---------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> named.Ledger:
        """The ledger. Streams that were dropped unfinished are settled first."""
        self._runtimes.orphans.settle()
        return self._runtimes.ledger

    @property
    def tracker(self) -> named.CostTracker:
        """What was spent through this pipeline since it was opened, as an immutable value."""
        self._runtimes.orphans.settle()
        return self._stages.record.tracker

    def records(self) -> tuple[named.CostRecord, ...]:
        """The latest records, oldest first, ten thousand at least. The ledger keeps every row."""
        return self.tracker.records

    def report(self, by: str | Iterable[str] = "model", **asked: Any) -> named.Report:
        """Who spent what, from the ledger: every process and every call of its storage.

        Args:
            by: Dimensions, as a list or as text: ``"team,model"``: ``reports.DIMENSIONS``, or any kind of scope.
            **asked: ``over``, ``since``, ``until``, ``during``, ``where``, ``top``, ``timezone``, ``savings``: as for
                ``reports.Query.read``. ``pipeline.report("team", over="day", during="last month")``.

        Raises:
            ConfigurationError: A value that has no meaning; the message shows the right form.
            LedgerUnavailableError: The storage does not answer.
        """
        from llm_cost_middleware.reports import Query, make_report  # no part of a call

        query = Query.read(by, **asked, now=self.clock.now)
        made, shown = make_report(self.ledger, query, catalogue=self.catalogue), self.catalogue.currency
        return made if shown is None else replace(made, currency=shown, notes=(*made.notes, shown.note))

    def commitments(self) -> tuple[named.Commitment, ...]:
        """How much of what was promised in ``[prices.discounts]`` is spent. Raises ``LedgerUnavailableError``."""
        from llm_cost_middleware.reports import commitments

        return commitments(self.ledger, self.catalogue.contracts, self.clock.now())

    def decisions(self) -> tuple[named.RoutingDecision, ...]:
        """The latest routing decisions, oldest first."""
        return self._stages.decisions.decisions()

    def feedback(self, call_id: Any, score: float, *, name: str = "feedback") -> None:
        """Say how good an answer was, from 0 to 1, so that routing can learn from it.

        Args:
            call_id: The id of a call, or its response (see ``call_id_of``).
            score: Its quality.
            name: Source of the score. ``feedback`` wins over all others; of those the worst counts.

        Raises:
            ConfigurationError: The score is outside 0 to 1, or no such call is known.
        """
        from llm_cost_middleware.pipeline import parts

        known = call_id if isinstance(call_id, str) else parts.call_id_of(call_id)
        self._stages.decisions.feedback(known, score, name)
        if name == parts.FEEDBACK:
            self._stages.drift.feedback(known, score)

    # --- housekeeping ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Settle what was dropped, tell the alerts that can be told, and close the ledger. Safe to call twice."""
        self._runtimes.orphans.settle(closing=True)
        self._listeners.close()
        self._stages.cache.save()
        self._runtimes.close()

    async def aclose(self) -> None:
        """Close on an event loop; also closes that loop's connections."""
        from llm_cost_middleware.event_loops import in_thread, other_loop

        if other_loop() is not None:  # no connections of its own
            await in_thread(self.close)
            return
        await self._runtimes.orphans.asettle()
        await in_thread(self._stages.cache.save)
        await in_thread(self._listeners.close)
        await self._runtimes.aclose()
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


if TYPE_CHECKING:
    PipelineSource = CostPipeline | named.ConfigSource
    """What hosts take as ``pipeline``: one, or the configuration of a new one as an object, a mapping or a path."""


def __getattr__(name: str) -> Any:
    if name == "PipelineSource":  # a value too, for who asks a host for its type hints
        from llm_cost_middleware.config import ConfigSource

        return CostPipeline | ConfigSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_default: list[CostPipeline] = []
_default_lock = ModuleLock()
