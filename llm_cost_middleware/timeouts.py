"""Timeouts of a client or a call: looked at before money is set aside, and shortened for an attempt."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

_PHASES = ("connect", "read", "write", "pool")
"""Of an httpx ``Timeout``, in the order in which a tuple names them."""
_LEAST = 2
"""Phases that a tuple must name; the others are endless."""


def checked_timeout(own: Any) -> Any:
    """A timeout as it is, if an SDK can work with it.

    What it cannot work with fails in the transport: before anything was sent, or, worse, once the answer is under way.

    Args:
        own: Seconds, ``None`` for no end, an httpx ``Timeout``, or its phases as a tuple.

    Raises:
        TypeError: It is none of these.
        ValueError: It is no positive number of seconds.
    """
    for name, seconds in _phases_of(own).items():
        if seconds is None:
            continue
        if not isinstance(seconds, Real):
            raise TypeError(f"a timeout is a number of seconds, None or a Timeout, not {type(seconds).__qualname__}")
        # to wait for no time at all makes sense where a free connection is taken from a pool
        if math.isnan(seconds) or seconds < 0 or (seconds == 0 and name != "pool"):
            raise ValueError(f"a timeout must be a positive number of seconds, not {seconds}")
    return own


def capped_timeout(own: Any, limit_s: float | None) -> Any:
    """A client's own timeout, shortened to ``limit_s`` seconds; never lengthened.

    Args:
        own: As of ``checked_timeout``; of an object and a tuple each phase is shortened.
        limit_s: The most seconds; ``None`` leaves it as it is.

    Raises:
        TypeError: As ``checked_timeout``.
        ValueError: As ``checked_timeout``.
    """
    checked_timeout(own)
    if limit_s is None:
        return own
    if own is None or isinstance(own, Real):
        return limit_s if own is None else min(own, limit_s)
    phases = {
        name: limit_s if phase is None else min(phase, limit_s)
        for name, phase in {**dict.fromkeys(_PHASES), **_phases_of(own)}.items()
    }
    return tuple(phases.values()) if isinstance(own, tuple) else type(own)(**phases)


def _phases_of(own: Any) -> dict[str, Any]:
    if isinstance(own, tuple):
        if not _LEAST <= len(own) <= len(_PHASES):
            raise TypeError(f"a timeout as a tuple has its {_LEAST} to {len(_PHASES)} phases, not {len(own)}")
        return dict(zip(_PHASES, own, strict=False))
    if all(hasattr(own, name) for name in _PHASES):
        return {name: getattr(own, name) for name in _PHASES}
    return {"": own}
