"""Exact token counts with OpenAI's public vocabularies, offline.

tiktoken downloads its vocabularies on first use. LiteLLM's wheel contains them, under the names of tiktoken's cache:
they are read from there, without importing LiteLLM and without the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from llm_cost_middleware.pricing.bound import (
    PROVIDER_TOOL_TOKENS,
    REQUEST_OVERHEAD,
    TOOL_EXPANSION,
    TOOL_OVERHEAD,
)
from llm_cost_middleware.request import CallRequest

if TYPE_CHECKING:
    from tiktoken import Encoding

_BLOCK_OVERHEAD = 8
_CALL_OVERHEAD = 16
"""Tokens added to a tool call or its result, beside the block's."""
_TOOL_INSTRUCTIONS = 600
"""Hidden instructions of a request with tools: 500 were measured."""


def count_tokens(request: CallRequest, encoding: str | None) -> int | None:
    """Count the input tokens of a request by a public vocabulary: text exactly, overhead at its maximum.

    Takes about 80 µs per KB of text, and a second on the first use of a vocabulary: above 50 KB, off the event loop.

    Args:
        request: The request.
        encoding: ``ModelLimits.encoding`` of the model.

    Returns:
        The count, never below what is billed; ``None`` if the model's vocabulary is not public or not installed, or
        the request has content that is not text.
    """
    vocabulary = _vocabulary(encoding)
    if vocabulary is None or request.has_server_side_context or request.server_tools:
        return None
    texts: list[str] = []
    blocks = calls = 0
    for message in request.messages:
        blocks += len(message.parts) or 1
        for part in message.parts:
            if part.nested or part.kind in ("image", "document", "audio", "thinking"):
                return None
            texts.append(part.text)
            calls += part.kind in ("tool_use", "tool_result")
    count = REQUEST_OVERHEAD + blocks * _BLOCK_OVERHEAD + calls * _CALL_OVERHEAD
    count += sum(_count(vocabulary, text) for text in texts)
    definitions = [tool.text for tool in request.tools] + ([request.output_schema] if request.output_schema else [])
    if definitions:
        count += _TOOL_INSTRUCTIONS + TOOL_OVERHEAD * len(definitions)
        count += TOOL_EXPANSION * sum(_count(vocabulary, text) for text in definitions)
    return count + int(request.params.get("provider_tools", 0)) * PROVIDER_TOOL_TOKENS


def warm_up(encoding: str | None) -> bool:
    """Load a vocabulary ahead of its first use. Return whether it is installed."""
    return _vocabulary(encoding) is not None


def _count(vocabulary: Encoding, text: str) -> int:
    # A caller's text may contain "<|endoftext|>"; ``encode`` would raise for it.
    return len(vocabulary.encode_ordinary(text))


@cache
def _vocabulary(name: str | None) -> Encoding | None:
    """Return the tokenizer of a vocabulary; ``None`` if tiktoken or the vocabulary is not installed."""
    folder = _folder()
    if name is None or folder is None or find_spec("tiktoken") is None:
        return None
    import tiktoken
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # a namespace package without stubs

    recipe = openai_public.ENCODING_CONSTRUCTORS.get(name)
    if recipe is None:
        return None

    def from_wheel(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
        # Same contract as tiktoken's loader, which would read the network and environment variables.
        data = (folder / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()).read_bytes()
        if expected_hash is not None and hashlib.sha256(data).hexdigest() != expected_hash:
            raise FileNotFoundError(f"{address}: another file")
        return dict(_ranks(data))

    # tiktoken has no parameter for the loader: run its recipe with the global name replaced, on a copy.
    offline = FunctionType(recipe.__code__, {**recipe.__globals__, "load_tiktoken_bpe": from_wheel}, name)
    try:
        return tiktoken.Encoding(**offline())
    except FileNotFoundError:
        return None


def _ranks(data: bytes) -> Iterator[tuple[bytes, int]]:
    for line in data.splitlines():
        token, _, rank = line.partition(b" ")
        if rank:
            yield base64.b64decode(token), int(rank)


@cache
def _folder() -> Path | None:
    """Return the folder of the vocabularies in LiteLLM's wheel. Finding a package does not import it."""
    spec = find_spec("litellm")
    for place in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(place) / "litellm_core_utils" / "tokenizers"
        if folder.is_dir():
            return folder
    return None
