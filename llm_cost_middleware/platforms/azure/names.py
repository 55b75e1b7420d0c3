"""Names of models on Azure: OpenAI's, spelt as Azure spells them, with or without a place before them."""

from __future__ import annotations

from llm_cost_middleware.platform import Served
from llm_cost_middleware.platforms.azure.places import as_place
from llm_cost_middleware.providers import openai

_SPELLINGS = (("gpt-35-", "gpt-3.5-"),)
"""Azure's beginnings of names, in which a deployment may have no dot, and OpenAI's."""
_BEGINNINGS = (*openai.PROVIDER.model_prefixes, "text-embedding-", "codex-", "computer-use-")


def parse(name: str) -> Served | None:
    """Return what a name stands for: ``gpt-5-mini``, ``eu/gpt-5-mini``; ``None`` for a name that is no model's."""
    first, slash, rest = name.partition("/")
    place = as_place(first) if slash else ""
    if place is None:
        return None
    model = rest if slash else first
    for azure, own in _SPELLINGS:
        if model.startswith(azure):
            model = own + model.removeprefix(azure)
    return Served("openai", model, place) if model.startswith(_BEGINNINGS) and "/" not in model else None
