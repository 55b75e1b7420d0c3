"""Later models of a line, by their names: ``claude-haiku-4-5``, ``claude-haiku-5-5``; ``gpt-5-mini``, ``gpt-5.4-mini``.

The name stays the same but for its version. Where a provider renames a line, only dated tiers can say what follows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import ModelRef

_DATED = re.compile(r"-\d{8}$|-\d{4}-\d{2}-\d{2}$")
_CLAUDE = re.compile(r"claude-(?P<line>[a-z]+)-(?P<version>\d{1,2}(?:-\d{1,2})?)")
_GPT = re.compile(r"gpt-(?P<version>\d+(?:\.\d+)?)(?P<line>(?:-[a-z]+)*)")


class _Name(NamedTuple):
    line: str
    version: tuple[int, ...]


def newer_models(catalogue: Catalogue, target: ModelRef) -> list[ModelRef]:
    """The models with a price that are of the same line with a later version, the latest first."""
    name = _parsed(target.model)
    if name is None:
        return []
    found = [(other.version, model) for model in catalogue.models(target.provider) if (other := _parsed(model))
             and other.line == name.line and other.version > name.version]  # fmt: skip
    return [ModelRef(target.provider, model) for _, model in sorted(found, reverse=True)]


def _parsed(model: str) -> _Name | None:
    bare = _DATED.sub("", model)
    found = _CLAUDE.fullmatch(bare) or _GPT.fullmatch(bare)
    if found is None:
        return None
    return _Name(found["line"], tuple(int(part) for part in re.split(r"[.-]", found["version"])))
