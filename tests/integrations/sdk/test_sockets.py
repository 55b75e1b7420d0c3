"""Websockets of the openai SDK over loopback: refused under ``deny``, else warned of and metered where usage shows."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import logging
import subprocess
import sys
import threading
from operator import attrgetter
from pathlib import Path

import openai
import pytest
from websockets.sync.server import serve

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.integrations.openai.convert import API
from llm_cost_middleware.pipeline import CostPipeline

# the SDK opens its socket in a way that websockets deprecated in 17.1
pytestmark = pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
REALTIME = {
    "type": "response.done", "event_id": "e3",
    "response": {
        "id": "resp_1", "object": "realtime.response", "status": "completed", "output": [],
        "usage": {
            "total_tokens": 1300, "input_tokens": 1000, "output_tokens": 300,
            "input_token_details": {
                "text_tokens": 400, "audio_tokens": 600, "cached_tokens": 200,
                "cached_tokens_details": {"text_tokens": 200, "audio_tokens": 0},
            },
            "output_token_details": {"text_tokens": 100, "audio_tokens": 200},
        },
    },
}  # fmt: skip
EVENTS = {
    "realtime": [
        {"type": "session.created", "event_id": "e1", "session": {"type": "realtime", "model": "gpt-realtime"}},
        {"type": "response.output_text.delta", "event_id": "e2", "delta": "usage", "response_id": "resp_1"},
        REALTIME,
        {**REALTIME, "event_id": "e4"},  # said twice, booked once
    ],
    "responses": [
        {"type": "response.output_text.delta", "delta": "hi", "item_id": "i", "output_index": 0, "sequence_number": 1},
        {
            "type": "response.completed", "sequence_number": 2,
            "response": {
                "id": "resp_2", "object": "response", "model": "gpt-5-mini", "status": "completed", "output": [],
                "usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
            },
        },
    ],
}  # fmt: skip
BILLS = {
    "realtime": 200 * 4_000 + 200 * 400 + 600 * 32_000 + 100 * 16_000 + 200 * 64_000,
    "responses": 1_000 * 250 + 100 * 2_000,
}


@pytest.fixture
def server():
    """A websocket that sends the events of its path, and closes."""

    def answer(socket):
        kind = socket.request.path.partition("?")[0].rpartition("/")[2]
        for event in EVENTS[kind]:
            socket.send(json.dumps(event))

    with serve(answer, "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.socket.getsockname()[1]}/v1"
        running.shutdown()
        thread.join()


PRICE = {
    "input_mtok": "4", "cache_read_mtok": "0.4", "output_mtok": "16", "input_audio_mtok": "32",
    "output_audio_mtok": "64",
}  # fmt: skip


def wrapped(url, *, is_async=False, **config):
    pipeline = CostPipeline(CostConfig(prices={"openai/gpt-realtime": PRICE}, **config))
    kind = openai.AsyncOpenAI if is_async else openai.OpenAI
    return wrap_openai(kind(api_key="k", base_url=url), pipeline), pipeline


def connect(client, kind):
    return client.realtime.connect(model="gpt-realtime") if kind == "realtime" else client.responses.connect()


@pytest.mark.parametrize("kind", EVENTS)
@pytest.mark.parametrize("read", ["iterated", "recv", "bytes"])
def test_what_a_socket_says_of_usage_is_booked(server, caplog, kind, read):
    client, pipeline = wrapped(server)
    with caplog.at_level(logging.WARNING, "llm_cost_middleware"), cost_context(user="7"):
        manager = connect(client, kind)
    assert f"{kind}.connect is not governed" in caplog.text
    with manager as connection:
        if read == "iterated":
            got = [event.type for event in connection]
        elif read == "recv":
            got = [connection.recv().type for _ in EVENTS[kind]]
        else:
            got = [json.loads(connection.recv_bytes())["type"] for _ in EVENTS[kind]]
    assert got == [event["type"] for event in EVENTS[kind]]
    (record,) = pipeline.records()
    assert (record.status, pipeline.ledger.balance("user:7").settled_nanousd) == ("exact", BILLS[kind])


@pytest.mark.parametrize("kind", EVENTS)
async def test_what_an_asynchronous_socket_says_of_usage_is_booked(server, kind):
    client, pipeline = wrapped(server, is_async=True, on_ungoverned="allow")
    async with connect(client, kind) as connection:
        got = [event.type async for event in connection]
    assert got == [event["type"] for event in EVENTS[kind]]
    assert pipeline.ledger.balance("global").settled_nanousd == BILLS[kind]
    await client.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("path", API.sockets)
def test_no_socket_is_opened_where_what_is_not_governed_is_denied(is_async, path):
    client, _ = wrapped("http://127.0.0.1:9/v1", is_async=is_async, on_ungoverned="deny")
    for governed in (client, client.with_options(timeout=3)):
        try:
            resource = attrgetter(path)(governed)
        except AttributeError:
            assert not hasattr(openai.OpenAI, path.partition(".")[0]) or "." in path, path
            continue
        if not hasattr(resource, "connect"):
            continue
        with pytest.raises(UnsupportedRequestError, match=f"{path}.connect") as caught:
            resource.connect(model="gpt-realtime")
        assert isinstance(caught.value, openai.OpenAIError)
    if is_async:
        asyncio.run(client.close())


def test_every_socket_of_the_installed_sdk_is_known():
    """By enumeration: a ``connect`` that a new version brings fails here."""
    folder = Path(importlib.import_module("openai").__file__).parent / "resources"
    found = set()
    for file in folder.rglob("*.py"):
        tree = ast.parse(file.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "connect" for node in ast.walk(tree)):
            steps = list(file.relative_to(folder).with_suffix("").parts)
            found.add(".".join(step for at, step in enumerate(steps) if at == 0 or step != steps[at - 1]))
    assert found
    assert found <= set(API.sockets)


def test_a_resource_with_sockets_is_imported_when_it_is_asked_for():
    """Half a second that most programs need not spend; and it is the SDK's own object all the same."""
    code = """
import sys, openai
from llm_cost_middleware import CostConfig
from llm_cost_middleware.integrations.openai import wrap_openai
client = wrap_openai(openai.OpenAI(api_key="k"), CostConfig())
assert "openai.resources.realtime.realtime" not in sys.modules
assert client.realtime.connect.__name__ == "connect"
from openai.resources.realtime import Realtime
assert isinstance(client.realtime, Realtime) and type(client.realtime) is Realtime
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_connect_keeps_its_signature():
    client, _ = wrapped("http://127.0.0.1:9/v1")
    plain = openai.OpenAI(api_key="k")
    assert inspect.signature(client.realtime.connect) == inspect.signature(plain.realtime.connect)
    assert inspect.signature(client.responses.connect) == inspect.signature(plain.responses.connect)
