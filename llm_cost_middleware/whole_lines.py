"""Lines that are in a file whole, or not at all."""

from __future__ import annotations

import os
from errno import ENOSPC


def write_line(file: int, line: bytes) -> None:
    """Append a line, its end included, to a file that nobody else writes to meanwhile.

    Raises:
        OSError: It could not be written. What a full disk cut short is taken back: the next line would be glued to it.
    """
    written = os.write(file, line)
    if written < len(line):
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(ENOSPC, os.strerror(ENOSPC))
