"""``/v1/messages/batches``: worked off at once, at half price, and fetched as JSON lines."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from llm_cost_middleware.simulator.engine import ServingEngine
from llm_cost_middleware.simulator.reading import Ids
from llm_cost_middleware.simulator.refusals import Refusal, anthropic_error

from .dialect import MESSAGES

_DAY_S = 86_400


class MessageBatches:
    """Batches by id: every request is answered and billed when the batch is created."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine
        self._batches: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}

    def create(self, body: Any, headers: Mapping[str, str], key: str, url: str) -> dict[str, Any]:
        """Run a batch; the reply still has the status in progress.

        Raises:
            Refusal: 400 for a body without requests.
        """
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not requests:
            raise anthropic_error(400, "requests: Field required")
        results = [self._run(request, headers, key) for request in requests]
        ids: Ids = self._engine.ids
        batch_id = ids.new("msgbatch_01")
        now = self._engine.clock.now()
        failed = sum(result["result"]["type"] != "succeeded" for result in results)
        batch = {
            "id": batch_id,
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {
                "processing": 0,
                "succeeded": len(results) - failed,
                "errored": failed,
                "canceled": 0,
                "expired": 0,
            },
            "ended_at": _stamp(now),
            "created_at": _stamp(now),
            "expires_at": _stamp(now + _DAY_S),
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{url}/v1/messages/batches/{batch_id}/results",
        }
        self._batches[batch_id] = (batch, results)
        counts = {"processing": len(results), "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        return batch | {
            "processing_status": "in_progress",
            "request_counts": counts,
            "ended_at": None,
            "results_url": None,
        }

    def _run(self, request: Mapping[str, Any], headers: Mapping[str, str], key: str) -> dict[str, Any]:
        result: dict[str, Any]
        try:
            params = {name: value for name, value in request["params"].items() if name != "stream"}
            reading = self._engine.read(MESSAGES, params, headers, 0)
            served = self._engine.begin(MESSAGES, reading, key, tier="batch")
            self._engine.started(served)
            result = {"type": "succeeded", "message": MESSAGES.reply(served.out)}
            served.close("complete")
        except Refusal as refusal:
            result = {"type": "errored", "error": refusal.body}
        return {"custom_id": request["custom_id"], "result": result}

    def get(self, batch_id: str) -> dict[str, Any]:
        """Return a batch, which has ended.

        Raises:
            Refusal: 404.
        """
        return self._find(batch_id)[0]

    def results(self, batch_id: str) -> bytes:
        """Its results, a JSON line each.

        Raises:
            Refusal: 404.
        """
        return b"".join(json.dumps(result).encode() + b"\n" for result in self._find(batch_id)[1])

    def _find(self, batch_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if batch_id not in self._batches:
            raise anthropic_error(404, f"Message batch {batch_id} not found")
        return self._batches[batch_id]


def _stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
