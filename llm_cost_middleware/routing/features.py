"""Features of a request for routing: counts only, read in one pass, never the text itself."""

from __future__ import annotations

from typing import NamedTuple

from llm_cost_middleware.request import CallRequest, Part

GROUP_PREFIXES = ("alike:", "task:")
"""Beginnings of the keys of groups of call sites, the narrower group first."""

_MEDIA = {"image": "images", "document": "documents", "audio": "audio"}
_MEDIA_TOKENS = 1_000
"""Tokens assumed for an image, a document or a clip in an *expected* cost; bounds are computed in ``pricing``."""


class Features(NamedTuple):
    """Counts of one request. Plain numbers, so that a decision can be replayed from its line in the log."""

    text_length: int
    """Characters of all user and tool turns. The classic rule's first feature."""
    item_count: int
    """Items batched in the prompt, as given by the caller. The classic rule's second feature."""
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
    """Capabilities that a model needs: of ``tools``, ``images``, ``documents``, ``audio``, ``schema``."""


def read_features(request: CallRequest) -> Features:
    """Read the features of a request: linear in messages and blocks, not in characters."""
    handed = total = tokens = turns = media = 0
    needs: set[str] = set()
    for role, parts in request.messages:
        working = role in ("user", "tool")
        turns += role == "user"
        for part in parts:
            size = len(part.text)
            total += size
            # about four characters per token in English, two in other scripts; isascii() is a flag of str, not a scan
            tokens += size // 4 if part.text.isascii() else size // 2
            if working:
                handed += size
            if (
                part.kind in _MEDIA or part.nested
            ):  # of nearly all parts none: calling for each takes as long as the rest
                media += _count_media(part, needs)
    for tool in request.tools:
        total += len(tool.text)
        tokens += len(tool.text) // 4
        needs.add("tools")
    if request.output_schema:
        total += len(request.output_schema)
        tokens += len(request.output_schema) // 4
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
        tuple(sorted(needs)),
    )


def last_user_text(request: CallRequest) -> str:
    """Return the text of the last user turn that has any, ``""`` without one: the part that a call is about."""
    for role, parts in reversed(request.messages):
        if role == "user":
            texts = [part.text for part in parts if part.text and part.kind in ("text", "document")]
            if texts:
                return texts[0] if len(texts) == 1 else "\n".join(texts)
    return ""


def _count_media(part: Part, needs: set[str]) -> int:
    found = [_MEDIA[kind] for kind in (part.kind, *(inner.kind for inner in part.nested)) if kind in _MEDIA]
    needs.update(found)
    return len(found)
