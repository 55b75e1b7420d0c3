"""What a process has admitted and not shipped yet, in a file of its own: what it leaves when it is killed.

Written before a call may go on and before a settle returns, so it survives the process; synchronised with the disk when
a parcel is in. Whoever finds the file of a process that is gone ships it. After a crash of the machine its end may be
missing: then the blocks are left to expire, which charges them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import Any, NamedTuple

from llm_cost_middleware.budget.model import RowStatus
from llm_cost_middleware.budget.rules.leases import ParcelEntry
from llm_cost_middleware.budget.spool_place import SpoolPlace
from llm_cost_middleware.whole_lines import write_line

if sys.platform != "win32":
    import fcntl

_VERSION = 1
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_LONGEST = 4_000_000
"""Bytes after which a journal is written anew."""


class Found(NamedTuple):
    """What a process that is gone left."""

    entries: tuple[ParcelEntry, ...]
    blocks: tuple[str, ...]
    """Ids of its blocks."""
    whole: bool
    """The machine did not stop since: nothing that was written is missing."""


class LeaseJournal:
    """Journal of one process. Every method raises ``OSError`` as files do; ``add`` is called under the desk's lock."""

    def __init__(self, place: SpoolPlace, token: str) -> None:
        self._folder = place.path.with_name(f"{place.path.name}-leases")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._prefix = f"{place.name}~"
        self._path = self._folder / f"{self._prefix}{token}"
        self._size = self._written = 0
        self._dirty = False
        self._file = -1
        self.renew(())

    def forget(self) -> None:
        """After a fork: the file is the parent's. The child's own is made with its first line."""
        os.close(self._file)  # or its lock would last as long as the child
        self._file, self._dirty = -1, False
        self._path = self._folder / f"{self._prefix}{os.urandom(6).hex()}"

    def add(self, line: bytes) -> None:
        """Write a line, which one of the functions below made."""
        if self._file < 0:
            self.renew(())
        write_line(self._file, line)
        self._size += len(line)
        self._dirty = True

    def sync(self) -> None:
        """Wait until what was written is on the disk."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file)

    @property
    def has_lines(self) -> bool:
        """Whether anything was added since it was written anew."""
        return self._size > self._written

    @property
    def long(self) -> bool:
        """Whether it should be written anew."""
        return self._size > _LONGEST

    def renew(self, lines: Iterable[bytes]) -> None:
        """Put these lines in the place of all."""
        fresh = self._folder / f".{self._path.name}"
        file = self._made(fresh, lines)
        fresh.replace(self._path)  # under its name only when it is locked
        if self._file >= 0:
            os.close(self._file)
        self._file = file

    def close(self, *, empty: bool) -> None:
        """Close it; ``empty``: everything is shipped."""
        if empty:
            self._path.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)

    @property
    def has_others(self) -> bool:
        """Whether there are journals of other processes, gone or not."""
        return any(path != self._path for path in self._folder.glob(f"{self._prefix}*"))

    def left_by_others(self) -> Iterator[tuple[Path, int]]:
        """Yield the journals of processes that are gone, locked for this one: close the file when it is shipped."""
        for path in sorted(self._folder.glob(f"{self._prefix}*")):
            if path == self._path:
                continue
            with suppress(OSError):
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                # Written anew or closed in between, it is another file, and this one a past state of it.
                if _lock(file) and path.stat().st_ino == os.fstat(file).st_ino:
                    yield path, file
                else:
                    os.close(file)

    def _made(self, path: Path, lines: Iterable[bytes]) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _lock(file)
        text = line_of("J", _VERSION, _boot()) + b"".join(lines)
        try:
            write_line(file, text)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)  # the one that stands says more
            raise
        self._size = self._written = len(text)
        return file


def read_journal(file: int) -> Found:
    """Read what a process left. A line that was cut short is missing."""
    text = os.pread(file, os.fstat(file).st_size, 0)
    lines = text.split(b"\n")
    whole = not lines[-1]
    open_: dict[str, ParcelEntry] = {}
    booked: list[ParcelEntry] = []
    blocks: list[str] = []
    boot = None
    for line in lines[:-1]:
        try:
            what, *rest = json.loads(line)
        except ValueError:
            whole = False
            continue
        if what == "J":
            version, boot = rest
            if version != _VERSION:
                raise ValueError(f"it is of version {version}")
        elif what == "L":
            blocks.append(rest[0])
        else:
            _apply(what, rest, open_, booked)
    return Found((*booked, *open_.values()), tuple(blocks), whole and boot == _boot() != "")


def _apply(what: str, rest: list[Any], open_: dict[str, ParcelEntry], booked: list[ParcelEntry]) -> None:
    if what == "R":
        entry = _entry("reserve", *rest)
        open_[entry.id] = entry
    elif what == "H":
        open_[rest[0]] = open_[rest[0]]._replace(amount=rest[1])
    elif what == "S":
        id_, amount, status, memo = rest
        held = open_.pop(id_, None)
        if held is None:  # its own line was cut short
            return
        facts = {"amount": amount, "status": status, "expires": held.created}
        booked.append(held._replace(kind="book", memo=_bytes(memo) or held.memo, **facts))
    elif what == "V":
        open_.pop(rest[0], None)
    elif what == "B":
        booked.append(_entry("book", *rest))


def line_of(*fields: object) -> bytes:
    """Return the line of some values: ``L`` and the id of a block, ``V`` and the id of a call that was voided."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


# Of every call: a third of what a general encoder takes.


def scopes_text(scopes: Iterable[str]) -> str:
    """Return scopes as a line has them."""
    return f"[{','.join(map(_quoted, scopes))}]"


def hold_line(id_: str, scopes: str, amount: int, created: int, expires: int, memo: bytes) -> bytes:
    """Return the line of a hold (``R``); ``scopes`` as of ``scopes_text``, times in ms."""
    told = _quoted(_text_of(memo)) if memo else '""'
    return f'["R",{_quoted(id_)},{scopes},{int(amount)},{created},{expires},"reserved",{told}]\n'.encode()


def settle_line(id_: str, amount: int, status: RowStatus, memo: bytes) -> bytes:
    """Return the line of a settled call (``S``)."""
    told = _quoted(_text_of(memo)) if memo else '""'
    return f'["S",{_quoted(id_)},{int(amount)},"{status}",{told}]\n'.encode()


def entry_line(entry: ParcelEntry) -> bytes:
    """Return the line of what waits for a parcel: ``R`` for a hold, ``B`` for a booking."""
    if entry.kind == "reserve":
        scopes = scopes_text(entry.scopes)
        return hold_line(entry.id, scopes, entry.amount, entry.created, entry.expires, entry.memo)
    facts = entry.id, entry.scopes, int(entry.amount), entry.created, entry.expires, entry.status
    return line_of("B", *facts, _text_of(entry.memo))


def _text_of(memo: bytes) -> str:
    return memo.decode(errors="surrogateescape")  # JSON holds no bytes


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _entry(kind: str, id_: str, scopes: list[str], amount: int, created: int, expires: int, *rest: str) -> ParcelEntry:
    status, memo = rest
    return ParcelEntry(kind, id_, tuple(scopes), amount, created, expires, status, _bytes(memo))  # type: ignore[arg-type]  # as written


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
