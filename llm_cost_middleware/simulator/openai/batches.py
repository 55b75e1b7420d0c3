"""``/v1/files`` and ``/v1/batches``: requests are uploaded as lines, worked off at half price, and fetched as files.

Rules, from the SDK's docstrings (``types/batch_create_params.py``, ``types/batch.py``, ``resources/batches.py``), the
"Batch" guide and the specification (``BatchRequestOutput.error``):

- The file is JSON lines, uploaded with the purpose ``batch``: at most 50,000 requests and 200 MB, of one model, each
  with a ``custom_id`` of its own and the ``url`` of the batch's endpoint. ``completion_window`` is ``24h``.
- All of that is validated after the batch was created: it is ``validating`` first, and ``failed`` with ``errors``.
- Answers are in the output file, in any order; errors in the error file. An expired or cancelled batch has both: the
  requests that had no turn stand in the error file as ``batch_expired`` or ``batch_cancelled``.
- ``cancelling`` comes before ``cancelled``; what has ended cannot be cancelled.
- ``metadata``: 16 pairs, keys of 64 and values of 512 characters at most.
"""

import json
from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.simulator.batching import WINDOW_S, BatchJob, Item, page
from llm_cost_middleware.simulator.engine import ServingEngine
from llm_cost_middleware.simulator.reading import Dialect
from llm_cost_middleware.simulator.refusals import openai_error

MOST_REQUESTS, MOST_BYTES = 50_000, 200 * 10**6
_INVALID = "invalid_request_error"
_PAIRS, _KEY, _VALUE = 16, 64, 512
_NO_TURN = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "canceled": ("batch_cancelled", "This request was not executed: its batch was cancelled."),
}


