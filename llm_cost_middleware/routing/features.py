"""Features of a request for routing: counts only, read in one pass, never the text itself."""

from __future__ import annotations

from msgspec import Struct

from llm_cost_middleware.request import CallRequest, Part

GROUP_PREFIXES = ("alike:", "task:")
"""Beginnings of the keys of groups of call sites, the narrower group first."""

_MEDIA = {"image": "images", "document": "documents", "audio": "audio"}
_MEDIA_TOKENS = 1_000
"""Tokens assumed for an image, a document or a clip in an *expected* cost; bounds are computed in ``pricing``."""


class Features(Struct, frozen=True, gc=False):
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
    """Read the features of a request, of which the messages and tools are walked through once."""
    counts, schema, tools = request.contents, request.output_schema, request.tools
    needs: set[str] | None = None
    media = 0
    if counts.odd_parts:
        needs = set()
        for part in counts.odd_parts:
            if part.kind in _MEDIA or part.nested:
                media += _count_media(part, needs)
    if tools or schema:
        needs = needs or set()
        if tools:
            needs.add("tools")
        if schema:
            needs.add("schema")
    return Features(
        counts.handed,
        request.context.item_count,
        counts.characters + counts.tool_characters + len(schema),
        counts.expected_tokens + counts.tool_tokens + len(schema) // 4 + media * _MEDIA_TOKENS,
        counts.user_turns,
        len(counts.prefixes),
        len(tools) + len(request.server_tools),
        media,
        tuple(sorted(needs)) if needs else (),
    )


def last_user_text(request: CallRequest) -> str:
    """Return the text of the last user turn that has any, ``""`` without one: the part that a call is about."""
    for message in reversed(request.messages):
        if message.role == "user":
            texts = [part.text for part in message.parts if part.text and part.kind in ("text", "document")]
            if texts:
                return texts[0] if len(texts) == 1 else "\n".join(texts)
    return ""


def _count_media(part: Part, needs: set[str]) -> int:
    found = [_MEDIA[kind] for kind in (part.kind, *(inner.kind for inner in part.nested)) if kind in _MEDIA]
    needs.update(found)
    return len(found)
