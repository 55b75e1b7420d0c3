"""A refused budget as LiteLLM's own: ``except litellm.BudgetExceededError`` catches it, with LiteLLM's fields in USD.

The other errors have no counterpart there and stay what they are. The class is an attribute of this module:
``from llm_cost_middleware.integrations.litellm.errors import BudgetExceededError``.
"""

from __future__ import annotations

import litellm

from llm_cost_middleware import errors
from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.refusals import HostErrors

_REFUSED = 422


class _Refusal(litellm.BudgetExceededError):  # type: ignore[misc]  # LiteLLM is not typed
    """LiteLLM's fields, read off ours; floats, as there."""

    llm_provider = ""
    status_code = getattr(litellm, "budget_exceeded_status_code", _REFUSED)
    """One that nothing retries: LiteLLM's own of 1.102 was that of a rate limit."""
    entity_type = entity_id = None

    @property
    def current_cost(self) -> float:
        """What the scope has spent."""
        return float(self.total_cost)

    @property
    def max_budget(self) -> float:
        """Its limit."""
        return float(self.budget_limit)

    @property
    def message(self) -> str:
        """The text."""
        return str(self)


def _bases(kind: type[LLMCostError]) -> tuple[type[Exception], ...]:
    return (_Refusal,) if issubclass(kind, errors.BudgetExceededError) else ()


ERRORS = HostErrors(__name__, _bases)


def __getattr__(name: str) -> type[LLMCostError]:
    return ERRORS.named(name)
