"""When models are retired, as their providers announced it (``retirements.toml``)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_DAY_S = 86_400.0
SOON_DAYS = 90
"""Days before a retirement from which on it is told unasked."""


class Retirement(NamedTuple):
    """The end of a model."""

    day: date
    """From this day on requests are refused."""
    source: str

    def days_left(self, at: float) -> int:
        """Whole days from a moment (seconds since the Unix epoch) to the day; negative once it is past."""
        start = datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC).timestamp()
        return int((start - at) // _DAY_S)

    def told(self, at: float) -> str:
        """The retirement in words."""
        left = self.days_left(at)
        if left < 0:
            return f"retired since {self.day}"
        return f"is retired on {self.day}, in {left + 1} day{'s' if left else ''}"


@cache
def _table() -> Mapping[tuple[str, str], Retirement]:
    data = tomllib.loads(files(__package__).joinpath("retirements.toml").read_text(encoding="utf-8"))
    return {
        (row["provider"], name): Retirement(row["date"], row["source"])
        for row in data["retirement"]
        for name in row["names"]
    }


def find_retirement(provider: str, model: str) -> Retirement | None:
    """When a model is retired, by the name that is sent; ``None`` where nothing was announced."""
    return _table().get((provider, model))
