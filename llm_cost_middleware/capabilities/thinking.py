"""Thinking budgets under output caps: a cap holds the thinking and the answer, so one that is lowered lowers both.

Anthropic refuses a request whose thinking budget is not below its cap, and a budget below 1,024 tokens
(platform.claude.com, extended thinking).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_cost_middleware.capabilities import find_capabilities
from llm_cost_middleware.limits import ModelLimits
from llm_cost_middleware.platform import maker_of
from llm_cost_middleware.request import EMPTY, CallRequest, Message, ModelRef

LEAST_BUDGET = 1_024
"""Tokens of thinking that Anthropic asks for at least."""
LEAST_ANSWER = 256
"""Tokens; an answer that is cut lower is rarely worth its input."""
_EFFORT_BUDGETS: Mapping[str, int] = {
    "minimal": 1_024, "low": 1_024, "medium": 2_048, "high": 4_096, "xhigh": 8_192, "max": 16_384,
}  # fmt: skip
"""Budgets that LiteLLM writes for an effort where Claude takes no effort (litellm 1.108.7, constants.py)."""


def thinking_budget(thinking: Any) -> int:
    """The tokens of thinking that a ``thinking`` parameter asks for; 0 where it states none."""
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    return budget if type(budget) is int and budget > 0 else 0


def default_cap(
    request: CallRequest, limits: ModelLimits, configured: int | None, changes: Mapping[str, Any] = EMPTY
) -> int:
    """The output cap of a request without one: a usual answer, the thinking that was asked for on top of it.

    Args:
        request: The call.
        limits: Those of the model.
        configured: The usual answer, where the configuration says.
        changes: What is written otherwise for the model.
    """
    settings = request.settings
    cap, most = configured or limits.default_output, limits.max_output
    if settings or changes:
        cap += thinking_budget(changes.get("thinking", settings.get("thinking")))
    return cap if most is None or cap <= most else most


def cap_thinking(thinking: Mapping[str, Any], cap: int) -> Mapping[str, Any] | None:
    """A ``thinking`` parameter whose budget leaves room for an answer below a cap.

    Returns:
        ``thinking`` itself where it fits; ``None`` where the cap is too small to think at all.
    """
    budget = thinking_budget(thinking)
    if thinking.get("type") != "enabled" or budget + LEAST_ANSWER <= cap:
        return thinking
    return {**thinking, "budget_tokens": max(cap // 2, LEAST_BUDGET)} if cap >= LEAST_BUDGET + LEAST_ANSWER else None


def changes_for_cap(
    request: CallRequest, target: ModelRef, cap: int, changes: Mapping[str, Any] = EMPTY
) -> Mapping[str, Any] | None:
    """What a cap that the caller did not set changes of the thinking that the caller asked for.

    Args:
        request: The call.
        target: The model.
        cap: The cap that will be sent.
        changes: Those of the parameters that the target needs anyway.

    Returns:
        Fields of the body to write otherwise, ``changes`` included; ``None`` where no budget fits below the cap.
    """
    thinking = changes.get("thinking", request.settings.get("thinking"))
    if isinstance(thinking, Mapping):
        fits = cap_thinking(thinking, cap)
        if fits is thinking:
            return changes
        return None if fits is None else {**changes, "thinking": fits}
    budget = _budget_of_effort(request, target, changes)
    if budget == 0 or budget + LEAST_ANSWER <= cap:
        return changes
    fits = cap_thinking({"type": "enabled", "budget_tokens": budget}, cap)
    return None if fits is None else {**changes, "reasoning_effort": None, "thinking": fits}


def least_cap(request: CallRequest, target: ModelRef, changes: Mapping[str, Any]) -> int:
    """The least output cap that leaves an answer worth its input, and the thinking that was asked for its least."""
    if not (request.settings or changes):
        return LEAST_ANSWER
    thinking = changes.get("thinking", request.settings.get("thinking"))
    thinks = thinking_budget(thinking) > 0 or _budget_of_effort(request, target, changes) > 0
    return LEAST_ANSWER + LEAST_BUDGET if thinks else LEAST_ANSWER


def _budget_of_effort(request: CallRequest, target: ModelRef, changes: Mapping[str, Any]) -> int:
    """The budget that a translating host makes of an effort, for a Claude that thinks by budgets alone."""
    effort = changes.get("reasoning_effort", request.settings.get("reasoning_effort"))
    if (
        maker_of(target.provider) != "anthropic"
        or request.endpoint != "chat.completions"
        or request.endpoint_at is None
    ):
        return 0
    known = find_capabilities(*target)
    by_budget = known is not None and "enabled" in known.thinking and "adaptive" not in known.thinking
    return _EFFORT_BUDGETS.get(effort, 0) if by_budget and isinstance(effort, str) else 0


def thinking_faults(request: CallRequest, budget: int) -> Iterator[str]:
    """Why a Claude cannot think for a call that was not written for it (platform.claude.com, extended thinking)."""
    cap, messages = request.max_tokens, request.messages
    if cap is not None and cap < budget + LEAST_ANSWER:
        yield f"has no room for {budget:,} tokens of thinking under a cap of {cap:,}"
    if messages and messages[-1].role == "assistant":
        yield "does not think before an answer that the caller has begun"
    if begun_without_thoughts(messages):
        yield "does not think inside a turn that was begun without thoughts"


def begun_without_thoughts(messages: Sequence[Message]) -> bool:
    """Whether a request continues a turn with results of tools that its answer called without thinking."""
    if not messages or not any(part.kind == "tool_result" for part in messages[-1].parts):
        return False
    turn = next((message for message in reversed(messages) if message.role == "assistant"), None)
    return turn is not None and not any(part.kind == "thinking" for part in turn.parts)
