"""Which configuration is which, and which of two is older: what the register keeps of them.

One without a name follows on the one that it comes from: the same file, the same budgets, or one that it has a budget
in common with, unless both say which file they come from and the files have different paths. Two files on one machine
are two services; a path that stays the same on another machine is a new container of the same one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from itertools import chain, count
from typing import Any

UNNAMED = "unnamed"
_MOST_UNNAMED = 100
_SEEN = 2_000
_SHORT = 12
"""Characters of a fingerprint that are kept: 48 bits."""


def fingerprint(version: int, lines: Mapping[str, Any]) -> str:
    """Return what tells a content from others."""
    text = json.dumps([version, lines], sort_keys=True)
    return blake2b(text.encode(), digest_size=12).hexdigest()[:_SHORT]


def begun(version: int) -> dict[str, Any]:
    """Return what is known of a configuration before its first content."""
    return {"version": version, "at": 0, "seen": [], "budgets": {}}


def is_newest(known: Mapping[str, Any], content: str) -> bool:
    """Whether a content is the one that was taken last."""
    return bool(known["seen"]) and known["seen"][-1][:_SHORT] == content


def why_older(known: Mapping[str, Any], version: int, content: str, written_at: int | None) -> str:
    """Say why a content is older than the newest one; empty where it is not.

    A content that was taken before and replaced is newer only if it was written since; so is one that is not
    remembered, once the oldest were forgotten and where it is known when it was written.
    """
    if version < known["version"]:
        return f"version {version} is older than {known['version']}"
    seen = any(one[:_SHORT] == content for one in known["seen"])
    since = written_at is not None and written_at >= known["at"]
    forgotten = known.get("forgot", False) and written_at is not None
    if version == known["version"] and not since and (seen or forgotten):
        return "they were replaced, and not written since" if seen else "they were not written since the newest"
    return ""


def taken(
    known: Mapping[str, Any],
    version: int,
    content: str,
    lines: Mapping[str, Any],
    at: int,
    *,
    origin: str | None,
    unnamed: bool,
) -> dict[str, Any]:
    """Return what is known of a configuration when a content of it was taken."""
    seen = [*(one[:_SHORT] for one in known["seen"] if one[:_SHORT] != content), content]
    return {
        "version": version,
        "at": at,
        "seen": seen[-_SEEN:],
        "budgets": lines,
        "origin": origin or known.get("origin"),
        "unnamed": unnamed,
        **({"forgot": True} if len(seen) > _SEEN or known.get("forgot") else {}),
    }  # fmt: skip


def followed(
    configurations: dict[str, dict[str, Any]], lines: Mapping[str, Any], content: str, origin: str | None
) -> str | None:
    """Return which configuration one without a name follows on; a new name where none, ``None`` if it says nothing.

    Args:
        configurations: All that are known. Of too many without a name the oldest is forgotten: what it set stays.
        lines: The budgets of the new one, by scope and window.
        content: Its fingerprint.
        origin: What tells its file from others: a machine, ``/``, and a path on it.
    """
    unnamed = {one: known for one, known in configurations.items() if known.get("unnamed")}
    for one, known in unnamed.items():
        if origin is not None and known.get("origin") == origin:
            return one
    if not lines:  # "there are none" can only be said of those that it can be told from
        having = [one for one, known in unnamed.items() if known["budgets"]]
        return having[0] if len(having) == 1 and origin is None else None
    found = _alike(unnamed, lines, content, origin)
    if found is not None:
        return found
    if len(unnamed) >= _MOST_UNNAMED:
        del configurations[min(unnamed, key=lambda one: unnamed[one]["at"])]
    free = (f"{UNNAMED}-{number}" for number in count(2))
    return next(one for one in chain((UNNAMED,), free) if one not in configurations)


def _alike(
    unnamed: Mapping[str, dict[str, Any]], lines: Mapping[str, Any], content: str, origin: str | None
) -> str | None:
    """Return the configuration that has this content, had it, or has most in common with it."""
    same = next((one for one, known in unnamed.items() if is_newest(known, content)), None)
    if same is not None:  # whosever it is, there is nothing to decide
        return same
    here = {one: known for one, known in unnamed.items() if not _elsewhere(known.get("origin"), origin)}
    had = next((one for one, known in here.items() if any(seen[:_SHORT] == content for seen in known["seen"])), None)
    if had is not None:
        return had
    common = {one: len(known["budgets"].keys() & lines.keys()) for one, known in here.items()}
    ranked = sorted(here, key=lambda one: -common[one])
    return next((one for one in ranked if common[one] or not here[one]["budgets"]), None)


def _elsewhere(known: str | None, origin: str | None) -> bool:
    """Whether two files are known to have different paths."""
    places = [one.partition("/")[2] for one in (known, origin) if one is not None]
    return len(places) == 2 and "" not in places and places[0] != places[1]  # noqa: PLR2004 - both
