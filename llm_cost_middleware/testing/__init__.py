"""Tests of a ledger backend, shipped: a conformance suite, a state machine, and a clock that tests advance.

A backend of your own gets both in a few lines::

    class TestMyBackend(LedgerBackendTests):
        def open(self, clock):            # a second call opens the same storage again
            return MyBackend(self.where, clock)

        def raw_rows(self, backend):      # without the backend: the oracle must not trust what it tests
            return [Row(...) for line in read_my_storage(self.where)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_cost_middleware.extras import needed_for
from llm_cost_middleware.testing.clock import FakeClock

if TYPE_CHECKING:
    from llm_cost_middleware.testing.blocking import BlockingFacade
    from llm_cost_middleware.testing.conformance import LedgerBackendTests
    from llm_cost_middleware.testing.state_machine import ledger_state_machine

__all__ = ["BlockingFacade", "FakeClock", "LedgerBackendTests", "ledger_state_machine"]

_MODULES = {"BlockingFacade": "blocking", "LedgerBackendTests": "conformance", "ledger_state_machine": "state_machine"}


def __getattr__(name: str) -> Any:
    """Import what needs pytest or hypothesis on first use."""
    if name not in _MODULES:
        raise AttributeError(name)
    from importlib import import_module

    with needed_for(name):
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
