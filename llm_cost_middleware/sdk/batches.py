"""Batches: the sum of the requests' bounds is set aside when one is created, and settled when its results are read.

A batch may be created by one process and fetched by another: which reservation belongs to which batch, and which file
holds its results, is kept in the ledger's journal where the ledger has one.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from threading import Lock
from typing import Any, NamedTuple

from llm_cost_middleware.budget.ledger.face import Outcome
from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import LedgerError, UnreadableUsageError, UnsupportedRequestError
from llm_cost_middleware.metering import PricedCall, encode_memo, price_usage
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.provider import BilledItem, UsageReading
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, Endpoint, Target
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.sdk.bodies import plain_body
from llm_cost_middleware.tracker import CostRecord
from llm_cost_middleware.usage import NO_USAGE

_log = logging.getLogger(__name__)
LEASE_S = 48 * 3_600
"""Both providers end a batch within a day, and keep its results for longer."""
_KIND = "batch"
_SAME_MOMENT_S = 1.0
"""A ledger's time may differ by so much from this process's."""
CLAUDE_RESULTS = re.compile(r"/v1/messages/batches/([^/?]+)/results")
GPT_BATCH = re.compile(r"^/batches/([^/?]+)$")
GPT_FILE = re.compile(r"^/files/([^/?]+)/content$")
_OVER = frozenset({"failed", "expired", "cancelled"})


class Pending(NamedTuple):
    """Money set aside for a batch that is being created."""

    reservation_id: str
    memo: bytes


class Batches:
    """The batches of one provider, in one ledger."""

    def __init__(self, pipeline: CostPipeline, provider: str) -> None:
        self._pipeline, self._provider = pipeline, provider
        self._rules = get_provider(provider)
        self._lock = Lock()
        self._known: dict[str, str] = {}
        self._settled: set[str] = set()

    # --- created ---------------------------------------------------------------------------------------------------

    def hold(self, bodies: Iterable[tuple[Mapping[str, Any], Endpoint]], said: Any) -> Pending:
        """Set aside what a batch can cost at most.

        Args:
            bodies: Its requests, each with its endpoint.
            said: What its creator says under ``llm_cost``.

        Raises:
            BudgetExceededError: It does not fit. PriceNotFoundError: A model has no price.
            UnsupportedRequestError: A request has no output cap, and its model none that is known.
        """
        context = read_context(said)
        requests = [self._request(body, endpoint) for body, endpoint in bodies]
        quote = self._pipeline.quote(requests, providers=frozenset((self._provider,)))
        models = sorted({f"model:{request.model}" for request in requests})
        scopes = (*context.scopes, f"provider:{self._provider}", *(models if len(models) == 1 else ()))
        name = f"batch.{os.urandom(8).hex()}"
        target = Target(self._provider, requests[0].model if requests else "")
        memo = encode_memo(call_id=name, attempt=1, target=target)
        self._pipeline.ledger.reserve(quote.bound_nanousd, scopes, id=name, ttl=LEASE_S, memo=memo)
        return Pending(name, memo)

    def created(self, pending: Pending, batch_id: str) -> None:
        """Remember whose money is set aside for a batch that was created."""
        self._remember(batch_id, pending.reservation_id)

    def failed(self, pending: Pending, error: BaseException) -> None:
        """Give the money back where a batch was surely not created; else its lease decides."""
        failure = classify_error(error, provider=self._provider, now=self._pipeline.clock.now())
        if failure.billed == "no":
            self._pipeline.ledger.void(pending.reservation_id, memo=pending.memo)

    def _request(self, body: Mapping[str, Any], endpoint: Endpoint) -> CallRequest:
        request = self._rules.read_request(body, endpoint)
        request = request._replace(params={**request.params, "batch": True}, pinned=True, stream=False)
        if request.max_tokens is None:  # nothing can be written into a file that is uploaded already
            most = self._pipeline.catalogue.limits(self._provider, request.model).max_output
            if most is None:
                raise UnsupportedRequestError("a batched request without an output cap", "set one in every request")
            request = request._replace(max_tokens=most)
        return request

    # --- fetched ---------------------------------------------------------------------------------------------------

    def told(self, batch: Any) -> None:
        """Take note of a batch's state: where its results will be, or that it ended without any."""
        known = self._find(str(batch.id))
        if known is None:
            return
        if batch.output_file_id:
            self._remember(batch.output_file_id, known)
        elif batch.status in _OVER:
            self._settle(known, UsageReading(free=True, complete=True, batch=True))

    def fetched(self, key: str, reading: UsageReading) -> None:
        """Settle a batch whose results were read to their end. ``key``: the batch, or the file of its results."""
        known = self._find(key)
        if known is not None:
            self._settle(known, reading)

    def read(self, lines: Any) -> UsageReading:
        """Result lines, or their text, as one reading."""
        try:
            return self._rules.read_usage(lines)
        except UnreadableUsageError as error:
            return UsageReading(notes=(str(error),))

    def _settle(self, reservation_id: str, reading: UsageReading) -> None:
        pipeline = self._pipeline
        priced = price_usage(reading, self._rules, pipeline.catalogue, at=pipeline.clock.now())
        if priced.cost_nanousd is None:
            _log.warning("a batch was not settled, its lease will be charged: %s", "; ".join(priced.notes))
            return
        memo = encode_memo(call_id=reservation_id, attempt=1, target=None, priced=priced, reading=reading)
        status: Outcome = "exact" if priced.status == "exact" else "estimated"
        began = pipeline.clock.now()
        try:
            receipt = pipeline.ledger.settle(reservation_id, priced.cost_nanousd, memo=memo, status=status)
        except LedgerError as error:
            _log.error("a batch was not settled: %s", error)
            return
        with self._lock:
            # read again here, or settled before by another process
            again = reservation_id in self._settled or receipt.at < began - _SAME_MOMENT_S
            self._settled.add(reservation_id)
        if not again:
            for record in self._records(reservation_id, priced, receipt.at, status):
                pipeline.record(record)

    def _records(self, call_id: str, priced: PricedCall, at: float, status: Outcome) -> Iterator[CostRecord]:
        """A record for each model that answered in a batch; they sum to what the ledger's row says."""
        models = dict.fromkeys(item.model for item in priced.items)
        for model in models:
            items = [item for item in priced.items if item.model == model]
            usage = sum((item.usage for item in items), NO_USAGE)
            yield CostRecord(
                model=model,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cost_usd=NanoUSD(sum(item.cost_nanousd for item in items)).usd,
                usage=usage,
                at=at,
                status=status,
                provider=self._provider,
                call_id=call_id,
                requested_model=model,
                price_version=priced.price_version,
            )

    # --- remembered ------------------------------------------------------------------------------------------------

    def _remember(self, key: str, reservation_id: str) -> None:
        with self._lock:
            if self._known.get(key) == reservation_id:
                return
            self._known[key] = reservation_id
        journal = self._pipeline.ledger.journal
        if journal is not None:
            journal.append(_KIND, f"{self._provider}.{key}", self._pipeline.clock.now(), reservation_id.encode())

    def _find(self, key: str) -> str | None:
        with self._lock:
            found = self._known.get(key)
        journal = self._pipeline.ledger.journal
        if found is None and journal is not None:
            since = self._pipeline.clock.now() - LEASE_S
            for mark in journal.read(_KIND, since):
                if mark.id == f"{self._provider}.{key}":
                    found = mark.data.decode()
        return found


