"""Levels of reasoning effort, and the level of a model that is nearest to one that it does not have."""

from __future__ import annotations

from collections.abc import Sequence

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""From least to most."""


def nearest_effort(asked: str, levels: Sequence[str]) -> str | None:
    """The nearest of a model's levels, the lower of two; ``None`` for a model without, and for a level that is none."""
    if asked in levels:
        return asked
    if asked not in LEVELS or not levels:
        return None
    at = LEVELS.index(asked)
    return min(levels, key=lambda level: (abs(LEVELS.index(level) - at), LEVELS.index(level)))
