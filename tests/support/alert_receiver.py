"""A webhook receiver on the loopback interface that can be down, slow or refuse."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from ports import free_port


class Receiver:
    """Takes alerts on a port that is free while it is down; a context manager."""

    def __init__(self):
        self.port, self.bodies, self.status = free_port(), [], 200
        self.headers, self._server = [], None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/services/SECRET"

    @property
    def ids(self):
        return [body["id"] for body in self.bodies]

    def up(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.status == 200:
                    receiver.bodies.append(json.loads(body))
                    receiver.headers.append(dict(self.headers))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def down(self):
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_):
        self.down()
