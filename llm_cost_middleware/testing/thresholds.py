"""Conformance of soft thresholds (``Budget.warn_at``): each warns once a window, and tells which sum was crossed."""

# ruff: noqa: S101, D102 - what tests are made of: asserts, sentences as names

from __future__ import annotations

import pytest
from msgspec.structs import replace

from llm_cost_middleware.budget.backend import Backend
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.clock import FakeClock


class ThresholdTests:
    """Part of ``LedgerBackendTests``."""

    def _spend(self, backend: Backend, id_: str, amount: int) -> list[tuple[tuple[str, str], int]]:
        receipt = backend.resolve("book", id_, amount, scopes=("global",), status="exact")
        return list(zip(receipt.warnings, receipt.thresholds, strict=True))

    @pytest.mark.parametrize("window", ["day", "3600s", "none"])
    def test_each_threshold_warns_once(self, backend: Backend, clock: FakeClock, window: str) -> None:
        key = "global", window
        backend.set_budget(Budget("global", NanoUSD(100), window, warn_at=[1.0, 0.5, 0.8]))
        assert self._spend(backend, "a", 49) == []
        assert self._spend(backend, "b", 1) == [(key, 50)]
        assert self._spend(backend, "c", 29) == []
        assert self._spend(backend, "d", 25) == [(key, 100)], "the highest of those that were crossed"
        assert self._spend(backend, "e", 1) == []
        if window != "none":
            clock.advance(2 * 86_400)
            assert self._spend(backend, "f", 85) == [(key, 80)]
            assert self._spend(backend, "g", 1) == []

    def test_what_was_spent_before_counts(self, backend: Backend) -> None:
        self._spend(backend, "a", 85)
        backend.set_budget(Budget("global", NanoUSD(100), warn_at=(0.5, 0.8)))
        assert self._spend(backend, "b", 1) == [(("global", "none"), 80)]

    def test_a_repeated_booking_tells_the_same_and_crosses_nothing(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(100), warn_at=(0.5, 0.8)))
        first = backend.resolve("book", "a", 60, scopes=("global",), status="exact")
        assert (first.warnings, first.thresholds) == ((("global", "none"),), (50,))
        again = backend.resolve("book", "a", 60, scopes=("global",), status="exact")
        assert again == replace(first, repeated=True)
        assert self._spend(backend, "b", 1) == []

    def test_names_with_commas_warn_as_others_do(self, backend: Backend) -> None:
        scopes = "global", "team:a,b", "tag:c,7"
        for scope in scopes[1:]:
            backend.set_budget(Budget(scope, NanoUSD(100), "day", warn_at=(0.5, 0.8)))
        first = backend.resolve("book", "a", 85, scopes=scopes, status="exact")
        assert dict(zip(first.warnings, first.thresholds, strict=True)) == {(one, "day"): 80 for one in scopes[1:]}
        again = backend.resolve("book", "a", 85, scopes=scopes, status="exact")
        assert again == replace(first, repeated=True)
