"""What the page asks of a ledger, part by part; each answer is made once and kept for a moment."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.dashboard.advice import advice
from llm_cost_middleware.dashboard.calls import calls
from llm_cost_middleware.dashboard.gauges import gauges
from llm_cost_middleware.dashboard.spending import SAVING, SHOWN, listing, spending
from llm_cost_middleware.dashboard.view import View
from llm_cost_middleware.dashboard.words import when
from llm_cost_middleware.money import DisplayCurrency
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.reports import make_report

PARTS = ("spending", "gauges", "calls", "advice", "list")
"""``list``: the names of a dimension and what they cost, without bars."""
_KEPT = 32
_LEAST_S, _MOST_S = 5.0, 60.0
"""How long an answer is given again: as long as it took twice over, within these seconds."""

Parameters = Mapping[str, Sequence[str]]


class Source:
    """A ledger and what its amounts mean to people. Thread-safe.

    Args:
        ledger: Read, never written.
        catalogue: The prices, for list prices and savings.
        now: The present moment, seconds since the Unix epoch.
        timezone: Of days and times where a URL names none: an IANA name, or ``local``.
    """

    def __init__(
        self, ledger: Ledger, catalogue: Catalogue, *, now: Callable[[], float], timezone: str = "local"
    ) -> None:
        self._ledger, self._catalogue, self._now, self._timezone = ledger, catalogue, now, timezone
        self._lock, self._locks = threading.Lock(), {part: threading.Lock() for part in PARTS}
        self._kept: OrderedDict[tuple[object, ...], tuple[float, dict[str, Any]]] = OrderedDict()

    def part(self, name: str, given: Parameters) -> dict[str, Any]:
        """Return a part of the page as JSON has it; one that was just made is given again.

        Raises:
            ConfigurationError: A parameter that has no meaning.
            LedgerUnavailableError: The storage does not answer.
        """
        lock = self._locks["spending" if name == "list" else name]
        key = (name, *sorted((parameter, *values) for parameter, values in given.items()))
        with lock:  # many tabs must not read a ledger many times at once
            with self._lock:
                until, found = self._kept.get(key, (0.0, None))
            began = time.monotonic()
            if found is not None and began < until:
                return found
            found = self._make(name, self.view(given))
            done = time.monotonic()
            with self._lock:
                self._kept[key] = done + min(max(2 * (done - began), _LEAST_S), _MOST_S), found
                self._kept.move_to_end(key)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return found

    def document(self, given: Parameters) -> dict[str, Any]:
        """Return all parts at one moment, and every dimension of ``SHOWN``, for a page that stands alone."""
        view = self.view(given)
        made = {name: self._make(name, view) for name in PARTS if name != "list"}
        for dimension in SHOWN:
            if dimension != view.by:
                made["spending"]["dimensions"] |= self._make("spending", replace(view, by=dimension))["dimensions"]
        return made

    def view(self, given: Parameters) -> View:
        """Read what a URL asks for. Raises ``ConfigurationError``."""
        return View.read(given, now=self._now(), first=self._first, timezone=self._timezone)

    def _first(self) -> float | None:
        row = next(self._ledger.rows(), None)
        return None if row is None else row.reserved_at

    def _make(self, name: str, view: View) -> dict[str, Any]:
        if name == "gauges":
            made = gauges(self._ledger, view.now, view.asked.zone)
        elif name == "calls":
            made = calls(self._ledger, view)
        elif name == "advice":
            made = advice(self._ledger, view, self._catalogue)
        elif name == "list":
            query = view.query_of_list(savings=view.by in SAVING)
            made = listing(view, make_report(self._ledger, query, catalogue=self._catalogue))
        else:
            made = spending(view, make_report(self._ledger, view.query(), catalogue=self._catalogue))
        year = when(view.now, view.asked.zone)[:4]  # what need not be said of a date
        return {**made, "year": year, "currency": _currency(self._catalogue.currency)}


def _currency(shown: DisplayCurrency | None) -> dict[str, str]:
    if shown is None:
        return {"sign": "$", "rate": "1", "note": "US dollars"}
    return {"sign": shown.sign, "rate": f"{shown.rate:f}", "note": shown.note}
