"""Text features for the linear model: hashed word n-grams and text statistics.

No weights are shipped: what makes a prompt hard for one pair of models in one application does not transfer (models
trained on one public benchmark and tested on another averaged an APGR of 0.51, where 0.5 is chance). They are learned
from an application's own outcomes; see ``learned``.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from math import log1p
from typing import NamedTuple
from zlib import crc32

# N-grams and not sentence embeddings: those add 0.01 of APGR at a hundred times the time.

NGRAM_BITS = 18
"""Binary logarithm of the number of n-gram buckets."""

_HEAD, _TAIL = 2_000, 1_000  # characters; a task is stated at the start or the end of a prompt, material lies between
_TOKEN = re.compile(rb"[a-z_\x80-\xff]+|[0-9]+|[^\sa-z0-9_\x80-\xff]")  # words, numbers, single signs
_MASK = (1 << NGRAM_BITS) - 1
_MIX = 0x9E3779B1  # Knuth's multiplicative hash, so that the pair "a b" and the word "ab" differ

STAT_NAMES = (
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
"""Names of the statistics that ``text_stats`` returns, in order; keys of policy files."""


class TextReading(NamedTuple):
    """What is read of a text, once a call."""

    ngrams: Counter[int]
    """``ngram_hashes`` of its head and tail."""
    stats: tuple[float, ...]
    """``text_stats`` of them."""


def read_text(text: str) -> TextReading:
    """Read a text for scoring and for the log."""
    kept = head_and_tail(text)
    return TextReading(ngram_hashes(kept), text_stats(kept))


def head_and_tail(text: str) -> str:
    """Return the part of a text that is read: all of it up to 3,000 characters, else its first 2,000 and last 1,000."""
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"


def ngram_hashes(text: str) -> Counter[int]:
    """Count the buckets of a text: words, numbers, signs, and pairs of neighbours.

    The hashes are unsalted, so common words can be recovered with a dictionary, though not their order.
    """
    hashes = [crc32(token) for token in _TOKEN.findall(text.lower().encode("utf-8", "replace"))]
    buckets = [h & _MASK for h in hashes]
    buckets += [((a * _MIX) ^ b) >> 7 & _MASK for a, b in pairwise(hashes)]
    return Counter(buckets)


def text_stats(text: str) -> tuple[float, ...]:
    """Return logarithms of a few counts of a text, in the order of ``STAT_NAMES``."""
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
        # A to J only. Weights in policy files belong to exactly this count: counting A to Z needs a new file format.
        log1p(sum(map(count, "ABCDEFGHIJ"))),
        0.0 if text.isascii() else log1p(len(text.encode("utf-8", "replace")) - size),
    )
