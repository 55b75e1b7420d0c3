"""The test of the test: a ledger with a planted fault must not survive the histories."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from llm_cost_middleware.budget.backends.memory import backend as memory
from llm_cost_middleware.budget.backends.memory.backend import MemoryBackend, _SharedState
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.testing import ledger_state_machine


class DoubleSettle(MemoryBackend):
    """A settle that is sent twice is booked twice."""

    def resolve(self, verb, id_, amount, **options):
        known = self._state.closed.get(id_)
        receipt = super().resolve(verb, id_, amount, **options)
        if verb == "settle" and known is not None:
            for cell in known.cells:
                cell.settled += amount
        return receipt


class LostVoid(MemoryBackend):
    """A void says that it gave the money back."""

    def resolve(self, verb, id_, amount, **options):
        held = self._open.get(id_)
        receipt = super().resolve(verb, id_, amount, **options)
        if verb == "void" and held is not None:
            for cell in held.cells:
                cell.pending += held.amount
        return receipt


class WindowOffByOne(MemoryBackend):
    """The first moment of a window still belongs to the one before."""

    def __init__(self, clock, state):
        super().__init__(clock, state)
        now = clock.now
        self._now = lambda: now() - 1 if now() % 3600 == 0 else now()


class OneNanoTooMany(MemoryBackend):
    """The limit is passed by one."""

    def _posting_route(self, scopes, now):
        route = super()._posting_route(scopes, now)
        limits = tuple((cell, limit + 1, charge) for cell, limit, charge in route.limits)
        self._routes[scopes] = replace(route, limits=limits)
        return self._routes[scopes]


class LeakyRefusal(MemoryBackend):
    """A refusal keeps what it had reserved in the scopes before the one that refused."""

    def reserve(self, id_, amount, scopes, ttl, memo, *, fresh):
        try:
            return super().reserve(id_, amount, scopes, ttl, memo, fresh=fresh)
        except BudgetExceededError as error:
            for cell in self._routes[scopes].cells:
                if cell.account.key[0] == error.scope:
                    break
                cell.pending += amount
            raise


class ForgetfulRefusal(MemoryBackend):
    """An id that was refused may try again."""

    def reserve(self, id_, amount, scopes, ttl, memo, *, fresh):
        try:
            return super().reserve(id_, amount, scopes, ttl, memo, fresh=fresh)
        except BudgetExceededError:
            self._state.closed.pop(id_, None)
            raise


class FreeExpiry(MemoryBackend):
    """An expired hold is released, whatever was asked for."""

    def sweep(self, *, charge, limit):
        return super().sweep(charge=False, limit=limit)


class LateSettleOnTop(MemoryBackend):
    """A late settle is added to what the expiry had charged."""

    def _resolve(self, record, verb, amount, *rest):
        if record.state == "expired" and verb == "settle":
            record.charged = 0
        return super()._resolve(record, verb, amount, *rest)


class LosesARow(MemoryBackend):
    """A reconcile changes the sums, but leaves no row."""

    def resolve(self, verb, id_, amount, **options):
        before = len(self._rows)
        receipt = super().resolve(verb, id_, amount, **options)
        if verb == "reconcile" and len(self._rows) > before:
            self._rows.pop()
        return receipt


class BudgetStartsEmpty(MemoryBackend):
    """A new budget counts nothing of what its window already holds."""

    def _refill(self, pattern, window, warned):
        for key in list(self._state.accounts):
            if key[1] == window:
                del self._state.accounts[key]


class CrashForgets(MemoryBackend):
    """What is opened again has lost its pending reservations."""

    def __init__(self, clock, state):
        for id_ in list(state.open):
            for cell in state.open.pop(id_).cells:
                cell.pending = 0
        super().__init__(clock, state)


class CarriesOneTooMany(MemoryBackend):
    """One nano-dollar more than was unused is carried into a window."""

    def reserve(self, id_, amount, scopes, ttl, memo, *, fresh):
        route = self._routes.get(scopes) or self._posting_route(scopes, int(self._now() * 1000))
        limits = tuple((cell, limit + (posting.carry is not None), posting) for cell, limit, posting in route.limits)
        self._routes[scopes] = replace(route, limits=limits)
        try:
            return super().reserve(id_, amount, scopes, ttl, memo, fresh=fresh)
        finally:
            self._routes.clear()


FAULTS = [
    DoubleSettle, LostVoid, WindowOffByOne, OneNanoTooMany, LeakyRefusal, ForgetfulRefusal, FreeExpiry, LateSettleOnTop,
    LosesARow, BudgetStartsEmpty, CrashForgets, CarriesOneTooMany,
]  # fmt: skip


@pytest.mark.parametrize("faulty", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(faulty):
    states = [_SharedState()]
    machine = ledger_state_machine(
        lambda clock: faulty(clock, states[-1]),
        lambda backend: memory.MemoryBackend.rows(backend, None, None),
        dispose=lambda: states.append(_SharedState()),
    )
    hunt = settings(
        max_examples=2000,
        stateful_step_count=20,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # found is enough: no shrinking
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=hunt)
