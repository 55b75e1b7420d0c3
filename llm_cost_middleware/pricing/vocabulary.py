"""OpenAI's public vocabularies, offline, and exact counts of texts by them.

tiktoken downloads its vocabularies on first use; no wheel but LiteLLM's contains them, under the names of tiktoken's
cache. They are read from there without importing LiteLLM, or from the folder that ``TIKTOKEN_CACHE_DIR`` names, and
never from the network.

tiktoken's table of a vocabulary is built in one step of 160 ms that keeps the interpreter's lock, so that every event
loop of the process stands still, and takes a hundred megabytes. Texts are counted without it, by the same rule, until
that has cost as much, or one has letters that are newer than this Python: few processes ever come to it.

A text is cut by its shape, in which a sign of Latin-1 stands for each class of characters. The standard library's
``re`` reads that in half the time of a package that knows Unicode's classes, and without 20 ms of imports.
"""

from __future__ import annotations

import hashlib
import os
import re
from binascii import a2b_base64
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from heapq import heapify, heappop, heappush
from importlib.util import find_spec
from itertools import islice
from operator import itemgetter
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any
from unicodedata import category

from llm_cost_middleware.event_loops import make_way
from llm_cost_middleware.fork import ForkSafeLock

if TYPE_CHECKING:
    from tiktoken import Encoding

_SLICE = 32_768
"""Bytes of a vocabulary that are read at a time."""
_PIECES = 1_024
"""Pieces of a text that are looked at at a time: half a millisecond."""
_KNOWN = 65_536
"""Pieces whose count is remembered, and characters whose sign is."""
_WORTH_A_TABLE = 65_536
"""Bytes merged one by one: about what tiktoken's table costs to build."""
_BY_HAND, _WITHOUT_WORDS, _LONG_WORD = 3, 32, 16
"""How many times as long a text takes without tiktoken's table, and one whose words are longer than this on average."""
_TABLE = 1_000_000
"""How long a text takes that needs the table."""
_NEW = "\x84"
"""The sign for a character that this Python does not know."""
_SIGNS = {
    "Lu": "A", "Ll": "a", "Lt": "\x80", "Lm": "\x81", "Lo": "\x82", "Mn": "\x83", "Mc": "\x83", "Me": "\x83",
    "Nd": "0", "Nl": "0", "No": "0", "Zs": "\t", "Zl": "\t", "Zp": "\t", "Cn": _NEW,
}  # fmt: skip
"""Signs of the classes that vocabularies tell apart; ``#`` is that of every other."""
_CLASSES = {
    "Lu": "A-Z", "Ll": "a-z", "Lt": "\x80", "Lm": "\x81", "Lo": "\x82", "L": "A-Za-z\x80-\x82", "M": "\x83", "N": "0-9",
}  # fmt: skip
"""The characters of a shape that are of a class."""
_PICTURES = range(0x1F300, 0x1FB00)
"""Blocks of nothing but symbols, those of later versions of Unicode too."""
_whole = itemgetter(0)


class _Shapes(dict[int, str]):
    """The sign of each character, for ``str.translate``: itself, if it is ASCII."""

    def __missing__(self, code: int) -> str:
        one = chr(code)
        sign = one if one.isascii() else "#" if code in _PICTURES else _SIGNS.get(category(one), "#")
        if len(self) < _KNOWN:
            self[code] = sign
        return sign


_shapes = _Shapes({0x17F: "s", 0x85: "\t"})  # the long s is an s to who ignores case; a control that is white space


class _ByLength(dict[int, dict[bytes, int]]):
    """Ranks of tokens, a table for each length: as one, it would take several milliseconds each time that it grows."""

    def __missing__(self, length: int) -> dict[bytes, int]:
        return {}


class Vocabulary:
    """One vocabulary. Its counts are those of tiktoken's ``encode_ordinary``. Safe to share between threads.

    Args:
        recipe: What tiktoken's ``Encoding`` is made of.
    """

    _lock = ForkSafeLock()

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        self._recipe: Mapping[str, Any] | None = recipe
        self._ranks: _ByLength = recipe["mergeable_ranks"]
        self._pieces = _read_pattern(recipe["pat_str"])
        self._known: dict[int, int] = {}  # by the hash of a piece, which a key of the process is in: no text is kept
        self._merged = 0
        self._table: Encoding | None = None

    def effort(self, text: str) -> int:
        """How long a text takes to count: 16,000 are a millisecond or two; many more where it has no words."""
        if self._table is not None:
            return len(text)
        if self._is_new(_shape(text)):
            return _TABLE
        words = sum(text.count(one) - 2 * text.count(2 * one) for one in ' "')  # a run of them is no words
        return len(text) * (_BY_HAND if words * _LONG_WORD > len(text) else _WITHOUT_WORDS)

    @property
    def is_due(self) -> bool:
        """Whether counting has cost so much that a table pays: ``build_if_due``, off the event loop."""
        return self._table is None and (self._merged >= _WORTH_A_TABLE or self._pieces is None)

    def build_if_due(self) -> None:
        """Build tiktoken's table where it pays: counts are faster from then on, much so of text without spaces."""
        if self.is_due:
            self._build()

    def count(self, text: str) -> int:
        """Return the tokens of a text; what looks like a special token in it is text."""
        ranks, known, table = self._ranks, self._known, self._table  # the table last: where it is none, the others are
        if not text.isascii():
            text = _without_halves(text)
        shape = text if table is not None else _shape(text)
        if table is None and self._is_new(shape):
            table = self._build()
        if table is not None:
            return len(table.encode_ordinary(text))
        assert self._pieces is not None  # noqa: S101 - the table would be there
        found, often = self._pieces.finditer(shape), Counter[str]()
        pieces = map(_whole, found) if shape is text else (text[one.start() : one.end()] for one in found)
        while some := list(islice(pieces, _PIECES)):
            often.update(some)
        total = 0
        for piece, times in often.items():
            data, count = piece.encode(), 1
            if data not in ranks[len(data)]:
                key = hash(data)
                count = known.get(key) or _merge(data, ranks)
                if key not in known:
                    self._merged += len(data)
                    if len(known) >= _KNOWN:
                        known.clear()
                    known[key] = count
            total += times * count
        return total

    def _is_new(self, shape: str) -> bool:
        """Whether a text has letters that are newer than this Python, or must be cut in a way that is."""
        return _NEW in shape or self._pieces is None

    def _build(self) -> Encoding:
        with self._lock:
            if self._table is None and self._recipe is not None:
                self._table = _encoding(self._recipe)
                self._recipe, self._ranks, self._known = None, _ByLength(), {}
        assert self._table is not None  # noqa: S101 - the recipe is there until the table is
        return self._table


