"""Errors as the real SDKs make them: each is answered by a server on loopback."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Answers(ThreadingHTTPServer):
    """Answers every request with what ``answer`` says, and counts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: tuple[int, Any, dict[str, str]] = (500, {}, {})
        self.requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, status: int, body: Any, **headers: str) -> None:
        """Status, body (JSON or text) and headers, spelt with underscores."""
        self.answer = (status, body, {name.replace("_", "-"): value for name, value in headers.items()})


class _Handler(BaseHTTPRequestHandler):
    server: Answers

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.requests += 1
        status, body, headers = self.server.answer
        text = body if isinstance(body, str) else json.dumps(body)
        kind = "application/json" if not isinstance(body, str) else "text/plain"
        self.send_response(status)
        for name, value in {"content-type": kind, **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def server():
    server = Answers()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def anthropic_error(server):
    """What the Anthropic SDK raises for an answer."""

    def raised(*, base_url: str | None = None, **call: Any) -> BaseException:
        import anthropic

        with anthropic.Anthropic(api_key="k", base_url=base_url or server.url, max_retries=0, timeout=60) as client:
            try:
                with contextlib.closing(
                    client.messages.create(
                        model="claude-haiku-4-5-20251001",
                        max_tokens=8,
                        messages=[{"role": "user", "content": "x"}],
                        stream=True,
                        **call,
                    )
                ) as stream:
                    list(stream)
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is the thing under test
                return error
        pytest.fail("nothing was raised")

    return raised


@pytest.fixture
def openai_error(server):
    """What the OpenAI SDK raises for an answer."""

    def raised(*, base_url: str | None = None, **call: Any) -> BaseException:
        import openai

        with openai.OpenAI(api_key="k", base_url=base_url or server.url, max_retries=0, timeout=60) as client:
            try:
                with contextlib.closing(
                    client.chat.completions.create(
                        model="gpt-5-mini", messages=[{"role": "user", "content": "x"}], stream=True, **call
                    )
                ) as stream:
                    list(stream)
            except BaseException as error:  # noqa: BLE001  # whatever it is, it is the thing under test
                return error
        pytest.fail("nothing was raised")

    return raised
