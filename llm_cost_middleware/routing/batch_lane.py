"""Whether requests that can wait go as a batch. Arithmetic only.

A batch costs half, and its answers come within a day: it is for many requests, or for dear ones. A batch of one saves
cents and may wait a day for them: no service tier, so it goes as an ordinary call, with the reason.
"""

from __future__ import annotations

WINDOW_S = 86_400.0
"""Both providers end a batch within a day of its creation."""
LEAST_REQUESTS = 10
"""Fewer are a batch only where they save ``LEAST_SAVING_NANOUSD``."""
LEAST_SAVING_NANOUSD = 50_000_000
"""Five cents."""
_LEAST = 2


def why_no_batch(requests: int, saving_nanousd: int, patience_s: float | None) -> str:
    """Return why requests do not go as one batch; empty where they do.

    Args:
        requests: How many there are for one model and one endpoint.
        saving_nanousd: What they are expected to cost less than as ordinary calls, in nano-dollars.
        patience_s: Seconds until the answers are wanted; ``None``: at once.
    """
    if patience_s is None or patience_s < WINDOW_S:
        return "a batch may take a day, and the answers are wanted sooner"
    if saving_nanousd <= 0:
        return "a batch of this model costs no less"
    if requests < _LEAST or (requests < LEAST_REQUESTS and saving_nanousd < LEAST_SAVING_NANOUSD):
        kind = "request" if requests == 1 else "requests"
        saving = f"{saving_nanousd // 10**5 / 10**4:.4f}"  # for people to read
        return f"{requests} {kind} would save ${saving}: too few for a batch"
    return ""
