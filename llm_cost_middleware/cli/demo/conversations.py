"""Recorded agent conversations, split into their model calls."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError

Conversation = dict[str, Any]


class ModelCall(NamedTuple):
    """Model call of a recorded conversation: all messages before the answer."""

    conversation: str
    messages: list[dict[str, Any]]
    """OpenAI chat messages."""


def packaged() -> list[Conversation]:
    """Return the excerpt in the package."""
    data = (files(__package__) / "conversations.jsonl.gz").read_bytes()
    return list(_parse(gzip.decompress(data).decode().splitlines(), "the packaged excerpt"))


def tools() -> list[dict[str, Any]]:
    """Return the tools of every call, as OpenAI function definitions."""
    parsed: list[dict[str, Any]] = json.loads((files(__package__) / "tools.json").read_text(encoding="utf-8"))
    return parsed


def load(path: Path) -> list[Conversation]:
    """Read conversations from a ``.jsonl`` or ``.jsonl.gz`` file: one per line, with ``messages`` in OpenAI chat form.

    Raises:
        ConfigurationError: Unreadable file, or a line that is not a conversation.
    """
    try:
        raw = path.read_bytes()
        # By the magic number: a downloaded file often has lost its .gz ending.
        text = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
        return list(_parse(text.decode().splitlines(), str(path)))
    except (OSError, EOFError, UnicodeError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None


def _parse(lines: Iterable[str], source: str) -> Iterator[Conversation]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            conversation = json.loads(line)
            roles = [message["role"] for message in conversation["messages"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"line {number} of {source} is no conversation: {error!r}") from None
        if "assistant" in roles:
            yield {**conversation, "name": conversation.get("name", str(number - 1))}


def model_calls(conversation: Conversation) -> Iterator[ModelCall]:
    """Yield the calls of a conversation in order: one per message of the assistant."""
    messages = conversation["messages"]
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            yield ModelCall(conversation["name"], messages[:index])
