"""What the messages and tools of a request are made of: read in one walk, for everything that only counts them.

Features, bounds, counts of tokens and the fit of parameters rest on it, so that a long conversation is walked through
once a call and not once by each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_cost_middleware.request import Message, Part, Tool

_DEFERRED = '"defer_loading":true'


class RequestContents:
    """What the messages and tools of a request are made of. Read in one walk: numbers, texts as they are, odd blocks.

    Args:
        messages: Those of the request.
        tools: Its client tools.
    """

    __slots__ = (
        "begins_answer", "blanks_user", "call_blocks", "characters", "defers_tools", "expected_tokens", "handed",
        "instructs_inside", "odd_parts", "speaks", "text_blocks", "text_bytes", "texts", "tool_bytes",
        "tool_characters", "tool_tokens", "user_turns",
    )  # fmt: skip

    def __init__(self, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
        self._read_messages(messages)
        self._read_tools(tools)

    def _read_messages(self, messages: Sequence[Message]) -> None:  # noqa: PLR0915 - one walk, counting all
        handed = characters = tokens = text_bytes = blocks = turns = 0
        spoken = blank = inside = False
        texts: list[str] = []
        odd: list[Part] = []
        role = ""
        for role, parts in messages:
            user = role == "user"
            if role != "system":
                spoken = True
            elif spoken:
                inside = True
            turns += user
            blocks += len(parts) or 1
            before = characters
            filled = False
            for part in parts:
                kind, text, mark, _, nested, inner = part
                texts.append(text)
                size = len(text)
                characters += size
                # about four characters per token in English, two in other scripts; isascii() is a flag, not a scan
                if text.isascii():
                    tokens += size // 4
                    text_bytes += size
                else:
                    tokens += size // 2
                    text_bytes += len(text.encode("utf-8", "surrogatepass"))
                if kind != "text" or mark or nested or inner:
                    odd.append(part)
                    filled = filled or kind != "text"
                if user and not filled:
                    filled = bool(text) and not text.isspace()
            if user:
                blank = blank or not filled
                handed += characters - before
            elif role == "tool":
                handed += characters - before
        self.handed = handed
        """Characters of all user and tool turns."""
        self.characters = characters
        """Characters of all messages."""
        self.expected_tokens = tokens
        """A quarter of the ASCII characters of the messages, half of the others, by block."""
        self.text_bytes = text_bytes
        """UTF-8 bytes of the messages."""
        self.text_blocks = blocks
        """Content blocks, and messages without any."""
        self.user_turns = turns
        self.texts = texts
        """The texts of all blocks, in their order."""
        self.odd_parts = odd
        """Blocks that are not text, or carry more than it: marks, attachments."""
        self.call_blocks = sum(part.kind in ("tool_use", "tool_result") for part in odd) if odd else 0
        """Tool calls and their results."""
        self.begins_answer = role == "assistant"
        """The last message begins the answer."""
        self.speaks = spoken
        """There is a message that is no instruction."""
        self.blanks_user = blank
        """A message of the user has nothing in it."""
        self.instructs_inside = inside
        """Instructions stand behind other messages."""

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
