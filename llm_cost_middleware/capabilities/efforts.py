"""Reasoning effort: its levels, the nearest level of a model, and where a request states one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""From least to most."""
_HOLDERS = ("reasoning", "output_config", "reasoning_effort")
"""Parameters with an effort inside: of the responses API, of Anthropic, and LiteLLM's longer form of its own."""


def nearest_effort(asked: str, levels: Sequence[str]) -> str | None:
    """The nearest of a model's levels, the lower of two; ``None`` for a model without, and for a level that is none."""
    if asked in levels:
        return asked
    if asked not in LEVELS or not levels:
        return None
    at = LEVELS.index(asked)
    return min(levels, key=lambda level: (abs(LEVELS.index(level) - at), LEVELS.index(level)))


def stated_effort(settings: Mapping[str, Any]) -> str | None:
    """The effort that a request's parameters ask for, in whichever words; ``None`` where they ask for none.

    ``effort`` is an argument of ChatAnthropic, which it reads before ``reasoning_effort``.
    """
    plain = (settings.get("effort"), settings.get("reasoning_effort"))
    nested = (holder.get("effort") for name in _HOLDERS if isinstance(holder := settings.get(name), Mapping))
    return next((effort for effort in (*plain, *nested) if isinstance(effort, str)), None)


def states_thinking(settings: Mapping[str, Any]) -> bool:
    """Whether a request says by itself how much a model is to think: by an effort, or by Anthropic's ``thinking``."""
    return stated_effort(settings) is not None or settings.get("thinking") is not None


def states_verbosity(settings: Mapping[str, Any]) -> bool:
    """Whether a request says by itself how long an answer is to be worded."""
    text = settings.get("text")
    return settings.get("verbosity") is not None or (isinstance(text, Mapping) and text.get("verbosity") is not None)
