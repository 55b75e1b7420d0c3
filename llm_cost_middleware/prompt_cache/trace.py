"""Trace of a call for the cache report: fingerprints of its prompt's segments, its usage, its money.

Two fingerprints where text usually stays the same (tools, system, first turn): of the text, and of its *shape*, the
text with numbers, dates and ids blanked out. Equal shapes with different texts indicate a timestamp or a counter. Never
any text, never a tool's name.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.prompt_cache.layout import SALTING_PARAMS
from llm_cost_middleware.prompt_cache.listed_tools import listed_tools
from llm_cost_middleware.prompt_cache.plan import CachePlan
from llm_cost_middleware.request import CallRequest, ModelRef, Part
from llm_cost_middleware.usage import TokenUsage

KIND = "cache"
"""Kind of a trace in a journal."""

_VOLATILE = re.compile(
    r"\b(?=[0-9a-f-]*\d)[0-9a-f]{8}[0-9a-f-]*\b|\d+"
    r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day\b"
    r"|\b(?:am|pm|morning|afternoon|evening|night)\b",
    re.IGNORECASE,
)
_MOST_SEGMENTS = 256
_SHAPES_KEPT = 1_024


class Segment(NamedTuple):
    """Piece of a prompt."""

    place: str
    """Position, such as ``tool 3``, ``system 0``, ``message 4.1`` (message, block)."""
    kind: str
    fingerprint: str
    shape: str
    """Fingerprint of the shape; empty behind the first answer."""
    size: int
    """UTF-8 bytes."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Trace of an answered call."""

    at: float
    target: ModelRef
    params: tuple[tuple[str, str], ...]
    """Fingerprints of the parameters that invalidate a cache."""
    segments: tuple[Segment, ...]
    input_tokens: int
    read_tokens: int
    written_tokens: int
    saved_nanousd: NanoUSD
    """Saving of reads against uncached input."""
    paid_nanousd: NanoUSD
    """Cost of writes beyond uncached input."""
    call_id: str = field(default="", compare=False)
    site: str = ""
    """Call site."""
    expected_tokens: int = 0
    """Tokens that the plan expected to read."""
    lifetime_s: int = 0
    """Lifetime of the entry that it expected to read them from; 0: not known."""

    def encode(self) -> bytes:
        """Return the trace as versioned JSON."""
        money = [int(self.saved_nanousd), int(self.paid_nanousd)]
        tokens = [self.input_tokens, self.read_tokens, self.written_tokens]
        value = {"v": 1, "t": self.target, "p": self.params, "n": tokens, "m": money, "s": self.segments}
        value |= {"c": self.site, "w": self.expected_tokens, "l": self.lifetime_s}
        return json.dumps(value, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes, *, at: float, call_id: str = "") -> Trace:
        """Read a trace that ``encode`` wrote.

        Raises:
            ValueError: Unknown version.
        """
        value = json.loads(data)
        if not isinstance(value, dict) or value.get("v") != 1:
            raise ValueError("a cache trace of an unknown version")
        (inputs, read, written), (saved, paid) = value["n"], value["m"]
        return cls(
            at,
            ModelRef(*value["t"]),
            tuple((name, mark) for name, mark in value["p"]),
            tuple(Segment(*each) for each in value["s"]),
            inputs,
            read,
            written,
            NanoUSD(saved),
            NanoUSD(paid),
            call_id,
            str(value.get("c", "")),
            int(value.get("w", 0)),
            int(value.get("l", 0)),
        )


class Tracer:
    """Maker of traces. Mutable: it caches shapes by the fingerprint of their text; its owner holds the lock."""

    def __init__(self) -> None:
        self._shapes: OrderedDict[str, str] = OrderedDict()

    def trace(
        self,
        request: CallRequest,
        target: ModelRef,
        plan: CachePlan,
        usage: TokenUsage,
        *,
        at: float,
        call_id: str = "",
        site: str = "",
    ) -> Trace:
        """Return the trace of an answered call.

        Args:
            request: The request; nothing of its text is kept.
            target: The model that answered.
            plan: The cache plan it was sent with; without prices, no money is counted.
            usage: Its usage.
            at: Seconds since the Unix epoch.
            call_id: Id of the call.
            site: Its call site.
        """
        prices = plan.prices
        saved = prices.read_saving(usage.cache_read) if prices else 0
        params = [(name, _fingerprint(repr(request.params[name]))) for name in SALTING_PARAMS if name in request.params]
        if request.output_schema:
            params.append(("output schema", _fingerprint(request.output_schema)))
        return Trace(
            at,
            target,
            tuple(params),
            tuple(self._segments(request)),
            usage.input_tokens,
            usage.cache_read,
            usage.cache_write,
            NanoUSD(saved),
            NanoUSD(saved - prices.saving(usage) if prices else 0),
            call_id,
            site,
            plan.warm,
            int(plan.warm_s),
        )

    def _segments(self, request: CallRequest) -> Iterator[Segment]:
        left = _MOST_SEGMENTS
        # What is deferred is not in the prompt; what the provider runs itself is.
        for at, tool in enumerate(listed_tools(request)):
            yield self._segment(f"tool {at}", Part("other", tool.text), stable=True)
        counts = {"system": 0, "message": 0}
        answered = False
        for message in request.messages:
            section = "system" if message.role == "system" else "message"
            answered = answered or message.role == "assistant"
            for block, part in enumerate(message.parts):
                place = f"{section} {counts[section]}" + (f".{block}" if len(message.parts) > 1 else "")
                yield self._segment(place, part, stable=not answered)
                left -= 1
                if not left:
                    return
            counts[section] += 1

    def _segment(self, place: str, part: Part, *, stable: bool) -> Segment:
        attached = part.kind not in ("text", "tool_use", "tool_result", "thinking", "other")
        text = f"{part.text}\0{sorted(part.media.items())}" if attached else part.text
        digest = _fingerprint(text)
        # No shape behind the first answer: texts differ there anyway, so that equal shapes would mean nothing.
        return Segment(place, part.kind, digest, self._shape(digest, text) if stable else "", len(text.encode()))

    def _shape(self, digest: str, text: str) -> str:
        # Cached: the expression below takes longer than the digest, and the same system prompt returns every call.
        shape = self._shapes.get(digest)
        if shape is None:
            shape = self._shapes[digest] = _fingerprint(_VOLATILE.sub("0", text))
            if len(self._shapes) > _SHAPES_KEPT:
                self._shapes.popitem(last=False)
        return shape


def _fingerprint(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
