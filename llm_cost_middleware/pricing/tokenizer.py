"""Exact token counts with OpenAI's public vocabularies, offline.

tiktoken downloads its vocabularies on first use; no wheel but LiteLLM's contains them, under the names of tiktoken's
cache. They are read from there without importing LiteLLM, or from the folder that ``TIKTOKEN_CACHE_DIR`` names, and
never from the network.
"""

from __future__ import annotations

import hashlib
import os
from binascii import a2b_base64
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.pricing.bound import (
    PROVIDER_TOOL_TOKENS,
    REQUEST_OVERHEAD,
    TOOL_EXPANSION,
    TOOL_OVERHEAD,
)
from llm_cost_middleware.pricing.framing import SCHEMA_PERCENT, close_overhead, shown_tools
from llm_cost_middleware.request import CallRequest

if TYPE_CHECKING:
    from tiktoken import Encoding

_BLOCK_OVERHEAD = 8
_CALL_OVERHEAD = 16
"""Tokens added to a tool call or its result, beside the block's."""
_TOOL_INSTRUCTIONS = 600
"""Hidden instructions of a request with tools: 500 were measured."""
_WORTH_KEEPING = 512
"""Characters from which on a count is remembered."""
_SLICE = 32_768
"""Bytes of a vocabulary that are read at a time."""
_loaded: set[str] = set()


class _Countable(NamedTuple):
    """What a count is made of: tokens that need no vocabulary, and texts with how often each one's tokens count."""

    overhead: int
    texts: Sequence[str]
    definitions: Sequence[str]
    """Texts whose tokens count ``TOOL_EXPANSION`` times."""


def count_tokens(request: CallRequest, encoding: str | None) -> int | None:
    """Count the input tokens of a request by a public vocabulary: text exactly, overhead at its maximum.

    Takes about 80 µs per KB of text, and a second on the first use of a vocabulary: above 50 KB, off the event loop.

    Args:
        request: The request.
        encoding: ``ModelLimits.encoding`` of the model.

    Returns:
        The count, never below what is billed; ``None`` if the model's vocabulary is not public or not installed, or
        the request has content that is not text.
    """
    vocabulary, found = _vocabulary(encoding), _countable(request)
    if vocabulary is None or found is None:
        return None
    plain = sum(_count(vocabulary, text) for text in found.texts)
    return found.overhead + plain + TOOL_EXPANSION * sum(_count(vocabulary, text) for text in found.definitions)


def is_countable(request: CallRequest) -> bool:
    """Return whether a request has nothing but text, so that a vocabulary can count it."""
    if request.has_server_side_context or request.server_tools:
        return False
    odd = request.contents.odd_parts
    return not odd or not any(part.nested or part.kind in ("image", "document", "audio", "thinking") for part in odd)


def _countable(request: CallRequest) -> _Countable | None:
    if not is_countable(request):
        return None
    counts = request.contents
    if request.endpoint == "embeddings":  # pieces, and nothing around them
        given = sum(part.media.get("tokens", 0) for message in request.messages for part in message.parts)
        return _Countable(given, counts.texts, ())
    overhead = REQUEST_OVERHEAD + counts.text_blocks * _BLOCK_OVERHEAD + counts.call_blocks * _CALL_OVERHEAD
    definitions = [tool.text for tool in request.tools] if request.tools else []
    if request.output_schema:
        definitions.append(request.output_schema)
    if definitions:
        overhead += _TOOL_INSTRUCTIONS + TOOL_OVERHEAD * len(definitions)
    if request.params:
        overhead += int(request.params.get("provider_tools", 0)) * PROVIDER_TOOL_TOKENS
    return _Countable(overhead, counts.texts, definitions)


