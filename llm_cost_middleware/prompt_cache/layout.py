"""PromptLayout of a prompt for caching: a byte-exact prefix with the boundaries at which it can be cut.

Providers hash a prompt in the order tools, system, messages. A ``Boundary`` is a position in that order where a cached
prefix may usefully end: the last tool, every system block, the blocks of the first turn, and the last block of each of
the caller's latest turns (where earlier requests of the same conversation ended), and the latest answer where it is
plain text: examples are sent as turns before every question, and end in one. Other answers are never cut: hosts rebuild
assistant blocks and lose marks on them.

Fingerprints are digests of everything up to a boundary, the parameters that invalidate a cache included. No text is
kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from llm_cost_middleware.named_tuples import made
from llm_cost_middleware.request import BlockRef, CallRequest, Endpoint, Message, Part, Section

PromptStage = Literal["first", "first_with_tools", "chat", "agent"]
"""Position of a request in its conversation: a first turn without tools, a first turn with tools, a later turn of a
person, a later turn with tool results."""

TOKENS_PER_BYTE = 0.25
"""Usual density of English text and JSON, until the model's own is known."""

_SHORTEST = 512
"""Shortest prefix, in tokens, that any model caches. Text of fewer characters is not worth a digest."""
_SYSTEM_PARAMS = ("speed", "inference_geo")
_MESSAGE_PARAMS = ("tool_choice", "thinking", "reasoning_effort", "effort", "reasoning")
"""Parameters whose change invalidates system and messages, or messages alone (Anthropic, "Prompt caching")."""
SALTING_PARAMS = (*_SYSTEM_PARAMS, *_MESSAGE_PARAMS)
_ATTACHED = frozenset({"image", "document", "audio"})
_ATTACHMENT_BYTES = 4_800
"""Weight of an image or a page in bytes of text: about 1,200 tokens."""
_UNMARKABLE = frozenset({"thinking", "other"})
_UNMARKED_TOOLS = ("tool_search_tool", "mcp")
"""Server tools that are left without our marks: they stand for tools that may all be deferred."""
_ANSWERS_MARKED = frozenset({"messages", "chat.completions"})
"""Endpoints at which a mark on the text of an answer stays: LiteLLM hands it on from a chat to Claude."""
_BLOCKS_CUT = 8
"""Blocks of a message after each of which it is cut, beside its end."""
_TURNS_CUT = 4
"""Latest turns that end in a boundary: enough to find the entry of a model that was not used for a few turns."""


class Boundary(NamedTuple):
    """Position where a cached prefix can end."""

    ref: BlockRef
    number: int
    """Number of the block, as a lookback counts blocks."""
    end: int
    """UTF-8 bytes of the prompt up to here."""
    tokens: int
    """Estimated tokens up to here."""
    fingerprint: bytes
    """Digest of the prompt up to here."""
    mark: str | None
    """TTL of the caller's own mark here."""
    markable: bool


class CallersMark(NamedTuple):
    """Cache mark that the caller set on a block."""

    number: int
    """Number of the block that bears it, or that contains the one that does."""
    ttl: str


@dataclass(frozen=True, slots=True)
class PromptLayout:
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


def read_layout(request: CallRequest, *, tokens_per_byte: float = TOKENS_PER_BYTE) -> PromptLayout:
    """Read the boundaries of ``request``.

    Args:
        request: The request; it is not changed.
        tokens_per_byte: Density of the model's tokens.

    Returns:
        The layout, without boundaries if the whole text is too short for any model's cache.
    """
    if _is_short(request):
        return PromptLayout(
            (), 0, 0, None, "first", 0, "first", 0, 0, tokens_per_byte, request.endpoint, request.params
        )
    return _Reader(request, tokens_per_byte).read()


def _is_short(request: CallRequest) -> bool:
    length = len(request.output_schema)
    for tool in request.tools:
        length += len(tool.text)
    for _, parts in request.messages:
        for kind, text, _, _, inner, _ in parts:
            length += len(text)
            if inner or kind in _ATTACHED:
                return False
        if length >= _SHORTEST:
            return False
    return length < _SHORTEST


