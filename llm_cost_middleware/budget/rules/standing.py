"""What stands over the limits of budgets for a time: raises, scopes that are paused, and limits that stood before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from llm_cost_middleware.budget.carry_over import Stood
from llm_cost_middleware.errors import ScopePausedError


class Raise(NamedTuple):
    """Another limit until a time. Nano-dollars; ms since the Unix epoch."""

    limit: int
    until: int


class Pause(NamedTuple):
    """A stop for every call of a scope. Times are ms since the Unix epoch; ``until`` is ``None`` for no end."""

    scope: str
    since: int
    until: int | None = None
    reason: str = ""

    def error(self, scope: str) -> ScopePausedError:
        """Return it as the public exception; ``scope`` is the call's own, where this pauses a whole kind."""
        until = None if self.until is None else datetime.fromtimestamp(self.until / 1000, UTC)
        return ScopePausedError(scope, self.reason, until, paused=self.scope)


class Overlay(NamedTuple):
    """Every raise by the key of its budget, and every pause by its scope."""

    raises: Mapping[tuple[str, str], Raise] = {}
    pauses: Mapping[str, Pause] = {}
    stood: Mapping[tuple[str, str], Stood] = {}
    """Limits that stood, by the key of a budget that carries over."""
    ended: Mapping[tuple[str, str], int] = {}
    """Until when (ms) a budget stood that is no longer, by its key."""

    @classmethod
    def read(cls, document: bytes) -> Overlay:
        """Read the overlay of a register as a storage keeps it (``rules.register``)."""
        if not document:
            return NO_OVERLAY
        found = json.loads(document)
        active = [
            ((scope, window), life)
            for name, life in found["budgets"].items()
            if life["state"] == "active"
            for scope, _, window in [name.partition(" ")]
        ]
        raises = {key: Raise(*life["raised"]) for key, life in active if life.get("raised")}
        stood = {key: life["stood"] for key, life in active if life.get("stood")}
        ended = {
            (scope, window): life["since"]
            for name, life in found["budgets"].items()
            if life["state"] != "active"
            for scope, _, window in [name.partition(" ")]
        }
        return cls(raises, {scope: Pause(scope, *facts) for scope, facts in found["pauses"].items()}, stood, ended)

    def limit(self, key: tuple[str, str], limit: int, now: int) -> tuple[int, int | None]:
        """Return the limit of a budget at ``now`` (ms), and until when it is that; ``None``: until it is changed."""
        raised = self.raises.get(key)
        if raised is None or raised.until <= now:
            return limit, None
        return raised.limit, raised.until

    def pause(self, scopes: Iterable[str], now: int) -> tuple[str, Pause] | None:
        """Return the first of a call's scopes that is paused at ``now`` (ms), and its pause."""
        if not self.pauses:
            return None
        for scope in scopes:
            for name in (scope, f"{scope.partition(':')[0]}:*"):
                found = self.pauses.get(name)
                if found is not None and (found.until is None or now < found.until):
                    return scope, found
        return None


NO_OVERLAY = Overlay()


def renamed_register(document: bytes, scope: str, alias: str) -> bytes:
    """Return the register with another name in the place of a scope, wherever it stands."""
    text = document.decode()
    for before, after in ((f'"{scope}"', f'"{alias}"'), (f'"{scope} ', f'"{alias} '), (f' {scope}"', f' {alias}"')):
        text = text.replace(before, after)
    return text.encode()
