"""What was raised and who was told, remembered with the ledger: across processes, and after their end.

Lines of the journal are the record: an alert when it is raised, and who was told. A claim in the shared state keeps two
processes from telling the same at once; where it is lost they tell it twice, under one id. A ledger in memory has one
process, and remembers in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llm_cost_middleware.budget.backend import Journal, SharedState
from llm_cost_middleware.budget.ledger import Ledger, unique_id
from llm_cost_middleware.budget.model import LIFETIME
from llm_cost_middleware.events import AlertRaised
from llm_cost_middleware.money import NanoUSD, ceil_nanousd

ALERT, LEDGER_ID = "alert", "alert-ledger"
"""Kinds of lines in the journal."""
KEPT_S = 40 * 86_400.0
"""How long what was told is remembered: longer than the longest window that ends, a month."""
TRIED_S = 7 * 86_400.0
"""How long somebody who cannot be reached is tried."""
CLAIM_S = 60.0
"""How long one process may take to tell an alert before another one does."""
_SKEW_S = 300.0  # between the clocks of machines
_VERSION = 1
_SCOPE = "{scope}"  # in the text of a line


class Waiting(NamedTuple):
    """An alert that somebody was not told yet. ``target`` is a digest: URLs hold secrets."""

    alert: AlertRaised
    target: str


class AlertRecord:
    """The record of alerts of one ledger, as one process knows it. Its calls may block.

    Args:
        ledger: The ledger.
        now: Seconds since the Unix epoch.
    """

    def __init__(self, ledger: Ledger, now: Callable[[], float]) -> None:
        self._now = now
        self._journal: Journal | None = ledger.journal if ledger.blocks else None
        self._shared: SharedState | None = ledger.shared_state if ledger.blocks else None
        self._raised: dict[str, AlertRaised] = {}
        self._targets: dict[str, set[str]] = {}
        self._told: dict[str, set[str]] = {}
        self._read_to: float | None = None
        self._ledger_id = "" if self._journal is not None else unique_id()
        self._me = unique_id()

    @property
    def ledger_id(self) -> str:
        """What tells this ledger from others: made by the first process, read by all."""
        if not self._ledger_id and self._journal is not None:
            first = next(iter(self._journal.read(LEDGER_ID)), None)
            if first is None:
                self._journal.append(LEDGER_ID, self._me, self._now(), b"")
                first = next(iter(self._journal.read(LEDGER_ID)))
            self._ledger_id = first.id
        return self._ledger_id

    def catch_up(self) -> None:
        """Take in what other processes have raised and told, and forget what is old."""
        now = self._now()
        if self._journal is not None:
            for entry in self._journal.read(ALERT, None if self._read_to is None else self._read_to - _SKEW_S):
                self._take(entry.data)
            self._read_to = now
        old = [id_ for id_, alert in self._raised.items() if alert.at < now - KEPT_S and alert.window != LIFETIME]
        for id_ in old:
            del self._raised[id_]
            self._targets.pop(id_, None)
            self._told.pop(id_, None)

    def raise_(self, alert: AlertRaised, targets: Sequence[str]) -> bool:
        """Take note of an alert that these are to be told; return whether it is new to this ledger."""
        known = alert.id in self._raised
        missing = set(targets) - self._targets.get(alert.id, set())
        if known and not missing:
            return False
        if not known and not self._claim(f"{alert.id}.raised", CLAIM_S):
            return False  # another process is about it; should it end before it is written, it is found again
        alert = self._raised.get(alert.id, alert)
        self._append({"id": alert.id, "alert": _nameless(alert), "to": sorted(missing)}, alert.at)
        self._raised[alert.id] = alert
        self._targets.setdefault(alert.id, set()).update(missing)
        return not known

    def waiting(self) -> list[Waiting]:
        """Whom nobody told yet, the oldest alert first."""
        oldest = self._now() - TRIED_S
        return [
            Waiting(alert, target)
            for alert in sorted(self._raised.values(), key=lambda one: one.at)
            if alert.at >= oldest
            for target in sorted(self._targets.get(alert.id, set()) - self._told.get(alert.id, set()))
        ]

    def claim(self, waiting: Waiting) -> bool:
        """Whether it is this process' turn to tell it."""
        return self._claim(f"{waiting.alert.id}.{waiting.target}", CLAIM_S)

    def give_back(self, waiting: Waiting) -> None:
        """End a claim: it could not be told, and another process may try."""
        self._set(f"{waiting.alert.id}.{waiting.target}", until=0.0)

    def told(self, waiting: Waiting) -> None:
        """Take note that it was told."""
        self._told.setdefault(waiting.alert.id, set()).add(waiting.target)
        self._append({"id": waiting.alert.id, "told": waiting.target}, self._now())

    def take_turn(self, what: str, lasting_s: float) -> bool:
        """Whether this process is the one that does something in the next ``lasting_s`` seconds."""
        return self._claim(f"turn.{what}", lasting_s)

    def history(self) -> list[tuple[AlertRaised, int, int]]:
        """Return what was raised, oldest first: the alert, how many are told of it, and how many are to be."""
        return [
            (alert, len(self._told.get(alert.id, set())), len(self._targets.get(alert.id, set())))
            for alert in sorted(self._raised.values(), key=lambda one: one.at)
        ]

    def _claim(self, key: str, lasting_s: float) -> bool:
        if self._shared is None:
            return True
        got, now = False, self._now()

        def to(values: list[bytes | None]) -> list[bytes]:
            nonlocal got
            who, until = _claimed(values[0])
            got = who == self._me or until <= now or until > now + max(lasting_s, _SKEW_S) * 2
            return [_claim_of(self._me, now + lasting_s) if got else values[0] or b""]

        self._shared.change([f"alert.{key}"], to, now)
        # Where a change is no transaction another one may have come in between: the last one written holds.
        return got and _claimed(self._shared.read([f"alert.{key}"])[0])[0] == self._me

    def _set(self, key: str, until: float) -> None:
        if self._shared is not None:
            self._shared.change([f"alert.{key}"], lambda _: [_claim_of(self._me, until)], self._now())

    def _append(self, line: dict[str, Any], at: float) -> None:
        if self._journal is not None:
            data = json.dumps({"v": _VERSION, **line}, separators=(",", ":")).encode()
            self._journal.append(ALERT, line["id"], at, data)

    def _take(self, data: bytes) -> None:
        try:
            line = json.loads(data)
            if line["v"] > _VERSION:
                return
            if "told" in line:
                self._told.setdefault(line["id"], set()).add(line["told"])
                return
            alert = load(line["alert"] | {"text": line["alert"]["text"].replace(_SCOPE, line["alert"]["scope"])})
            self._raised.setdefault(alert.id, alert)
            self._targets.setdefault(alert.id, set()).update(line["to"])
        except (ValueError, KeyError, TypeError):
            return  # written by another version, or damaged: raised anew where it still holds


