"""Names of one model: its dated snapshots, its aliases, and each of them with the provider before it.

A scope ``model:NAME`` is of every call whose model goes by the name: ``model:claude-haiku-4-5`` is of the alias and of
all its snapshots, ``model:claude-haiku-4-5-20251001`` of calls that name this snapshot.
"""

from __future__ import annotations

import re

from llm_cost_middleware.platform import names_of_target

_SNAPSHOT = re.compile(r"(.+?)[-@](?:20\d\d-\d\d-\d\d|20\d{6}|latest|default)(?:-v\d{1,3}(?::\d{1,3})?)?\Z")
_MONTH_AND_DAY = re.compile(r"(gpt-.+?)-(?:0[1-9]|1[0-2])[0-3]\d\Z")
_LONGEST = 256
# docs.anthropic.com/en/docs/about-claude/models/overview: aliases that are more than the name without its date
_ALIASES = {
    "claude-opus-4": ("claude-opus-4-0",),
    "claude-sonnet-4": ("claude-sonnet-4-0",),
    "claude-3-7-sonnet": ("claude-3-7-sonnet-latest",),
    "claude-3-5-sonnet": ("claude-3-5-sonnet-latest",),
    "claude-3-5-haiku": ("claude-3-5-haiku-latest",),
    "claude-3-opus": ("claude-3-opus-latest",),
}
_FAMILIES = {alias: family for family, aliases in _ALIASES.items() for alias in aliases}


def names_of(provider: str, model: str) -> tuple[str, ...]:
    """Return the names that a call of a model goes by, that by which it is called first.

    Args:
        provider: ``anthropic`` or ``openai``, or a platform; a name may have it before it, as gateways want it.
        model: As the call names it.
    """
    if len(model) > _LONGEST:
        return (model,)
    bare = model.removeprefix(f"{provider}/") or model
    family = undated(bare) or _FAMILIES.get(bare)
    anywhere = [name for plain in names_of_target(provider, bare)[1:] for name in (plain, undated(plain))]
    names = (model, bare, family, *_ALIASES.get(family or bare, ()), *anywhere)
    return tuple(dict.fromkeys(name for name in names if name))


def undated(model: str) -> str | None:
    """Return the name without the date, or the ``latest``, at its end; ``None`` for one that has neither."""
    found = _SNAPSHOT.match(model) or _MONTH_AND_DAY.match(model)
    return found[1] if found else None
