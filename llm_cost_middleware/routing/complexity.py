"""From a text to numbers that a linear model can weigh: hashed word n-grams, and the shape of the text.

No weights are shipped: what makes a prompt hard for one pair of models in one application says nothing of another
(nothing transferred between public benchmarks). They are learned from an application's own outcomes; see ``learned``.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from math import log1p
from zlib import crc32

GRAM_BITS = 18
"""Buckets of the hashed n-grams, as a power of two."""

_HEAD, _TAIL = 2_000, 1_000  # a task is stated at the start or the end; the middle of a long prompt is its material
_TOKEN = re.compile(rb"[a-z_\x80-\xff]+|[0-9]+|[^\sa-z0-9_\x80-\xff]")  # words, numbers, single signs
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
    """The part of a text that is looked at: all of it up to 3,000 characters, else its first 2,000 and last 1,000."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"


def grams(text: str) -> Counter[int]:
    """How often each bucket occurs in a clipped text: words, numbers, signs, and pairs of neighbours.

    One-way, but no secret: whoever has a word list can look up which words were used, not in which order.
    """
    hashes = [crc32(token) for token in _TOKEN.findall(text.lower().encode("utf-8", "replace"))]
    buckets = [h & _MASK for h in hashes]
    buckets += [((a * _MIX) ^ b) >> 7 & _MASK for a, b in pairwise(hashes)]
    return Counter(buckets)


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