class TokenCounter:
    """``count_tokens`` that remembers: tools and the unchanged beginning of a conversation are counted once.

    What is kept of a text is its digest. Safe to share between threads.

    Args:
        keep: Texts to remember, at most; the least recently used go first.
    """

    _lock, _loading = ForkSafeLock(), ForkSafeLock()

    def __init__(self, keep: int = 8_192) -> None:
        self._keep = keep
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._framed: OrderedDict[bytes, tuple[int, int | None]] = OrderedDict()

    def begin(self, request: CallRequest, encoding: str) -> PartialCount | None:
        """Look up what is known of a request; ``None`` if it has content that is not text."""
        found = _countable(request)
        return None if found is None else self._look_up(found, encoding)

    def _look_up(self, found: _Countable, encoding: str) -> PartialCount:
        count, missing, size = found.overhead, [], 0
        for texts, times in ((found.texts, 1), (found.definitions, TOOL_EXPANSION)):
            # Looking up a short text takes as long as counting it.
            digests = [_digest(encoding, text) if len(text) >= _WORTH_KEEPING else b"" for text in texts]
            for text, digest in zip(texts, digests, strict=True):
                known = None
                if digest:
                    with self._lock:
                        known = self._known.get(digest)
                        if known is not None:
                            self._known.move_to_end(digest)
                if known is None:
                    missing.append((digest, text, times))
                    size += len(text)
                else:
                    count += times * known
        return PartialCount(encoding, count, tuple(missing), size)

    def finish(self, partial: PartialCount) -> int | None:
        """Count what is missing; ``None`` if the vocabulary is not installed. Loads it on first use: a second."""
        vocabulary = _vocabulary(partial.encoding)
        if vocabulary is None:
            return None
        total = partial.known
        for digest, text, times in partial.missing:
            count = _count(vocabulary, text)
            total += times * count
            if digest:
                with self._lock:
                    self._known[digest] = count
                    if len(self._known) > self._keep:
                        self._known.popitem(last=False)
        return total

    def load_and_count(self, request: CallRequest, encoding: str) -> int | None:
        """Count a request whose vocabulary may not be loaded yet; ``None`` as for ``count_tokens``."""
        with self._loading:  # a vocabulary takes a second and a hundred megabytes: once, however many threads ask
            warm_up(encoding)
        begun = self.begin(request, encoding)
        return None if begun is None else self.finish(begun)

    def close(self, request: CallRequest, encoding: str, exact: int) -> int | None:
        """Count a request as OpenAI's bills show it: no bound, but close; ``None`` as for ``count_tokens``.

        Args:
            request: The request.
            encoding: Its vocabulary.
            exact: What ``finish`` returned for it: its texts are not counted again.
        """
        found = _countable(request)
        if found is None or request.params.get("provider_tools"):
            return None  # how the provider's own tools are shown is not published
        if request.endpoint == "embeddings":  # nothing is around its pieces, and some are tokens already
            return exact
        definitions = found.definitions
        if not definitions:
            return exact - found.overhead + close_overhead(request)
        key = _digest(encoding, "\0".join((request.model, *definitions)))
        with self._lock:
            known = self._framed.get(key)
        if known is None:
            known = self._frame(request, encoding, definitions)
            with self._lock:
                self._framed[key] = known
                if len(self._framed) > self._keep:
                    self._framed.popitem(last=False)
        expanded, shown = known
        return None if shown is None else exact - found.overhead - expanded + close_overhead(request) + shown

    def _frame(self, request: CallRequest, encoding: str, definitions: Sequence[str]) -> tuple[int, int | None]:
        """Tokens of a request's definitions as ``_countable`` has them, and as they are shown to the model."""
        vocabulary, shown = _vocabulary(encoding), shown_tools(request)
        if vocabulary is None or shown is None:
            return 0, None
        expanded = sum(TOOL_EXPANSION * _count(vocabulary, text) for text in definitions)
        schema = -(-_count(vocabulary, request.output_schema) * SCHEMA_PERCENT // 100)
        return expanded, _count(vocabulary, shown) + schema


class PartialCount(NamedTuple):
    """The count of a request as far as it is known."""

    encoding: str
    known: int
    """Tokens of what was counted before, overhead included."""
    missing: tuple[tuple[bytes, str, int], ...]
    """(digest or nothing, text, how often its tokens count) of each text that is still to be counted."""
    size: int
    """Characters of those texts."""


class ExactCount(Struct, frozen=True):
    """A count that can be made offline."""

    encoding: str
    cheap: bool
    """It takes about a millisecond at most."""
    counter: TokenCounter
    request: CallRequest
    begun: PartialCount | None = None
    """What is known of it; ``None``: nothing was looked up, or, of a cheap one, it cannot be counted."""

    def make(self) -> int | None:
        """Count; ``None`` where that cannot be done."""
        if self.begun is not None:
            return self.counter.finish(self.begun)
        return None if self.cheap else self.counter.load_and_count(self.request, self.encoding)


def _digest(encoding: str, text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=encoding.encode()).digest()


def warm_up(encoding: str | None) -> bool:
    """Load a vocabulary ahead of its first use. Return whether it is installed."""
    found = _vocabulary(encoding) is not None
    if encoding is not None:
        _loaded.add(encoding)
    return found


def is_loaded(encoding: str | None) -> bool:
    """Return whether ``warm_up`` was done, so that a count takes no longer than its text."""
    return encoding in _loaded


def _count(vocabulary: Encoding, text: str) -> int:
    # A caller's text may contain "<|endoftext|>"; ``encode`` would raise for it.
    return len(vocabulary.encode_ordinary(text))


@cache
def _vocabulary(name: str | None) -> Encoding | None:
    """Return the tokenizer of a vocabulary; ``None`` if tiktoken or the vocabulary is not installed."""
    if name is None or find_spec("tiktoken") is None:
        return None
    import tiktoken
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # a namespace package without stubs

    recipe = openai_public.ENCODING_CONSTRUCTORS.get(name)
    if recipe is None:
        return None

    def from_wheel(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
        # Same contract as tiktoken's loader, which would read the network and environment variables.
        file = hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()
        for folder in _folders():
            with suppress(OSError):
                data = (folder / file).read_bytes()
                if expected_hash is None or hashlib.sha256(data).hexdigest() == expected_hash:
                    return _ranks(data)
        raise FileNotFoundError(f"{address}: in no folder, or another file")

    # tiktoken has no parameter for the loader: run its recipe with the global name replaced, on a copy.
    offline = FunctionType(recipe.__code__, {**recipe.__globals__, "load_tiktoken_bpe": from_wheel}, name)
    try:
        return tiktoken.Encoding(**offline())
    except FileNotFoundError:
        return None


def _ranks(data: bytes) -> dict[bytes, int]:
    """The lines of a vocabulary, a millisecond of them at a time: between two, other threads get their turn."""
    ranks: dict[bytes, int] = {}
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + _SLICE) + 1 or len(data)
        words = data[at:end].split()
        ranks.update(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
        at = end
    return ranks


def _folders() -> Iterator[Path]:
    """Where vocabularies may lie: LiteLLM's wheel, tiktoken's cache. Finding a package does not import it."""
    spec = find_spec("litellm")
    for place in (spec.submodule_search_locations if spec else None) or ():
        yield Path(place) / "litellm_core_utils" / "tokenizers"
    if cached := os.environ.get("TIKTOKEN_CACHE_DIR"):
        yield Path(cached)
