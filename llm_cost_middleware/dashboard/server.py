"""The page over HTTP: on loopback without a word, elsewhere with a token. It reads, and has nothing to write with."""

from __future__ import annotations

import hmac
import json
import logging
import re
import secrets
import socket
import threading
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from llm_cost_middleware.dashboard.answers import PARTS, Source
from llm_cost_middleware.dashboard.page import ASSETS, SERVED_POLICY, asset, served
from llm_cost_middleware.errors import ConfigurationError, LLMCostError

_log = logging.getLogger(__name__)
LEAST_TOKEN = 16
_COOKIE = "llm_cost_token"
_LONGEST = 4_096
_MOST_AT_ONCE = 64
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", re.IGNORECASE)
_HEADERS = {
    "Content-Security-Policy": SERVED_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Connection": "close",
}
_JSON, _HTML, _TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than ``localhost`` may mean any."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Dashboard(ThreadingHTTPServer):
    """Server of the page.

    Args:
        source: What it shows.
        host: Address to listen at.
        port: 0: any that is free.
        token: Demanded of every request. Away from loopback one is made where none is given.

    Raises:
        ConfigurationError: A token that is too short, or an address that cannot be listened at.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, source: Source, *, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> None:
        if token is not None and len(token) < LEAST_TOKEN:
            raise ConfigurationError(f"must have at least {LEAST_TOKEN} characters", key="token")
        self.source, self.loopback = source, is_loopback(host)
        self.token = token if token is not None or self.loopback else secrets.token_urlsafe(32)
        self._room = threading.BoundedSemaphore(_MOST_AT_ONCE)
        self._host = host.strip("[]")
        self.address_family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            super().__init__((self._host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"cannot listen at {host}:{port}: {error}", key="port") from None

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name, as the base class does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self._host, self.server_address[1]

    @property
    def url(self) -> str:
        """Where a browser finds it, with the token."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        query = f"?token={quote(self.token, safe='')}" if self.token is not None else ""
        return f"http://{host}:{self.server_port}/{query}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread; a connection beyond those that there is room for is closed."""
        if not self._room.acquire(blocking=False):
            return self.shutdown_request(request)
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See ``ThreadingMixIn``."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class' signature
        """Log what went wrong with a connection; one that its client left is nothing."""
        _log.debug("a connection to the dashboard ended", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard
    server_version, sys_version = "llm-cost", ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        if len(self.path) > _LONGEST:
            return self._fail(HTTPStatus.REQUEST_URI_TOO_LONG, "the address is too long")
        try:
            parts = urlsplit(self.path)
        except ValueError:
            return self._fail(HTTPStatus.BAD_REQUEST, "this is no address")
        if not self._named_as_here():
            return self._fail(HTTPStatus.MISDIRECTED_REQUEST, "this name is none of this server's")
        if self.server.token is not None and not self._admitted(parts.path, parts.query):
            return None
        if parts.path == "/":
            return self._send(HTTPStatus.OK, _HTML, served())
        if parts.path in ASSETS:
            return self._send(HTTPStatus.OK, ASSETS[parts.path][1], asset(parts.path))
        if (name := parts.path.removeprefix("/data/")) in PARTS and parts.path != name:
            return self._answer(name, parts.query)
        return self._fail(HTTPStatus.NOT_FOUND, "there is nothing here")

    do_HEAD = do_GET  # noqa: N815 - a name of the base class

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # every other method
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self._fail(HTTPStatus.METHOD_NOT_ALLOWED, "this page only reads", Allow="GET, HEAD")

    def _named_as_here(self) -> bool:
        """Whether the request means this server, on loopback: a foreign name may have been rebound to this address."""
        if not self.server.loopback:
            return True
        hosts = self.headers.get_all("Host", [])
        match = _HOST.fullmatch(hosts[0].strip()) if hosts else None
        return len(hosts) == 1 and match is not None and is_loopback(match[1])

    def _admitted(self, path: str, query: str) -> bool:
        """Whether the token was given: in the URL, which is then put into a cookie, in a cookie, or as a bearer's."""
        given = parse_qs(query, keep_blank_values=True)
        if "token" in given:
            if not self._is_token(given.pop("token")[0]):
                self._fail(HTTPStatus.FORBIDDEN, "wrong token")
                return False
            rest = urlencode(given, doseq=True)
            cookie = f"{_COOKIE}={quote(str(self.server.token), safe='')}; Path=/; HttpOnly; SameSite=Strict"
            where = quote(path if path.startswith("/") and not path.startswith("//") else "/") + (rest and f"?{rest}")
            # Out of the address: it would stay in the browser's history.
            self._send(HTTPStatus.SEE_OTHER, _TEXT, b"", Location=where, **{"Set-Cookie": cookie})
            return False
        scheme, _, bearer = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            cookies = SimpleCookie()
        if _COOKIE in cookies and self._is_token(unquote(cookies[_COOKIE].value)):
            return True
        self._fail(HTTPStatus.UNAUTHORIZED, "open the address that llm-cost dashboard printed: it has the token")
        return False

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), str(self.server.token).encode())

    def _answer(self, name: str, query: str) -> None:
        if self.headers.get("Sec-Fetch-Site", "same-origin") not in {"same-origin", "none"}:
            return self._fail(HTTPStatus.FORBIDDEN, "answers are for this page alone")
        try:
            given = parse_qs(query, keep_blank_values=True, max_num_fields=64)
        except ValueError:
            return self._tell(HTTPStatus.BAD_REQUEST, "too many parameters")
        try:
            found = self.server.source.part(name, given)
        except ConfigurationError as error:
            return self._tell(HTTPStatus.BAD_REQUEST, str(error))
        except LLMCostError as error:
            return self._tell(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except Exception:  # noqa: BLE001 - whatever it is, the page is told, and the log has it
            _log.exception("the dashboard could not answer")
            return self._tell(HTTPStatus.INTERNAL_SERVER_ERROR, "it could not be answered; the log says why")
        return self._send(HTTPStatus.OK, _JSON, json.dumps(found, separators=(",", ":"), allow_nan=False).encode())

    def _tell(self, status: HTTPStatus, error: str) -> None:
        self._send(status, _JSON, json.dumps({"error": error}).encode())

    def _fail(self, status: HTTPStatus, text: str, **headers: str) -> None:
        self._send(status, _TEXT, f"{text}\n".encode(), **headers)

    def _send(self, status: HTTPStatus, kind: str, body: bytes, **headers: str) -> None:
        self.close_connection = True  # a thread that waits for more would keep the room of another
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer what is no request at all, without a word of it."""
        self._fail(HTTPStatus(code), HTTPStatus(code).phrase)

    def log_message(self, *_: object) -> None:
        """Log nothing: an address may hold a token, or the name of a person."""
