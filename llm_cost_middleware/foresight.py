"""What a run is expected to spend until its end, as refusals and events carry it: worked out when somebody asks."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, Self


class Forecast(NamedTuple):
    """What a run is expected to spend from now to its end, US dollars."""

    run: str
    spent: Decimal
    steps: int
    """Attempts that were booked so far."""
    expected: Decimal
    """The mean of what comparable runs spent from here on."""
    median: Decimal
    high: Decimal
    """What nine of ten of them spent at most."""
    runs: int
    """How many runs it rests on."""


class Foresight:
    """A forecast that is made once, when it is asked for. What was pickled has asked."""

    __slots__ = ("_ask", "_known", "_waiting")

    def __init__(
        self, ask: Callable[[], Forecast | None] | None, known: Forecast | None = None,
        waiting: Callable[[], bool] = bool,
    ) -> None:  # fmt: skip
        self._ask, self._known, self._waiting = ask, known, waiting

    def __call__(self) -> Forecast | None:
        """The forecast; ``None`` where it is not known. It may read the ledger."""
        if self._ask is not None:
            self._known, self._ask = self._ask(), None
        return self._known

    def told(self) -> Forecast | None:
        """The same, without reading the ledger where an event loop would wait for it."""
        return self._known if self._waiting() else self()

    def __reduce__(self) -> tuple[Any, ...]:
        return Foresight, (None, self())

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        return f"Foresight({self._known!r})" if self._ask is None else "Foresight()"


class Foreseen:
    """What carries a forecast: an event or a refusal of a ``run:`` scope."""

    __slots__ = ()
    foresight: Foresight | None

    @property
    def forecast(self) -> Forecast | None:
        """What the run is expected to spend until its end.

        ``None`` where it is not about a run, or fewer than three others of its agent came as far. Worked out when it is
        first asked for, from the rows that the ledger has of the last day.
        """
        return self.foresight() if self.foresight is not None else None


class ForeseenRefusal(Foreseen):
    """A refusal that says in its message what its run was expected to spend until its end, where that is known."""

    foresight: Foresight | None = None
    least: Decimal | None = None
    """What the smallest call needs that would be sent in its place, its output capped as far as is allowed and
    sensible, US dollars; ``None`` where that is not known."""

    def foreseen(self, foresight: Foresight | None, least: Decimal) -> Self:
        """This refusal, with what there is to expect, and what is needed at least."""
        self.foresight, self.least = foresight, least
        return self

    def __str__(self) -> str:
        text = super().__str__()
        told = self.foresight.told() if self.foresight is not None else None
        return f"{text}; {sentence(told)}" if told is not None else text


def sentence(forecast: Forecast) -> str:
    """A forecast in words."""
    expected, high = (f"${amount:.4f}" for amount in (forecast.expected, forecast.high))
    return f"{forecast.runs} like runs that came as far spent {expected} more on average, nine of ten at most {high}"
