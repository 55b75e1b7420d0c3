"""What goes over the wire: JSON text, server-sent events, SDK objects, read through one duck-typed view; and pictures.

No SDK is imported. An SDK object is read by its attributes, so that the parts of it nobody asks for are never copied.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from marshal import dumps
from typing import Any, Generic, TypeVar

from llm_cost_middleware.errors import UnreadableUsageError

EMPTY_MAPPING: Mapping[str, Any] = {}
_BIG = 10**9
"""No answer counts a billion tokens: contexts hold two million, and a loop of tools sums tens of them."""


_encode_any = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode
_encode_plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DEFINITIONS, _LONGEST_DEFINITION = 512, 16_384
_definitions: dict[bytes, str] = {}
_LISTS, _LONGEST_LIST = 64, 131_072
_T = TypeVar("_T")


def definition_text(definition: Any) -> str:
    """The JSON text of a tool's definition, which is written once for all requests that carry the same one.

    The same by its values, whichever object holds them: a caller may change one that it passed before.
    """
    try:
        key = dumps(definition, 2)  # tells apart 1, 1.0 and True; refuses what is not plain data
    except ValueError:
        return _encode_any(definition)
    known = _definitions.get(key)
    if known is not None:
        return known
    try:
        text = _encode_plain(definition)
    except (TypeError, ValueError):  # bytes and sets, which have no JSON of their own
        return _encode_any(definition)
    if len(key) <= _LONGEST_DEFINITION:
        if len(_definitions) >= _DEFINITIONS:
            _definitions.clear()  # definitions that never repeat would otherwise grow it for ever
        _definitions[key] = text
    return text


class ByValue(Generic[_T]):
    """Makes something of the tools of a request once for all requests that carry the same, by their values.

    Safe to share between threads, and bounded. What is not plain data, or too long, is worked out each time.

    Args:
        make: Makes it. The result is shared, so nothing of the caller's may be in it but texts and numbers.
    """

    def __init__(self, make: Callable[[Any], _T]) -> None:
        self._make = make
        self._known: dict[bytes, _T] = {}

    def __call__(self, data: Any) -> _T:
        """What is made of ``data``, which may have been changed since it was last seen."""
        try:
            key = dumps(data, 2)  # as in ``definition_text``
        except ValueError:
            return self._make(data)
        found = self._known.get(key)
        if found is None:
            found = self._make(data)
            if len(key) <= _LONGEST_LIST and _is_json(data):
                if len(self._known) >= _LISTS:
                    self._known.clear()
                self._known[key] = found
        return found


def _is_json(data: Any) -> bool:
    """Whether it has a JSON text: bytes and a bytearray look alike to ``marshal``, and are no JSON."""
    try:
        _encode_plain(data)
    except (TypeError, ValueError):
        return False
    return True


def field_reader(thing: Any) -> Callable[[str], Any]:
    """How to read the fields of ``thing``, a mapping or an object: a function of the name; absent reads as ``None``."""
    if type(thing) is dict or isinstance(thing, Mapping):
        get: Callable[[str], Any] = thing.get
        return get
    return lambda name: getattr(thing, name, None)


def as_mapping(thing: Any) -> Mapping[str, Any]:
    """A small object as a mapping, one level deep, its unknown extra fields included. Anything else is empty."""
    if type(thing) is dict or isinstance(thing, Mapping):
        return thing
    # Not model_dump: it would copy a whole answer to read three numbers of it.
    fields = getattr(thing, "__dict__", None)
    if not isinstance(fields, dict):
        return EMPTY_MAPPING
    extra = getattr(thing, "model_extra", None)  # pydantic keeps fields that the SDK does not know apart
    return {**fields, **extra} if isinstance(extra, dict) and extra else fields


def token_count(value: Any, provider: str, what: str) -> int:
    """A token count that an answer may leave out, as a plain integer; ``None`` is zero.

    Raises:
        UnreadableUsageError: It is negative, fractional, not a number, or beyond any bill.
    """
    if type(value) is int and 0 <= value < _BIG:
        return value
    if value is None:
        return 0
    # Some proxies write 12.0.
    if type(value) is float and value.is_integer() and 0 <= value < _BIG:
        return int(value)
    raise UnreadableUsageError(provider, f"{what} is {_shown(value)}, not a count")


def required_count(value: Any, provider: str, what: str) -> int:
    """A token count without which an answer has no price. As ``token_count``, but ``None`` is unknown, and raises."""
    if type(value) is int and 0 <= value < _BIG:
        return value
    if value is None:
        raise UnreadableUsageError(provider, f"{what} is missing")
    return token_count(value, provider, what)


def token_counts(thing: Mapping[str, Any], provider: str, *names: str) -> tuple[int, ...]:
    """Several token counts that may be left out, as ``token_count`` reads each. Raises as it does."""
    found = []
    for name in names:
        value: Any = thing.get(name)
        found.append(value if type(value) is int and 0 <= value < _BIG else token_count(value, provider, name))
    return tuple(found)


def count_group(value: Any, provider: str, what: str) -> Mapping[str, Any]:
    """A group of counts inside a usage; empty where it is absent.

    Raises:
        UnreadableUsageError: It is no object, so that its counts are unknown.
    """
    if value is None:
        return EMPTY_MAPPING
    if type(value) is dict or isinstance(value, Mapping) or isinstance(getattr(value, "__dict__", None), dict):
        return as_mapping(value)
    raise UnreadableUsageError(provider, f"{what} is {_shown(value)}, not a group of counts")


NO_COUNT = "_llm_cost_no_count"
"""In a usage whose host has made a number of what is none: what the provider had sent."""
_COUNTED = ("_tokens", "_requests")
_DEEPEST = 4


def odd_count(usage: Any, depth: int = 0) -> str | None:
    """Which count of a usage, as the provider sent it, is no number at all, such as a text; ``None`` where all are.

    Counts out of range are left to those who read them: no host changes them.
    """
    if type(usage) is not dict or depth > _DEEPEST:
        return None
    for name, value in usage.items():
        kind = type(value)
        if kind is int or value is None:
            continue
        if kind is dict or kind is list:
            entries = (value,) if kind is dict else value
            if found := next((odd for entry in entries if (odd := odd_count(entry, depth + 1))), None):
                return found
        if name.endswith(_COUNTED) and not (kind is float and value.is_integer()):
            return f"{name} is {_shown(value)}, not a count"
    return None


def refuse_odd(usage: Mapping[str, Any], provider: str) -> None:
    """Refuse a usage whose host has made a number of what is none. Raises ``UnreadableUsageError``."""
    if (found := usage.get(NO_COUNT)) is not None:
        raise UnreadableUsageError(provider, found)


def _shown(value: Any) -> str:
    """A value for an error: whole where it is short, else its kind, because the text of a huge one may not exist."""
    short = type(value) in (int, float, bool) and -_SHOWN < value < _SHOWN
    return repr(value) if short or (type(value) is str and len(value) <= _SHOWN_CHARACTERS) else type(value).__name__


_SHOWN, _SHOWN_CHARACTERS = 10**20, 24


def str_or_none(value: Any) -> str | None:
    """``value`` if it is a non-empty text."""
    return value if isinstance(value, str) and value else None


def texts_or_none(get: Callable[[str], Any], *names: str) -> tuple[str | None, ...]:
    """Several fields of one object, as ``str_or_none`` reads each."""
    found = []
    for name in names:
        value = get(name)
        found.append(value if isinstance(value, str) and value else None)
    return tuple(found)


def parse(raw: str | bytes | bytearray, provider: str) -> Any:
    """JSON text to its value; ``None`` for a text that is not JSON at all (a proxy's error page).

    Raises:
        UnreadableUsageError: It begins like JSON and is not.
    """
    # Replaced, not refused: a damaged character in a text must not hide the usage behind it.
    body = raw.decode("utf-8", "replace") if isinstance(raw, bytes | bytearray) else raw
    body = body.lstrip("\ufeff \t\r\n")
    if body[:1] not in ("{", "["):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        lines = _lines(body)
        # The results of a batch: one JSON object per line.
        if lines is not None:
            return lines
        raise UnreadableUsageError(provider, f"not JSON: {type(error).__name__}") from None


def _lines(body: str) -> list[Any] | None:
    """JSON lines (a batch's results) to a list; ``None`` where a line is not JSON."""
    try:
        return [json.loads(line) for line in body.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return None


def looks_like_sse(raw: str | bytes | bytearray) -> bool:
    """Whether a text is a stream of server-sent events rather than JSON."""
    # The beginning is enough, and a stream may be megabytes.
    head = raw[:64].lstrip()
    return (
        head.startswith((b"event:", b"data:", b":", b"id:", b"retry:"))
        if isinstance(head, bytes | bytearray)
        else head.lstrip("\ufeff").startswith(("event:", "data:", ":", "id:", "retry:"))
    )


class SSEDecoder:
    """Server-sent events, fed in pieces cut anywhere, even inside a character.

    Args:
        ignored_prefixes: Beginnings of data that cannot matter; such data is dropped before it is parsed.
    """

    __slots__ = ("_data", "_decode", "_ignored_prefixes", "_rest")

    def __init__(self, ignored_prefixes: tuple[str, ...] = ()) -> None:
        self._ignored_prefixes = ignored_prefixes
        self._rest: list[str] = []
        self._data: list[str] = []
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def feed(self, piece: str | bytes | bytearray) -> Iterator[Any]:
        """The events that ``piece`` completes, parsed. ``[DONE]``, comments and data that is not JSON are dropped."""
        fresh = self._decode(bytes(piece)) if isinstance(piece, bytes | bytearray) else piece
        first, *others = fresh.split("\n")
        # The last line may be cut: its pieces wait for their end, and are joined once, however many they are.
        self._rest.append(first)
        if others:
            first, self._rest = "".join(self._rest), [others.pop()]
            yield from self._line(first.rstrip("\r"))
            for line in others:
                yield from self._line(line.rstrip("\r"))

    def flush(self) -> Iterator[Any]:
        """The event that the end of the stream would complete now, if any. Changes nothing."""
        # On a copy: the stream may still go on.
        twin = SSEDecoder(self._ignored_prefixes)
        twin._data = list(self._data)
        for line in ("".join(self._rest).rstrip("\r"), ""):
            yield from twin._line(line)

    def _line(self, line: str) -> Iterator[Any]:
        if not line:
            if self._data:
                data, self._data = "\n".join(self._data), []
                try:
                    yield json.loads(data)
                except (ValueError, RecursionError):
                    return  # cut off or not JSON: it carries no usage
        elif line.startswith("data:"):
            data = line[5:].removeprefix(" ")
            if data != "[DONE]" and not data.startswith(self._ignored_prefixes):
                self._data.append(data)


def output_cap_field(body: Mapping[str, Any], endpoint: str, *, chat: str) -> str:
    """The field that caps the output of a request body.

    Args:
        body: The body: a chat keeps the field that its caller chose.
        endpoint: The shape of the body.
        chat: The field of a chat without one. Models that reason refuse ``max_tokens``, older gateways know no other.
    """
    if endpoint == "responses":
        return "max_output_tokens"
    if endpoint == "messages":
        return "max_tokens"
    if body.get("max_completion_tokens") is not None:
        return "max_completion_tokens"
    return "max_tokens" if body.get("max_tokens") is not None else chat


def apply_changes(out: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Write the changes of an attempt into ``out``, a copy of a body; ``None`` leaves a field out."""
    for name, value in changes.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = value


def ask_for_usage(out: dict[str, Any], endpoint: str) -> None:
    """Ask for usage in a streamed chat, which reports it only on request. Changes ``out``, a copy of the body."""
    if endpoint == "chat.completions" and out.get("stream"):
        out["stream_options"] = {**(out.get("stream_options") or {}), "include_usage": True}


OUTPUT_CAP_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Fields that cap the output, of every shape."""


_HEAD = 96
"""Characters of base64 that hold the size of every format but JPEG."""
_JPEG_HEAD = 88_000
"""Characters that hold a JPEG's metadata, at most 64 KB, and the frame header behind it."""


def fingerprint(data: str) -> str:
    """Short fingerprint of an attachment's text form: distinguishes it from others of the same size."""
    return blake2b(data.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def picture_size(data: str) -> tuple[int, int] | None:
    """Width and height of a base64 picture (PNG, JPEG, GIF, WebP), from its first bytes; ``None`` where unknown."""
    try:
        head = base64.b64decode(data[:_HEAD])
        if head.startswith(b"\xff\xd8"):
            return _jpeg(base64.b64decode(data[: min(_JPEG_HEAD, len(data) // 4 * 4)]))
    except (binascii.Error, ValueError):
        return None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    if head.startswith((b"GIF87a", b"GIF89a")):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:  # noqa: PLR2004 - every marker begins with FF
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # noqa: PLR2004 - start of frame, by its coding
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    kind, rest = head[12:16], head[20:]
    if kind == b"VP8X":
        return int.from_bytes(rest[4:7], "little") + 1, int.from_bytes(rest[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(rest[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(rest[6:8], "little") & 0x3FFF, int.from_bytes(rest[8:10], "little") & 0x3FFF
    return None
