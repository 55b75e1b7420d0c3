"""The recorded exchanges and their labels."""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import pytest

from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import get_provider

GOVERNED = {"messages": "messages", "chat/completions": "chat.completions", "responses": "responses"}


class Exchange(NamedTuple):
    """A recorded exchange with its independent label."""

    id: str
    provider: str
    endpoint: str
    status: int
    features: tuple[str, ...]
    request: Any
    """The body; ``None`` where there was none, or where a part of it was cut or replaced."""
    response: Any
    label: dict
    at: float | None
    """When it was recorded, in seconds since the epoch, where that is known."""


def _lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _moment(record, label):
    if label.get("at"):
        return datetime.fromisoformat(label["at"]).timestamp()
    try:
        return parsedate_to_datetime(record["recorded_at"]).timestamp()
    except (TypeError, ValueError):
        return None


def _whole(record):
    """The request's body, unless something of it is missing: long strings cut, base64 left out, text templated."""
    body = record["request"].get("body")
    if not isinstance(body, dict) or record["request"].get("truncated"):
        return None
    text = json.dumps(body)
    return None if "<<omitted" in text or "<MASSIVE_TEXT" in text else body


@pytest.fixture(scope="session")
def exchanges(data_folder):
    labels = {label["id"]: label for label in _lines(data_folder / "recorded" / "labels.jsonl.gz")}
    return [
        Exchange(
            record["id"],
            record["provider"],
            record["endpoint"],
            record["status"],
            tuple(record["features"]),
            _whole(record),
            record["response"]["body"],
            labels[record["id"]],
            _moment(record, labels[record["id"]]),
        )
        for record in _lines(data_folder / "recorded" / "exchanges.jsonl.gz")
    ]


@pytest.fixture(scope="session")
def catalogue():
    return Catalogue()


@pytest.fixture(scope="session")
def whole_calls(exchanges):
    """(exchange, request, reading) where the request is whole, self-contained, and was answered with a bill."""
    calls = []
    for exchange in exchanges:
        if exchange.request is None or exchange.endpoint not in GOVERNED:
            continue
        provider = get_provider(exchange.provider)
        request = provider.read_request(exchange.request, GOVERNED[exchange.endpoint])
        if request.server_tools or request.has_server_side_context:
            continue
        reading = provider.read_usage(exchange.response)
        if reading.items:
            calls.append((exchange, request, reading))
    return calls