class _Reader:
    """Single pass over a request: collects text in runs, and hashes and cuts only at boundaries."""

    __slots__ = ("answer", "boundaries", "callers", "density", "digest", "number", "request", "run", "size")

    def __init__(self, request: CallRequest, density: float) -> None:
        self.request = request
        self.density = density
        self.digest = sha256()  # processors have instructions for it: the fastest digest of the standard library
        self.run: list[str] = []
        self.size = 0
        self.number = -1
        self.answer: int | None = None
        self.boundaries: list[Boundary] = []
        self.callers: list[CallersMark] = []

    def read(self) -> PromptLayout:
        request, messages, boundaries = self.request, self.request.messages, self.boundaries
        self._tools()
        self._salt(_SYSTEM_PARAMS)
        systems = 0
        while systems < len(messages) and messages[systems].role == "system":
            self._message("system", systems, messages[systems], cut=_BLOCKS_CUT)
            systems += 1
        head = len(boundaries)
        self._salt(_MESSAGE_PARAMS)
        self.run.append(request.output_schema)
        turns = messages[systems:]
        ends = _turn_ends(turns)
        first_end = ends[0] if ends else -1
        for at in range(first_end + 1):
            self._message("messages", at, turns[at], cut=_BLOCKS_CUT if turns[at].role != "assistant" else 0)
        first_turn = len(boundaries)
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
            stage=_stage(turns, ends, tools=bool(request.tools)),
            turns=max(len(ends) - 1, 0),
            previous_stage=_stage(turns, ends[:-1], tools=bool(request.tools)),
            size=self.size,
            tokens=int(self.size * self.density),
            tokens_per_byte=self.density,
            endpoint=request.endpoint,
            params=request.params,
            answer=self.answer,
            callers=tuple(self.callers),
        )

    def _tools(self) -> None:
        if not self.request.tools and not self.request.server_tools:
            return
        listed = listed_tools(self.request)
        last = max((at for at, each in enumerate(listed) if each.markable), default=-1)
        for at, (place, text, mark, markable) in enumerate(listed):
            self.number += 1
            self.run.append(text)
            if mark or at == last:
                self._cut(BlockRef("tools", 0, place), mark, markable=markable)

    def _message(self, section: Section, at: int, message: Message, *, cut: int) -> None:
        """Add a message and cut it after its first blocks, its last one, and marked ones."""
        role, parts = message
        self.run.append(role)
        last = len(parts) - 1
        for block, part in enumerate(parts):
            self.number += 1
            self.run.append(part.text)
            if part.nested or part.kind in _ATTACHED:
                self._attach(part.kind, part.media, part.nested)
            markable = bool(cut) and _is_markable(part)
            inner = part.inner_marks
            if part.cache_ttl or inner or (markable and (block < cut or block == last)):
                self._cut(BlockRef(section, at, block), part.cache_ttl, inner, markable=markable)

    def _later_turns(self, turns: tuple[Message, ...], begin: int, ends: list[int]) -> int | None:
        """Add the messages after the first turn, cut at the ends of the latest turns.

        Returns:
            The boundary at which the turn before the last ended.
        """
        # Kept flat: the inner loop runs once per block of the whole conversation, on every call.
        add, number, found = self.run.append, self.number, None
        cut_ends, before_last = ends[1:][-_TURNS_CUT:], ends[-2] if len(ends) > 1 else -1
        answer = _plain_answer(self.request, turns, ends)
        for stop in sorted({*cut_ends, answer, len(turns) - 1}):
            if stop < begin:  # no plain answer
                continue
            before = number
            for role, parts in turns[begin : stop + 1]:
                add(role)
                for kind, text, mark, detail, inner, marked in parts:
                    number += 1
                    add(text)
                    if inner or kind in _ATTACHED:
                        self._attach(kind, detail, inner)
                    if mark or marked:
                        ref, self.number = _place(turns, begin, number - before), number
                        self._cut(ref, mark, marked, markable=role != "assistant")
            self.number, begin = number, stop + 1
            if stop == answer:
                self._cut(made(BlockRef, ("messages", stop, len(parts) - 1)), None)
                self.answer = len(self.boundaries) - 1
            elif stop in cut_ends and parts and not _bears_mark(parts[-1]) and _is_markable(parts[-1]):
                self._cut(made(BlockRef, ("messages", stop, len(parts) - 1)), None)
            if stop == before_last and self.boundaries[-1].ref.message == stop:
                found = len(self.boundaries) - 1
        return found

    def _attach(self, kind: str, detail: Mapping[str, Any], inner: tuple[Part, ...]) -> None:
        """Add attachments and nested blocks. Blocks inside a block are not counted by themselves."""
        if kind in _ATTACHED:
            self.run.append(repr(sorted(detail.items())))
            self.size += _ATTACHMENT_BYTES
        for part in inner:
            self.run.append(part.text)
            self._attach(part.kind, part.media, part.nested)

    def _salt(self, names: tuple[str, ...]) -> None:
        """Add the parameters whose change invalidates everything from here on."""
        params = self.request.params
        if not params:
            return
        values = [params.get(name) for name in names]
        # None of them is the same as no parameters at all: others do not tell prefixes apart.
        if any(value is not None for value in values):
            self.run.append(repr(values))

    def _flush(self) -> int:
        """Hash what was collected; return the bytes of the prompt up to here."""
        # NUL between the pieces, so that ("ab", "c") and ("a", "bc") have different digests.
        data = "\x00".join(self.run).encode("utf-8", "surrogatepass")
        self.digest.update(data)
        self.size = size = self.size + len(data)
        self.run[:] = ("",)
        return size

    def _cut(self, ref: BlockRef, mark: str | None, inner: tuple[str, ...] = (), *, markable: bool = True) -> None:
        size = self._flush()
        if mark or inner:
            self.callers.extend(CallersMark(self.number, each) for each in inner)
            if mark:
                self.callers.append(CallersMark(self.number, mark))
            mark = mark or inner[-1]  # a mark inside a block makes it readable all but as one on the block does
        tokens, prefix = int(size * self.density), self.digest.digest()[:16]
        self.boundaries.append(made(Boundary, (ref, self.number, size, tokens, prefix, mark, markable)))


