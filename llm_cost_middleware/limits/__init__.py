"""Limits of models, from one TOML file per provider: a bound and a cache plan rest on them, so they are our own data.

A new model gets a row there (and a price in ``pricing/overlay.toml``, unless genai-prices has one): a test fails for a
model with a price and without limits.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from msgspec import Struct

from llm_cost_middleware.model_table import Rows, look_up, read_rows
from llm_cost_middleware.platform import served_model


class ModelLimits(Struct, frozen=True, gc=False):
    """Limits of a model in tokens; ``None`` if unknown."""

    context_window: int | None = None
    """Most input of a request: a longer one is refused, and not billed."""
    max_output: int | None = None
    """Most output of one choice, reasoning included; 0 of models that embed."""
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
    """Return the limits of a model: each from the longest name in the provider's file that begins the model's name.

    A platform's models have those of their provider.
    """
    provider, model, _ = served_model(provider, model)
    found = look_up(read_table(provider), provider, model)
    found["encoding"] = found.get("encoding") or None  # "" ends what a shorter name states: TOML has no null
    return ModelLimits(**found)


@cache
def read_table(provider: str) -> Rows:
    """Return the rows of a provider by name, shortest names first; empty for a provider without a file."""
    return read_rows(__package__, provider, ModelLimits.__struct_fields__)
