"""Simulator's own tokenizer rule: tokens are counted from bytes, by a stated rate.

Text costs ``ceil(utf8_bytes / 4)``. Tool definitions and tool arguments cost the same for the bytes of their JSON.
Every message adds 3 tokens (Claude 4), the prompt ends in 3 more, a prompt with tools carries Claude's hidden tool
prompt of 346. An image costs 1,600 (Claude) or 765 (OpenAI), whatever its size; files cost 1,000, documents and
search results of text what their texts cost.

OpenAI publishes its vocabularies, so a count of text can be exact there: with ``encode`` text costs what it encodes to.

``worst_case`` uses the highest density measured with real tokenizers: 1.68 tokens per byte for Claude, 1 for OpenAI.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .catalogue import ProviderName

ATTACHMENT = 1_000


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Tokens by the rule above, as a ratio of integers so that counts are exact."""

    per: int  # tokens ...
    bytes: int  # ... in this many bytes
    message: int
    priming: int
    tool_prompt: int
    image: int
    encode: Callable[[str], Sequence[int]] | None = None  # a real vocabulary, for text

    def size(self, length: int) -> int:
        """Tokens of `length` UTF-8 bytes."""
        return -(-length * self.per // self.bytes)

    def text(self, text: str) -> int:
        """Tokens of a text."""
        if self.encode is not None:
            return len(self.encode(text))
        return self.size(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")))

    def room(self, tokens: int) -> int:
        """Return the most bytes that cost no more than `tokens`."""
        return tokens * self.bytes // self.per


def tokenizer(
    provider: ProviderName, *, worst_case: bool = False, encode: Callable[[str], Sequence[int]] | None = None
) -> Tokenizer:
    """Return the rule of one provider; `encode` is a vocabulary of OpenAI's."""
    if provider == "anthropic":
        per, length = (42, 25) if worst_case else (1, 4)
        return Tokenizer(per, length, message=4, priming=3, tool_prompt=346, image=1_600)
    per, length = (1, 1) if worst_case else (1, 4)
    return Tokenizer(per, length, message=3, priming=3, tool_prompt=0, image=765, encode=encode)
