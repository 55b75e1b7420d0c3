"""OpenAI's public vocabularies, offline, and exact counts of texts by them.

tiktoken downloads its vocabularies on first use; no wheel but LiteLLM's contains them, under the names of tiktoken's
cache. They are read from there without importing LiteLLM, or from the folder that ``TIKTOKEN_CACHE_DIR`` names, and
never from the network.

tiktoken's table of a vocabulary is built in one step of 160 ms that keeps the interpreter's lock, so that every event
loop of the process stands still, and takes a hundred megabytes. Texts are counted without it, by the same rule, until
that has cost as much, or one has letters that are newer than this Python: few processes ever come to it.
"""

from __future__ import annotations

import hashlib
import os
from binascii import a2b_base64
from collections import Counter
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
"""Pieces whose count is remembered."""
_WORTH_A_TABLE = 65_536
"""Bytes merged one by one: about what tiktoken's table costs to build."""
_BY_HAND, _WITHOUT_WORDS, _LONG_WORD = 3, 32, 16
"""How many times as long a text takes without tiktoken's table, and one whose words are longer than this on average."""
_TABLE = 1_000_000
"""How long a text takes that needs the table."""
_whole = itemgetter(0)


class Vocabulary:
    """One vocabulary. Its counts are those of tiktoken's ``encode_ordinary``. Safe to share between threads.

    Args:
        recipe: What tiktoken's ``Encoding`` is made of.
    """

    _lock = ForkSafeLock()

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        import regex  # type: ignore[import-untyped]  # tiktoken needs it, and it has no stubs

        self._recipe: Mapping[str, Any] | None = recipe
        self._ranks: Mapping[bytes, int] = recipe["mergeable_ranks"]
        self._pieces, self._symbol = regex.compile(recipe["pat_str"]), regex.compile(r"\p{S}")
        self._known: dict[int, int] = {}  # by the hash of a piece, which a key of the process is in: no text is kept
        self._merged = 0
        self._table: Encoding | None = None

    def effort(self, text: str) -> int:
        """How long a text takes to count: 16,000 are a millisecond or two; many more where it has no words."""
        if self._table is not None:
            return len(text)
        if self._is_new(text):
            return _TABLE
        words = text.count(" ") + text.count('"')
        return len(text) * (_BY_HAND if words * _LONG_WORD > len(text) else _WITHOUT_WORDS)

    @property
    def is_due(self) -> bool:
        """Whether counting has cost so much that a table pays: ``build_if_due``, off the event loop."""
        return self._table is None and self._merged >= _WORTH_A_TABLE

    def build_if_due(self) -> None:
        """Build tiktoken's table where it pays: counts are faster from then on, much so of text without spaces."""
        if self.is_due:
            self._build()

    def count(self, text: str) -> int:
        """Return the tokens of a text; what looks like a special token in it is text."""
        ranks, known, table = self._ranks, self._known, self._table  # the table last: where it is none, the others are
        if not text.isascii():
            text = _without_halves(text)
        if table is None and self._is_new(text):
            table = self._build()
        if table is not None:
            return len(table.encode_ordinary(text))
        found, often = map(_whole, self._pieces.finditer(text)), Counter[str]()
        while some := list(islice(found, _PIECES)):
            often.update(some)
        total = 0
        for piece, times in often.items():
            data, count = piece.encode(), 1
            if data not in ranks:
                key = hash(data)
                count = known.get(key) or _merge(data, ranks)
                if key not in known:
                    self._merged += len(data)
                    if len(known) >= _KNOWN:
                        known.clear()
                    known[key] = count
            total += times * count
        return total

    def _is_new(self, text: str) -> bool:
        """Whether a text has letters that are newer than this Python: ``regex`` and tiktoken may differ."""
        return not text.isascii() and any(
            category(one) == "Cn" and self._symbol.match(one) is None for one in set(text)
        )

    def _build(self) -> Encoding:
        import tiktoken

        with self._lock:
            if self._table is None and self._recipe is not None:
                self._table = tiktoken.Encoding(**self._recipe)
                self._recipe, self._ranks, self._known = None, {}, {}
        assert self._table is not None  # noqa: S101 - the recipe is there until the table is
        return self._table


def _without_halves(text: str) -> str:
    """A text with a sign for each half of a character, as tiktoken counts it. Strings that were cut have some."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _merge(piece: bytes, ranks: Mapping[bytes, int]) -> int:
    """Return the tokens of a piece: of all neighbours, those of the lowest rank become one, until none has a rank."""
    size, rank_of = len(piece), ranks.get
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
            if (rank := rank_of(piece[start : after[end]])) is not None:
                heappush(pairs, (rank, start, after[end]))
        if start and (rank := rank_of(piece[before[start] : end])) is not None:
            heappush(pairs, (rank, before[start], end))
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
    if recipe is None:
        return None
    import tiktoken

    return tiktoken.Encoding(**recipe)


def _recipe(name: str) -> Mapping[str, Any] | None:
    if find_spec("tiktoken") is None:
        return None
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # a namespace package without stubs

    made = openai_public.ENCODING_CONSTRUCTORS.get(name)
    if made is None:
        return None

    def from_wheel(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
        # Same contract as tiktoken's loader, which would read the network and environment variables.
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


def _read_ranks(data: bytes) -> dict[bytes, int]:
    """The lines of a vocabulary, a millisecond of them at a time: between two, other threads get their turn."""
    ranks: dict[bytes, int] = {}
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + _SLICE) + 1 or len(data)
        words = data[at:end].split()
        ranks.update(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
        at = end
        make_way()
    return ranks


def _folders() -> Iterator[Path]:
    """Where vocabularies may lie: LiteLLM's wheel, tiktoken's cache. Finding a package does not import it."""
    spec = find_spec("litellm")
    for place in (spec.submodule_search_locations if spec else None) or ():
        yield Path(place) / "litellm_core_utils" / "tokenizers"
    if cached := os.environ.get("TIKTOKEN_CACHE_DIR"):
        yield Path(cached)
