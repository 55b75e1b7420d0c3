"""This package's errors as the ``anthropic`` SDK's own: each is also an ``AnthropicError``.

Never a status error or one of a rate limit: what retries those, in the SDK or around it, leaves a refusal alone.
The classes are attributes of this module:
``from llm_cost_middleware.integrations.anthropic.errors import BudgetExceededError``.
"""

from __future__ import annotations

from llm_cost_middleware.errors import LLMCostError
from llm_cost_middleware.refusals import HostErrors


def _bases(_: type[LLMCostError]) -> tuple[type[Exception], ...]:
    from anthropic import AnthropicError

    return (AnthropicError,)


ERRORS = HostErrors(__name__, _bases)


def __getattr__(name: str) -> type[LLMCostError]:
    return ERRORS.named(name)
