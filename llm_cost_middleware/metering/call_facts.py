"""What a row's memo says of a call beside its price: where it was made, its output cap, its tools, how it ended.

Counts, digests and names of call sites: never a text, and never a tool's name.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from typing import Any

from msgspec import Struct

from llm_cost_middleware.request import AnswerContent, CallRequest

OWN_CAP, CUT, STREAM, SEEN, OWN_EFFORT, LEARNED_CAP, FAILED = (1 << bit for bit in range(7))
_MOST_TOOLS = 128
_quote = json.encoder.encode_basestring_ascii


class CallFacts(Struct, frozen=True, gc=False):
    """Facts of one attempt."""

    site: str = ""
    """Call site, as routing names it."""
    cap: int = 0
    """Output tokens that it was allowed; 0: none was sent."""
    flags: int = 0
    """``OWN_CAP``: the caller's own; ``CUT``: the answer ended at it; ``STREAM``; ``SEEN``: what tools the answer
    calls is known; ``OWN_EFFORT``: the caller says how much to think; ``LEARNED_CAP``: from past answers; ``FAILED``:
    it was billed, and its answer was of no use."""
    chars: int = 0
    """Characters of all that was sent, tools included."""
    tools: tuple[tuple[str, int], ...] = ()
    """Digest and characters of each client tool, in their order."""
    used: tuple[str, ...] = ()
    """Digests of the tools that the answer, or the conversation before it, calls."""
    failure: str = ""
    """Kind of the failure, where the attempt failed and may have been billed."""


NO_FACTS = CallFacts()


def facts_text(facts: CallFacts) -> str:
    """The facts as the memo has them: JSON, without a text of anybody's."""
    listed = "[],[]"
    if facts.tools or facts.used:
        called = ",".join([f'"{mark}"' for mark in facts.used])
        listed = f"{_tools_text(facts.tools)},[{called}]"
    ended = f",{_quote(facts.failure)}" if facts.failure else ""
    return f"[{_quote(facts.site)},{facts.cap},{facts.flags},{facts.chars},{listed}{ended}]"


@lru_cache(maxsize=512)
def _tools_text(tools: tuple[tuple[str, int], ...]) -> str:
    return "[" + ",".join([f'["{mark}",{size}]' for mark, size in tools]) + "]"


def read_facts(value: Any) -> CallFacts:
    """Facts from the JSON of a memo; ``NO_FACTS`` where it is none that this version reads."""
    try:
        site, cap, flags, chars, tools, used, *rest = value
        return CallFacts(
            str(site), int(cap), int(flags), int(chars), tuple([_tool(*tool) for tool in tools]) if tools else (),
            tuple(map(str, used)), str(rest[0]) if rest else "",
        )  # fmt: skip
    except (TypeError, ValueError):
        return NO_FACTS


@lru_cache(maxsize=2_048)
def _tool(mark: str, size: int) -> tuple[str, int]:
    """One object for the same tool of a million calls."""
    return str(mark), int(size)


def tools_of(request: CallRequest) -> tuple[tuple[str, int], ...]:
    """Digest and characters of the client tools of a request, in their order."""
    return tuple([(_digest(tool.text), len(tool.text)) for tool in request.tools[:_MOST_TOOLS] if not tool.deferred])


def tools_used(request: CallRequest, content: AnswerContent | None) -> tuple[str, ...]:
    """Digests of the tools that are called in a conversation, or by its answer."""
    called = content.tool_calls if content is not None else ()
    names = {name for name, _ in called if isinstance(name, str)}  # an answer may hold anything
    for message in request.messages if request.contents.call_blocks else ():
        if message.role == "assistant":
            names |= {part.text.partition(" ")[0] for part in message.parts if part.kind == "tool_use"}
    if not names:
        return ()
    return tuple(dict.fromkeys(_digest(tool.text) for tool in request.tools[:_MOST_TOOLS] if tool.name in names))


@lru_cache(maxsize=2_048)
def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
