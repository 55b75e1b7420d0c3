"""Former name of ``breaker``: ``Gate`` is a ``CircuitBreaker`` that answers ``go``, ``wait`` or ``open``."""

from __future__ import annotations

from llm_cost_middleware.retry.breaker import Admission, CircuitBreaker

_FORMER = {"admit": "go", "reject": "open"}


class Gate(CircuitBreaker):
    """A circuit breaker with the former names of its actions."""

    def admit(self, now: float, previous: Admission | None = None) -> Admission:
        """As in ``CircuitBreaker``."""
        answer = super().admit(now, previous)
        return answer._replace(action=_FORMER.get(answer.action, "wait"))  # type: ignore[arg-type]  # former names
