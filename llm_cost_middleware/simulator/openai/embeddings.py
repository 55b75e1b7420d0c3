"""``/v1/embeddings``: reads and checks requests, and writes answers.

Limits are those of the docstring of the SDK's ``embeddings.create``: 8,192 tokens a piece, 2,048 pieces, 300,000 tokens
in all. A vector is made of its piece's bytes, so that the same text has the same one.
"""

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from llm_cost_middleware.simulator.answers import SimRequest, Turn
from llm_cost_middleware.simulator.fields import is_count, unknown
from llm_cost_middleware.simulator.prompts import Segments
from llm_cost_middleware.simulator.reading import Dialect, Frame, Reading, Reply
from llm_cost_middleware.simulator.tokens import Tokenizer

from . import checks

_KNOWN = frozenset({"dimensions", "encoding_format", "input", "model", "user"})
_PIECE, _PIECES, _IN_ALL = 8_192, 2_048, 300_000
_DIMENSIONS = {"text-embedding-3-large": 3_072}
_USUAL_DIMENSIONS = 1_536


def read_embeddings(body: Mapping[str, Any], headers: Mapping[str, str], rule: Tokenizer, index: int) -> Reading:
    """Validate a request.

    Raises:
        Refusal: 400 or 404 in the provider's words.
    """
    if extra := unknown(body, _KNOWN):
        raise checks.bad_request(f"Unrecognized request argument supplied: {extra}")
    model = checks.find_model(body, "embeddings")
    if not model.id.startswith("text-embedding"):
        raise checks.bad_request("You are not allowed to generate embeddings from this model", param="model")
    if body.get("encoding_format", "float") not in {"float", "base64"}:
        raise checks.bad_request("Invalid value for 'encoding_format'.", param="encoding_format", code="invalid_value")
    size = _dimensions(body, model.id)
    pieces = _pieces(body)
    segments = Segments(rule)
    for piece in pieces:
        data = piece.encode("utf-8", "surrogatepass") if isinstance(piece, str) else json.dumps(piece).encode()
        tokens = rule.text(piece) if isinstance(piece, str) else len(piece)
        if tokens > _PIECE:
            raise checks.bad_request(
                f"This model's maximum context length is {_PIECE} tokens, however you requested {tokens} tokens "
                f"({tokens} in your prompt; 0 for the completion). Please reduce your prompt; or completion length."
            )
        segments.add(data, tokens)
    prompt = segments.prompt(0)
    if prompt.tokens > _IN_ALL:
        raise checks.bad_request(
            f"Requested {prompt.tokens} tokens, max {_IN_ALL} tokens per request", code="max_tokens_per_request"
        )
    request = SimRequest(
        provider="openai",
        endpoint="embeddings",
        model=model.id,
        requested_model=body["model"],
        body=body,
        headers=headers,
        turns=tuple(Turn("user", piece if isinstance(piece, str) else "") for piece in pieces),
        max_tokens=0,
        input_tokens=prompt.tokens,
        index=index,
    )
    return Reading(request, model, prompt, extra={"size": size})


def _dimensions(body: Mapping[str, Any], model: str) -> int:
    most = _DIMENSIONS.get(model, _USUAL_DIMENSIONS)
    asked = body.get("dimensions")
    if asked is None:
        return most
    if model.endswith("ada-002"):
        raise checks.bad_request("This model does not support specifying dimensions.", param="dimensions")
    if not is_count(asked, 1) or asked > most:
        raise checks.bad_request(f"Invalid value for 'dimensions' = {asked}. Must be less than or equal to {most}.")
    return int(asked)


def _pieces(body: Mapping[str, Any]) -> list[Any]:
    given = body.get("input")
    if given is None:
        raise checks.missing("input")
    pieces = [given] if isinstance(given, str) else given
    if isinstance(pieces, list) and pieces and all(is_count(token) for token in pieces):
        pieces = [pieces]
    if not isinstance(pieces, list) or not pieces or not all(_is_piece(piece) for piece in pieces):
        raise checks.bad_request("'$.input' is invalid. Please check the API reference.", param="input")
    if len(pieces) > _PIECES:
        raise checks.bad_request(f"'$.input' is too long: {_PIECES} items at most.", param="input")
    return pieces


def _is_piece(piece: object) -> bool:
    if isinstance(piece, list):
        return bool(piece) and all(is_count(token) for token in piece)
    return isinstance(piece, str) and piece != ""


def vectors(out: Reply) -> dict[str, Any]:
    """Return the JSON body. Its usage has no output in it, and the answer no id."""
    plain = out.reading.request.body.get("encoding_format") != "base64"
    data = []
    for index, block in enumerate(out.reading.prompt.blocks):
        vector = _vector(block.data, out.reading.extra["size"])
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector if plain else packed})
    usage = {"prompt_tokens": out.tokens.prompt, "total_tokens": out.tokens.prompt}
    return {"object": "list", "data": data, "model": out.reading.model.id, "usage": usage}


def _vector(data: bytes, size: int) -> list[float]:
    seeds = blake2b(data, digest_size=64).digest()
    return [(seeds[at % 64] - 127.5) / 128 for at in range(size)]


def _no_frames(_: Reply, __: int) -> Iterator[Frame]:
    return iter(())


def _no_error_frame(_: str, __: str | None) -> bytes:
    return b""


EMBEDDINGS = Dialect("openai", "embeddings", "embd-", 29, read_embeddings, vectors, _no_frames, _no_error_frame)
