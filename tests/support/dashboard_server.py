"""A dashboard beside a ledger, and requests as they are written by hand."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time

from llm_cost_middleware import Ledger
from llm_cost_middleware.dashboard import Dashboard, Source
from llm_cost_middleware.pricing.catalogue import Catalogue


@contextlib.contextmanager
def serving(path, **given):
    """A dashboard of a ledger, in a thread."""
    with Ledger.open(path, durability="normal") as ledger:
        source = Source(ledger, Catalogue(), now=time.time, timezone=given.pop("timezone", "UTC"))
        with Dashboard(source, **given) as server:
            thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()


def ask(server, path="/", method="GET", host=None, **headers):
    """Status, headers, text of a request as it is written here."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"127.0.0.1:{server.server_port}" if host is None else host)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()
