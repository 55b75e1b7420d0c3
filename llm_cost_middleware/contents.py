"""What the messages and tools of a request are made of: read in one walk, for everything that only counts them.

Features, bounds, counts of tokens, the fit of parameters, the identity of a conversation and the layout for caches rest
on it, so that a long conversation is walked through once a call and not once by each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_cost_middleware.request import Message, Part, Role, Tool

ATTACHED = frozenset({"image", "document", "audio"})
"""Kinds of blocks whose text is not all there is of them."""
_DEFERRED = '"defer_loading":true'


class Columns:
    """Messages of a role and a text each."""

    __slots__ = ("roles", "texts")
    roles: list[Role]
    texts: list[str]


class RequestContents:
    """What the messages and tools of a request are made of. Read in one walk: numbers, texts as they are, odd blocks.

    Args:
        messages: Those of the request.
        tools: Its client tools.
    """

    __slots__ = (
        "asked", "attached", "begins_answer", "blanks_user", "call_blocks", "characters", "defers_tools",
        "expected_tokens", "handed", "instructs_inside", "marked", "odd_parts", "prefixes", "speaks", "systems",
        "text_blocks", "text_bytes", "texts", "tool_bytes", "tool_characters", "tool_tokens", "user_turns",
    )  # fmt: skip

    def __init__(self, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
        if isinstance(messages, Columns):
            self._read_columns(messages)
        else:
            self._read_messages(messages)
        self._read_tools(tools)

    def _read_messages(self, messages: Sequence[Message]) -> None:  # noqa: C901, PLR0912, PLR0915 - one walk, counting all
        # What stands in the loop runs for every message of a conversation, on every call: the rest is told from it.
        handed = characters = tokens = wide = empty = turns = instructions = told = 0
        blank = False
        role = before = text = ""
        texts: list[str] = []
        odd: list[Part] = []
        prefixes: list[int] = []
        asked: list[int] = []
        for message in messages:
            role, parts, begin = message.role, message.parts, characters
            for part in parts:
                kind, text = part.kind, part.text
                texts.append(text)
                size = len(text)
                characters += size
                # about four characters per token in English, two in other scripts; isascii() is a flag, not a scan
                if text.isascii():
                    tokens += size // 4
                else:
                    tokens += size // 2
                    wide += len(text.encode("utf-8", "surrogatepass")) - size
                told = hash((told, role, kind, text))
                if kind != "text" or part.cache_ttl or part.nested or part.inner_marks:
                    odd.append(part)
                    told = _tell_attached(told, part)
            if len(parts) != 1:  # else where messages end would not be told
                told = hash((told, role, len(parts)))
            prefixes.append(told)
            if role == "user":
                turns += 1
                handed += characters - begin
                if not text or text.isspace() or not parts:  # the last block's, which nearly always says something
                    blank = blank or not any(part.kind != "text" or part.text.strip() for part in parts)
            elif role == "assistant":
                if before != role and before:
                    asked.append(len(prefixes) - 2)
            elif role == "tool":
                handed += characters - begin
            else:
                instructions += 1
            empty += not parts
            before = role
        systems = 0
        while systems < instructions and messages[systems].role == "system":
            systems += 1
        self.handed = handed
        """Characters of all user and tool turns."""
        self.characters = characters
        """Characters of all messages."""
        self.expected_tokens = tokens
        """A quarter of the ASCII characters of the messages, half of the others, by block."""
        self.text_bytes = characters + wide
        """UTF-8 bytes of the messages."""
        self.text_blocks = len(texts) + empty
        """Content blocks, and messages without any."""
        self.user_turns = turns
        self.texts = texts
        """The texts of all blocks, in their order."""
        self.odd_parts = odd
        """Blocks that are not text, or carry more than it: marks, attachments."""
        self.marked = any(part.cache_ttl or part.inner_marks for part in odd) if odd else False
        """A block bears a cache mark of the caller's, or holds one that does."""
        self.attached = any(part.nested or part.kind in ATTACHED for part in odd) if odd else False
        """A block is no text, or holds one that is none."""
        self.call_blocks = sum(part.kind in ("tool_use", "tool_result") for part in odd) if odd else 0
        """Tool calls and their results."""
        self.systems = systems
        """Messages of instructions at the beginning."""
        self.speaks = systems < len(prefixes)
        """There is a message that is no instruction."""
        self.instructs_inside = systems < instructions
        """Instructions stand behind other messages."""
        self.prefixes = prefixes
        """For each message what tells all blocks up to its end apart from any others, in this process alone."""
        self.asked = asked
        """The messages that an answer follows."""
        self.blanks_user = blank
        """A message of the user has nothing in it."""
        self.begins_answer = role == "assistant"
        """The last message begins the answer."""

    def _read_columns(self, messages: Columns) -> None:
        """The same of messages that are a role and a text each."""
        handed = characters = tokens = wide = turns = instructions = systems = told = 0
        blank = False
        role = before = ""
        prefixes: list[int] = []
        asked: list[int] = []
        for role, text in zip(messages.roles, messages.texts, strict=True):
            size = len(text)
            characters += size
            if text.isascii():
                tokens += size // 4
            else:
                tokens += size // 2
                wide += len(text.encode("utf-8", "surrogatepass")) - size
            told = hash((told, role, "text", text))
            if role == "user":
                turns += 1
                handed += size
                blank = blank or not text or text.isspace()
            elif role == "assistant":
                if before != role and before:
                    asked.append(len(prefixes) - 1)
            else:
                systems += instructions == len(prefixes)
                instructions += 1
            prefixes.append(told)
            before = role
        self.handed, self.characters, self.expected_tokens = handed, characters, tokens
        self.text_bytes, self.text_blocks, self.user_turns = characters + wide, len(prefixes), turns
        self.texts, self.prefixes, self.asked, self.odd_parts = messages.texts, prefixes, asked, []
        self.systems, self.speaks = systems, systems < len(prefixes)
        self.instructs_inside, self.blanks_user, self.begins_answer = systems < instructions, blank, role == "assistant"
        self.marked = self.attached = False
        self.call_blocks = 0

    def _read_tools(self, tools: Sequence[Tool]) -> None:
        tool_bytes = tool_characters = tool_tokens = 0
        deferred = False
        for tool in tools:
            text = tool.text
            size = len(text)
            tool_characters += size
            tool_tokens += size // 4
            tool_bytes += size if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            deferred = deferred or _DEFERRED in text
        self.tool_bytes, self.tool_characters, self.tool_tokens = tool_bytes, tool_characters, tool_tokens
        """Of the definitions of the client tools."""
        self.defers_tools = deferred
        """A definition of a tool says ``defer_loading``."""


def _tell_attached(told: int, part: Part) -> int:
    """Add what a block is beside its text, if it is an attachment or holds one."""
    if part.nested or part.kind in ATTACHED:
        told = hash((told, repr(sorted(part.media.items()))))
        for inner in part.nested:
            told = _tell_attached(hash((told, inner.kind, inner.text)), inner)
    return told
