"""Exact counts for OpenAI's public vocabularies, offline.

tiktoken downloads its vocabularies on first use; LiteLLM's wheel carries them, named as tiktoken names its own cache.
They are read from there, without importing LiteLLM, and never from the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

from llm_cost_middleware.pricing.limits import find_limits
from llm_cost_middleware.request import CallRequest

_PER_BLOCK = 8
_PER_CALL = 16
"""What a tool call or its result is framed with, on top of a block's frame."""
_PER_REQUEST = 64
_PER_TOOL = 16
_TOOLS = 600
"""Hidden instructions where there are tools: 500 were seen."""
_HELD_TOOL = 1_500
_RENDERED = 2
"""Tools are rendered in another form than JSON: at most twice its tokens."""


def count_openai_tokens(request: CallRequest, model: str) -> int | None:
    """The input tokens of a request for an OpenAI model, counted: text exactly, framing at its most.

    Takes about 80 µs a KB of text, and a second on the first use of a vocabulary: above 50 KB, off the event loop.

    Returns:
        The count, never below what is billed; ``None`` where the model's vocabulary is not public or not installed,
        or where the request has content that is not text.
    """
    encoding = _encoding(find_limits("openai", model).encoding)
    if encoding is None or request.stored_context or request.server_tools:
        return None
    texts: list[str] = []
    blocks = calls = 0
    for message in request.messages:
        blocks += len(message.parts) or 1
        for part in message.parts:
            if part.inner or part.kind in ("image", "document", "audio", "thinking"):
                return None
            texts.append(part.text)
            calls += part.kind in ("tool_use", "tool_result")
    count = _PER_REQUEST + blocks * _PER_BLOCK + calls * _PER_CALL + sum(_count(encoding, text) for text in texts)
    definitions = [tool.text for tool in request.tools] + ([request.output_schema] if request.output_schema else [])
    if definitions:
        count += _TOOLS + _PER_TOOL * len(definitions)
        count += _RENDERED * sum(_count(encoding, text) for text in definitions)
    return count + int(request.params.get("provider_tools", 0)) * _HELD_TOOL


def warm_up(model: str) -> bool:
    """Load a model's vocabulary ahead of its first use; whether there is one."""
    return _encoding(find_limits("openai", model).encoding) is not None


def _count(encoding: Any, text: str) -> int:
    return len(encoding.encode_ordinary(text))


@cache
def _encoding(name: str | None) -> Any:
    """The tokenizer of a vocabulary; ``None`` where tiktoken or the vocabulary is not installed."""
    folder = _folder()
    if name is None or folder is None or find_spec("tiktoken") is None:
        return None
    import tiktoken
    from tiktoken_ext import openai_public  # type: ignore[import-untyped]  # a namespace package without stubs

    recipe = openai_public.ENCODING_CONSTRUCTORS.get(name)
    if recipe is None:
        return None

    def from_wheel(address: str, expected_hash: str | None = None) -> dict[bytes, int]:
        # The same contract as tiktoken's loader, without its network and its environment variables.
        data = (folder / hashlib.sha1(address.encode(), usedforsecurity=False).hexdigest()).read_bytes()
        if expected_hash is not None and hashlib.sha256(data).hexdigest() != expected_hash:
            raise FileNotFoundError(f"{address}: another file")
        return dict(_ranks(data))

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
    """Where LiteLLM's wheel keeps the vocabularies. Finding a package does not import it."""
    spec = find_spec("litellm")
    for place in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(place) / "litellm_core_utils" / "tokenizers"
        if folder.is_dir():
            return folder
    return None
