"""What proves a ledger backend, shipped: the conformance suite, a state machine, and a clock that is turned by hand.

An outside backend gets both in a few lines::

    class TestMyBackend(LedgerBackendTests):
        def open(self, clock):            # the storage as it is; a second call opens the same one again
            return MyBackend(self.where, clock)

        def raw_rows(self, backend):      # read past the backend: the oracle must not trust what it judges
            return [Row(...) for line in read_my_storage(self.where)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_cost_middleware.testing.clock import FakeClock

if TYPE_CHECKING:
    from llm_cost_middleware.testing.blocking import Blocking
    from llm_cost_middleware.testing.conformance import LedgerBackendTests
    from llm_cost_middleware.testing.state_machine import ledger_state_machine

__all__ = ["Blocking", "FakeClock", "LedgerBackendTests", "ledger_state_machine"]

_HOMES = {"Blocking": "blocking", "LedgerBackendTests": "conformance", "ledger_state_machine": "state_machine"}


def __getattr__(name: str) -> Any:
    """Load what needs pytest or hypothesis only when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(name)
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
