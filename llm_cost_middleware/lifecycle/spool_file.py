"""File of what could not be booked, for the next process. JSON lines; for its owner alone.

Its room is taken when it is made, so that a full disk does not keep it from being written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from llm_cost_middleware.budget.ledger import SettlementStatus
from llm_cost_middleware.money import NanoUSD

if sys.platform != "win32":
    import fcntl

_VERSION = 1
_ROOM = 65_536


class Unbooked(NamedTuple):
    """A resolution that the ledger did not take. ``scopes`` are those that pay, should the reservation be unknown."""

    verb: str
    """``settle``, ``book`` or ``void``."""
    id: str
    amount: NanoUSD
    status: SettlementStatus
    scopes: tuple[str, ...]
    memo: bytes


class SpoolFile:
    """Entries of one tenant in a file that processes share. Every method raises ``OSError`` as files do."""

    def __init__(self, path: Path, tenant: str) -> None:
        self.path, self._tenant = path, tenant
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._open() as file:
            if os.fstat(file).st_size < _ROOM:
                end = len(self._text(file))
                os.pwrite(file, bytes(_ROOM - end), end)
                os.fsync(file)

    def append(self, entry: Unbooked) -> None:
        """Write an entry down, durably."""
        with self._open() as file:
            os.pwrite(file, self._line(entry), len(self._text(file)))
            os.fsync(file)

    def read(self) -> list[Unbooked]:
        """Return the entries of this tenant. A line that was cut short, or of another version, is left where it is."""
        with self._open() as file:
            return [entry for line in self._lines(file) if (entry := self._entry(line)) is not None]

    def remove(self, ids: set[str]) -> None:
        """Remove the entries of some ids."""
        with self._open() as file:
            lines = self._lines(file)
            kept = [line for line in lines if (entry := self._entry(line)) is None or entry.id not in ids]
            if len(kept) < len(lines):
                text = b"".join(line + b"\n" for line in kept)
                os.pwrite(file, text + bytes(max(_ROOM - len(text), 0)), 0)
                os.ftruncate(file, max(len(text), _ROOM))
                os.fsync(file)

    @contextmanager
    def _open(self) -> Iterator[int]:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            os.close(file)

    def _text(self, file: int) -> bytes:
        return os.pread(file, os.fstat(file).st_size, 0).rstrip(b"\0")

    def _lines(self, file: int) -> list[bytes]:
        return [line for line in self._text(file).split(b"\n") if line]

    def _line(self, entry: Unbooked) -> bytes:
        fields = entry._asdict() | {"amount": int(entry.amount), "memo": entry.memo.decode(errors="surrogateescape")}
        return json.dumps({"v": _VERSION, "tenant": self._tenant, **fields}).encode() + b"\n"

    def _entry(self, line: bytes) -> Unbooked | None:
        try:
            fields = json.loads(line)
            if fields.pop("v") != _VERSION or fields.pop("tenant") != self._tenant:
                return None
            fields["amount"], fields["scopes"] = NanoUSD(fields["amount"]), tuple(fields["scopes"])
            return Unbooked(**{**fields, "memo": fields["memo"].encode(errors="surrogateescape")})
        except (ValueError, TypeError, KeyError):
            return None
