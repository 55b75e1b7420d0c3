"""The service tier that a request without one is held at, and what the answers show of it. Pure; the owner locks.

OpenAI serves a request without a tier (or with ``auto``) at the one that its project is set to: ``default``, unless the
owner chose another (developers.openai.com, API reference, ``service_tier``). A request cannot tell which it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

AUTO = "auto"
_STANDARD = frozenset({"default", "standard", "auto", "standard_only"})
_ENOUGH = 20
"""Answers from which on the tiers of a provider's answers say what its next ones will be served at."""


class HeldTier(NamedTuple):
    """The tier to price a hold at."""

    tier: str | None
    """``None``: the dearest that the provider may choose."""
    assumed: bool = False
    """Nobody declared it, and no request asks for it."""


def undeclared(provider: str, times: float) -> str:
    """Why a hold at the standard tier guarantees nothing, and by how much its call may cost more."""
    told = f"held at the standard service tier: [providers.{provider}] declares no other"
    return f"{told}; a project set to a dearer one is billed up to {times:.2f} times as much"


class ServedTiers:
    """What is known of the tiers of each provider.

    Args:
        declared: By provider, the tier its project is set to; ``auto``: not known, the dearest counts. A provider that
            is missing, or has an empty one, is taken to serve at the standard tier until an answer shows another.
        learns: Past answers may lower the hold where the tier is declared as ``auto``.
    """

    def __init__(self, declared: Mapping[str, str], *, learns: bool = False) -> None:
        self._declared, self.learns = declared, learns
        self._dearer: dict[str, str] = {}
        self._answers: dict[str, Counter[str]] = {}
        self.version = 0
        """Another number says that ``held`` may answer otherwise."""

    def held(self, provider: str, asked: object) -> HeldTier:
        """Return the tier to hold a request at that asks for ``asked``; the caller's own choice wins."""
        if asked not in (None, AUTO):
            return HeldTier(str(asked))
        if (seen := self._dearer.get(provider)) is not None:
            return HeldTier(seen)
        declared = self._declared.get(provider, "")
        if declared == AUTO:
            answers = self._answers.get(provider)
            if answers is None or answers.total() < _ENOUGH or set(answers) - _STANDARD:
                return HeldTier(None)
            return HeldTier("default", assumed=True)
        return HeldTier(declared or "default", assumed=not declared)

    def answered(self, provider: str, tier: str, *, dearer: bool) -> bool:
        """Note the tier of an answer to a request that named none.

        Args:
            provider: Who answered.
            tier: As the answer names it.
            dearer: It costs more than what was held.

        Returns:
            Whether this is the first that costs more: later requests are held at it.
        """
        if self.learns:
            self._answers.setdefault(provider, Counter())[tier] += 1
            self.version += 1
        first = dearer and self._dearer.get(provider) != tier
        if first:
            self._dearer[provider] = tier
            self.version += 1
        return first
