"""How names in scopes are written, so that spellings of one name are one scope."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from hashlib import blake2b
from typing import Literal

from llm_cost_middleware.budget.model import Budget, make_scope, parse_scope, raw_name

Normalise = Literal["none", "unicode", "case"]
"""``unicode``: NFKC, so that two encodings of a text are one name; ``case``: case folded as well."""


def write_name(name: str, how: Normalise) -> str:
    """Write a name."""
    if how == "none":
        return name
    text = unicodedata.normalize("NFKC", name)
    # folding may undo the normal form, so once more
    return text if how == "unicode" else unicodedata.normalize("NFKC", text.casefold())


def write_scope(scope: str, rules: Mapping[str, Normalise]) -> str:
    """Write a scope, or the template of a budget, by the rules of its kind; other kinds stay as they are."""
    scope = parse_scope(scope, template=True)
    kind = scope.partition(":")[0]
    how = rules.get(kind)
    return scope if how is None or scope.endswith(":*") else make_scope(kind, write_name(raw_name(scope), how))


def write_budget(budget: Budget, rules: Mapping[str, Normalise]) -> Budget:
    """Write the scopes of a budget by rules: its own, and those that it keeps shares for."""
    scope = write_scope(budget.scope, rules)
    shares = {write_scope(name, rules): share for name, share in budget.shares}
    if (scope, shares) == (budget.scope, dict(budget.shares)):
        return budget
    return replace(budget, scope=scope, reserve=shares)


def rules_about(scope: str, known: Iterable[Mapping[str, Normalise]]) -> list[Mapping[str, Normalise]]:
    """Return the rules of the services that have one for the kind of a scope; of all, where none has."""
    kind, everyone = scope.partition(":")[0], list(known)
    return [rules for rules in everyone if kind in rules] or everyone or [{}]


def digest_of(scope: str) -> str:
    """Return what an erasure that is under way keeps of the name of its scope: enough to know it again."""
    return blake2b(scope.encode(), digest_size=16).hexdigest()


def known_erasure(
    scope: str, begun: Sequence[tuple[int, str, int, str | None]]
) -> tuple[int, str, int, str | None] | None:
    """Return which of the erasures that were cut short is that of a scope; ``None`` where it is none of them.

    Args:
        scope: The scope.
        begun: All of the ledger. A version that kept no digest let one be under way at a time: that one is taken for
            the scope's if it is of its kind.
    """
    digest, kind = digest_of(scope), scope.partition(":")[0]
    mine = [one for one in begun if one[3] == digest]
    return next(iter(mine or [one for one in begun if one[3] is None and one[1].partition(":")[0] == kind]), None)


def without_budget(scope: str, window: str, active: Sequence[Budget], template: str | None = None) -> str:
    """Say that a scope has no budget in a window, and which was probably meant; ``template`` may stand for it."""
    others = ", ".join(sorted({repr(one.window) for one in active if one.scope in {scope, template}}))
    near = [] if others else get_close_matches(scope, {one.scope for one in active}, n=1, cutoff=0.8)
    hint = f", but in {others}" if others else f"; did you mean {near[0]!r}?" if near else ""
    return f"{scope} has no budget in the window {window!r}{hint}"
