"""Archive file: one JSON object per line: a header, the rows in their order, their sums.

It is complete or absent: written under another name, flushed to the disk, read back row by row, then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple

from llm_cost_middleware.budget.rules import ArchivedRow
from llm_cost_middleware.errors import LedgerError

if sys.platform == "darwin":
    import fcntl

_VERSION = 1
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Written(NamedTuple):
    """Checksum and sums of a file. ``settled`` is nano-dollars."""

    sha256: str
    rows: int
    settled: int


def write(path: Path, header: dict[str, Any], rows: Callable[[], Iterable[ArchivedRow]]) -> Written:
    """Write an archive, durably.

    Args:
        path: Where. A file there must be this archive, left by an attempt that was cut short.
        header: The first line.
        rows: Yields the rows, from the start at each call: they are compared with what is read back.

    Raises:
        LedgerError: Another file is there, or the file does not read back as written.
        OSError: The file cannot be written.
    """
    part = part_of(path)
    header = {"archive": _VERSION, **header}
    try:
        with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            count = settled = 0
            file.write(_line(header))
            for line in rows():
                # surrogateescape: memos are any bytes, JSON is text
                file.write(_line(line._asdict() | {"memo": line.memo.decode(errors="surrogateescape")}))
                count, settled = count + 1, settled + line.settled
            file.write(_line({"rows": count, "settled": settled}))
            _flush(file)
        for theirs, ours in zip_longest(read(part), rows()):
            if theirs != ours:
                raise LedgerError(f"{part} does not read back as it was written; the rows stay in the ledger")
        written = Written(digest(part), count, settled)
        if path.exists() and _header(path) != header:
            raise LedgerError(f"{path} is another file; move it away. The rows stay in the ledger")
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()
    if sys.platform != "win32":  # flush the directory too: else a power cut may lose the new name
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return written


def part_of(path: Path) -> Path:
    """Return the path of an archive that is not complete yet."""
    return path.with_name(f"{path.name}.part")


def read(path: Path) -> Iterator[ArchivedRow]:
    """Read the rows of an archive.

    Raises:
        LedgerError: The file is no archive, or not complete.
    """
    count = settled = 0
    with path.open("rb") as file:
        if _parse(file.readline()).get("archive") != _VERSION:
            raise LedgerError(f"{path} is not an archive that this version reads")
        for text in file:
            fields = _parse(text)
            if fields == {"rows": count, "settled": settled} and not file.readline():
                return
            if fields.keys() != set(ArchivedRow._fields):
                break
            line = ArchivedRow(**{**fields, "memo": fields["memo"].encode(errors="surrogateescape")})
            count, settled = count + 1, settled + line.settled
            yield line
    raise LedgerError(f"{path} is not whole")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return _parse(file.readline())


def _line(fields: dict[str, Any]) -> bytes:
    return f"{_encode(fields)}\n".encode()


def _parse(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    if sys.platform == "darwin":  # there fsync alone does not reach the platter
        fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
