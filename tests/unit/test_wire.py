"""The one view of JSON, server-sent events and SDK objects."""

from __future__ import annotations

import base64
import io
import json

import pytest

from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.wire import SSEDecoder, as_mapping, looks_like_sse, parse, picture_size


def test_events_come_whole_however_the_bytes_are_cut():
    raw = 'event: a\r\ndata: {"text": "ä€😀"}\r\n\r\n: comment\n\ndata: {"b":\ndata: 2}\n\ndata: [DONE]\n\n'.encode()
    for size in range(1, len(raw)):
        decoder = SSEDecoder()
        events = [event for start in range(0, len(raw), size) for event in decoder.feed(raw[start : start + size])]
        assert events == [{"text": "ä€😀"}, {"b": 2}]


def test_the_tail_of_a_stream_is_read_without_ending_it():
    decoder = SSEDecoder()
    assert list(decoder.feed('data: {"a": 1}')) == []
    assert list(decoder.flush()) == [{"a": 1}]
    assert list(decoder.feed("\n\n")) == [{"a": 1}]


def test_dull_data_is_dropped_unread():
    decoder = SSEDecoder(ignored_prefixes=('{"type":"delta"',))
    assert list(decoder.feed('data: {"type":"delta" broken\n\ndata: {"type":"end"}\n\n')) == [{"type": "end"}]


@pytest.mark.parametrize("text", ["\ufeffdata: {}\n\n", "event: x\n", b"data: {}\n\n", "\n: ping\n\ndata: {}"])
def test_a_stream_is_distinguished_from_json(text):
    assert looks_like_sse(text)
    assert not looks_like_sse('{"data": 1}')


def test_json_lines_are_a_list_and_broken_json_raises():
    assert parse('{"a": 1}\n{"a": 2}\n', "openai") == [{"a": 1}, {"a": 2}]
    assert parse("Bad gateway", "openai") is None
    with pytest.raises(UnreadableUsageError):
        parse('{"a": 1', "openai")
    with pytest.raises(UnreadableUsageError):
        parse("[" * 100_000, "openai")


def test_extra_fields_of_an_object_are_seen_beside_its_own():
    class Thing:
        def __init__(self):
            self.known = 1
            self.model_extra = {"unknown": 2}

    assert as_mapping(Thing())["unknown"] == 2
    assert as_mapping(json) is not None
    assert dict(as_mapping(3)) == {}


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (2_576, 33), (31, 4_096)])
@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("GIF", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": b"Exif\0\0" + b"x" * 30_000}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"exif": b"Exif\0\0" + b"x" * 90}),
    ],
)
def test_the_size_of_a_picture_is_read_from_its_first_bytes(form, options, size):
    pictures = pytest.importorskip("PIL.Image", reason="needs Pillow")
    file = io.BytesIO()
    pictures.new("RGB", size).save(file, form, **options)
    assert picture_size(base64.b64encode(file.getvalue()).decode()) == size


@pytest.mark.parametrize("data", ["", "a", "!!!!", "aaaa" * 50, "/9j/", "iVBORw0KGgo", "UklGRgAAAABXRUJQ"])
def test_what_is_no_picture_has_no_size(data):
    assert picture_size(data) in (None, (0, 0))
