"""Every websocket of LiteLLM's proxy: what it opens to a provider has a row, or is not opened.

The document of the proxy leaves its sockets out: the running process tells them. One that nobody has looked at fails.
"""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from proxy_surface import SHUT_SOCKETS, SOCKETS

NAMES = {
    "group": "live",
    "model": "openai/gpt-realtime",
    "chat model": "gpt-5-mini",
    "id": "dep-1",
    "unknown": "nobody",
}


def talk(watched, path, name, key="alice"):
    """Open a socket, ask for an answer, and wait a moment for what comes."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    url = watched.proxy.url.replace("http", "ws", 1) + path.replace("{endpoint:path}", "v1/realtime")
    first = {"type": SOCKETS.get(path, "session.update"), "model": name, "input": "Hi.", "session": {"model": name}}
    with suppress(WebSocketException, OSError, TimeoutError):
        headers = {"Authorization": f"Bearer sk-{key}"}
        with connect(f"{url}?model={name}", additional_headers=headers, proxy=None, close_timeout=2) as socket:
            for event in (first, {"type": "response.create", "response": {}, "model": name, "input": "Hi."}):
                socket.send(json.dumps(event))
            for _ in range(4):
                socket.recv(timeout=2)


def wrong(watched, path, name):
    """What is wrong with one socket; ``None`` where nothing is."""
    sent, rows = watched.sent, len(watched.proxy.rows())
    talk(watched, path, name)
    sent = watched.sent - sent
    opened = [row for row in watched.proxy.rows()[rows:] if row.kind in {"reserve", "book"}]
    if not sent:
        return None
    if not opened:
        return f"{path} {name!r}: {sent} opened, no row"
    if watched.mode == "deny" and any(row.kind != "reserve" for row in opened):
        return f"{path} {name!r}: {sent} opened without a reservation"
    return None


@pytest.fixture
def sockets(watched):
    watched.ask("post", "/v1/chat/completions", "gpt-5-mini")  # the process tells them with its first request
    return (watched.proxy.folder / "sockets.txt").read_text().split()


def test_every_socket_is_known(sockets):
    assert set(sockets) - {*SOCKETS, *SHUT_SOCKETS} == set(), "look at them, and add them to proxy_surface"


def test_no_socket_is_opened_to_a_provider_without_a_row(watched, sockets):
    begun = watched.sent
    asked = [(path, name) for path in sockets if path in SOCKETS for name in NAMES.values()]
    assert [found for one in asked if (found := wrong(watched, *one)) is not None] == []
    assert (watched.sent > begun) == (watched.mode == "warn")


def test_a_socket_that_nothing_of_ours_sees_is_shut(watched, sockets):
    begun = watched.sent
    for path in set(sockets) & SHUT_SOCKETS.keys():
        for name in NAMES.values():
            talk(watched, path, name)
    assert watched.sent == begun
