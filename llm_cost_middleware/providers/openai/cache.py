"""Prompt-cache rules of OpenAI's models, as data.

Sources: developers.openai.com, "Prompt caching"; the doc strings of the ``openai`` SDK 2.54 (``prompt_cache_options``,
``prompt_cache_retention``); Azure's copy of the guide for the models that can keep a prefix for 24 hours. The lifetime
of 12 hours that a later SDK names is left out: its price is published nowhere.
"""

from __future__ import annotations

import re
from functools import cache

from llm_cost_middleware.provider import CacheCapabilities
from llm_cost_middleware.request import CallRequest

_NONE = CacheCapabilities(style="none")
_AUTOMATIC = CacheCapabilities(style="automatic", min_tokens=1024, step_tokens=128)
_AUTOMATIC_A_DAY = CacheCapabilities(style="automatic", min_tokens=1024, step_tokens=128, ttls=("24h",))
_BREAKPOINTS = CacheCapabilities(style="both", min_tokens=1024, max_marks=4, ttls=("30m",), writes_are_paid=True)

_RULES = tuple(
    (re.compile(pattern), ability)
    for pattern, ability in (
        # The first row that matches the model id from its start decides.
        (r".*-pro\b|.*(?:audio|realtime|transcribe|tts|search)|gpt-4o-2024-05-13", _NONE),  # no price for cached input
        (r"gpt-5\.(?:[6-9]|\d\d)|gpt-(?:[6-9]|\d\d)", _BREAKPOINTS),
        (r"gpt-4\.1(?!-mini|-nano)|gpt-5(?:\.\d)?(?!\.|-mini|-nano)", _AUTOMATIC_A_DAY),
        (r"gpt-4o|gpt-4\.|gpt-5|o[1-9]|codex-", _AUTOMATIC),
    )
)


@cache
def cache_capabilities(model: str) -> CacheCapabilities:
    """The cache rules of ``model``.

    ``none`` before GPT-4o and for models without a price for cached input; automatic and free to write up to GPT-5.5;
    explicit breakpoints, and writes that are paid for, from GPT-5.6 on.
    """
    name = model.removeprefix("ft:")
    return next((ability for pattern, ability in _RULES if pattern.match(name)), _NONE)


def billable_cache_writes(request: CallRequest, marks: frozenset[str], planned: bool) -> tuple[str, ...]:
    """The lifetimes of writes to be billed: from GPT-5.6 on models write unasked, before that a write is plain input.

    Only a request with cache options can ask for the longer one.
    """
    del marks, planned
    return ("30m", "12h") if request.params.get("prompt_cache_options") else ("30m",)