def digest_of(target: str) -> str:
    """What stands for a target in the record: its URL may hold a secret."""
    return hashlib.sha256(target.encode()).hexdigest()[:16]


def dump(alert: AlertRaised) -> dict[str, Any]:
    """An alert as JSON: amounts as text in US dollars, times as seconds since the Unix epoch."""
    return {
        "id": alert.id, "kind": alert.kind, "scope": alert.scope, "window": alert.window, "text": alert.text,
        "subject": alert.subject, "limit_usd": _usd(alert.limit_nanousd), "spent_usd": _usd(alert.spent_nanousd),
        "percent": alert.percent, "resets_at": alert.resets_at, "at": alert.at,
    }  # fmt: skip


def load(data: dict[str, Any]) -> AlertRaised:
    """The alert of a line. Raises ``KeyError`` or ``ValueError`` where it is none."""
    return AlertRaised(
        "", data["at"], data["id"], data["kind"], data["scope"], data["window"], data["text"], data["subject"],
        _nano(data["limit_usd"]), _nano(data["spent_usd"]), data["resets_at"],
    )  # fmt: skip


def _nameless(alert: AlertRaised) -> dict[str, Any]:
    """An alert as it is kept: its scope stands in one place, where ``Ledger.erase`` puts another name."""
    told = dump(alert)
    return told | {"text": alert.text.replace(alert.scope, _SCOPE)}


def _usd(amount: NanoUSD | None) -> str | None:
    return None if amount is None else f"{amount.usd:f}"


def _nano(text: str | None) -> NanoUSD | None:
    return None if text is None else ceil_nanousd(text)


def _claim_of(who: str, until: float) -> bytes:
    return json.dumps([who, until]).encode()


def _claimed(data: bytes | None) -> tuple[str, float]:
    try:
        who, until = json.loads(data or b'["", 0]')
        return str(who), float(until)
    except (ValueError, TypeError):
        return "", 0.0
