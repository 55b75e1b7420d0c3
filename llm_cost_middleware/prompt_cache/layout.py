"""PromptLayout of a prompt for caching: a byte-exact prefix with the boundaries at which it can be cut.

Providers hash a prompt in the order tools, system, messages. A ``Boundary`` is a position in that order where a cached
prefix may usefully end: the last tool, every system block, the blocks of the first turn, and the last block of each of
the caller's latest turns (where earlier requests of the same conversation ended), and the latest answer where it is
plain text: examples are sent as turns before every question, and end in one. Other answers are never cut: hosts rebuild
assistant blocks and lose marks on them.

Fingerprints tell everything up to a boundary apart, the parameters that invalidate a cache included. No text is kept.
Those of tools, system and first turn are digests, the same in every process: keys that are sent are made of them. So
are those of later turns where processes share what they learn; elsewhere what the request's contents tell will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct

from llm_cost_middleware.contents import ATTACHED, Columns
from llm_cost_middleware.prompt_cache import digests
from llm_cost_middleware.prompt_cache.digests import Boundary, CallersMark, Digested
from llm_cost_middleware.prompt_cache.listed_tools import listed_tools
from llm_cost_middleware.prompt_cache.turn_ends import PromptStage, is_markable, last_markable, plain_answer, stage_of
from llm_cost_middleware.request import BlockRef, CallRequest, Endpoint, Message, Part, Section

TOKENS_PER_BYTE = 0.25
"""Usual density of English text and JSON, until the model's own is known."""

_SHORTEST = 512
"""Shortest prefix, in tokens, that any model caches. Text of fewer characters is not worth a digest."""
_SYSTEM_PARAMS = ("speed", "inference_geo")
_MESSAGE_PARAMS = ("tool_choice", "thinking", "reasoning_effort", "effort", "reasoning")
"""Parameters whose change invalidates system and messages, or messages alone (Anthropic, "Prompt caching")."""
SALTING_PARAMS = (*_SYSTEM_PARAMS, *_MESSAGE_PARAMS)
_ATTACHMENT_BYTES = 4_800
"""Weight of an image or a page in bytes of text: about 1,200 tokens."""
_BLOCKS_CUT, _MARKS_ALONE = 8, -1
"""Blocks of a message after each of which it is cut, beside its end; or only where the caller set a mark."""
_TURNS_CUT = 4
"""Latest turns that end in a boundary: enough to find the entry of a model that was not used for a few turns."""


class PromptLayout(Struct, frozen=True):
    """Boundaries of one request, in the order of the prompt."""

    boundaries: tuple[Boundary, ...]
    head: int
    """Number of boundaries in tools and system."""
    first_turn: int
    """Number of boundaries before the first answer."""
    previous: int | None
    """Boundary at which the previous request of this conversation ended, by the request's structure."""
    stage: PromptStage
    turns: int
    """Earlier requests of this conversation, by its structure."""
    previous_stage: PromptStage
    """Stage of the previous one of them."""
    size: int
    """UTF-8 bytes of the whole prompt."""
    tokens: int
    """Estimated tokens of the whole prompt."""
    tokens_per_byte: float
    endpoint: Endpoint
    params: Mapping[str, Any]
    """Parameters of the request, among them ``cache_control``, ``prompt_cache_key``, ``prompt_cache_options``."""
    answer: int | None = None
    """Boundary at which the latest answer ends."""
    callers: tuple[CallersMark, ...] = ()
    """All marks of the caller's on blocks, those inside tool results and on server tools included, in their order."""

    @property
    def root(self) -> int | None:
        """Boundary at which what tells traffic apart ends: the head, else the first turn; ``None`` without either."""
        return (self.head or self.first_turn) - 1 if self.head or self.first_turn else None

    @property
    def traffic_key(self) -> bytes:
        """Fingerprint of the traffic this request belongs to: of its head, else of its first turn."""
        return b"" if self.root is None else self.boundaries[self.root].fingerprint

    @property
    def conversation_key(self) -> bytes:
        """Fingerprint up to the first turn: constant through a conversation."""
        return self.boundaries[self.first_turn - 1].fingerprint if self.first_turn else b""


