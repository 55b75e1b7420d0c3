"""``application/vnd.amazon.eventstream``: length-prefixed messages with string headers and two CRC-32 sums.

A message is: its length and that of its headers (big-endian, four bytes each), the CRC of these eight bytes, the
headers, the payload, the CRC of all before it (AWS, "Event stream encoding", as botocore's ``EventStreamBuffer`` reads
it). A header is its name's length in a byte, the name, 7 for a string, the value's length in two bytes, the value.
"""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

_STRING = 7


def event(kind: str, payload: Mapping[str, Any]) -> bytes:
    """Return an event."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, _json(payload))


def exception(kind: str, text: str) -> bytes:
    """Return an exception that ends a stream."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, _json({"message": text}))


def chunk(data: Mapping[str, Any]) -> bytes:
    """Return a piece of a model's own stream: base64 inside the ``chunk`` event."""
    inner = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return event("chunk", {"bytes": base64.b64encode(inner).decode(), "p": "abcdefghij"[: len(inner) % 10 + 1]})


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return the bytes of one message."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    body = prelude + struct.pack("!I", zlib.crc32(prelude)) + head + payload
    return body + struct.pack("!I", zlib.crc32(body))


def _header(name: str, value: str) -> bytes:
    data = value.encode()
    return bytes([len(name)]) + name.encode() + struct.pack("!BH", _STRING, len(data)) + data


def _json(payload: Mapping[str, Any]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
