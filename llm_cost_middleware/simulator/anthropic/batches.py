"""``/v1/messages/batches``: created in one body, worked off at half price, fetched as JSON lines in any order.

Rules, from the SDK's docstrings (``resources/messages/batches.py``, ``types/messages/message_batch.py``) and the pages
"Batch processing" and "Create a Message Batch" of the provider:

- At most 100,000 requests or 256 MB, whichever comes first; a larger body is 413 ``request_too_large``.
- ``custom_id``: unique in the batch, 1 to 64 letters, digits, hyphens and underscores.
- The body of each request is validated when it is processed: its errors are results.
- ``stream`` and ``max_tokens: 0`` are not for batches.
- Counts stay at ``processing`` until the whole batch has ended; ``results_url`` is null until then.
- Results are not in the order of the requests, and are kept for 29 days from its creation.
- A batch is ``canceling`` before it has ``ended``; ended, it cannot be cancelled.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from llm_cost_middleware.simulator.batching import WINDOW_S, BatchJob, Ending, Item, page
from llm_cost_middleware.simulator.engine import ServingEngine
from llm_cost_middleware.simulator.refusals import anthropic_error

from .dialect import MESSAGES

MOST_REQUESTS, MOST_BYTES = 100_000, 256 * 2**20
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_KEPT_S = 29 * 86_400
_COUNTS: tuple[tuple[str, Ending | None], ...] = (
    ("processing", None),
    ("succeeded", "answered"),
    ("errored", "errored"),
    ("canceled", "canceled"),
    ("expired", "expired"),
)


class MessageBatches:
    """Batches by id."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine
        self._batches: dict[str, tuple[BatchJob, str]] = {}

    def create(self, body: Any, headers: Mapping[str, str], key: str, url: str, size: int = 0) -> dict[str, Any]:
        """Take a batch in.

        Raises:
            Refusal: 400 for a body without requests, or whose ids are wrong; 413 for too large a one.
        """
        if size > MOST_BYTES:
            raise anthropic_error(413)
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not requests:
            raise anthropic_error(400, "requests: Field required")
        if len(requests) > MOST_REQUESTS:
            raise anthropic_error(400, f"requests: List should have at most {MOST_REQUESTS} items")
        items = [_item(at, request) for at, request in enumerate(requests)]
        known: set[str] = set()
        for at, item in enumerate(items):
            if item.custom_id in known:
                raise anthropic_error(400, f"requests.{at}.custom_id: custom_id must be unique within the batch")
            known.add(item.custom_id)
        batch_id = self._engine.ids.new("msgbatch_01")
        self._batches[batch_id] = BatchJob(self._engine, MESSAGES, items, headers, key, self._engine.pace), url
        fresh = self._shown(batch_id)
        counts = {"processing": len(items), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        # the reply is written before the first request is looked at
        return fresh | {
            "processing_status": "in_progress", "request_counts": counts, "ended_at": None, "results_url": None,
        }  # fmt: skip

    def get(self, batch_id: str) -> dict[str, Any]:
        """Return a batch as it stands now.

        Raises:
            Refusal: 404.
        """
        self._find(batch_id)
        return self._shown(batch_id)

    def listed(self, after: str | None, limit: str | None) -> dict[str, Any]:
        """Return a page of the batches, the newest first."""
        rows, more = page([self._shown(name) for name in self._batches], after, limit)
        ends = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
        return {"data": rows, "has_more": more, "first_id": ends[0], "last_id": ends[1]}

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Cancel a batch.

        Raises:
            Refusal: 404; 400 where it has ended.
        """
        if not self._find(batch_id).cancel():
            raise anthropic_error(400, "Batch has already ended and cannot be canceled")
        return self._shown(batch_id)

    def results(self, batch_id: str) -> bytes:
        """Return its results, a JSON line each, the last request first.

        Raises:
            Refusal: 404, also before it has ended, and when they are not kept any more.
        """
        job = self._find(batch_id)
        if self._shown(batch_id)["results_url"] is None:
            raise anthropic_error(404, f"Message batch {batch_id} has no available results")
        return b"".join(json.dumps(_result(item)).encode() + b"\n" for item in reversed(job.items))

    def _find(self, batch_id: str) -> BatchJob:
        if batch_id not in self._batches:
            raise anthropic_error(404, f"Message batch {batch_id} not found")
        return self._batches[batch_id][0]

    def _shown(self, batch_id: str) -> dict[str, Any]:
        job, url = self._batches[batch_id]
        canceling = job.cancelled_at is not None and job.ended_at is None
        if not canceling:
            job.advance()
        ended, kept = job.ended_at is not None, self._engine.clock.now() < job.created_at + _KEPT_S
        status = "ended" if ended else "canceling" if canceling else "in_progress"
        counts = {name: job.count(ending) for name, ending in _COUNTS}
        shown = {
            "id": batch_id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": counts
            if ended
            else {name: len(job.items) if name == "processing" else 0 for name in counts},
            "ended_at": _stamp(job.ended_at),
            "created_at": _stamp(job.created_at),
            "expires_at": _stamp(job.created_at + WINDOW_S),
            "archived_at": None if kept else _stamp(job.created_at + _KEPT_S),
            "cancel_initiated_at": _stamp(job.cancelled_at),
            "results_url": f"{url}/v1/messages/batches/{batch_id}/results" if ended and kept else None,
        }
        job.advance()  # cancelled: it has ended for whoever asks next
        return shown


def _item(at: int, request: Any) -> Item:
    custom_id = request.get("custom_id") if isinstance(request, dict) else None
    if not isinstance(custom_id, str):
        raise anthropic_error(400, f"requests.{at}.custom_id: Field required")
    if not _CUSTOM_ID.fullmatch(custom_id):
        raise anthropic_error(
            400, f"requests.{at}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
        )  # fmt: skip
    params = request.get("params")
    if not isinstance(params, dict):
        raise anthropic_error(400, f"requests.{at}.params: Field required")
    for name, wrong in (("stream", True), ("max_tokens", 0)):
        if params.get(name) == wrong and params.get(name) is not False:
            raise anthropic_error(400, f"requests.{at}.params.{name}: {wrong!r} is not supported in a batch")
    return Item(custom_id, params)


def _result(item: Item) -> dict[str, Any]:
    result: dict[str, Any] = {"type": "succeeded" if item.ending == "answered" else item.ending}
    if item.reply is not None:
        result["message" if item.ending == "answered" else "error"] = item.reply
    return {"custom_id": item.custom_id, "result": result}


def _stamp(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
