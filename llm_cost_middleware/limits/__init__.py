"""Limits of models, from one TOML file per provider: a bound and a cache plan rest on them, so they are our own data.

A new model gets a row there (and a price in ``pricing/overlay.toml``, unless genai-prices has one): a test fails for a
model with a price and without limits.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class ModelLimits(NamedTuple):
    """Limits of a model in tokens; ``None`` if unknown."""

    context_window: int | None = None
    """Most input of a request: a longer one is refused, and not billed."""
    max_output: int | None = None
    """Most output of one choice, reasoning included."""
    default_output: int = 4_096
    """Cap for callers without one: ample for an answer, reasoning included."""
    image_tokens: int | None = None
    """Most tokens of one image."""
    encoding: str | None = None
    """Name of the tokenizer's vocabulary, if it is public."""
    pixels_per_token: int | None = None
    """Pixels per token of an image, if the provider bills by its published formula."""
    min_cache_tokens: int | None = None
    """Shortest prompt prefix that is cached, for providers where it depends on the model."""


PROVIDERS = tuple(sorted(file.name[:-5] for file in files(__package__).iterdir() if file.name.endswith(".toml")))
"""Providers with a file: the ones whose prices are read."""


@cache
def find_limits(provider: str, model: str) -> ModelLimits:
    """Return the limits of a model: each from the longest name in the provider's file that begins the model's name."""
    ref = model.lower().removeprefix(f"{provider}/").removeprefix("ft:")
    found: dict[str, int | str | None] = {}
    for name, row in read_table(provider):
        if ref.startswith(name):
            found |= row
    found["encoding"] = found.get("encoding") or None  # "" ends what a shorter name states: TOML has no null
    return ModelLimits(**found)  # type: ignore[arg-type]  # the file's values are of the fields' types: tested


@cache
def read_table(provider: str) -> tuple[tuple[str, dict[str, int | str]], ...]:
    """Return the rows of a provider by name, shortest names first; empty for a provider without a file."""
    file = files(__package__).joinpath(f"{provider}.toml")
    if not file.is_file():
        return ()
    rows = tomllib.loads(file.read_text(encoding="utf-8"))["model"]
    named = [
        (name, {key: row[key] for key in ModelLimits._fields if key in row}) for row in rows for name in row["names"]
    ]
    # Sorted, so that a longer name overrides a shorter one wherever it stands in the file.
    return tuple(sorted(named, key=lambda entry: len(entry[0])))