def _encoding(recipe: Mapping[str, Any]) -> Encoding:
    import tiktoken

    ranks = {data: rank for table in recipe["mergeable_ranks"].values() for data, rank in table.items()}
    return tiktoken.Encoding(**{**recipe, "mergeable_ranks": ranks})


def _read_pattern(pattern: str) -> re.Pattern[str] | None:
    """How a vocabulary cuts a text, for the shape of one; ``None`` if it has what is not known here."""
    if re.search(r"\\(?!p\{|[snr]|S\))|&&|--|\[[^\]]*\[", pattern):
        return None
    bracketed = re.sub(r"(\[[^\]]*\])|(\\p\{\w+\})", lambda one: one[1] or f"[{one[2]}]", pattern)
    with suppress(KeyError):
        return re.compile(re.sub(r"\\p\{(\w+)\}", lambda one: _CLASSES[one[1]], bracketed), re.ASCII)
    return None


def _shape(text: str) -> str:
    return text if text.isascii() else text.translate(_shapes)


def _without_halves(text: str) -> str:
    """A text with a sign for each half of a character, as tiktoken counts it. Strings that were cut have some."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _merge(piece: bytes, ranks: _ByLength) -> int:
    """Return the tokens of a piece: of all neighbours, those of the lowest rank become one, until none has a rank."""
    size, rank_of = len(piece), ranks[2].get
    after, before = list(range(1, size + 1)), list(range(-1, size - 1))  # of each part, by where it starts; 0: merged
    pairs = [(rank, at, at + 2) for at in range(size - 1) if (rank := rank_of(piece[at : at + 2])) is not None]
    heapify(pairs)
    tokens = size
    while pairs:
        _, start, end = heappop(pairs)
        middle = after[start]
        if not middle or middle >= end or after[middle] != end:
            continue  # one of the two was merged with its other neighbour
        after[start], after[middle] = end, 0
        tokens -= 1
        if end < size:
            before[end] = start
            far = after[end]
            if (rank := ranks[far - start].get(piece[start:far])) is not None:
                heappush(pairs, (rank, start, far))
        if start:
            far = before[start]
            if (rank := ranks[end - far].get(piece[far:end])) is not None:
                heappush(pairs, (rank, far, end))
    return tokens


@cache
def find_vocabulary(name: str | None) -> Vocabulary | None:
    """Return a vocabulary by tiktoken's name of it; ``None`` if tiktoken or the vocabulary is not installed."""
    recipe = None if name is None else _recipe(name)
    return None if recipe is None else Vocabulary(recipe)


@cache
def tiktoken_encoding(name: str) -> Encoding | None:
    """Return tiktoken's own tokenizer of a vocabulary; ``None`` as for ``find_vocabulary``."""
    recipe = _recipe(name)
    return None if recipe is None else _encoding(recipe)


def _recipe(name: str) -> Mapping[str, Any] | None:
    """What tiktoken's ``Encoding`` is made of, with its ranks by length."""
    if find_spec("tiktoken") is None:
        return None
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # a namespace package without stubs

    made = openai_public.ENCODING_CONSTRUCTORS.get(name)
    if made is None:
        return None

    def from_wheel(address: str, expected_hash: str | None = None) -> _ByLength:
        # Called as tiktoken's loader, which would read the network and environment variables.
        file = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
        for folder in _folders():
            with suppress(OSError):
                data = (folder / file).read_bytes()
                if expected_hash is None or hashlib.sha256(data).hexdigest() == expected_hash:
                    return _read_ranks(data)
        raise FileNotFoundError(f"{address}: in no folder, or another file")

    # tiktoken has no parameter for the loader: run its recipe with the global name replaced, on a copy.
    offline = FunctionType(made.__code__, {**made.__globals__, "load_tiktoken_bpe": from_wheel}, name)
    try:
        recipe: Mapping[str, Any] = offline()
    except FileNotFoundError:
        return None
    return recipe


def _read_ranks(data: bytes) -> _ByLength:
    """The lines of a vocabulary, a millisecond of them at a time: between two, other threads get their turn."""
    ranks: defaultdict[int, dict[bytes, int]] = defaultdict(dict)
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + _SLICE) + 1 or len(data)
        words = data[at:end].split()
        for token, rank in zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True):
            ranks[len(token)][token] = rank
        at = end
        make_way()
    return _ByLength(ranks)


def _folders() -> Iterator[Path]:
    """Where vocabularies may lie: LiteLLM's wheel, tiktoken's cache. Finding a package does not import it."""
    spec = find_spec("litellm")
    for place in (spec.submodule_search_locations if spec else None) or ():
        yield Path(place) / "litellm_core_utils" / "tokenizers"
    if cached := os.environ.get("TIKTOKEN_CACHE_DIR"):
        yield Path(cached)
