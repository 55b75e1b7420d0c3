"""Exact token counts of requests, offline, with OpenAI's public vocabularies (``pricing.vocabulary``)."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from llm_cost_middleware.fork import ForkSafeLock
from llm_cost_middleware.pricing.bound import (
    PROVIDER_TOOL_TOKENS,
    REQUEST_OVERHEAD,
    TOOL_EXPANSION,
    TOOL_OVERHEAD,
)
from llm_cost_middleware.pricing.framing import SCHEMA_PERCENT, close_overhead, shown_tools
from llm_cost_middleware.pricing.vocabulary import Vocabulary, find_vocabulary
from llm_cost_middleware.request import CallRequest

_BLOCK_OVERHEAD = 8
_CALL_OVERHEAD = 16
"""Tokens added to a tool call or its result, beside the block's."""
_TOOL_INSTRUCTIONS = 600
"""Hidden instructions of a request with tools: 500 were measured."""
_WORTH_KEEPING = 512
"""Characters from which on a count is remembered."""
_loaded: dict[str | None, Vocabulary | None] = {}


class _Countable(NamedTuple):
    """What a count is made of: tokens that need no vocabulary, and texts with how often each one's tokens count."""

    overhead: int
    texts: Sequence[str]
    definitions: Sequence[str]
    """Texts whose tokens count ``TOOL_EXPANSION`` times."""


def count_tokens(request: CallRequest, encoding: str | None) -> int | None:
    """Count the input tokens of a request by a public vocabulary: text exactly, overhead at its maximum.

    Takes about 0.2 ms per KB of English text, 1 ms of text without spaces, and 0.1 s on the first use of a
    vocabulary: off the event loop.

    Args:
        request: The request.
        encoding: ``ModelLimits.encoding`` of the model.

    Returns:
        The count, never below what is billed; ``None`` if the model's vocabulary is not public or not installed, or
        the request has content that is not text.
    """
    vocabulary, found = find_vocabulary(encoding), _countable(request)
    if vocabulary is None or found is None:
        return None
    plain = sum(vocabulary.count(text) for text in found.texts)
    return found.overhead + plain + TOOL_EXPANSION * sum(vocabulary.count(text) for text in found.definitions)


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
        count, missing, effort, vocabulary = found.overhead, [], 0, find_vocabulary(encoding)
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
                    effort += vocabulary.effort(text) if vocabulary is not None else 0
                else:
                    count += times * known
        return PartialCount(encoding, count, tuple(missing), effort)

    def finish(self, partial: PartialCount) -> int | None:
        """Count what is missing; ``None`` if the vocabulary is not installed. Loads it on first use."""
        vocabulary = find_vocabulary(partial.encoding)
        if vocabulary is None:
            return None
        total = partial.known
        for digest, text, times in partial.missing:
            count = vocabulary.count(text)
            total += times * count
            if digest:
                with self._lock:
                    self._known[digest] = count
                    if len(self._known) > self._keep:
                        self._known.popitem(last=False)
        return total

    def load_and_count(self, request: CallRequest, encoding: str) -> int | None:
        """Count a request whose vocabulary may not be loaded yet; ``None`` as for ``count_tokens``."""
        with self._loading:  # a vocabulary takes time and memory: once, however many threads ask
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
        vocabulary, shown = find_vocabulary(encoding), shown_tools(request)
        if vocabulary is None or shown is None:
            return 0, None
        expanded = sum(TOOL_EXPANSION * vocabulary.count(text) for text in definitions)
        schema = -(-vocabulary.count(request.output_schema) * SCHEMA_PERCENT // 100)
        return expanded, vocabulary.count(shown) + schema


class PartialCount(NamedTuple):
    """The count of a request as far as it is known."""

    encoding: str
    known: int
    """Tokens of what was counted before, overhead included."""
    missing: tuple[tuple[bytes, str, int], ...]
    """(digest or nothing, text, how often its tokens count) of each text that is still to be counted."""
    effort: int
    """How long those texts take to count: ``Vocabulary.effort``."""


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
    """Load a vocabulary ahead of its first use, and what makes counting faster where that pays. Is it installed?"""
    found = find_vocabulary(encoding)
    if found is not None:
        found.build_if_due()
    _loaded[encoding] = found
    return found is not None


def is_loaded(encoding: str | None) -> bool:
    """Return whether ``warm_up`` was done, and has nothing new to do, so that a count takes no longer than its text."""
    found = _loaded.get(encoding)
    return encoding in _loaded if found is None else not found.is_due
