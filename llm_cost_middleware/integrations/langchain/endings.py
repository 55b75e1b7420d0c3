"""How an agent ends that has no money left: with an error, with a last message, or as its owner decides.

A soft end is an answer that calls no tool: it is how every agent loop ends, so state, partial results and checkpoint
stay as they are, nothing is pending, and the thread goes on with its next message once there is money.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Literal

from langchain_core.messages import AIMessage, ToolMessage

from llm_cost_middleware.call_ids import BOOKED_KEY
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError, readable
from llm_cost_middleware.foresight import sentence
from llm_cost_middleware.money import NanoUSD, ceil_nanousd

Decide = Callable[[BudgetExceededError, Any], Any]
OnExceeded = Literal["raise", "end"] | Decide
"""What becomes of a refusal: ``raise``, ``end``, or a function of the refusal and the state. It returns the last
message, as text or as an ``AIMessage``; ``None``: the refusal is raised. It may be a coroutine function where the agent
is called asynchronously."""


def read_on_exceeded(value: object) -> OnExceeded:
    """Check what was given. Raises ``ConfigurationError``."""
    if value in {"raise", "end"} or callable(value):
        return value
    raise ConfigurationError(f"must be 'raise', 'end' or a function, not {value!r}", key="on_exceeded")


def last_message(refusal: BudgetExceededError) -> AIMessage:
    """The message with which an agent ends: what was spent, of what, and what is missing.

    The amounts also stand under ``llm_cost`` in its ``response_metadata``, as text: ``ended``, ``scope``, ``spent``,
    ``limit``, ``missing`` (US dollars; ``missing`` only where the refusal knows what was wanted), ``expected`` to the
    end of the run, where that is known.
    """
    told = {
        "ended": "budget",
        "scope": refusal.scope or "",
        "spent": f"{refusal.total_cost:f}",
        "limit": f"{refusal.budget_limit:f}",
    }
    whose = f" of {refusal.scope}" if refusal.scope else ""
    spent = f"{readable(refusal.total_cost)} of {readable(refusal.budget_limit)}"
    text = f"I stopped here: the budget{whose} is used up ({spent} spent)."
    if (missing := missing_of(refusal)) is not None:
        told["missing"] = f"{missing.usd:f}"
        text += f" The next step needs {readable(missing.usd, up=True)} more than there is."
    if (forecast := refusal.forecast) is not None:
        told["expected"] = f"{forecast.expected:f}"
        text += f" ({sentence(forecast)}.)"
    return AIMessage(text, response_metadata={BOOKED_KEY: told})


def missing_of(refusal: BudgetExceededError) -> NanoUSD | None:
    """What a refused call lacked: that which would be sent, its output capped."""
    if refusal.requested is None:
        return None
    wanted = refusal.requested if refusal.least is None else min(refusal.least, refusal.requested)
    return ceil_nanousd(max(wanted - refusal.available, Decimal(0)))


def refused_tool(refusal: BudgetExceededError, call: Any) -> ToolMessage:
    """The result of a tool call in which the money ended: the agent sees it, and no call is left without a result."""
    text = f"Not done: {refusal}"
    return ToolMessage(text, tool_call_id=call["id"], name=call.get("name"), status="error")


def ended(refusal: BudgetExceededError, state: Any, then: OnExceeded) -> AIMessage:
    """The last message, where there is to be one; otherwise raises the refusal."""
    if then == "raise":
        raise refusal
    return _read(last_message(refusal) if then == "end" else then(refusal, state), refusal)


async def aended(refusal: BudgetExceededError, state: Any, then: OnExceeded) -> AIMessage:
    """``ended``, on an event loop."""
    if callable(then):
        decided = then(refusal, state)
        return _read(await decided if isawaitable(decided) else decided, refusal)
    if then == "end" and refusal.foresight is not None:
        await asyncio.to_thread(refusal.foresight)  # it may read the ledger
    return ended(refusal, state, then)


def _read(decided: Any, refusal: BudgetExceededError) -> AIMessage:
    if decided is None:
        raise refusal
    if isinstance(decided, str):
        decided = last_message(refusal).model_copy(update={"content": decided})
    if not isinstance(decided, AIMessage) or decided.tool_calls:
        form = "a text, an AIMessage without tool calls, or None"
        raise ConfigurationError(f"must return {form}, not {decided!r}", key="on_exceeded") from refusal
    return decided


def ends_softly(
    node: Callable[..., Any] | None = None, *, on_exceeded: OnExceeded = "end", messages: str = "messages"
) -> Any:
    """Let a hand-made node of a LangGraph graph end softly: a decorator.

    Where a budget refuses, the node returns the last message alone, under ``messages``: a message without tool calls,
    on which edges such as ``tools_condition`` end the graph.

    Args:
        node: The function of the node; its first argument is the state.
        on_exceeded: As for ``CostMiddleware``.
        messages: The key of the state that takes messages.
    """
    then = read_on_exceeded(on_exceeded)

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        if iscoroutinefunction(function):

            @wraps(function)
            async def arun(state: Any, *args: Any, **kwargs: Any) -> Any:
                try:
                    return await function(state, *args, **kwargs)
                except BudgetExceededError as refusal:
                    return {messages: [await aended(refusal, state, then)]}

            return arun

        @wraps(function)
        def run(state: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return function(state, *args, **kwargs)
            except BudgetExceededError as refusal:
                return {messages: [ended(refusal, state, then)]}

        return run

    return wrap if node is None else wrap(node)
