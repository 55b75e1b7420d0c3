"""Phase of a request in which an exception was raised: before sending, or while reading the answer's stream.

Both SDKs turn a body into bytes, and headers into a request, in ``_build_request`` of their ``_base_client``, before
the transport is asked to send anything. What cannot be encoded fails there, as a bare ``TypeError`` or ``ValueError``.
LangChain's models make the arguments of the SDK in ``_get_request_payload``.
Both read the events of a stream in their ``_streaming``. A connection that breaks there leaves anthropic as the
transport's own exception; openai raises its ``APIConnectionError`` instead since 3.0, the class that also stands for
a connection that was never made, so that only the place distinguishes the two.
"""

from __future__ import annotations

import re
from itertools import takewhile
from traceback import walk_tb

from llm_cost_middleware.providers import NAMES

_SDKS = NAMES  # called as their providers
_PAYLOAD = "_get_request_payload"
_UNCALLED = re.compile(r"\w+\.(?:create|parse|stream)\(\) (?:got (?:an unexpected|multiple)|missing )")
"""Python's words for arguments that a resource of an SDK does not have: it was never entered."""


def failed_before_send(exc: BaseException) -> bool:
    """Return whether an SDK raised ``exc`` while it built the first request of a call; ``False`` where unknown.

    The frames between must be the SDK's own: a middleware in between may have sent something before. A warning that
    was turned into an error (``python -W error``) is raised by the method that the caller called, before any of that.
    """
    if not isinstance(exc, Exception) or hasattr(exc, "response"):
        return False
    frames = [frame for frame, _ in walk_tb(exc.__traceback__)]
    places = [(frame.f_globals.get("__name__", ""), frame.f_code.co_name) for frame in frames]
    if type(exc) is TypeError and _UNCALLED.match(str(exc)):
        return True
    if isinstance(exc, Warning):
        files = [module.split(".")[1:2] for module, _ in places if module.partition(".")[0] in _SDKS]
        return bool(files) and files[-1] == ["resources"] and ["_base_client"] not in files
    for at, (module, function) in enumerate(places):
        if function == _PAYLOAD and module.startswith("langchain_"):
            return True
        sdk, _, file = module.partition(".")
        if sdk in _SDKS and file == "_base_client" and function == "_build_request":
            callers = takewhile(lambda place, sdk=sdk: place[0].partition(".")[0] == sdk, reversed(places[:at]))  # type: ignore[misc]  # bound now
            return frames[at].f_locals.get("retries_taken") == 0 and "request" in {name for _, name in callers}
    return False


def failed_while_streaming(exc: BaseException) -> bool:
    """Return whether ``exc``, a failure of the connection, was raised while an SDK read the events of a stream."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(exc.__traceback__))
    return any(module.partition(".")[0] in _SDKS and module.partition(".")[2] == "_streaming" for module in modules)
