"""The batch APIs of both providers, through a client of their SDK: created, looked at, cancelled, fetched, found again.

Each call is a step (``steps``), so that it is written once for blocking and asynchronous clients. What creates a batch
is sent once, with the SDK's own retries off: a second request would be a second batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from llm_cost_middleware.batches.errors import BatchItemError
from llm_cost_middleware.batches.limits import place_of
from llm_cost_middleware.batches.steps import Ask, AskAll, Steps

METADATA = "llm_cost_batch"
"""The key in OpenAI's ``metadata`` under which a batch bears its name."""
_SLACK_S = 300.0
"""Seconds by which the clocks of provider and machine may differ."""


class BatchStatus(NamedTuple):
    """Where a batch stands at its provider."""

    id: str
    word: str
    """The provider's own."""
    ended: bool
    answered: int
    total: int
    error: str = ""
    """Why the whole batch was refused, where it was."""
    files: tuple[str, ...] = ()
    """Where its results lie, where the provider says so."""
    gone: bool = False
    """It has ended, and its results are not kept any more."""


class ItemLine(NamedTuple):
    """One line of a batch's results."""

    custom_id: str
    raw: Any
    """As the provider's usage reader takes it."""
    response: Any = None
    """The SDK's own object of the answer; ``None`` where there is none."""
    error: BatchItemError | None = None


class BatchApi(Protocol):
    """The batches of one provider."""

    def encoded(self, custom_id: str, body: Mapping[str, Any], endpoint: str) -> bytes:
        """One request as it is counted against the size of a batch."""
        ...

    def create(self, client: Any, key: str, endpoint: str, requests: Sequence[tuple[str, Any]]) -> Steps[str]:
        """Send a batch, once; return the provider's id."""
        ...

    def status(self, client: Any, batch_id: str) -> Steps[BatchStatus]:
        """Look at a batch."""
        ...

    def cancel(self, client: Any, batch_id: str) -> Steps[BatchStatus]:
        """Cancel a batch."""
        ...

    def results(self, client: Any, status: BatchStatus, endpoint: str) -> Steps[list[ItemLine]]:
        """Fetch what an ended batch has brought."""
        ...

    def find(self, client: Any, key: str, count: int, since: float) -> Steps[str | None]:
        """Return the id of the batch of a name, made at ``since`` or later, if there is one."""
        ...


class MessageBatches:
    """``client.messages.batches``."""

    def encoded(self, custom_id: str, body: Mapping[str, Any], endpoint: str) -> bytes:
        """See ``BatchApi``."""
        del endpoint
        return _json({"custom_id": custom_id, "params": body})

    def create(self, client: Any, key: str, endpoint: str, requests: Sequence[tuple[str, Any]]) -> Steps[str]:
        """See ``BatchApi``."""
        del key, endpoint
        batches = client.with_options(max_retries=0).messages.batches
        listed = [{"custom_id": name, "params": body} for name, body in requests]
        made = yield Ask(lambda: batches.create(requests=listed))
        return str(made.id)

    def status(self, client: Any, batch_id: str) -> Steps[BatchStatus]:
        """See ``BatchApi``."""
        return _claude_status((yield Ask(lambda: client.messages.batches.retrieve(batch_id))))

    def cancel(self, client: Any, batch_id: str) -> Steps[BatchStatus]:
        """See ``BatchApi``."""
        return _claude_status((yield Ask(lambda: client.messages.batches.cancel(batch_id))))

    def results(self, client: Any, status: BatchStatus, endpoint: str) -> Steps[list[ItemLine]]:
        """See ``BatchApi``."""
        del endpoint
        lines = yield AskAll(lambda: client.messages.batches.results(status.id))
        return [_claude_line(line) for line in lines]

    def find(self, client: Any, key: str, count: int, since: float) -> Steps[str | None]:
        """By the number of its requests, and once it has ended by their names: the API keeps nothing else of ours."""
        batches, first = client.messages.batches, since - _SLACK_S
        listed = yield AskAll(lambda: batches.list(limit=100), lambda one: _moment(one.created_at) < first)
        maybe: list[str] = []
        for one in listed:
            counts = one.request_counts
            total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
            if total != count or _moment(one.created_at) < first:
                continue
            if one.processing_status != "ended" or one.results_url is None:
                maybe.append(str(one.id))
                continue
            lines = yield AskAll(lambda batch_id=str(one.id): batches.results(batch_id), lambda _: True)  # type: ignore[misc]  # bound now
            if lines and place_of(lines[0].custom_id, key) is not None:
                return str(one.id)
        # one on its way cannot be told from another: where there are several, whoever asks again will see
        return maybe[0] if len(maybe) == 1 else None


