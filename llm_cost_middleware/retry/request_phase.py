"""Phase of a request in which an exception was raised: before sending, or while reading the answer's stream.

What a transport cannot work with (a header, an address, a timeout, a client that is closed) fails inside it, before the
first byte is written, as whatever Python raises there: the functions that it passed through tell how far it came.

Both SDKs turn a body into bytes, and headers into a request, in ``_build_request`` of their ``_base_client``, before
the transport is asked to send anything. What cannot be encoded fails there, as a bare ``TypeError`` or ``ValueError``.
LangChain's models make the arguments of the SDK in ``_get_request_payload``.
Both read the events of a stream in their ``_streaming``. A connection that breaks there leaves anthropic as the
transport's own exception; openai raises its ``APIConnectionError`` instead since 3.0, the class that also stands for
a connection that was never made, so that only the place distinguishes the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import dropwhile, takewhile
from traceback import walk_tb
from types import FrameType

from llm_cost_middleware.providers import NAMES

_SDKS = NAMES  # called as their providers
_PAYLOAD = "_get_request_payload"
_TRANSPORTS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "anyio", "h11"})
_ADDRESSES = frozenset({"yarl", "idna"})
"""They read addresses, which is over before a connection is made."""
_BELOW = _TRANSPORTS | _ADDRESSES | {"asyncio", "socket", "ssl", "multidict", "propcache", "encodings", "contextlib"}
_HANDLER = "litellm.llms.custom_httpx."
"""LiteLLM's transport between httpx and aiohttp."""
_MAKING = frozenset({
    "build_request", "_transport_for_url", "_set_timeout", "_build_request_auth", "_build_redirect_request",
    "connect", "connect_tcp", "connect_unix_socket", "_connect", "start_tls", "wait_for_connection",
    "_assign_requests_to_connections", "_send_request_headers", "_create_connection", "_create_direct_connection",
    "_resolve_host", "_wrap_create_connection", "write_headers", "_write_headers",
})  # fmt: skip
"""Functions of transports that are over before the first byte of a request is written."""
_MAKING_ONLY = frozenset({"send", "_send_single_request", "_request", "__init__", "_make_aiohttp_request"})
"""Functions that send as well: what they raise themselves, and not what they call, comes before that."""
_DOORS = ("_send_handling_auth", "_send_handling_redirects")
_SENDERS = ("_send_single_request",)
_SENDING = frozenset({"_send_request_body", "_receive_response_headers", "_receive_event", "_receive_response_body",
                      "start", "read", "write_bytes", "handle_response"})  # fmt: skip
_REPEATING = frozenset({"request", "_send_handling_redirects", "_request"})
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
    if _stopped_in_transport(exc, frames, places):
        return True
    for at, (module, function) in enumerate(places):
        if function == _PAYLOAD and module.startswith("langchain_"):
            return True
        sdk, _, file = module.partition(".")
        if sdk in _SDKS and file == "_base_client" and function == "_build_request":
            callers = takewhile(lambda place, sdk=sdk: place[0].partition(".")[0] == sdk, reversed(places[:at]))  # type: ignore[misc]  # bound now
            return frames[at].f_locals.get("retries_taken") == 0 and "request" in {name for _, name in callers}
    return False


def may_pass(exc: BaseException) -> bool:
    """Return whether what failed before it was sent may succeed when it is repeated.

    A connection of an event loop that has ended is dropped by the attempt that meets it.
    """
    return type(exc) is RuntimeError and str(exc) == "Event loop is closed"  # asyncio's words


def _stopped_in_transport(exc: Exception, frames: Sequence[FrameType], places: Sequence[tuple[str, str]]) -> bool:
    """Whether a transport could not begin to send the first request of a call.

    A failure of the network has a class of its own, by which it is judged.
    """
    if isinstance(exc, OSError) or type(exc).__module__.partition(".")[0] in _TRANSPORTS - {"anyio"}:
        return False
    if any(_precedes_sending(frame, after) for frame, after in zip(frames, places[1:], strict=False)):
        return True
    inside = [*dropwhile(lambda place: place[0].partition(".")[0] not in _TRANSPORTS, places)]
    if not inside or not all(map(_is_below, inside)):  # a hook or a transport of the caller's may have sent something
        return False
    named = {function for _, function in inside}
    if not _SENDING.isdisjoint(named) or any(_came_before(frames)):
        return False
    reading_address = inside[-1][0].partition(".")[0] in _ADDRESSES
    return reading_address or not _MAKING.isdisjoint(named) or inside[-1][1] in _MAKING_ONLY


def _precedes_sending(frame: FrameType, after: tuple[str, str]) -> bool:
    """Whether a client of httpx was about to send its first request: in a hook of the caller's, or in his ``Auth``."""
    name, module = frame.f_code.co_name, str(frame.f_globals.get("__name__", ""))
    at_door = name in _DOORS and module in ("httpx._client", "httpx2._client")
    return at_door and after[1] not in (*_DOORS, *_SENDERS) and "response" not in frame.f_locals


def _is_below(place: tuple[str, str]) -> bool:
    module = place[0]
    return module.partition(".")[0] in _BELOW or module.startswith(_HANDLER)


def _came_before(frames: Sequence[FrameType]) -> Iterator[bool]:
    """Whether something was sent before, for this very call: an attempt of the SDK, or what led to a redirect."""
    for frame in frames:
        root = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if root in {*_SDKS, *_TRANSPORTS} and frame.f_code.co_name in _REPEATING:
            yield bool(frame.f_locals.get("retries_taken")) or bool(frame.f_locals.get("history"))


def failed_while_streaming(exc: BaseException) -> bool:
    """Return whether ``exc``, a failure of the connection, was raised while an SDK read the events of a stream."""
    modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(exc.__traceback__))
    return any(module.partition(".")[0] in _SDKS and module.partition(".")[2] == "_streaming" for module in modules)
