"""Prompt in the form that caches use: ordered blocks with their bytes, their tokens and the marks on them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from .tokens import Tokenizer

MARKS = ("cache_control", "prompt_cache_breakpoint")


class PromptBlock(NamedTuple):
    """Stretch of the prompt that is cached or not as a whole (or, at OpenAI before GPT-5.6, in steps)."""

    data: bytes
    tokens: int
    lead: int = 0  # tokens that stand before the bytes: the message's own overhead
    ttl: str = ""  # "5m", "1h", "30m" where a mark sits on it
    salt: int = 0  # bytes of `data` that name the message and cost nothing


@dataclass(frozen=True, slots=True)
class Prompt:
    """All blocks, and the tokens after the last one."""

    blocks: tuple[PromptBlock, ...]
    tail: int

    @property
    def tokens(self) -> int:
        """Input tokens of the whole prompt."""
        return self.tail + sum(block.tokens for block in self.blocks)


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return the bytes of a block that reach the model: without marks, and with the outermost keys sorted."""
    return json.dumps(
        {key: _unmarked(value[key]) for key in sorted(value) if key not in MARKS},
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode("utf-8", "surrogatepass")


def _unmarked(value: Any) -> Any:
    if isinstance(value, list):
        return [{k: v for k, v in item.items() if k not in MARKS} if isinstance(item, dict) else item for item in value]
    return value


def seed(*parts: object) -> "blake2b":
    """Return a running hash over everything that keeps one cache apart from another."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = repr(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest


class Segments:
    """Builds a prompt block by block."""

    def __init__(self, rule: Tokenizer) -> None:
        self.rule = rule
        self.blocks: list[PromptBlock] = []
        self._lead = 0
        self._salt = b""

    def open(self, overhead: int, salt: str) -> None:
        """Begin a message or a section: its overhead and name go to the next block."""
        self._lead += overhead
        self._salt += salt.encode() + b"\x00"

    def text(self, text: str, ttl: str = "") -> None:
        """Add a text."""
        self.add(text.encode("utf-8", "surrogatepass"), self.rule.text(text), ttl)

    def add(self, data: bytes, tokens: int, ttl: str = "") -> None:
        """Add bytes that cost a given number of tokens."""
        self.blocks.append(PromptBlock(self._salt + data, self._lead + tokens, self._lead, ttl, len(self._salt)))
        self._lead, self._salt = 0, b""

    def mark_last(self, ttl: str) -> None:
        """Put a mark on the newest block."""
        self.blocks[-1] = self.blocks[-1]._replace(ttl=ttl)

    def prompt(self, tail: int) -> Prompt:
        """Return the finished prompt."""
        return Prompt(tuple(self.blocks), tail + self._lead)
