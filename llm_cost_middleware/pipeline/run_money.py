"""The part of ``CostPipeline`` that a run has to do with: slices of its money, and where that is going."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llm_cost_middleware.errors import ConfigurationError, LedgerError
from llm_cost_middleware.pipeline import named

_FORESEEN_DAYS, _FRESH_S = 1.0, 60.0
_OF_RUNS = ("run:", "slice:")


class RunMoney:
    """What a pipeline does with the money of a run as a whole. The pipeline sets what it works on."""

    _read: tuple[float, dict[str, named.RunPath]] | None = None
    """When runs were read for refusals, and what was found."""
    _flow: named.CallFlow
    _runtimes: named.RuntimePool
    _stages: named.Stages

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
        from llm_cost_middleware.pipeline import parts

        facts: dict[str, str] = {}
        call_id = answer
        if not isinstance(answer, str):
            facts["call_id"] = call_id = parts.call_id_of(answer)
        records = self._stages.record.tracker.of_call(call_id)
        if records:
            facts["cost"] = f"{sum((record.cost_usd for record in records), Decimal(0)):f}"
        if scopes is None:
            scopes = records[0].scopes if records else ()
        left = self.left_of_run(scopes)
        if left is not None:
            facts["run_left"] = f"{max(left.available_nanousd, parts.ZERO).usd:f}"
        return facts

    def left_of_run(self, scopes: tuple[str, ...]) -> named.Headroom | None:
        """What the run among some scopes has left, or the slice that it runs in; ``None`` where neither has a limit."""
        own = tuple(scope for scope in scopes if scope.startswith(_OF_RUNS))
        if not own:
            return None
        try:
            return self._runtimes.ledger.headroom(own)
        except LedgerError:  # a figure more or less: neither a call nor an answer is lost for want of it
            return None

    def forecast(self, run: str | None = None, *, days: float = 7) -> named.Forecast | None:
        """What a run is expected to spend until its end, from earlier runs of the same agent.

        Runs are compared at the same number of steps: what those that came as far spent afterwards is what there is to
        expect. It reads the rows of the ledger, so it is nothing for every call.

        Args:
            run: Its name, or its scope; that of the running block, if ``None``.
            days: How far back runs are compared with it.

        Returns:
            ``None`` where there is no such run, or fewer than three others came as far: that is not known.
        """
        from llm_cost_middleware.pipeline import parts

        around = parts.current_context().scopes
        scope = run if run is not None else next((one for one in around if one.startswith("run:")), None)
        if scope is None:
            return None
        scope = scope if scope.startswith("run:") else parts.make_scope("run", scope)
        return parts.forecast_run(scope, self._paths(days))

    def _paths(self, days: float) -> dict[str, named.RunPath]:
        from llm_cost_middleware.pipeline import parts

        since = self._runtimes.sync.clock.now() - days * 86_400
        return parts.run_paths(self._runtimes.ledger.rows(since=since))

    def _foresee(self, run: str) -> named.Foresight:
        """The forecast of a run as a refusal carries it. A burst of them reads the ledger once."""
        from llm_cost_middleware.pipeline import parts

        def ask() -> named.Forecast | None:
            monotonic = self._runtimes.sync.clock.monotonic()
            try:
                if self._read is None or monotonic - self._read[0] > _FRESH_S:
                    self._read = monotonic, self._paths(_FORESEEN_DAYS)
                return parts.forecast_run(run, self._read[1])
            except LedgerError:  # a figure more or less
                return None

        return parts.Foresight(ask, waiting=lambda: self.ledger_blocks and _on_event_loop())

    def slice(self, limit: named.USD, *, name: str = "slice", ttl: named.Seconds | None = None) -> named.Slice:
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
        from llm_cost_middleware.pipeline import parts

        amount = parts.bounded_nanousd(limit, what="limit")
        if not amount:
            raise ConfigurationError("a slice of $0 pays for nothing: give it an amount above zero", key="limit")
        if not str(name).strip():
            raise ConfigurationError("must not be empty: it tells the slice from others in reports", key="name")
        return parts.Slice(self._runtimes, lambda: self._flow, amount, str(name), ttl)


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
