"""Whether a request certainly never left, told by where an exception was raised.

Both SDKs turn a body into bytes, and headers into a request, in ``_build_request`` of their ``_base_client``, before
the transport is asked to send anything. What cannot be encoded fails there, as a bare ``TypeError`` or ``ValueError``.
"""

from __future__ import annotations

from itertools import takewhile
from traceback import walk_tb

_SDKS = frozenset({"anthropic", "openai"})


def never_left(exc: BaseException) -> bool:
    """Whether an SDK raised ``exc`` while it built the first request of a call. ``False``: that is not known.

    The frames between must be the SDK's own: a middleware in between may have sent something before.
    """
    if not isinstance(exc, TypeError | ValueError | RecursionError):
        return False
    frames = [frame for frame, _ in walk_tb(exc.__traceback__)]
    places = [(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame in frames]
    for at, (module, function) in enumerate(places):
        sdk, _, file = module.partition(".")
        if sdk in _SDKS and file == "_base_client" and function == "_build_request":
            callers = takewhile(lambda place, sdk=sdk: place[0].partition(".")[0] == sdk, reversed(places[:at]))  # type: ignore[misc]  # bound now
            return frames[at].f_locals.get("retries_taken") == 0 and "request" in {name for _, name in callers}
    return False
