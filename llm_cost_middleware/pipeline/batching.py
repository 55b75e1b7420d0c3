"""The part of ``CostPipeline`` that answers in batches."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from llm_cost_middleware.pipeline import named


class Batching:
    """``batch`` and what belongs to it. The pipeline sets what it works on."""

    _flow: named.CallFlow
    _runtimes: named.RuntimePool
    _clerk: named.Clerk
    clock: named.Clock
    catalogue: named.Catalogue
    config: named.CostConfig
    call: Callable[..., Any]
    acall: Callable[..., Awaitable[Any]]

    def batch(
        self,
        requests: Iterable[Mapping[str, Any]],
        *,
        client: named.Clients,
        patience: Any = "24h",
        timeout: Any = None,
        unanswered: named.Unanswered = "resend",
        anyway: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> named.BatchAnswers:
        """Answer many requests that can wait, in batches at half price where that pays.

        Args:
            requests: Bodies as of ``messages.create``, ``chat.completions.create`` or ``responses.create``; what a
                request says of itself stands under ``llm_cost``. They are divided by model, endpoint, scopes and the
                provider's limits.
            client: A client, or a list of one of each provider.
            patience: How long the answers may take: ``"24h"``, a ``timedelta``, seconds. Less than a day is too short
                for a batch: ordinary calls are made. A batch that is not answered shortly before that (a tenth of it,
                half an hour at most) is cancelled, and what it lacks is sent as ordinary calls.
            timeout: How long to block; ``None``: until all is answered.
            unanswered: ``resend`` what expired, failed or was cancelled, as a batch or as ordinary calls; or
                ``return`` it as ``BatchItemError``.
            anyway: Send what fits; without it a batch that does not fit is refused whole.
            progress: Called with how many are answered, and how many there are.

        Returns:
            The answers in the order of the requests, as the SDK's own objects; an exception where there is none.

        Raises:
            BudgetExceededError: It does not fit: one hold a batch, at the most that it can cost. Nothing was sent.
            BatchPendingError: It was not answered within the timeout; its ``batch_id`` collects it.
            ConfigurationError: A request or an argument that cannot be used.
        """
        return self._batch_calls().batch(requests, client, patience, timeout, unanswered, progress, partial=anyway)

    async def abatch(
        self,
        requests: Iterable[Mapping[str, Any]],
        *,
        client: named.Clients,
        patience: Any = "24h",
        timeout: Any = None,  # noqa: ASYNC109 - as in ``batch``: the batch goes on
        unanswered: named.Unanswered = "resend",
        anyway: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> named.BatchAnswers:
        """``batch`` with asynchronous clients."""
        calls = self._batch_calls()
        return await calls.abatch(requests, client, patience, timeout, unanswered, progress, partial=anyway)

    def batches(self) -> tuple[named.BatchProgress, ...]:
        """Every batch that the ledger knows, by whatever process, the oldest first. Asks no provider."""
        return self._batch_calls().batches()

    def batch_status(self, batch_id: str, *, client: named.Clients) -> dict[str, str]:
        """Where the batches of a work stand at their providers, by their keys, in words; as ``collect_batch``."""
        return self._batch_calls().status(batch_id, client)

    def collect_batch(self, batch_id: str, *, client: named.Clients) -> named.Collected:
        """Book what has ended of a batch of whatever process, and return its answers by the places of its requests.

        Args:
            batch_id: The id that ``BatchPendingError`` or ``batches`` names, or the provider's.
            client: As of ``batch``.

        Raises:
            ConfigurationError: The ledger knows no such batch.
        """
        return self._batch_calls().collect(batch_id, client)

    async def acollect_batch(self, batch_id: str, *, client: named.Clients) -> named.Collected:
        """``collect_batch`` with asynchronous clients."""
        return await self._batch_calls().acollect(batch_id, client)

    def cancel_batch(self, batch_id: str, *, client: named.Clients) -> named.Collected:
        """Cancel a batch and collect what it has answered, which is billed. As ``collect_batch`` otherwise."""
        return self._batch_calls().collect(batch_id, client, cancel=True)

    async def acancel_batch(self, batch_id: str, *, client: named.Clients) -> named.Collected:
        """``cancel_batch`` with asynchronous clients."""
        return await self._batch_calls().acollect(batch_id, client, cancel=True)

    def batch_work(self, items: Sequence[named.BatchItem], wishes: named.Wishes) -> named.BatchWork:
        """The way of a host's requests through batches, for ``steps.run`` or ``steps.arun``."""
        return self._batch_calls().work(items, wishes)

    def knows_batch(self, batch_id: str) -> bool:
        """Whether the ledger knows a batch."""
        return self._batch_calls().knows(batch_id)

    def collecting_steps(self, batch_id: str, client: named.Clients) -> named.Steps[named.Collected]:
        """``collect_batch``, as steps."""
        return self._batch_calls().collecting_steps(batch_id, client)

    def decision_of(self, request: named.CallRequest) -> named.RoutingDecision:
        """The decision that a request would get now; nothing is remembered of it."""
        return self._flow.route_dry_run(request, frozenset((request.provider,))).decision

    def _batch_calls(self) -> named.BatchCalls:
        from llm_cost_middleware.batches.calls import BatchCalls  # of no use to who makes no batch

        parts = self._flow, self._runtimes.ledger, self._clerk, self.clock, self.catalogue.currency, self.config
        return BatchCalls(*parts, self.call, self.acall)
