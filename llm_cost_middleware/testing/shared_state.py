"""Tests of the values that processes share through a backend; a part of the conformance suite."""

# ruff: noqa: S101, D102 - what tests are made of: asserts, sentences as names, expected values

from __future__ import annotations

import pytest

from llm_cost_middleware.budget.backend import Backend, SharedState, SupportsSharedState
from llm_cost_middleware.testing.clock import FakeClock


class SharedStateTests:
    """What holds of every ``SharedState``; skipped where a backend has none."""

    def open(self, clock: FakeClock) -> Backend:
        """Open the storage; a second call in one test opens the same one again."""
        raise NotImplementedError

    def shared(self, backend: Backend) -> SharedState:
        if not isinstance(backend, SupportsSharedState):
            pytest.skip("this backend shares no values")
        return backend.shared_state

    def test_shared_values_are_seen_by_whoever_opens_the_storage(self, backend: Backend, clock: FakeClock) -> None:
        shared = self.shared(backend)
        shared.change(["a", "b"], lambda values: [b"\x00one", b"" if any(values) else b"two"], 100.0)
        again = self.open(clock)
        assert self.shared(again).read(["b", "missing", "a"]) == [b"two", None, b"\x00one"]
        self.shared(again).change(["a"], lambda values: [(values[0] or b"") + b"!"], 101.0)
        assert shared.read(["a", "b"]) == [b"\x00one!", b"two"]
        again.close()

    def test_no_shared_value_is_asked_for_or_changed(self, backend: Backend) -> None:
        shared = self.shared(backend)
        shared.change([], lambda values: list(filter(None, values)), 100.0)
        assert shared.read([]) == []

    def test_shared_values_that_nobody_changes_make_room(self, backend: Backend) -> None:
        shared = self.shared(backend)
        for block in range(50):
            keys = [f"{block}.{number}" for number in range(500)]
            shared.change(keys, lambda values: [b"x"] * len(values), 100.0 + block)
        for number in range(300):  # a storage may look only now and then
            shared.change([f"last.{number}"], lambda _: [b"y"], 200.0)
        assert shared.read(["0.0", "49.0", "last.0"]) == [None, b"x", b"y"]