class FileBatches:
    """``client.files`` and ``client.batches``.

    Args:
        urls: What its lines call, by endpoint.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = urls

    def encoded(self, custom_id: str, body: Mapping[str, Any], endpoint: str) -> bytes:
        """See ``BatchApi``."""
        return _json({"custom_id": custom_id, "method": "POST", "url": self._urls[endpoint], "body": body}) + b"\n"

    def create(self, client: Any, key: str, endpoint: str, requests: Sequence[tuple[str, Any]]) -> Steps[str]:
        """See ``BatchApi``."""
        content = b"".join(self.encoded(name, body, endpoint) for name, body in requests)
        once = client.with_options(max_retries=0)
        file = yield Ask(lambda: client.files.create(file=(f"{key}.jsonl", content), purpose="batch"))
        made = yield Ask(
            lambda: once.batches.create(
                input_file_id=file.id, endpoint=self._urls[endpoint], completion_window="24h", metadata={METADATA: key}
            )
        )
        return str(made.id)

    def status(self, client: Any, batch_id: str) -> Steps[BatchStatus]:
        """See ``BatchApi``."""
        return _gpt_status((yield Ask(lambda: client.batches.retrieve(batch_id))))

    def cancel(self, client: Any, batch_id: str) -> Steps[BatchStatus]:
        """See ``BatchApi``."""
        return _gpt_status((yield Ask(lambda: client.batches.cancel(batch_id))))

    def results(self, client: Any, status: BatchStatus, endpoint: str) -> Steps[list[ItemLine]]:
        """See ``BatchApi``."""
        kind = _kind(client, endpoint)
        lines: list[bytes] = []
        for file_id in status.files:
            content = yield Ask(lambda name=file_id: client.files.content(name))  # type: ignore[misc]  # bound now
            lines.extend(content.content.splitlines())
        return [_gpt_line(json.loads(line), kind) for line in lines if line.strip()]

    def find(self, client: Any, key: str, count: int, since: float) -> Steps[str | None]:
        """By its name in its metadata."""
        del count
        listed = yield AskAll(
            lambda: client.batches.list(limit=100),
            lambda one: one.created_at < since - _SLACK_S or (one.metadata or {}).get(METADATA) == key,
        )
        return next((str(one.id) for one in listed if (one.metadata or {}).get(METADATA) == key), None)


_URLS = {"chat.completions": "/v1/chat/completions", "responses": "/v1/responses"}
APIS: Mapping[str, BatchApi] = MappingProxyType({
    "anthropic": MessageBatches(),
    "openai": FileBatches(_URLS),
    # learn.microsoft.com, "Getting started with batch deployments": chats without a version, responses with one
    "azure": FileBatches({**_URLS, "chat.completions": "/chat/completions"}),
})  # fmt: skip
"""By provider, and by platform where one makes batches."""
_KINDS = {"chat.completions": ("types.chat", "ChatCompletion"), "responses": ("types.responses", "Response")}
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_NO_TURN = {"batch_expired": "expired", "batch_cancelled": "canceled"}
_OK = 200
_TRANSIENT = frozenset({"api_error", "overloaded_error", "timeout_error", "rate_limit_error"})
_TRY_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})


def _claude_status(batch: Any) -> BatchStatus:
    counts = batch.request_counts
    total = counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired
    return BatchStatus(
        batch.id, batch.processing_status, batch.processing_status == "ended", counts.succeeded, total,
        gone=getattr(batch, "archived_at", None) is not None,
    )  # fmt: skip


def _claude_line(line: Any) -> ItemLine:
    result = line.result
    if result.type == "succeeded":
        return ItemLine(line.custom_id, line, result.message)
    told = getattr(getattr(result, "error", None), "error", None)
    detail = f"{getattr(told, 'type', '')}: {getattr(told, 'message', '')}" if told is not None else ""
    transient = getattr(told, "type", "") in _TRANSIENT
    return ItemLine(line.custom_id, line, error=BatchItemError(result.type, detail, transient=transient))


def _gpt_status(batch: Any) -> BatchStatus:
    counts, errors = batch.request_counts, getattr(batch.errors, "data", None) or ()
    return BatchStatus(
        batch.id, batch.status, batch.status in _OVER, counts.completed if counts else 0, counts.total if counts else 0,
        "; ".join(dict.fromkeys(f"{one.code}: {one.message}" for one in errors)) if batch.status == "failed" else "",
        tuple(filter(None, (batch.output_file_id, batch.error_file_id))),
    )  # fmt: skip


def _gpt_line(line: Mapping[str, Any], kind: Callable[[Mapping[str, Any]], Any]) -> ItemLine:
    reply, error = line.get("response"), line.get("error") or {}
    if reply is not None and reply.get("status_code") == _OK:
        return ItemLine(line["custom_id"], line, kind(reply["body"]))
    told = ((reply or {}).get("body") or {}).get("error") or error
    reason = _NO_TURN.get(str(error.get("code")), "errored")
    transient = error.get("code") == "request_timeout" or (reply or {}).get("status_code", 0) in _TRY_AGAIN
    detail = f"{told.get('code')}: {told.get('message')}"
    return ItemLine(line["custom_id"], line, error=BatchItemError(reason, detail, transient=transient))


def _kind(client: Any, endpoint: str) -> Callable[[Mapping[str, Any]], Any]:
    """What makes the SDK's own object of an answer, as its client does: without a look at what is in it."""
    package = next((kind.__module__.partition(".")[0] for kind in type(client).__mro__), "")
    place, name = _KINDS[endpoint]
    # the client's own package is loaded: it is looked up, not depended on
    model = getattr(import_module(f"{package}.{place}"), name)
    return lambda body: model.construct(**body)


def _moment(value: Any) -> float:
    return value.timestamp() if isinstance(value, datetime) else float(value)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def results_of(lines: Iterable[ItemLine], key: str) -> dict[int, ItemLine]:
    """Lines by the place of their request; what is no request of this batch is left out."""
    return {place: line for line in lines if (place := place_of(line.custom_id, key)) is not None}
