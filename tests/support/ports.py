"""Ports for servers that are stopped and started again under a test."""

from __future__ import annotations

import random
import socket
from contextlib import closing


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses.

    It lies below those that the system gives to connections: while the server is away, a connection of anybody could
    get such a port, also the very one that looks whether the server is back.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with closing(socket.socket()) as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
