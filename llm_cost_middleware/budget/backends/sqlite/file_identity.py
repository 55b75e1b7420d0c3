"""Whether a ledger's path still names the file that was opened.

SQLite goes on with a file that was deleted or replaced: calls would be booked where nobody looks. So every transaction
looks first; it costs one system call.
"""

from __future__ import annotations

from pathlib import Path

from llm_cost_middleware.errors import LedgerUnavailableError


class FileIdentity:
    """Device and number of a file as it was opened, and the least size that it may have."""

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        found = path.stat()
        self._known, self._size = (found.st_dev, found.st_ino), found.st_size

    def check(self) -> None:
        """Look at the file.

        Raises:
            LedgerUnavailableError: It was deleted, replaced or truncated.
        """
        least = self._size  # before the look: another thread may see the file grow after it, and say so here
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise self._refusal("deleted") from None
        except OSError as error:
            raise LedgerUnavailableError(self._url, str(error)) from error
        if (found.st_dev, found.st_ino) != self._known:
            raise self._refusal("replaced by another")
        if found.st_size < least and found.st_size != self._size_by_header():
            raise self._refusal("truncated")
        self._size = found.st_size

    def _size_by_header(self) -> int:
        # What VACUUM made smaller is whole: https://www.sqlite.org/fileformat2.html#in_header_database_size
        try:
            with self._path.open("rb") as file:
                header = file.read(100)
        except OSError as error:
            raise LedgerUnavailableError(self._url, str(error)) from error
        page = int.from_bytes(header[16:18], "big")
        return (65_536 if page == 1 else page) * int.from_bytes(header[28:32], "big") or -1

    def _refusal(self, what: str) -> LedgerUnavailableError:
        return LedgerUnavailableError(
            self._url, f"its file was {what} while it was open; put it back, or end this process and start anew"
        )
