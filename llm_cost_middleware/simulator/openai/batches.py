"""``/v1/files`` and ``/v1/batches``: a batch is worked off when it is created, at the batch price."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from llm_cost_middleware.simulator.engine import ServingEngine
from llm_cost_middleware.simulator.reading import Dialect
from llm_cost_middleware.simulator.refusals import Refusal, openai_error

_DAY_S = 86_400


class OpenAIBatches:
    """Uploaded files and the batches made of them."""

    def __init__(self, engine: ServingEngine, dialects: Mapping[str, Dialect]) -> None:
        self._engine = engine
        self._dialects = dialects
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, dict[str, Any]] = {}

    def upload(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        """Keep a file."""
        file: dict[str, Any] = {
            "id": self._engine.ids.new("file-"),
            "object": "file",
            "bytes": len(content),
            "created_at": int(self._engine.clock.now()),
            "expires_at": None,
            "filename": name,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self._files[file["id"]] = (file, content)
        return file

    def file(self, file_id: str) -> dict[str, Any]:
        """Return the metadata of a file.

        Raises:
            Refusal: 404.
        """
        return self._find(file_id)[0]

    def content(self, file_id: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            Refusal: 404.
        """
        return self._find(file_id)[1]

    def create(self, body: Any, headers: Mapping[str, str], key: str) -> dict[str, Any]:
        """Run a batch; the reply still has the status validating.

        Raises:
            Refusal: 400 for an unknown endpoint or file.
        """
        if not isinstance(body, dict) or body.get("endpoint") not in self._dialects:
            raise openai_error(400, "Invalid value for 'endpoint'.", kind="invalid_request_error", param="endpoint")
        if body.get("input_file_id") not in self._files:
            raise openai_error(400, "Invalid 'input_file_id'.", kind="invalid_request_error", param="input_file_id")
        dialect = self._dialects[body["endpoint"]]
        lines = [json.loads(line) for line in self.content(body["input_file_id"]).splitlines() if line.strip()]
        results = [self._run(dialect, line, headers, key) for line in lines]
        good = [result for result in results if result["response"]["status_code"] == HTTPStatus.OK]
        bad = [result for result in results if result["response"]["status_code"] != HTTPStatus.OK]
        now = int(self._engine.clock.now())
        fresh = {
            "id": self._engine.ids.new("batch_", 32),
            "object": "batch",
            "endpoint": body["endpoint"],
            "model": None,
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": body.get("completion_window", "24h"),
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "in_progress_at": None,
            "expires_at": now + _DAY_S,
            "finalizing_at": None,
            "completed_at": None,
            "failed_at": None,
            "expired_at": None,
            "cancelling_at": None,
            "cancelled_at": None,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "usage": _usage([]),
            "metadata": body.get("metadata"),
        }
        self._batches[fresh["id"]] = fresh | {
            "model": good[0]["response"]["body"]["model"] if good else None,
            "status": "completed",
            "output_file_id": self._output(good, fresh["id"], "output"),
            "error_file_id": self._output(bad, fresh["id"], "error"),
            "in_progress_at": now,
            "finalizing_at": now,
            "completed_at": now,
            "request_counts": {"total": len(results), "completed": len(good), "failed": len(bad)},
            "usage": _usage([result["response"]["body"]["usage"] for result in good]),
        }
        return fresh

    def get(self, batch_id: str) -> dict[str, Any]:
        """Return a batch, which is complete.

        Raises:
            Refusal: 404.
        """
        if batch_id not in self._batches:
            raise openai_error(404, f"No batch found with id '{batch_id}'.", kind="invalid_request_error")
        return self._batches[batch_id]

    def _output(self, results: list[dict[str, Any]], batch_id: str, what: str) -> str | None:
        if not results:
            return None
        content = b"".join(json.dumps(result).encode() + b"\n" for result in results)
        return str(self.upload(f"{batch_id}_{what}.jsonl", "batch_output", content)["id"])

    def _run(self, dialect: Dialect, line: Mapping[str, Any], headers: Mapping[str, str], key: str) -> dict[str, Any]:
        ids = self._engine.ids
        try:
            params = {name: value for name, value in line["body"].items() if not name.startswith("stream")}
            reading = self._engine.read(dialect, params, headers, 0)
            served = self._engine.begin(dialect, reading, key, tier="batch")
            self._engine.started(served)
            status, body = int(HTTPStatus.OK), dialect.reply(served.out)
            served.close("complete")
        except Refusal as refusal:
            status, body = refusal.status, refusal.body
        reply = {"status_code": status, "request_id": ids.new("req_", 32), "body": body}
        return {"id": ids.new("batch_req_", 32), "custom_id": line["custom_id"], "response": reply, "error": None}

    def _find(self, file_id: str) -> tuple[dict[str, Any], bytes]:
        if file_id not in self._files:
            raise openai_error(404, f"No such File object: {file_id}", kind="invalid_request_error", param="id")
        return self._files[file_id]


def _usage(each: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of usages, in the words of the Responses API."""

    def total(new: str, old: str) -> int:
        return sum(usage.get(new, usage.get(old, 0)) for usage in each)

    def part(new: str, old: str, name: str) -> int:
        return sum((usage.get(new) or usage.get(old) or {}).get(name, 0) for usage in each)

    return {
        "input_tokens": total("input_tokens", "prompt_tokens"),
        "output_tokens": total("output_tokens", "completion_tokens"),
        "total_tokens": total("total_tokens", "total_tokens"),
        "input_tokens_details": {
            "cached_tokens": part("input_tokens_details", "prompt_tokens_details", "cached_tokens")
        },
        "output_tokens_details": {
            "reasoning_tokens": part("output_tokens_details", "completion_tokens_details", "reasoning_tokens")
        },
    }
