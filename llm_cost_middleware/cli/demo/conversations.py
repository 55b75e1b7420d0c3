"""Recorded agent conversations, as the model calls that they were."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from llm_cost_middleware.errors import ConfigurationError

Conversation = dict[str, Any]


class Turn(NamedTuple):
    """One model call: everything that was said before it."""

    conversation: str
    messages: list[dict[str, Any]]
    """OpenAI chat messages."""


def packaged() -> list[Conversation]:
    """The excerpt that ships with the package."""
    data = (files(__package__) / "conversations.jsonl.gz").read_bytes()
    return list(_parse(gzip.decompress(data).decode().splitlines(), "the packaged excerpt"))


def tools() -> list[dict[str, Any]]:
    """The tools that went with every call, as OpenAI function definitions."""
    parsed: list[dict[str, Any]] = json.loads((files(__package__) / "tools.json").read_text(encoding="utf-8"))
    return parsed


def load(path: Path) -> list[Conversation]:
    """Conversations of a ``.jsonl`` or ``.jsonl.gz`` file: a line each, with ``messages`` in OpenAI chat form.

    Raises:
        ConfigurationError: The file cannot be read, or a line is no conversation.
    """
    try:
        raw = path.read_bytes()
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


def turns(conversation: Conversation) -> Iterator[Turn]:
    """The calls of a conversation, in order: one for every message of the assistant."""
    messages = conversation["messages"]
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            yield Turn(conversation["name"], messages[:index])
