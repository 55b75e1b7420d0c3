"""Message batches of the anthropic SDK: requests in the body, results as lines that the SDK decodes one by one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

from llm_cost_middleware.context import METADATA_KEY
from llm_cost_middleware.host import ObservedStream
from llm_cost_middleware.sdk_clients.api import BatchRequests, Body
from llm_cost_middleware.sdk_clients.batches import Batches
from llm_cost_middleware.sdk_clients.bodies import plain_body
from llm_cost_middleware.usage import BilledItem, UsageReport

_RESULTS = re.compile(r"/v1/messages/batches/([^/?]+)/results")


class MessageBatches:
    """``messages.batches``, as a ``BatchApi``."""

    path = "/v1/messages/batches"

    def input_file(self, body: Body) -> None:
        """The requests stand in the body."""
        del body

    def read_requests(self, body: Body, content: bytes) -> BatchRequests:
        """The requests of a body, and what to send."""
        del content
        sent = plain_body(body, None)
        attributes = sent.pop(METADATA_KEY, None)
        requests = sent.get("requests") or ()
        return BatchRequests([(request.get("params") or {}, "messages") for request in requests], sent, attributes)

    def filled(self, body: Body, fields_of: Callable[[Body], Mapping[str, Any]]) -> Body:
        """Each request's own fields."""
        requests = list(body.get("requests") or ())
        added = [fields_of(request.get("params") or {}) for request in requests]
        if not any(added):
            return body
        written = [
            {**request, "params": {**(request.get("params") or {}), **fields}}
            for request, fields in zip(requests, added, strict=True)
        ]
        return {**body, "requests": written}

    def observes(self, path: str) -> bool:
        """Whether the path is that of a batch's results."""
        return _RESULTS.search(path) is not None

    def observe(self, batches: Batches, path: str, answer: Any) -> Any:
        """A copy of the SDK's decoder: once its last line has passed, the batch is settled."""
        found = _RESULTS.search(path)
        if found is None:
            return answer
        results = _Results(batches, found[1])
        # only lines that the caller reads are seen, so an unfinished reading leaves the money reserved
        lines = answer._iterator  # noqa: SLF001 - where the SDK keeps what it iterates over
        passing = ObservedStream(lines, results, answer.close, on_end=results.settle)
        outer = copy.copy(answer)
        outer._iterator = aiter(passing) if hasattr(lines, "__anext__") else iter(passing)  # noqa: SLF001 - as above
        return outer


class _Results:
    """The usage of the result lines that have passed."""

    def __init__(self, batches: Batches, batch_id: str) -> None:
        self._batches, self._id = batches, batch_id
        self._items: list[BilledItem] = []
        self._unread: tuple[str, ...] = ()

    def feed(self, line: Any) -> None:
        one = self._batches.read([line])
        self._items.extend(one.items)
        if not one.items and not one.unbilled:
            self._unread = one.warnings

    def reading(self) -> UsageReport:
        if self._unread:  # what the others cost is not what the batch costs
            return UsageReport(batch=True, warnings=self._unread)
        items = tuple(self._items)
        return UsageReport(items=items, batch=True, complete=True, unbilled=not items)

    def settle(self) -> None:
        self._batches.on_results_read(self._id, self.reading())
