"""Batches: the sum of the requests' bounds is set aside when one is created, and settled when its results are read.

A batch may be created by one process and fetched by another: which reservation belongs to which batch, and which file
holds its results, is kept in the ledger's journal where the ledger has one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from llm_cost_middleware.config.sent_names import ClientNames
from llm_cost_middleware.context import read_context
from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.event_loops import in_thread, other_loop
from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.lifecycle.clerk import BATCH_LIFETIME_S
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platform import PLATFORMS, served_model
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, Endpoint
from llm_cost_middleware.usage import NOT_SENT, UsageReport, attach_usage, read_or_unknown

_log = logging.getLogger(__name__)
_KIND = "batch"
_OVER = frozenset({"failed", "expired", "cancelled"})


class Batches:
    """The batches of one provider, in one ledger."""

    _lock = ForkSafeLock()

    def __init__(self, pipeline: CostPipeline, provider: str) -> None:
        self._pipeline, self._provider = pipeline, provider
        self._rules, self._is_platform = get_provider(provider), provider in PLATFORMS
        self._known: dict[str, str] = {}

    # --- created ---------------------------------------------------------------------------------------------------

    def reserve(
        self, bodies: Iterable[tuple[Mapping[str, Any], Endpoint]], attributes: Any, names: ClientNames
    ) -> str:  # fmt: skip
        """Set aside what a batch can cost at most.

        Args:
            bodies: Its requests, each with its endpoint.
            attributes: Those of the batch under ``llm_cost``.
            names: What the names that its client sends stand for.

        Returns:
            The id of the reservation; of a platform, and one model, with that behind a space: what is remembered.

        Raises:
            BudgetExceededError: It does not fit. PriceNotFoundError: A model has no price.
            UnsupportedRequestError: A request has no output cap, and its model none that is known.
        """
        of = names.at(self._pipeline.config, _KIND)
        requests = self._named([of.read(self._rules.read_request(body, endpoint), "") for body, endpoint in bodies])
        held = self._pipeline.reserve_batch(
            self._provider, [self._bounded(request) for request in requests], read_context(attributes)
        )
        models = {request.model for request in requests}
        return f"{held} {models.pop()}" if self._is_platform and len(models) == 1 else held

    async def areserve(
        self, bodies: Iterable[tuple[Mapping[str, Any], Endpoint]], attributes: Any, names: ClientNames
    ) -> str:  # fmt: skip
        """As ``reserve``, in a thread. Cancelled, it gives back what the thread sets aside all the same."""
        if (trio := other_loop()) is not None:
            held = await in_thread(self.reserve, bodies, attributes, names)
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
            except BaseException:
                self._unsent(held)
                raise
            return held
        task = asyncio.ensure_future(asyncio.to_thread(self.reserve, bodies, attributes, names))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])  # a thread is not stopped
            if not task.cancelled() and task.exception() is None:
                self._unsent(task.result())
            raise

    def _unsent(self, reservation_id: str) -> None:
        attach_usage(error := asyncio.CancelledError(), NOT_SENT)
        self.failed(reservation_id, error)

    def fields_for(self, attributes: Any) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
        """The fields to send beside those of a request of a batch with these attributes."""
        return partial(self._pipeline.sent_fields, self._provider, read_context(attributes))

    def created(self, reservation_id: str, batch: Any) -> None:
        """Remember whose money is set aside for a batch that was created, or for the unparsed answer that says so."""
        made = batch.parse() if not hasattr(batch, "id") and hasattr(batch, "parse") else batch
        if (batch_id := getattr(made, "id", None)) is not None:
            self._remember(str(batch_id), reservation_id)

    def failed(self, reservation_id: str, error: BaseException) -> None:
        """Give the money back where a batch was surely not created; else its reservation expires."""
        self._pipeline.fail_batch(self._provider, reservation_id.partition(" ")[0], error)

    def _bounded(self, request: CallRequest) -> CallRequest:
        request = request._replace(params={**request.params, "batch": True}, model_pinned=True, stream=False)
        if request.max_tokens is None:  # nothing can be written into a file that is uploaded already
            # the provider would answer up to the model's own limit
            most = self._pipeline.catalogue.limits(self._provider, request.model).max_output
            if most is None:
                raise UnsupportedRequestError("a batched request without an output cap", "set one in every request")
            request = request._replace(max_tokens=most)
        return request

    def _named(self, requests: list[CallRequest]) -> list[CallRequest]:
        """Requests of several deployments, with their places left open: results name the model alone."""
        if not self._is_platform or len({request.model for request in requests}) == 1:
            return requests
        return [request._replace(model=served_model(self._provider, request.model).model) for request in requests]

    # --- fetched ---------------------------------------------------------------------------------------------------

    def on_status(self, batch: Any) -> None:
        """Take note of a batch's state: where its results will be, or that it ended without any."""
        known = self._find(str(batch.id))
        if known is None:
            return
        if batch.output_file_id:
            self._remember(batch.output_file_id, known)
        elif batch.status in _OVER:
            self._settle(known, UsageReport(unbilled=True, complete=True, batch=True))

    def on_results_read(self, key: str, reading: UsageReport) -> None:
        """Settle a batch whose results were read to their end. ``key``: the batch, or the file of its results."""
        known = self._find(key)
        if known is not None:
            self._settle(known, reading)

    def _settle(self, known: str, reading: UsageReport) -> None:
        reservation_id, _, model = known.partition(" ")
        self._pipeline.settle_batch(self._provider, reservation_id, reading, model or None)

    def read(self, lines: Any) -> UsageReport:
        """Result lines, or their text, as one reading."""
        return read_or_unknown(self._rules.read_usage, lines)

    # --- remembered ------------------------------------------------------------------------------------------------

    def _remember(self, key: str, reservation_id: str) -> None:
        with self._lock:
            if self._known.get(key) == reservation_id:
                return
            self._known[key] = reservation_id
        try:
            if (journal := self._pipeline.ledger.journal) is not None:
                journal.append(_KIND, f"{self._provider}.{key}", self._pipeline.clock.now(), reservation_id.encode())
        except Exception as error:  # noqa: BLE001 - of any storage: the batch is made and paid for, and its caller's
            _log.error("only this process knows the reservation of batch %s: %s", key, type(error).__qualname__)

    def _find(self, key: str) -> str | None:
        with self._lock:
            found = self._known.get(key)
        if found is not None:
            return found
        try:  # another process may have created the batch
            journal, since = self._pipeline.ledger.journal, self._pipeline.clock.now() - BATCH_LIFETIME_S
            for mark in journal.read(_KIND, since) if journal is not None else ():
                if mark.id == f"{self._provider}.{key}":
                    found = mark.data.decode()
        except Exception as error:  # noqa: BLE001 - as above: what was fetched is the caller's
            _log.error("the reservation of batch %s was not looked up: %s", key, type(error).__qualname__)
        return found
