"""Archive file: one JSON object per line: a header, the rows in their order, their sums by day and scope.

It is complete or absent: written under another name, flushed to the disk, read back row by row, then renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import IO, Any, NamedTuple

from llm_cost_middleware.budget.backend import JournalEntry
from llm_cost_middleware.budget.rules import ArchivedRow
from llm_cost_middleware.errors import ConfigurationError, LedgerError

if sys.platform == "darwin":
    import fcntl

_VERSION = 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Days = dict[str, dict[str, int]]
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
            number = settled = 0
            days: _Days = {}
            file.write(_line(header))
            for line in rows():
                _count(days, line)
                # surrogateescape: memos are any bytes, JSON is text
                file.write(_line(line._asdict() | {"memo": line.memo.decode(errors="surrogateescape")}))
                number, settled = number + 1, settled + line.settled
            file.write(_line({"rows": number, "settled": settled, "days": days}))
            _flush(file)
        for theirs, ours in zip_longest(read(part), rows()):
            if theirs != ours:
                raise LedgerError(f"{part} does not read back as it was written; the rows stay in the ledger")
        written = Written(digest(part), number, settled)
        if path.exists() and _told(_header(path)) != _told(header):
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


def beside(archive: Path) -> Path:
    """Return the file for the lines of the journal that leave with an archive: nothing is ever written over."""
    for stale in archive.parent.glob(f"{archive.stem}-journal*.jsonl.part"):
        stale.unlink()
    suffixes = chain([""], map("-{}".format, count(2)))
    names = (archive.with_name(f"{archive.stem}-journal{suffix}.jsonl") for suffix in suffixes)
    # An archive that was cut short may have written one.
    return next(name for name in names if not name.exists())


def write_lines(path: Path, lines: Callable[[], Iterable[JournalEntry]]) -> int:
    """Write lines of a journal, durably: the file is complete or absent. Return how many; none makes no file.

    Raises:
        LedgerError: It does not read back as written.
    """
    part, written = part_of(path), 0
    with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        for kind, id_, at, data in lines():
            # surrogateescape: data are any bytes, JSON is text
            text = data.decode(errors="surrogateescape")
            file.write(_line({"kind": kind, "id": id_, "at": at, "data": text}))
            written += 1
        _flush(file)
    if not written:
        part.unlink()
        return 0
    with part.open("rb") as file:
        if sum(1 for _ in file) != written:
            raise LedgerError(f"{part} does not read back as it was written; the lines stay in the ledger")
    part.replace(path)
    return written


def read_lines(path: Path) -> Iterator[JournalEntry]:
    """Read the lines of a journal that were moved. Raises ``LedgerError`` where one cannot be read."""
    with path.open("rb") as file:
        for text in file:
            fields = _parse(text)
            if fields.keys() != set(JournalEntry._fields):
                raise LedgerError(f"{path} holds a line that this version does not read")
            yield JournalEntry(**{**fields, "data": fields["data"].encode(errors="surrogateescape")})


def part_of(path: Path) -> Path:
    """Return the path of an archive that is not complete yet."""
    return path.with_name(f"{path.name}.part")


def read(path: Path) -> Iterator[ArchivedRow]:
    """Read the rows of an archive.

    Raises:
        LedgerError: The file is no archive, or not complete.
    """
    number = settled = 0
    days: _Days = {}
    with path.open("rb") as file:
        if _parse(file.readline()).get("archive") != _VERSION:
            raise LedgerError(f"{path} is not an archive that this version reads")
        for text in file:
            fields = _parse(text)
            # Files of earlier versions have no sums by day.
            if fields == {"rows": number, "settled": settled, **({"days": days} if "days" in fields else {})}:
                if file.readline():
                    break
                return
            if fields.keys() != set(ArchivedRow._fields):
                break
            line = ArchivedRow(**{**fields, "memo": fields["memo"].encode(errors="surrogateescape")})
            number, settled = number + 1, settled + line.settled
            _count(days, line)
            yield line
    raise LedgerError(f"{path} is not whole")


def check_target(path: Path) -> str:
    """Check that a file is missing and can be written, before anything is recorded; return its absolute path."""
    path = path.absolute()
    if path.exists():
        raise ConfigurationError(f"{path} exists; name another file", key="to")
    if not path.parent.is_dir():
        raise ConfigurationError(f"there is no directory {path.parent}", key="to")
    part = part_of(path)
    try:
        part.touch()
        part.unlink()
    except OSError as error:
        raise ConfigurationError(f"cannot write there: {error}", key="to") from error
    return str(path)


def check_whole(path: Path, sha256: str) -> None:
    """Check that a file is as it was written, before what stands in it is removed. Raises ``LedgerError``."""
    if not path.is_file() or digest(path) != sha256:
        raise LedgerError(
            f"{path} is gone or was changed while its rows were being moved; put it back (its SHA-256 is {sha256})"
        )


def header(path: Path) -> dict[str, Any]:
    """Return the first line: of which ledger the archive is, and the register of its budgets at that time.

    Raises:
        LedgerError: The file is no archive that this version reads.
    """
    found = _header(path)
    if found.get("archive") != _VERSION:
        raise LedgerError(f"{path} is not an archive that this version reads")
    return found


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count(days: _Days, row: ArchivedRow) -> None:
    """Add a row to the sums of its scopes, on the day on which its money was reserved."""
    if row.settled:
        day = days.setdefault((_EPOCH + timedelta(milliseconds=row.created)).date().isoformat(), {})
        for scope in row.scopes.split(" "):
            day[scope] = day.get(scope, 0) + row.settled


def _told(header: dict[str, Any]) -> dict[str, Any]:
    """What a header says of its archive: budgets may be decided between two tries of one."""
    return {name: value for name, value in header.items() if name != "register"}


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
