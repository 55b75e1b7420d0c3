"""Batches of the openai SDK: requests and results are files, which somebody uploads and downloads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llm_cost_middleware.request import Endpoint
from llm_cost_middleware.sdk_clients.api import BatchRequests, Body
from llm_cost_middleware.sdk_clients.batches import Batches

_BATCH = re.compile(r"^/batches/([^/?]+)$")
_FILE = re.compile(r"^/files/([^/?]+)/content$")


def _endpoint(url: str) -> Endpoint:
    return "responses" if "responses" in url else "embeddings" if "embeddings" in url else "chat.completions"


class FileBatches:
    """``batches`` and ``files``, as a ``BatchApi``."""

    path = "/batches"

    def input_file(self, body: Body) -> str:
        """The file that was uploaded."""
        file_id: str = body["input_file_id"]
        return file_id

    def read_requests(self, body: Body, content: bytes) -> BatchRequests:
        """The requests in the uploaded file; the body is sent as it is."""
        lines = [json.loads(line) for line in content.decode().splitlines() if line.strip()]
        return BatchRequests([(line["body"], _endpoint(line["url"])) for line in lines], body)

    def filled(self, body: Body, fields_of: Callable[[Body], Mapping[str, Any]]) -> Body:
        """The batch's own ``metadata``: what was uploaded cannot be written any more."""
        metadata = fields_of(body).get("metadata")
        return body if metadata is None else {**body, "metadata": metadata}

    def observes(self, path: str) -> bool:
        """Whether the path is that of a batch, or of a file that may hold the results of one."""
        return _BATCH.match(path) is not None or _FILE.match(path) is not None

    def observe(self, batches: Batches, path: str, answer: Any) -> Any:
        """Note that a batch ended, or settle the one whose results a file holds."""
        # raw and streamed responses carry neither attribute, and are left alone
        if (found := _FILE.match(path)) is not None:
            if hasattr(answer, "content"):
                batches.on_results_read(found[1], batches.read(answer.content))
        elif hasattr(answer, "output_file_id"):
            batches.on_status(answer)
        return answer