def claude_bodies(body: Mapping[str, Any]) -> tuple[list[tuple[dict[str, Any], Endpoint]], dict[str, Any], Any]:
    """A body of ``messages.batches.create``: its requests, itself as it is sent, and what its creator says."""
    sent = plain_body(body, None)
    said = sent.pop(METADATA_KEY, None)
    return [(request.get("params") or {}, "messages") for request in sent.get("requests") or ()], sent, said


def gpt_bodies(content: bytes | str) -> list[tuple[dict[str, Any], Endpoint]]:
    """The requests in an uploaded file of OpenAI's batch form."""
    text = content.decode() if isinstance(content, bytes) else content
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [(line["body"], "responses" if "responses" in line["url"] else "chat.completions") for line in lines]


class Results:
    """Claude's result lines on their way to the caller; the batch is settled when the last has passed."""

    def __init__(self, batches: Batches, batch_id: str, lines: Any) -> None:
        self._batches, self._id, self._lines = batches, batch_id, lines
        self._items: list[BilledItem] = []

    def put_back(self, *, asynchronous: bool) -> Any:
        """The SDK's own decoder, reading through this."""
        outer = copy.copy(self._lines)
        outer._iterator = self._apass() if asynchronous else self._pass()  # noqa: SLF001 - where the SDK keeps it
        return outer

    def _pass(self) -> Iterator[Any]:
        for line in self._lines._iterator:  # noqa: SLF001 - as above
            self._note(line)
            yield line
        self._end()

    async def _apass(self) -> AsyncIterator[Any]:
        async for line in self._lines._iterator:  # noqa: SLF001 - as above
            self._note(line)
            yield line
        self._end()

    def _note(self, line: Any) -> None:
        self._items.extend(self._batches.read([line]).items)

    def _end(self) -> None:
        items = tuple(self._items)
        self._batches.fetched(self._id, UsageReading(items=items, batch=True, complete=True, free=not items))
