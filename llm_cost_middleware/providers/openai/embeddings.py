"""Embedding requests: input alone, in pieces that are embedded apart. They have no output and nothing to route.

Another model's vectors mean something else, so the model of such a call is never exchanged. Rules from the docstring of
the SDK's ``embeddings.create``: a piece is a text or a list of tokens; one of more than 8,192 tokens, more than 2,048
pieces, or more than 300,000 tokens in all are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_cost_middleware.request import EMPTY, Attempt, CallRequest, Message, Part

_PROMPT = frozenset({"input", "model"})
_FIELDS = frozenset({"user"})
"""What may be sent beside the caller's own fields: the endpoint has neither ``metadata`` nor ``safety_identifier``."""


def read_embedding(body: Mapping[str, Any]) -> CallRequest:
    """The body of an embedding request to the neutral view: a message for each piece. The body is not changed."""
    return CallRequest(
        provider="openai",
        model=str(body.get("model") or ""),
        messages=tuple(Message("user", (_part(piece),)) for piece in _pieces(body.get("input"))),
        endpoint="embeddings",
        max_tokens=0,
        model_pinned=True,
        settings={name: value for name, value in body.items() if name not in _PROMPT} or EMPTY,
    )


def write_embedding(body: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    """A copy of a body with the attempt's model. Output caps and cache marks mean nothing here."""
    own = {name: value for name, value in attempt.fields.items() if name in _FIELDS}
    return {**body, "model": attempt.target.model, **own}


def _pieces(given: Any) -> tuple[Any, ...]:
    if isinstance(given, str) or given is None:
        return () if given is None else (given,)
    pieces = tuple(given) if isinstance(given, list | tuple) else (given,)
    return (pieces,) if pieces and all(type(token) is int for token in pieces) else pieces


def _part(piece: Any) -> Part:
    if isinstance(piece, list | tuple):
        return Part("other", media={"tokens": len(piece)})
    return Part("text", piece if isinstance(piece, str) else str(piece))
