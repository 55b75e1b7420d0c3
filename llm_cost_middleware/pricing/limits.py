"""Limits of a model's input and output, from ``limits.toml``: a bound rests on them, so they are our own data."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class ModelLimits(NamedTuple):
    """Limits of a model in tokens; ``None`` where they are not known."""

    context_window: int | None
    """Most input of a request: a longer one is refused, and not billed."""
    max_output: int | None
    """Most output of one choice, reasoning included."""
    default_output: int
    """Cap for callers without one: ample for an answer, reasoning included."""
    image_tokens: int | None = None
    """Most tokens of one image."""
    encoding: str | None = None
    """Name of the tokenizer's vocabulary, if it is public."""
    pixels_per_token: int | None = None
    """Pixels per token of an image, if the provider bills by its published formula."""


_UNKNOWN = ModelLimits(None, None, 4_096)


@cache
def find_limits(provider: str, model: str) -> ModelLimits:
    """Return the limits of the longest prefix in ``limits.toml`` that the model's name begins with."""
    ref = model.lower().removeprefix(f"{provider}/").removeprefix("ft:")
    best, length = _UNKNOWN, 0
    for prefix, limits in _table().get(provider, {}).items():
        if len(prefix) > length and ref.startswith(prefix):
            best, length = limits, len(prefix)
    return best


@cache
def _table() -> dict[str, dict[str, ModelLimits]]:
    data = tomllib.loads(files(__package__).joinpath("limits.toml").read_text(encoding="utf-8"))
    return {
        provider: {
            prefix: ModelLimits(
                row.get("context_window"),
                row.get("max_output"),
                row.get("default_output", _UNKNOWN.default_output),
                row.get("image_tokens"),
                row.get("encoding"),
                row.get("pixels_per_token"),
            )
            for row in rows
            for prefix in row["models"]
        }
        for provider, rows in data.items()
    }