def read_layout(request: CallRequest, *, tokens_per_byte: float = TOKENS_PER_BYTE, shared: bool = True) -> PromptLayout:
    """Read the boundaries of ``request``.

    Args:
        request: The request; it is not changed.
        tokens_per_byte: Density of the model's tokens.
        shared: Other processes know its fingerprints; otherwise those behind the first turn are of this one alone.

    Returns:
        The layout, without boundaries if the whole text is too short for any model's cache.
    """
    if _is_short(request):
        return PromptLayout(
            (), 0, 0, None, "first", 0, "first", 0, 0, tokens_per_byte, request.endpoint, request.params
        )
    return _Reader(request, tokens_per_byte, shared=shared).read()


def _is_short(request: CallRequest) -> bool:
    contents = request.contents
    length = contents.characters + contents.tool_characters + len(request.output_schema)
    return length < _SHORTEST and not contents.attached


class _Reader:
    """Single pass over a request: collects text in runs, and hashes and cuts only at boundaries."""

    __slots__ = (
        "answer", "base", "boundaries", "callers", "density", "digest", "head", "number", "own", "request", "run",
        "shared", "size",
    )  # fmt: skip

    def __init__(self, request: CallRequest, density: float, *, shared: bool) -> None:
        self.request = request
        self.density = density
        self.shared = shared
        self.own: bytes | None = None
        """Digest of what lies before the turns whose fingerprints are of this process alone, once they are reached."""
        self.digest = sha256()  # processors have instructions for it: the fastest digest of the standard library
        self.run: list[str] = []
        self.size = 0
        self.number = -1
        self.answer: int | None = None
        self.head = 0
        self.base: int | None = None
        """What tells the prompt without its messages apart, where its beginnings are kept."""
        self.boundaries: list[Boundary] = []
        self.callers: list[CallersMark] = []

    def read(self) -> PromptLayout:
        request, messages, boundaries = self.request, self.request.messages, self.boundaries
        contents = request.contents
        systems = contents.systems
        turns = messages[systems:] if systems else messages
        # Requests ended at the caller's messages that an answer follows, and at the caller's last.
        ends = [at - systems for at in contents.asked if at >= systems]
        if turns and not contents.begins_answer:
            ends.append(len(turns) - 1)
        first_end = ends[0] if ends else -1
        self._beginning(turns, first_end)
        head, first_turn = self.head, len(boundaries)
        previous = first_turn - 1 if len(ends) > 1 and first_turn > head else None
        if first_end + 1 < len(turns):
            before_last = self._later_turns(turns, first_end + 1, ends)
            previous = before_last if before_last is not None else previous
        self._flush()
        return PromptLayout(
            boundaries=tuple(boundaries),
            head=head,
            first_turn=first_turn,
            previous=previous,
            stage=stage_of(turns, ends, tools=bool(request.tools)),
            turns=max(len(ends) - 1, 0),
            previous_stage=stage_of(turns, ends[:-1], tools=bool(request.tools)),
            size=self.size,
            tokens=int(self.size * self.density),
            tokens_per_byte=self.density,
            endpoint=request.endpoint,
            params=request.params,
            answer=self.answer,
            callers=tuple(self.callers),
        )

    def _beginning(self, turns: Sequence[Message], first_end: int) -> None:
        """Add tools, instructions and the first turn, as far as no earlier request has begun with them."""
        request, prefixes, systems = self.request, self.request.contents.prefixes, self.request.contents.systems
        salts = (self._salt(_SYSTEM_PARAMS), self._salt(_MESSAGE_PARAMS)) if request.params else ("", "")
        self.base = digests.begins_with(request, self.density, salts)
        if first_end >= 0 and self._goes_on(prefixes[systems + first_end]):
            return
        told = prefixes[systems - 1] if systems else 0
        if not self._goes_on(told):
            self._tools()
            self.run += salts[:1] if salts[0] else ()
            for at in range(systems):
                self._cut_message("system", request.messages, at)
            self.head = len(self.boundaries)
            if self.head:
                self._keep(told, 0)
        self.run += (salts[1], request.output_schema) if salts[1] else (request.output_schema,)
        for at in range(first_end + 1):
            self._cut_message("messages", turns, at)
        if first_end >= 0:
            self._keep(prefixes[systems + first_end], 0)

    def _goes_on(self, told: int) -> bool:
        """Go on from a beginning that was read before. Return whether it is known."""
        found = digests.known(self.base, told)
        if found is None:
            return False
        self.digest, self.size, self.number, self.head = found.digest.copy(), found.size, found.number, found.head
        self.boundaries += found.boundaries
        self.callers += found.callers
        self.run[:] = ("",)
        return True

    def _keep(self, told: int, begin: int) -> None:
        """Keep what was read so far, with the boundaries from ``begin`` on."""
        if self.base is not None:
            size, callers = self._flush(), () if begin else tuple(self.callers)
            boundaries = tuple(self.boundaries[begin:])
            found = Digested(self.digest.copy(), size, self.number, self.head, boundaries, callers)
            digests.keep(self.base, told, found)

    def _tools(self) -> None:
        if not self.request.tools and not self.request.server_tools:
            return
        listed = listed_tools(self.request)
        last = max((at for at, each in enumerate(listed) if each.markable), default=-1)
        for at, tool in enumerate(listed):
            self.number += 1
            self.run.append(tool.text)
            if tool.mark or at == last:
                self._cut(BlockRef("tools", 0, tool.place), tool.mark, markable=tool.markable)

    def _cut_message(self, section: Section, messages: Sequence[Message], at: int) -> None:
        """Add a message at the beginning of a prompt, cut after its first blocks where it is no answer."""
        if not isinstance(messages, Columns):
            message = messages[at]
            self._message(section, at, message, cut=_BLOCKS_CUT if message.role != "assistant" else 0)
            return
        role, text = messages.roles[at], messages.texts[at]
        self.number += 1
        self.run += (role, text)
        if role != "assistant" and text.strip():
            self._cut(BlockRef(section, at, 0), None)

    def _message(self, section: Section, at: int, message: Message, *, cut: int) -> None:
        """Add a message and cut it after its first blocks, its last one, and marked ones."""
        parts = message.parts
        self.run.append(message.role)
        last = len(parts) - 1 if cut > 0 else -1
        for block, part in enumerate(parts):
            self.number += 1
            self.run.append(part.text)
            if part.nested or part.kind in ATTACHED:
                self._attach(part.kind, part.media, part.nested)
            markable = bool(cut) and is_markable(part)
            inner = part.inner_marks
            if part.cache_ttl or inner or (markable and (block < cut or block == last)):
                self._cut(BlockRef(section, at, block), part.cache_ttl, inner, markable=markable)

    def _later_turns(self, turns: Sequence[Message], begin: int, ends: list[int]) -> int | None:
        """Add the messages after the first turn, cut at the ends of the latest turns.

        Returns:
            The boundary at which the turn before the last ended.
        """
        found = None
        if not self.shared:
            self._flush()
            self.own = self.digest.digest()[:16]
        cut_ends, before_last = ends[1:][-_TURNS_CUT:], ends[-2] if len(ends) > 1 else -1
        answer = plain_answer(self.request, turns, ends)
        prefixes, goes_on = self.request.contents.prefixes[self.request.contents.systems :], self.shared
        for stop in sorted({*cut_ends, answer, len(turns) - 1}):
            if stop < begin:  # no plain answer
                continue
            goes_on = goes_on and self._goes_on(prefixes[stop])
            if not goes_on:
                self._turns(turns, begin, stop + 1)
                last = last_markable(turns, stop)
                if last >= 0 and (stop == answer or stop in cut_ends):
                    self._cut(BlockRef("messages", stop, last), None)
                    if stop == answer:
                        self.answer = len(self.boundaries) - 1
                    elif self.shared:
                        self._keep(prefixes[stop], len(self.boundaries) - 1)
            begin = stop + 1
            if stop == before_last and self.boundaries and _ends_at(self.boundaries[-1].ref, stop):
                found = len(self.boundaries) - 1
        return found

    def _turns(self, turns: Sequence[Message], begin: int, end: int) -> None:
        """Add messages, cut where the caller set a mark alone."""
        contents, add = self.request.contents, self.run.append
        if isinstance(turns, Columns):
            self.number += end - begin
            pieces = [""] * (2 * (end - begin))
            pieces[::2], pieces[1::2] = turns.roles[begin:end], turns.texts[begin:end]
            self.run += pieces
        elif contents.marked or contents.attached:
            for at in range(begin, end):
                self._message("messages", at, turns[at], cut=_MARKS_ALONE if turns[at].role != "assistant" else 0)
        else:
            # Kept flat: it runs once per block of the whole conversation, on every call.
            for message in turns[begin:end]:
                add(message.role)
                self.number += len(message.parts)
                for part in message.parts:
                    add(part.text)

    def _attach(self, kind: str, detail: Mapping[str, Any], inner: tuple[Part, ...]) -> None:
        """Add attachments and nested blocks. Blocks inside a block are not counted by themselves."""
        if kind in ATTACHED:
            self.run.append(repr(sorted(detail.items())))
            self.size += _ATTACHMENT_BYTES
        for part in inner:
            self.run.append(part.text)
            self._attach(part.kind, part.media, part.nested)

    def _salt(self, names: tuple[str, ...]) -> str:
        """Return the parameters whose change invalidates everything behind them."""
        values = [self.request.params.get(name) for name in names]
        # None of them is the same as no parameters at all: others do not tell prefixes apart.
        return repr(values) if any(value is not None for value in values) else ""

    def _flush(self) -> int:
        """Hash what was collected; return the bytes of the prompt up to here."""
        # NUL between the pieces, so that ("ab", "c") and ("a", "bc") have different digests.
        text = "\x00".join(self.run)
        if self.own is None:
            data = text.encode("utf-8", "surrogatepass")
            self.digest.update(data)
            length = len(data)
        else:
            length = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        self.size = size = self.size + length
        self.run[:] = ("",)
        return size

    def _fingerprint(self, ref: BlockRef) -> bytes:
        if self.own is None:
            return self.digest.digest()[:16]
        prefixes, at = self.request.contents.prefixes, self.request.contents.systems + ref.message
        told = prefixes[at]
        # Without a mark of the caller's, a later message is cut at its end alone.
        parts = self.request.messages[at].parts if self.request.contents.marked else ()
        if ref.block < len(parts) - 1:
            blocks = parts[: ref.block + 1]
            told = hash((prefixes[at - 1], *((part.text, repr((part.media, part.nested))) for part in blocks)))
        return hash((self.own, told)).to_bytes(8, "big", signed=True)

    def _cut(self, ref: BlockRef, mark: str | None, inner: tuple[str, ...] = (), *, markable: bool = True) -> None:
        size = self._flush()
        if mark or inner:
            self.callers.extend(CallersMark(self.number, each) for each in inner)
            if mark:
                self.callers.append(CallersMark(self.number, mark))
            mark = mark or inner[-1]  # a mark inside a block makes it readable all but as one on the block does
        tokens, prefix = int(size * self.density), self._fingerprint(ref)
        self.boundaries.append(Boundary(ref, self.number, size, tokens, prefix, mark, markable))


def _ends_at(ref: BlockRef, turn: int) -> bool:
    return ref.section == "messages" and ref.message == turn


def tracked_boundaries(layout: PromptLayout) -> list[int]:
    """Return the boundaries whose reuse is counted: up to the first answer, the previous request's end, this one's."""
    last = len(layout.boundaries) - 1
    found = list(range(min(layout.first_turn, last + 1)))
    if layout.previous is not None and layout.previous >= layout.first_turn:
        found.append(layout.previous)
    if last >= layout.first_turn and last != layout.previous:
        found.append(last)
    return found
