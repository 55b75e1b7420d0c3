"""What routing reads of a request: counts only, in one pass, and never the text itself."""

from __future__ import annotations

from typing import NamedTuple

from llm_cost_middleware.request import CallRequest, Part

_MEDIA = {"image": "images", "document": "documents", "audio": "audio"}
_MEDIA_TOKENS = 1_000
"""What an image, a document or a clip is taken for in an *expected* cost; the bound of a request is not made here."""


class Features(NamedTuple):
    """The shape of one request. Plain numbers, so that a decision can be replayed from its line in the log."""

    text_length: int
    """Characters handed in to be worked on: the text of all user and tool turns. The classic rule's first feature."""
    item_count: int
    """Items batched in the prompt, as the caller says. The classic rule's second feature."""
    total_chars: int
    """Characters of everything sent: instructions, history, tool definitions and schema included."""
    input_tokens: int
    """Expected input tokens: a quarter of the ASCII characters, half of the others, 1,000 for each medium."""
    turns: int
    """User turns."""
    messages: int
    tools: int
    """Client and server tools."""
    media: int
    """Images, documents and audio clips."""
    needs: tuple[str, ...] = ()
    """What a model must be able to do: of ``tools``, ``images``, ``documents``, ``audio``, ``schema``."""


def read_features(request: CallRequest) -> Features:
    """Read a request once: linear in messages and blocks, not in characters."""
    handed = total = tokens = turns = media = 0
    needs: set[str] = set()
    for role, parts in request.messages:
        working = role in ("user", "tool")
        turns += role == "user"
        for part in parts:
            text = part[1]
            size = len(text)
            total += size
            tokens += size >> 2 if text.isascii() else size >> 1  # str knows whether it is ASCII: no scan
            if working:
                handed += size
            if part[0] in _MEDIA or part[4]:
                media += _count_media(part, needs)
    for tool in request.tools:
        size = len(tool.text)
        total += size
        tokens += size >> 2
    if request.tools:
        needs.add("tools")
    if request.output_schema:
        size = len(request.output_schema)
        total += size
        tokens += size >> 2
        needs.add("schema")
    return Features(
        handed,
        request.context.item_count,
        total,
        tokens + media * _MEDIA_TOKENS,
        turns,
        len(request.messages),
        len(request.tools) + len(request.server_tools),
        media,
        tuple(sorted(needs)) if needs else (),
    )


def working_text(request: CallRequest) -> str:
    """The text that decides how hard a call is: that of the last user turn that has any, ``""`` without one."""
    for role, parts in reversed(request.messages):
        if role == "user":
            texts = [part.text for part in parts if part.text and part.kind in ("text", "document")]
            if texts:
                return texts[0] if len(texts) == 1 else "\n".join(texts)
    return ""


def _count_media(part: Part, needs: set[str]) -> int:
    found = 0
    for kind in (part.kind, *(inner.kind for inner in part.nested)):
        if kind in _MEDIA:
            needs.add(_MEDIA[kind])
            found += 1
    return found
