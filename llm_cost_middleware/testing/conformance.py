"""Conformance suite of ledger backends, checked by an oracle that reads the storage itself."""

# ruff: noqa: S101, D102, PLR2004 - what tests are made of: asserts, sentences as names, expected values

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from llm_cost_middleware.budget.backend import Backend, SupportsJournal
from llm_cost_middleware.budget.model import MAX_NANOUSD, Budget, Row, Verb
from llm_cost_middleware.errors import BudgetExceededError, ReservationConflictError, ReservationNotFoundError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.testing.budgets import BudgetTests
from llm_cost_middleware.testing.clock import FakeClock
from llm_cost_middleware.testing.oracle import audit
from llm_cost_middleware.testing.reductions import ReductionTests
from llm_cost_middleware.testing.shared_state import SharedStateTests
from llm_cost_middleware.testing.slices import SliceTests

GLOBAL = ("global",)
USER_A, USER_B = ("global", "user:a"), ("global", "user:b")
TTL = 60_000


class LedgerBackendTests(BudgetTests, ReductionTests, SharedStateTests, SliceTests):
    """Suite to subclass: say how your storage is opened and read; pytest does the rest."""

    def open(self, clock: FakeClock) -> Backend:
        """Open the storage; a second call in one test opens the same one again."""
        raise NotImplementedError

    def raw_rows(self, backend: Backend) -> Iterable[Row]:
        """Read every row without the backend, in the order they were written."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def backend(self, clock: FakeClock) -> Iterator[Backend]:
        backend = self.open(clock)
        yield backend
        self.audit(backend)
        backend.close()

    def audit(self, backend: Backend) -> None:
        audit(backend.read(None), list(self.raw_rows(backend)))

    def sums(self, backend: Backend, scope: str, window: str = "none") -> tuple[int, int]:
        totals = backend.read((scope,)).totals
        return next((line.settled, line.pending) for line in totals if (line.scope, line.window) == (scope, window))

    def reserve(
        self, backend: Backend, id_: str, amount: int, scopes: tuple[str, ...] = GLOBAL, ttl: int = TTL
    ) -> None:
        backend.reserve(id_, amount, scopes, ttl, b"", fresh=False)

    def refused(self, backend: Backend, id_: str, amount: int, scopes: tuple[str, ...] = GLOBAL) -> BudgetExceededError:
        with pytest.raises(BudgetExceededError) as caught:
            self.reserve(backend, id_, amount, scopes)
        return caught.value

    # --- reserve ---------------------------------------------------------------------------------------------------

    def test_a_reservation_is_pending_in_every_scope(self, backend: Backend) -> None:
        held = backend.reserve("a", 7, USER_A, TTL, b"memo", fresh=False)
        assert (held.id, held.amount_nanousd, held.scopes, held.state) == ("a", 7, USER_A, "pending")
        assert round((held.expires_at - held.created_at) * 1000) == TTL
        assert self.sums(backend, "global") == self.sums(backend, "user:a") == (0, 7)

    def test_a_limit_is_reached_exactly_and_not_passed(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(10)))
        self.reserve(backend, "a", 6)
        self.reserve(backend, "b", 4)
        error = self.refused(backend, "c", 1)
        nano = NanoUSD(1).usd
        assert (error.scope, error.budget_limit, error.resets_at) == ("global", 10 * nano, None)
        assert (error.settled, error.pending, error.requested) == (0 * nano, 10 * nano, nano)
        self.reserve(backend, "free", 0)

    def test_all_scopes_or_none(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(100)))
        backend.set_budget(Budget("user:a", NanoUSD(5)))
        assert self.refused(backend, "a", 6, ("global", "team:x", "user:a")).scope == "user:a"
        assert self.sums(backend, "global") == self.sums(backend, "user:a") == self.sums(backend, "team:x") == (0, 0)

    def test_the_first_scope_without_room_is_named(self, backend: Backend) -> None:
        for scope in ("global", "user:a"):
            backend.set_budget(Budget(scope, NanoUSD(5)))
        assert self.refused(backend, "a", 6, USER_A).scope == "global"

    def test_a_template_gives_each_name_its_own(self, backend: Backend) -> None:
        backend.set_budget(Budget("user:*", NanoUSD(5)))
        backend.set_budget(Budget("user:b", NanoUSD(9)))
        self.reserve(backend, "a", 5, USER_A)
        self.reserve(backend, "b", 9, USER_B)
        assert self.refused(backend, "c", 1, USER_A).scope == "user:a"
        self.reserve(backend, "d", 5, ("global", "user:c"))

    def test_an_id_is_reserved_once(self, backend: Backend) -> None:
        self.reserve(backend, "a", 5)
        self.reserve(backend, "a", 5)
        assert self.sums(backend, "global") == (0, 5)
        for amount, scopes in ((6, GLOBAL), (5, USER_A)):
            with pytest.raises(ReservationConflictError):
                self.reserve(backend, "a", amount, scopes)

    def test_an_id_once_refused_stays_refused(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(5), "day"))
        first = self.refused(backend, "a", 6)
        backend.set_budget(Budget("global", NanoUSD(50), "day"))
        assert vars(self.refused(backend, "a", 6)) == vars(first)
        with pytest.raises(ReservationConflictError):
            backend.resolve("settle", "a", 6, status="exact")

    def test_large_amounts_stay_exact(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(MAX_NANOUSD)))
        self.reserve(backend, "a", MAX_NANOUSD - 1)
        self.refused(backend, "b", 2)
        self.reserve(backend, "c", 1)
        assert self.sums(backend, "global") == (0, MAX_NANOUSD)
        backend.resolve("settle", "a", MAX_NANOUSD, status="exact")
        assert self.sums(backend, "global") == (MAX_NANOUSD, 1)

    # --- settle, void, reconcile, book -----------------------------------------------------------------------------

    def test_a_settle_frees_the_rest(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(10)))
        self.reserve(backend, "a", 10, USER_A)
        receipt = backend.resolve("settle", "a", 4, status="exact", memo=b"m")
        assert (receipt.amount_nanousd, receipt.reserved_nanousd, receipt.overrun_nanousd) == (4, 10, 0)
        assert not receipt.late
        assert self.sums(backend, "global") == self.sums(backend, "user:a") == (4, 0)
        self.reserve(backend, "b", 6)

    def test_the_same_settle_again_returns_the_same_receipt(self, backend: Backend, clock: FakeClock) -> None:
        self.reserve(backend, "a", 10)
        first = backend.resolve("settle", "a", 4, status="estimated")
        clock.advance(5)
        assert backend.resolve("settle", "a", 4, status="estimated") == replace(first, repeated=True)
        assert self.sums(backend, "global") == (4, 0)
        with pytest.raises(ReservationConflictError):
            backend.resolve("settle", "a", 5, status="exact")
        with pytest.raises(ReservationConflictError):
            backend.resolve("void", "a", 0, status="void")

    def test_an_overrun_is_booked_and_refuses_the_next(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(10)))
        self.reserve(backend, "a", 8)
        assert backend.resolve("settle", "a", 13, status="exact").overrun_nanousd == 5
        assert self.sums(backend, "global") == (13, 0)
        self.refused(backend, "b", 0)

    def test_a_void_gives_everything_back_once(self, backend: Backend) -> None:
        self.reserve(backend, "a", 8)
        first = backend.resolve("void", "a", 0, status="void")
        assert backend.resolve("void", "a", 0, status="void") == replace(first, repeated=True)
        assert self.sums(backend, "global") == (0, 0)
        with pytest.raises(ReservationConflictError):
            backend.resolve("settle", "a", 3, status="exact")

    def test_unknown_ids_change_nothing(self, backend: Backend) -> None:
        for call in self.verbs(backend, "nobody"):
            with pytest.raises(ReservationNotFoundError):
                call()
        assert not list(self.raw_rows(backend))

    def verbs(self, backend: Backend, id_: str) -> list[Callable[[], object]]:
        return [
            lambda: backend.resolve("settle", id_, 3, status="exact"),
            lambda: backend.resolve("void", id_, 0, status="void"),
            lambda: backend.resolve("reconcile", id_, 3, status="exact"),
            lambda: backend.extend(id_, TTL),
        ]

    def test_a_reconcile_corrects_with_a_new_row(self, backend: Backend) -> None:
        self.reserve(backend, "a", 8)
        with pytest.raises(ReservationConflictError):
            backend.resolve("reconcile", "a", 3, status="exact")
        settled = backend.resolve("settle", "a", 8, status="unconfirmed")
        corrected = backend.resolve("reconcile", "a", 3, status="exact")
        assert backend.resolve("reconcile", "a", 3, status="exact") == replace(corrected, repeated=True)
        assert backend.resolve("settle", "a", 8, status="unconfirmed") == replace(settled, repeated=True)
        assert self.sums(backend, "global") == (3, 0)
        kinds = [(row.kind, row.amount_nanousd, row.status) for row in self.raw_rows(backend)]
        assert kinds == [("reserve", 8, "reserved"), ("settle", 8, "unconfirmed"), ("reconcile", 3, "exact")]

    def test_a_voided_call_that_was_billed_can_be_reconciled(self, backend: Backend) -> None:
        self.reserve(backend, "a", 8)
        backend.resolve("void", "a", 0, status="void")
        backend.resolve("reconcile", "a", 5, status="exact")
        assert self.sums(backend, "global") == (5, 0)

    def test_a_booking_passes_limits_and_repeats(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(10)))
        first = backend.resolve("book", "a", 25, scopes=USER_A, status="exact")
        assert (first.amount_nanousd, first.overrun_nanousd, first.late) == (25, 0, False)
        assert backend.resolve("book", "a", 25, scopes=USER_A, status="exact") == replace(first, repeated=True)
        assert self.sums(backend, "user:a") == (25, 0)
        with pytest.raises(ReservationConflictError):
            backend.resolve("book", "a", 26, scopes=USER_A, status="exact")
        with pytest.raises(ReservationConflictError):
            self.reserve(backend, "a", 0, USER_A)
        self.refused(backend, "b", 0)

    def test_a_receipt_tells_a_replay_from_the_first_booking(self, backend: Backend, clock: FakeClock) -> None:
        """Without a clock: at the same moment, and as the storage opened again, which another process may do."""
        self.reserve(backend, "s", 9)
        self.reserve(backend, "v", 9)
        again = self.open(clock)
        calls: tuple[tuple[Verb, str], ...] = (
            ("settle", "s"), ("void", "v"), ("reconcile", "s"), ("reconcile", "v"), ("book", "b"),
        )  # fmt: skip
        for verb, id_ in calls:
            amount = 0 if verb == "void" else 4
            first, second, third = (
                opened.resolve(verb, id_, amount, scopes=GLOBAL, status="exact") for opened in (backend, backend, again)
            )
            assert not first.repeated
            assert second == third == replace(first, repeated=True)
        again.close()

    # --- expiry ----------------------------------------------------------------------------------------------------

    def test_an_expired_hold_is_charged_or_released(self, backend: Backend, clock: FakeClock) -> None:
        self.reserve(backend, "a", 8)
        assert backend.sweep(charge=True, limit=10) == 0
        clock.advance(TTL / 1000)
        assert backend.sweep(charge=True, limit=10) == 1
        assert backend.sweep(charge=True, limit=10) == 0
        assert self.sums(backend, "global") == (8, 0)
        self.reserve(backend, "b", 5)
        clock.advance(TTL / 1000)
        assert backend.sweep(charge=False, limit=10) == 1
        assert self.sums(backend, "global") == (8, 0)
        assert [row.status for row in self.raw_rows(backend) if row.kind == "expire"] == ["unconfirmed"] * 2

    def test_a_sweep_expires_no_more_than_its_limit(self, backend: Backend, clock: FakeClock) -> None:
        for number in range(5):
            self.reserve(backend, f"a{number}", 1)
        clock.advance(TTL / 1000)
        assert [backend.sweep(charge=True, limit=2) for _ in range(4)] == [2, 2, 1, 0]

    @pytest.mark.parametrize("charge", [True, False])
    def test_a_late_answer_is_taken(self, backend: Backend, clock: FakeClock, charge: bool) -> None:
        for id_ in "abc":
            self.reserve(backend, id_, 8)
        clock.advance(TTL / 1000)
        backend.sweep(charge=charge, limit=10)
        late = backend.resolve("settle", "a", 3, status="exact")
        assert (late.late, late.repeated) == (True, False)
        assert backend.resolve("void", "b", 0, status="void").late
        backend.resolve("reconcile", "c", 4, status="exact")
        assert self.sums(backend, "global") == (7, 0)

    def test_an_extended_hold_lasts(self, backend: Backend, clock: FakeClock) -> None:
        self.reserve(backend, "a", 8)
        clock.advance(30)
        longer = backend.extend("a", TTL)
        assert backend.extend("a", 1).expires_at == longer.expires_at
        clock.advance(45)
        assert backend.sweep(charge=True, limit=10) == 0
        backend.resolve("settle", "a", 1, status="exact")
        with pytest.raises(ReservationConflictError):
            backend.extend("a", TTL)

    # --- windows ---------------------------------------------------------------------------------------------------

    def test_a_window_starts_anew_and_keeps_what_was_reserved_in_it(self, backend: Backend, clock: FakeClock) -> None:
        backend.set_budget(Budget("global", NanoUSD(10), "day"))
        self.reserve(backend, "a", 10)
        error = self.refused(backend, "b", 1)
        assert error.resets_at is not None
        assert error.resets_at.isoformat() == "2026-01-16T00:00:00+00:00"
        clock.advance(12 * 3600)
        self.reserve(backend, "c", 10)
        backend.resolve("settle", "a", 10, status="exact")
        assert self.sums(backend, "global", "day") == (0, 10)

    def test_a_rolling_window_lets_go_bit_by_bit(self, backend: Backend, clock: FakeClock) -> None:
        backend.set_budget(Budget("global", NanoUSD(10), "60s"))
        self.reserve(backend, "a", 6)
        clock.advance(30)
        self.reserve(backend, "b", 4)
        clock.advance(29)
        self.refused(backend, "c", 1)
        clock.advance(2)
        self.reserve(backend, "d", 6)
        self.refused(backend, "e", 1)
        clock.advance(30)
        assert self.sums(backend, "global", "60s") == (0, 6)

    def test_a_new_budget_counts_what_its_window_already_holds(self, backend: Backend, clock: FakeClock) -> None:
        self.reserve(backend, "old", 50, USER_A)
        backend.resolve("settle", "old", 50, status="exact")
        clock.advance(86_400)
        self.reserve(backend, "a", 5, USER_A)
        backend.resolve("settle", "a", 3, status="exact")
        self.reserve(backend, "b", 4, USER_A)
        backend.set_budget(Budget("user:*", NanoUSD(10), "day", "Asia/Kathmandu"))
        backend.set_budget(Budget("global", NanoUSD(100)))
        assert self.sums(backend, "user:a", "day") == (3, 4)
        assert self.sums(backend, "global") == (53, 4)
        self.refused(backend, "c", 4, USER_A)
        backend.resolve("settle", "b", 1, status="exact")
        assert self.sums(backend, "user:a", "day") == (4, 0)
        assert backend.remove_budget("user:*", "day")
        self.reserve(backend, "d", 40, USER_A)

    # --- warnings, rows, journal -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("window", ["none", "day", "600s"])
    def test_a_warning_comes_once_a_window(self, backend: Backend, clock: FakeClock, window: str) -> None:
        backend.set_budget(Budget("user:*", NanoUSD(100), window, warn_at=0.8))
        seen = []
        for number, amount in enumerate((79, 1, 5)):
            self.reserve(backend, f"a{number}", 5, USER_A)
            receipt = backend.resolve("settle", f"a{number}", amount, status="exact")
            assert backend.resolve("settle", f"a{number}", amount, status="exact") == replace(receipt, repeated=True)
            seen.append(receipt.warnings)
        assert seen == [(), (("user:a", window),), ()]
        clock.advance(2 * 86_400)
        again = backend.resolve("book", "later", 90, scopes=USER_A, status="exact").warnings
        assert again == (() if window == "none" else (("user:a", window),))

    def test_rows_stream_in_order_and_filtered(self, backend: Backend, clock: FakeClock) -> None:
        for number in range(520):  # more than a backend reads at once
            backend.resolve(
                "book", f"a{number}", number, scopes=USER_A if number % 2 else GLOBAL, status="exact", memo=b"\0m"
            )
            clock.advance(1)
        rows = list(backend.rows(None, None))
        assert rows == list(self.raw_rows(backend))
        assert [row.seq for row in rows] == sorted({row.seq for row in rows})
        assert {row.memo for row in rows} == {b"\0m"}
        later = round(rows[505].at * 1000)
        assert list(backend.rows(later, "user:a")) == [row for row in rows[505:] if "user:a" in row.scopes]

    def test_odd_names_stay_apart(self, backend: Backend) -> None:
        backend.set_budget(Budget("user:%F0%9F%92%B8%20x", NanoUSD(5)))
        self.reserve(backend, "a", 5, ("global", "user:%F0%9F%92%B8%20x"))
        self.refused(backend, "b", 1, ("global", "user:%F0%9F%92%B8%20x"))
        self.reserve(backend, "c", 9, ("global", "user:x"))
        assert not list(backend.rows(None, "user:%F0"))

    def test_the_storage_opened_again_knows_everything(self, backend: Backend, clock: FakeClock) -> None:
        backend.set_budget(Budget("global", NanoUSD(10), "month", "Europe/Paris", warn_at=None))
        self.reserve(backend, "a", 6)
        again = self.open(clock)
        assert again.read(None).budget_index.budgets == backend.read(()).budget_index.budgets
        self.refused(again, "b", 5)
        receipt = again.resolve("settle", "a", 2, status="exact")
        assert backend.resolve("settle", "a", 2, status="exact") == replace(receipt, repeated=True)
        backend.remove_budget("global", "month")
        self.reserve(again, "c", 50)
        again.close()

    def test_a_journal_remembers(self, backend: Backend) -> None:
        if not isinstance(backend, SupportsJournal) or backend.journal is None:
            pytest.skip("this backend keeps no journal")
        for number in range(3):
            backend.journal.append("decision", f"call-{number}", 100.5 + number, bytes([number]))
        backend.journal.append("outcome", "call-0", 101.0, b"\xff")
        entries = [(entry.id, entry.at, entry.data) for entry in backend.journal.read("decision", 101.5)]
        assert entries == [("call-1", 101.5, b"\x01"), ("call-2", 102.5, b"\x02")]

    # --- many at once ----------------------------------------------------------------------------------------------

    def test_a_budget_for_five_lets_five_of_fifty_through(self, backend: Backend) -> None:
        backend.set_budget(Budget("global", NanoUSD(50)))

        def attempt(number: int) -> bool:
            try:
                self.reserve(backend, f"call-{number}", 10, USER_A)
            except BudgetExceededError:
                return False
            backend.resolve("settle", f"call-{number}", 10, status="exact")
            return True

        with ThreadPoolExecutor(self.threads) as pool:
            assert sum(pool.map(attempt, range(50))) == 5
        assert self.sums(backend, "global") == (50, 0)

    threads = 16

    def test_one_id_from_many_threads_is_booked_once(self, backend: Backend) -> None:
        def attempt(_: int) -> tuple[int, bool]:
            self.reserve(backend, "a", 10)
            receipt = backend.resolve("settle", "a", 7, status="exact")
            return receipt.amount_nanousd, receipt.repeated

        with ThreadPoolExecutor(self.threads) as pool:
            receipts = sorted(pool.map(attempt, range(32)))
        assert receipts == [(7, False), *[(7, True)] * 31]
        assert self.sums(backend, "global") == (7, 0)
