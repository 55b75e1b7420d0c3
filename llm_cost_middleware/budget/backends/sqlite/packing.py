"""Compression of memos and lines by a dictionary of the ledger's own texts, kept in its file.

They are short and alike: by themselves they hardly get smaller, by a few earlier ones they shrink to a fifth or less. A
packed blob is a prefix, the number of its dictionary and raw deflate (RFC 1951). A file without a dictionary has no
packed blob, so what was written before is read as it stands.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections import deque
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, proxy

from llm_cost_middleware.budget.backends.sqlite.ledger_file import LedgerFile
from llm_cost_middleware.budget.notes import Notes
from llm_cost_middleware.errors import LedgerError
from llm_cost_middleware.fork import ForkSafeLock, ModuleLock

_log = logging.getLogger(__name__)
_PREFIX = b"\x00\xfd"
_LEAST = 32  # bytes that are worth packing
_WINDOW_BITS, _MEMORY = -12, 5  # a window as wide as the dictionary: quick to make ready
_SIZE = 4_000
_SAMPLES, _MOST_SAMPLES = 24, 64
_TRIAL, _POOR = 4_000, 0.5  # blobs after which a dictionary that saves less than half is followed by a new one
_MOST = 200  # dictionaries of a file; a number is one byte
_FOREIGN = (
    "SELECT EXISTS (SELECT 1 FROM entry WHERE substr(memo, 1, 2) = :prefix)"
    " OR EXISTS (SELECT 1 FROM mark WHERE substr(data, 1, 2) = :prefix)"
)


class _Dictionary(NamedTuple):
    """A dictionary and a compressor that has read it. Number 0: this file cannot be packed."""

    number: int
    data: bytes
    ready: Any

    @classmethod
    def of(cls, number: int, data: bytes) -> _Dictionary:
        return cls(number, data, zlib.compressobj(6, zlib.DEFLATED, _WINDOW_BITS, _MEMORY, 0, data))


class Packing:
    """Packs and unpacks the blobs of one file. Safe to share between threads."""

    _lock = ForkSafeLock()

    def __init__(self, file: LedgerFile) -> None:
        self._file = proxy(file)  # it is kept for as long as its file is
        self._known: dict[int, _Dictionary] = {}
        self._current: _Dictionary | None = None
        self._samples: deque[bytes] = deque(maxlen=_MOST_SAMPLES)
        self._raw = self._packed = self._count = 0
        with file.reading() as db:
            self._load(db)

    @classmethod
    def of(cls, file: LedgerFile) -> Packing:
        """Return the one of a file: all ledgers of a process share it."""
        with _of_files.held:
            packing = _packings.get(file)
            if packing is None:
                packing = _packings[file] = cls(file)
            return packing

    def pack_notes(self, notes: Notes | None) -> Notes | None:
        """Return notes as they are stored."""
        if notes is None:
            return None
        return Notes([line._replace(data=self.pack(line.data)) for line in notes.lines], notes.change)

    def pack(self, blob: bytes, *, learn: bool = True) -> bytes:
        """Return a blob as it is stored. Never fails: it is stored as it is where nothing better can be done.

        Args:
            blob: A memo, or the data of a line.
            learn: It may become part of a dictionary. False inside of a transaction: a dictionary is one of its own.
        """
        current = self._current
        if current is None or not current.number:
            if learn and current is None and len(blob) >= _LEAST:
                self._sample(blob)
            return blob
        if len(blob) < _LEAST and not blob.startswith(_PREFIX):
            return blob
        packer = current.ready.copy()
        packed = b"".join((_PREFIX, bytes((current.number,)), packer.compress(blob), packer.flush()))
        if learn:
            self._weigh(blob, packed)
        if len(packed) < len(blob):
            return packed
        return _PREFIX + b"\x00" + blob if blob.startswith(_PREFIX) else blob

    def unpack(self, blob: bytes) -> bytes:
        """Return a blob as it was.

        Raises:
            LedgerError: Its dictionary is gone, or it is damaged.
        """
        if not blob.startswith(_PREFIX) or (self._current is not None and not self._current.number):
            return blob
        number = blob[2] if len(blob) > len(_PREFIX) else 0
        if not number:
            return blob[3:] if self._known else blob
        dictionary = self._known.get(number)
        if dictionary is None:
            with self._file.reading() as db:
                self._load(db)
            if not self._known:  # a file without dictionaries
                return blob
            dictionary = self._known.get(number)
        if dictionary is None:
            raise LedgerError(f"a row of {self._file.url} needs dictionary {number}, which is gone")
        try:
            unpacker = zlib.decompressobj(_WINDOW_BITS, dictionary.data)
            return unpacker.decompress(blob[3:]) + unpacker.flush()
        except zlib.error as error:
            raise LedgerError(f"a row of {self._file.url} is damaged: {error}") from error

    def _load(self, db: sqlite3.Connection) -> None:
        """Read the dictionaries that are not known yet; the newest is used."""
        last = max(self._known, default=-1)
        for number, data in db.execute("SELECT id, data FROM dictionary WHERE id > ? ORDER BY id", (last,)):
            self._known[number] = self._current = _Dictionary.of(number, data)

    def _sample(self, blob: bytes) -> None:
        with self._lock:
            self._samples.append(blob)
            if len(self._samples) < _SAMPLES:
                return
            samples = list(self._samples)
            self._samples.clear()
        self._make(samples)

    def _weigh(self, blob: bytes, packed: bytes) -> None:
        """Notice when the texts have changed so much that the dictionary is of little use."""
        self._raw, self._packed, self._count = self._raw + len(blob), self._packed + len(packed), self._count + 1
        if self._count > _TRIAL - _MOST_SAMPLES:
            self._samples.append(blob)
        if self._count >= _TRIAL:
            poor = self._packed > self._raw * _POOR
            with self._lock:
                samples = list(self._samples)
                self._samples.clear()
                self._raw = self._packed = self._count = 0
            if poor:
                self._make(samples)

    def _make(self, samples: list[bytes]) -> None:
        """Make a dictionary of these texts, the newest last: what is near is cheapest to refer to."""
        data = b"".join(dict.fromkeys(samples))[-_SIZE:]
        before = max(self._known, default=0)

        def step(db: sqlite3.Connection) -> None:
            # Another process may have made one in the meantime: then it is used.
            db.execute("INSERT OR IGNORE INTO dictionary (id, data) VALUES (?, ?)", (number, data))

        try:
            if before >= _MOST:
                return
            with self._file.reading() as db:
                foreign = not before and db.execute(_FOREIGN, {"prefix": _PREFIX}).fetchone()[0]
            number = 0 if foreign else before + 1
            self._file.write(step, durable=True)  # before a blob that needs it
            with self._file.reading() as db:
                self._load(db)
        except LedgerError as error:
            _log.debug("no dictionary was made: %s", error)


_packings: WeakKeyDictionary[LedgerFile, Packing] = WeakKeyDictionary()
_of_files = ModuleLock()
