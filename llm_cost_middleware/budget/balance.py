"""Balance of a scope: what it may spend in a window, has spent and holds."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from llm_cost_middleware.money import ZERO, NanoUSD


class Balance(NamedTuple):
    """Balance of one scope in one window. ``limit`` and ``available`` are ``None`` where there is no budget.

    The limit holds what was ``carried`` over from the window before (``Budget.carry_over``).
    """

    limit_nanousd: NanoUSD | None
    settled_nanousd: NanoUSD
    pending_nanousd: NanoUSD
    carried_nanousd: NanoUSD = ZERO

    @property
    def available_nanousd(self) -> NanoUSD | None:
        """Limit minus settled minus pending; negative after an overrun."""
        if self.limit_nanousd is None:
            return None
        return NanoUSD(self.limit_nanousd - self.settled_nanousd - self.pending_nanousd)

    @property
    def limit(self) -> Decimal | None:
        """US dollars."""
        return None if self.limit_nanousd is None else self.limit_nanousd.usd

    @property
    def settled(self) -> Decimal:
        """US dollars."""
        return self.settled_nanousd.usd

    @property
    def pending(self) -> Decimal:
        """US dollars."""
        return self.pending_nanousd.usd

    @property
    def carried(self) -> Decimal:
        """What of the limit was carried over from the window before, US dollars."""
        return self.carried_nanousd.usd

    @property
    def available(self) -> Decimal | None:
        """US dollars; negative after an overrun."""
        available = self.available_nanousd
        return None if available is None else available.usd