class OpenAIBatches:
    """Uploaded files and the batches made of them."""

    def __init__(self, engine: ServingEngine, dialects: Mapping[str, Dialect]) -> None:
        self._engine = engine
        self._dialects = dialects
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, tuple[dict[str, Any], BatchJob | None]] = {}

    def upload(self, name: str, purpose: str, content: bytes) -> dict[str, Any]:
        """Keep a file.

        Raises:
            Refusal: 400 for a file of a batch that is no JSON lines or too large.
        """
        if purpose == "batch":
            if not name.endswith(".jsonl"):
                raise openai_error(400, "Invalid file format for Batch API. Must be .jsonl", kind=_INVALID)
            if len(content) > MOST_BYTES:
                raise openai_error(400, "File is too large. The Batch API takes up to 200 MB.", kind=_INVALID)
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
        """Take a batch in; the reply has the status validating.

        Raises:
            Refusal: 400 for an unknown endpoint or file, another window, or metadata beyond its limits.
        """
        if not isinstance(body, dict) or body.get("endpoint") not in self._dialects:
            raise _wrong("endpoint")
        if self._files.get(body.get("input_file_id", ""), ({},))[0].get("purpose") != "batch":
            raise _wrong("input_file_id")
        if body.get("completion_window") != "24h":
            raise _wrong("completion_window")
        _check_metadata(body.get("metadata"))
        now = int(self._engine.clock.now())
        batch = {
            "id": self._engine.ids.new("batch_", 32),
            "object": "batch",
            "endpoint": body["endpoint"],
            "model": None,
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "in_progress_at": None,
            "expires_at": now + int(WINDOW_S),
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
        fresh, pace = dict(batch), self._engine.pace
        items, errors = _read_lines(self.content(body["input_file_id"]), body["endpoint"])
        if pace.failure:
            errors = [_error(pace.failure, "The batch failed its validation.", None)]
        job = None
        if errors:
            batch |= {"status": "failed", "failed_at": now, "errors": {"object": "list", "data": errors}}
        else:
            job = BatchJob(self._engine, self._dialects[body["endpoint"]], items, headers, key, pace)
            batch |= {"model": items[0].params.get("model"), "in_progress_at": now}
        self._batches[fresh["id"]] = batch, job
        return fresh

    def get(self, batch_id: str) -> dict[str, Any]:
        """Return a batch as it stands now.

        Raises:
            Refusal: 404.
        """
        batch, job = self._batch(batch_id)
        if job is not None and batch["status"] not in {"completed", "expired", "cancelled"}:
            job.advance()
            self._note(batch, job)
        return batch

    def listed(self, after: str | None, limit: str | None) -> dict[str, Any]:
        """Return a page of the batches, the newest first."""
        rows, more = page([self.get(name) for name in self._batches], after, limit)
        ends = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
        return {"object": "list", "data": rows, "has_more": more, "first_id": ends[0], "last_id": ends[1]}

    def cancel(self, batch_id: str) -> dict[str, Any]:
        """Cancel a batch.

        Raises:
            Refusal: 404; 409 where it is no longer on its way.
        """
        batch, job = self._batch(batch_id)
        if job is None or not job.cancel():
            status = self.get(batch_id)["status"]
            raise openai_error(409, f"Cannot cancel a batch with status '{status}'.", kind=_INVALID)
        batch |= {"status": "cancelling", "cancelling_at": int(self._engine.clock.now())}
        return dict(batch)

    def _note(self, batch: dict[str, Any], job: BatchJob) -> None:
        answered, total = job.count("answered"), len(job.items)
        batch["request_counts"] = {"total": total, "completed": answered, "failed": job.count("errored")}
        if job.ended_at is None:
            batch["status"] = "in_progress"
            return
        ended = int(job.ended_at)
        status = "cancelled" if job.cancelled_at is not None else "expired" if job.expired else "completed"
        good = [item for item in reversed(job.items) if item.ending == "answered"]
        bad = [item for item in job.items if item.ending != "answered"]
        batch |= {
            "status": status,
            f"{status}_at": ended,
            "finalizing_at": ended,
            "output_file_id": self._output(good, batch["id"], "output"),
            "error_file_id": self._output(bad, batch["id"], "error"),
            "usage": _usage([item.reply["usage"] for item in good]),
        }

    def _output(self, items: list[Item], batch_id: str, what: str) -> str | None:
        if not items:
            return None
        content = b"".join(json.dumps(self._line(item)).encode() + b"\n" for item in items)
        return str(self.upload(f"{batch_id}_{what}.jsonl", "batch_output", content)["id"])

    def _line(self, item: Item) -> dict[str, Any]:
        ids, reply, error = self._engine.ids, None, None
        if item.ending in _NO_TURN:
            error = dict(zip(("code", "message"), _NO_TURN[item.ending], strict=True))
        else:
            reply = {"status_code": item.status, "request_id": ids.new("req_", 32), "body": item.reply}
        return {"id": ids.new("batch_req_", 32), "custom_id": item.custom_id, "response": reply, "error": error}

    def _batch(self, batch_id: str) -> tuple[dict[str, Any], BatchJob | None]:
        if batch_id not in self._batches:
            raise openai_error(404, f"No batch found with id '{batch_id}'.", kind=_INVALID)
        return self._batches[batch_id]

    def _find(self, file_id: str) -> tuple[dict[str, Any], bytes]:
        if file_id not in self._files:
            raise openai_error(404, f"No such File object: {file_id}", kind=_INVALID, param="id")
        return self._files[file_id]


def _wrong(param: str) -> Exception:
    return openai_error(400, f"Invalid value for '{param}'.", kind=_INVALID, param=param)


def _check_metadata(metadata: Any) -> None:
    if metadata is None:
        return
    fine = isinstance(metadata, dict) and len(metadata) <= _PAIRS
    if not fine or any(
        not isinstance(value, str) or len(value) > _VALUE or len(name) > _KEY for name, value in metadata.items()
    ):
        raise _wrong("metadata")


def _read_lines(content: bytes, endpoint: str) -> tuple[list[Item], list[dict[str, Any]]]:
    """The requests of a file, and what is wrong with it."""
    lines = [line for line in content.splitlines() if line.strip()]
    if not lines:
        return [], [_error("empty_file", "The input file is empty.", None)]
    if len(lines) > MOST_REQUESTS:
        return [], [_error("too_many_requests", f"A batch takes at most {MOST_REQUESTS} requests.", None)]
    items: list[Item] = []
    errors: list[dict[str, Any]] = []
    known: set[str] = set()
    for at, line in enumerate(lines, 1):
        try:
            request = json.loads(line)
            missing = next((name for name in ("custom_id", "method", "url", "body") if name not in request), None)
        except (ValueError, TypeError):
            errors.append(_error("invalid_json_line", "This line is not parseable as valid JSON.", at))
            continue
        if missing is not None:
            message = f"Missing required parameter: '{missing}'."
            errors.append(_error("missing_required_parameter", message, at, missing))
        elif request["custom_id"] in known:
            errors.append(_error("duplicate_custom_id", "The custom_id for this request is a duplicate.", at))
        elif request["url"] != endpoint:
            errors.append(_error("mismatched_url", "The URL of this request is not the batch's endpoint.", at, "url"))
        elif items and request["body"].get("model") != items[0].params.get("model"):
            errors.append(_error("mismatched_model", "Each batch is for one model.", at, "body.model"))
        elif request["body"].get("stream"):
            errors.append(_error("invalid_request", "A batched request cannot be streamed.", at, "body.stream"))
        else:
            known.add(request["custom_id"])
            items.append(Item(request["custom_id"], request["body"]))
    return items, errors


def _error(code: str, message: str, line: int | None, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "line": line, "param": param}


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
