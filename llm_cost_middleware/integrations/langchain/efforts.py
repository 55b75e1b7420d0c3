"""Reasoning effort across models: its level is the target's, and no request is refused because of it.

ChatAnthropic makes adaptive thinking of an effort where the model knows it (langchain-anthropic 1.7, ``_get_request_
payload``), and Anthropic refuses thinking where a tool is forced (platform.claude.com, "Extended thinking").
"""

from __future__ import annotations

from typing import Any

from llm_cost_middleware.capabilities import find_capabilities
from llm_cost_middleware.capabilities.efforts import nearest_effort, stated_effort
from llm_cost_middleware.capabilities.fitting import is_forced
from llm_cost_middleware.integrations.langchain.thinking import is_open_turn_without_thoughts
from llm_cost_middleware.request import ModelRef

_NAMES = ("effort", "reasoning_effort")
"""Arguments of LangChain's classes for an effort: ChatOpenAI knows the second."""


def take_effort(call_kwargs: dict[str, Any]) -> str | None:
    """Take the effort out of the arguments of a call. Changes ``call_kwargs``."""
    return stated_effort({name: call_kwargs.pop(name) for name in _NAMES if name in call_kwargs})


def effort_arguments(target: ModelRef, asked: str | None) -> dict[str, Any]:
    """The arguments that ask another provider's model for an effort: at the nearest of its levels.

    No effort at all is no thinking, where a Claude thinks unless it is told not to.
    """
    known = find_capabilities(*target)
    if asked is None or known is None:
        return {} if asked is None else {"reasoning_effort": asked}
    if asked == "none" and target.provider == "anthropic" and "disabled" in known.thinking:
        return {"thinking": {"type": "disabled"}} if "adaptive" in known.thinking else {}
    level = nearest_effort(asked, known.efforts)
    return {} if level is None else {"reasoning_effort": level}


def without_implied_thinking(model: Any, messages: Any, call_kwargs: dict[str, Any]) -> Any:
    """A Claude whose effort implies no thinking, where the provider would refuse it; else the model as it is.

    Args:
        model: A target that the caller did not name.
        messages: The messages to send.
        call_kwargs: The arguments to send; an effort among them is changed in place.
    """
    choice = call_kwargs.get("tool_choice") or model.model_kwargs.get("tool_choice")
    if model.thinking is not None or "thinking" in call_kwargs:
        return model
    if not is_forced(choice) and not is_open_turn_without_thoughts(messages):
        return model
    own, asked = model.reasoning_effort, take_effort(call_kwargs)
    if effort := asked or own:
        # asked for where it is sent: there it stands for nothing else
        call_kwargs["output_config"] = {"effort": effort, **(call_kwargs.get("output_config") or {})}
        if asked:
            call_kwargs["output_config"]["effort"] = asked
    return model.model_copy(update={"reasoning_effort": None}) if own else model