class _ListedTool(NamedTuple):
    """Tool in the order of the caller's list."""

    place: int
    text: str
    mark: str | None
    markable: bool


def listed_tools(request: CallRequest) -> list[_ListedTool]:
    """Return the tools that are in the prompt, in its order; what the caller's list does not have stands behind it.

    Deferred tools are not included in the prefix (Anthropic, "Tool use with prompt caching").
    """
    listed = [
        _ListedTool(at if tool.place < 0 else tool.place, tool.text, tool.cache_ttl, markable=True)
        for at, tool in enumerate(request.tools)
        if not tool.deferred
    ]
    # Only the Messages API is known to take a mark on a tool that it runs itself; LiteLLM drops some of them.
    direct = request.endpoint == "messages"
    for server_tool in request.server_tools:
        kind, place = server_tool.kind, server_tool.place
        markable = direct and place >= 0 and not kind.startswith(_UNMARKED_TOOLS)
        end = len(request.tools) + len(request.server_tools)
        listed.append(_ListedTool(end if place < 0 else place, kind, server_tool.cache_ttl, markable))
    if request.server_tools:
        listed.sort(key=lambda each: each.place)
    return listed


def _bears_mark(part: Part) -> bool:
    return bool(part.cache_ttl or part.inner_marks)


def _place(turns: tuple[Message, ...], at: int, block: int) -> BlockRef:
    """Return the address of a block by its number among those from a message on; the first one is 1."""
    while block > len(turns[at].parts):
        block -= len(turns[at].parts)
        at += 1
    return BlockRef("messages", at, block - 1)


def _turn_ends(turns: Sequence[Message]) -> list[int]:
    """Return the messages at which requests ended: the caller's that an answer follows, and the caller's last."""
    ends, last, asked = [], -1, False
    for message in turns:
        if message[0] != "assistant":
            asked = True
        elif asked:
            ends.append(last)
            asked = False
        last += 1
    if asked:
        ends.append(last)
    return ends


def _plain_answer(request: CallRequest, turns: tuple[Message, ...], ends: list[int]) -> int:
    """Return the latest answer, where a mark on it reaches the provider; -1 if there is none."""
    if request.endpoint not in _ANSWERS_MARKED or not ends[1:]:
        return -1
    at, before = ends[-1] - 1, ends[-2]
    while at > before and turns[at].role != "assistant":
        at -= 1
    parts = turns[at].parts if at > before else ()
    if not parts:
        return -1
    for part in parts:
        if part.kind != "text" or _bears_mark(part):
            return -1
    return at if _is_markable(parts[-1]) else -1


def _is_markable(part: Part) -> bool:
    """Return whether a provider accepts a mark on this block: not on thinking, not on empty text."""
    return part.kind not in _UNMARKABLE and (part.kind != "text" or bool(part.text.strip()))


def _stage(turns: tuple[Message, ...], ends: list[int], *, tools: bool) -> PromptStage:
    if len(ends) <= 1:
        return "first_with_tools" if tools else "first"
    role, parts = turns[ends[-1]]
    return "agent" if role == "tool" or "tool_result" in [part[0] for part in parts] else "chat"


def tracked_boundaries(layout: PromptLayout) -> list[int]:
    """Return the boundaries whose reuse is counted: up to the first answer, the previous request's end, this one's."""
    last = len(layout.boundaries) - 1
    found = list(range(min(layout.first_turn, last + 1)))
    if layout.previous is not None and layout.previous >= layout.first_turn:
        found.append(layout.previous)
    if last >= layout.first_turn and last != layout.previous:
        found.append(last)
    return found
