"""A word to the model when the money of its run runs low: behind everything that is kept or cached.

It goes with the request alone. It is never part of the state, stands after the last results or the last question, so
never between a call of a tool and its result, and is left out where the request ends in words of the model's own (a
prefill). No cache mark is set on it, so the prefix of the next step is what it would have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage

from llm_cost_middleware.budget.rules import Headroom
from llm_cost_middleware.errors import readable
from llm_cost_middleware.integrations.langchain.convert import ASIDE
from llm_cost_middleware.money import ZERO
from llm_cost_middleware.natural_values import read_share


def read_tell_model(value: Any) -> float | None:
    """The share of its money below which a run's model is told. Raises ``ConfigurationError``."""
    return None if value is None or value is False else read_share(value, "tell_model")


def with_notice(messages: Sequence[AnyMessage], left: Headroom) -> list[AnyMessage]:
    """Messages of a request with a word about what is left behind them."""
    found = list(messages)
    if not found or not isinstance(found[-1], ToolMessage | HumanMessage):
        return found
    money = readable(max(left.available_nanousd, ZERO).usd)
    text = (
        f"Note on the budget: {money} is left for this task. Call no more tools than you must, and conclude with what"
        " you have."
    )
    return [*found, HumanMessage([{"type": "text", "text": text}], additional_kwargs={ASIDE: True})]
