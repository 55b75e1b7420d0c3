"""Extended thinking across models, caps and conversations: no request may be refused because of it.

Anthropic's rules: thoughts are signed by the model that had them; with
thinking on, an assistant turn that a tool still answers must begin with its thoughts (platform.claude.com, "Extended
thinking").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from llm_cost_middleware.capabilities.thinking import cap_thinking
from llm_cost_middleware.request import EMPTY

_THOUGHTS = frozenset({"thinking", "redacted_thinking"})


def drop_foreign_reasoning(messages: Sequence[BaseMessage], model: str) -> list[BaseMessage]:
    """The messages without reasoning blocks of other models than ``model``; unchanged where there are none."""
    return [
        _without_thoughts(message)
        if type(message.content) is list and _thinks_as_another(message, model)  # text alone is no thought
        else message
        for message in messages
    ]


def _thinks_as_another(message: BaseMessage, model: str) -> bool:
    if not isinstance(message, AIMessage) or not _thinks(message):
        return False
    who = message.response_metadata.get("model_name")
    if not isinstance(who, str) or not who:
        return False
    return not (who.startswith(model) or model.startswith(who))  # an alias and its dated name are one


def _thinks(message: BaseMessage) -> bool:
    return type(message.content) is list and any(_is_thought(block) for block in message.content)


def _is_thought(block: Any) -> bool:
    return isinstance(block, Mapping) and block.get("type") in _THOUGHTS


def _without_thoughts(message: BaseMessage) -> BaseMessage:
    return message.model_copy(update={"content": [block for block in message.content if not _is_thought(block)]})


def fit_thinking(
    model: Any, messages: Sequence[BaseMessage], call_kwargs: dict[str, Any], changes: Mapping[str, Any] = EMPTY
) -> Any:
    """The target model, or a copy of it whose thinking fits this request.

    Args:
        model: A target; only Anthropic's have ``thinking``.
        messages: The messages to send.
        call_kwargs: The arguments to send; a ``thinking`` among them is changed in place.
        changes: What the attempt says of the thinking, under its cap and at its target.
    """
    own = getattr(model, "thinking", None)
    asked = own if own is not None else call_kwargs.get("thinking")
    wanted = changes.get("thinking", asked)
    fits = _fitted(wanted, messages, call_kwargs.get("max_tokens"))
    if fits is asked:
        return model
    call_kwargs.pop("thinking", None)
    if own is not None:
        return model.model_copy(update={"thinking": fits})
    if fits is not None:
        call_kwargs["thinking"] = fits
    return model


def _fitted(wanted: Any, messages: Sequence[BaseMessage], cap: int | None) -> Any:
    if not isinstance(wanted, Mapping) or wanted.get("type") == "disabled":
        return wanted
    # the provider refuses thinking on a turn that was begun without it
    if is_open_turn_without_thoughts(messages):
        return None
    return wanted if cap is None else cap_thinking(wanted, cap)


def is_open_turn_without_thoughts(messages: Sequence[BaseMessage]) -> bool:
    """Whether a tool still answers a turn that was begun without thoughts."""
    if not messages or messages[-1].type != "tool":
        return False
    turn = next((message for message in reversed(messages) if message.type == "ai"), None)
    return turn is not None and not _thinks(turn)
