"""From a text to numbers that a linear model can weigh: hashed word n-grams, and the shape of the text.

No weights are shipped: what makes a prompt hard for one pair of models in one application says nothing of another
(nothing transferred between public benchmarks). They are learned from an application's own outcomes; see ``learned``.
"""

from __future__ import annotations

import re
from math import log1p
from zlib import crc32

GRAM_BITS = 18
"""Buckets of the hashed n-grams, as a power of two."""

_HEAD, _TAIL = 4_000, 2_000  # a task is stated at the start or the end; the middle of a long prompt is its material
_WORD = re.compile(rb"[a-z0-9_\x80-\xff]{2,}")
_MASK = (1 << GRAM_BITS) - 1
_MIX = 0x9E3779B1  # so that the pair "a b" and the word "ab" differ

SHAPE = (
    "length",
    "words",
    "lines",
    "digits",
    "operators",
    "brackets",
    "tex",
    "code",
    "questions",
    "capitals",
    "foreign",
)
"""The names of what ``shape`` returns, in order."""


def clip(text: str) -> str:
    """The part of a text that is looked at: all of it up to 6,000 characters, else its first 4,000 and last 2,000."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"


def grams(text: str) -> set[int]:
    """The buckets of a clipped text's words and word pairs. One-way, but not secret: a word list reverses the words."""
    hashes = [crc32(word) for word in _WORD.findall(text.lower().encode("utf-8", "replace"))]
    found = {h & _MASK for h in hashes}
    previous = 0
    for h in hashes:
        if previous:
            found.add(((previous * _MIX) ^ h) >> 7 & _MASK)
        previous = h
    return found


def shape(text: str) -> tuple[float, ...]:
    """The shape of a clipped text: logarithms of a few counts, in the order of ``SHAPE``."""
    count = text.count
    size = len(text)
    return (
        log1p(size),
        log1p(count(" ")),
        log1p(count("\n")),
        log1p(sum(map(count, "0123456789"))),
        log1p(sum(map(count, "+=*/^<>%"))),
        log1p(sum(map(count, "()[]{}"))),
        log1p(count("\\") + count("$")),
        log1p(count(";") + count("`") + count("_")),
        log1p(count("?")),
        log1p(sum(map(count, "ABCDEFGHIJ"))),
        0.0 if text.isascii() else log1p(len(text.encode("utf-8", "replace")) - size),
    )
