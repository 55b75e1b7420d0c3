"""Events to the standard ``logging``, under the logger ``llm_cost_middleware``."""

from __future__ import annotations

import logging
import re
from dataclasses import fields

from llm_cost_middleware.events import (
    AlertRaised,
    BudgetRefused,
    CallFailed,
    CallPaused,
    Event,
    OutputCapReached,
    PolicyDrifted,
    RequestAdjusted,
    Retried,
    RunawaySuspected,
    ThresholdCrossed,
    Unattributed,
)
from llm_cost_middleware.money import NanoUSD, format_usd

LOGGER = logging.getLogger("llm_cost_middleware")
_WARNINGS = (
    RequestAdjusted,
    OutputCapReached,
    CallFailed,
    BudgetRefused,
    CallPaused,
    PolicyDrifted,
    Retried,
    RunawaySuspected,
    ThresholdCrossed,
    Unattributed,
)
"""Not ``Ungoverned``: ``on_ungoverned`` decides whether that is worth a warning, and the pipeline warns itself."""


_ORDINARY = frozenset({"cap_output", "drop_cache_marks"})
"""What ``RequestAdjusted`` need not warn of: an answer that stops at such a cap is told as ``OutputCapReached``."""


class LoggingObserver:
    """Writes each event as one line: warnings where a call was changed, refused, retried or failed, else ``INFO``."""

    def on_event(self, event: Event) -> None:
        """Log ``event``; alerts are logged where ``[[alerts]]`` says so."""
        if isinstance(event, AlertRaised):
            return
        told = isinstance(event, _WARNINGS) and getattr(event, "action", "") not in _ORDINARY
        level = logging.WARNING if told else logging.INFO
        # Asked first: describing an event costs more than dropping it.
        if LOGGER.isEnabledFor(level):
            LOGGER.log(level, "%s", describe(event), extra={"llm_cost_event": event})


def describe(event: Event) -> str:
    """An event in one line: its name, then its facts. Ids, money and names only."""
    facts = []
    for field in fields(event):
        value = getattr(event, field.name)
        if field.name in {"at", "foresight"} or value is None or value == "" or field.name == "usage":
            continue
        name = field.name.removesuffix("_nanousd")
        facts.append(f"{name}={format_usd(value) if isinstance(value, NanoUSD) else value}")
    name = _WORDS.sub(" ", type(event).__name__).lower()
    return f"{name} {' '.join(facts)}"


_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
"""Where the words of an event's name meet."""
