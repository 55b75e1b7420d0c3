"""Where what a ledger could not take is kept for the next process."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple


class SpoolPlace(NamedTuple):
    """A file, and the name of the ledger in it. ``same_disk``: its room must be taken before the disk is full."""

    path: Path
    name: str
    same_disk: bool


def beside(path: Path, tenant: str) -> SpoolPlace:
    """Return the place of a ledger in a file."""
    return SpoolPlace(path.with_name(f"{path.name}-spool"), tenant, same_disk=True)


def of_server(url: str, tenant: str) -> SpoolPlace:
    """Return the place of a ledger on a server: with the state of this user (XDG base directories), by its address.

    Args:
        url: Without password.
        tenant: Whose ledger.
    """
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    name = blake2b(url.encode(), digest_size=8).hexdigest()
    return SpoolPlace(state / "llm-cost-middleware" / f"{name}.spool", tenant, same_disk=False)
