"""One attempt as a target model takes it: messages and arguments, on copies, in the words of its provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from llm_cost_middleware.integrations.langchain.efforts import effort_arguments, take_effort
from llm_cost_middleware.integrations.langchain.marks import place_marks, strip_marks
from llm_cost_middleware.integrations.langchain.thinking import drop_foreign_reasoning
from llm_cost_middleware.platform import maker_of
from llm_cost_middleware.providers import NAMES, foreign_cache_fields, get_provider
from llm_cost_middleware.request import Attempt, ModelRef
from llm_cost_middleware.timeouts import capped_timeout
from llm_cost_middleware.wire import OUTPUT_CAP_FIELDS

# arguments that mean the same at both providers, once translated
_PORTABLE = frozenset({
    *OUTPUT_CAP_FIELDS, "model", "tools", "tool_choice", "parallel_tool_calls", "strict", "response_format",
    "output_config", "temperature", "top_p", "stop", "stop_sequences", "timeout", "stream", "stream_usage",
    "reasoning_effort", "effort", "thinking", "ls_structured_output_format",
})  # fmt: skip
# arguments that only steer a provider's cache or its bookkeeping: left out at the other one
_LOCAL = frozenset({"user", "metadata", "safety_identifier", "verbosity"}).union(
    *(get_provider(name).cache_fields.request for name in NAMES)
)


def cap_name(provider: str) -> str:
    """The argument for an output cap; LangChain's classes rename it to what their endpoint wants, but for Azure's."""
    return "max_completion_tokens" if provider == "azure" else "max_tokens"


def is_portable(arguments: Mapping[str, Any]) -> bool:
    """Whether a call with these arguments means the same at another provider, so that it may be routed there."""
    if any(name not in _PORTABLE and name not in _LOCAL for name in arguments):
        return False
    if any(not _is_plain_tool(tool) for tool in arguments.get("tools") or ()):
        return False
    if set(arguments.get("output_config") or ()) - {"format", "effort"}:
        return False
    form = arguments.get("response_format")
    return not (isinstance(form, Mapping) and form.get("type") == "json_object")  # Claude has no JSON mode


def _is_plain_tool(tool: Any) -> bool:
    if not isinstance(tool, Mapping):
        return False
    return "function" in tool if tool.get("type") == "function" else "input_schema" in tool


def render(
    source: str,
    messages: Sequence[BaseMessage],
    arguments: Mapping[str, Any],
    attempt: Attempt,
    *,
    timeout: Any = None,
    effort: str | None = None,
) -> tuple[list[BaseMessage], dict[str, Any]]:
    """What to hand to the target model of ``attempt``.

    Args:
        source: The provider in whose words the caller speaks.
        messages: The caller's messages; they are not changed.
        arguments: The caller's arguments; they are not changed.
        attempt: The target, the output cap, the cache plan and the time there is.
        timeout: The model's own, in seconds or as an object of its SDK; ``None`` for no end.
        effort: The model's own.
    """
    there = attempt.target.provider
    dropped = _NOT_SENT if there == source else _NOT_TRANSLATED
    call_kwargs = {name: value for name, value in arguments.items() if name not in dropped}
    _apply(call_kwargs, attempt.changes, source)
    if there != source:
        call_kwargs = _translate(call_kwargs, source, attempt, effort)
    for foreign in foreign_cache_fields(there):
        for name in foreign.request:
            call_kwargs.pop(name, None)
    if tools := call_kwargs.get("tools"):
        call_kwargs["tools"] = strip_marks(tools, there)
    rendered = strip_marks(_messages_for(messages, source, attempt.target), there)
    if attempt.cache_plan is not None:
        rendered = place_marks(attempt.cache_plan, there, rendered, call_kwargs)
    call_kwargs |= attempt.fields
    if attempt.max_tokens is not None:
        for name in OUTPUT_CAP_FIELDS:
            call_kwargs.pop(name, None)
        call_kwargs[cap_name(there)] = attempt.max_tokens
    limit_s = attempt.limit_s(chosen="timeout" in arguments)
    shortened = capped_timeout(arguments.get("timeout", timeout), limit_s)
    if limit_s is not None:
        call_kwargs["timeout"] = shortened
    return rendered, call_kwargs


def _messages_for(messages: Sequence[BaseMessage], source: str, target: ModelRef) -> Sequence[BaseMessage]:
    """The messages in the words of the target's provider, without what only another model can take back."""
    if target.provider != source:
        messages = [_translate_message(message, target.provider) for message in messages]
    if maker_of(target.provider) == "openai":
        return messages
    return drop_foreign_reasoning(messages if source == "anthropic" else _system_first(messages), target.model)


def _apply(call_kwargs: dict[str, Any], changes: Mapping[str, Any], source: str) -> None:
    """Write an attempt's changes into the arguments of a call that has them. Changes ``call_kwargs``."""
    for name, value in changes.items():
        if name == "thinking":
            continue  # fitted with the messages
        for given in _AS_ARGUMENTS.get((source, name), (name,)):
            if given in call_kwargs:
                del call_kwargs[given]
                if value is not None:
                    call_kwargs[name] = value


_AS_ARGUMENTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("anthropic", "stop_sequences"): ("stop_sequences", "stop"),
    ("anthropic", "output_config"): ("output_config", "effort", "reasoning_effort"),
}
"""The arguments of a LangChain model that are sent under another name."""


_NOT_SENT = frozenset({"model", "stream", "stream_usage", "ls_structured_output_format", "structured_output_format"})
_NOT_TRANSLATED = _NOT_SENT | _LOCAL | {"thinking"}  # thinking is configured in words of its own at each provider


# --- across providers ------------------------------------------------------------------------------------------------


def _translate(call_kwargs: dict[str, Any], source: str, attempt: Attempt, effort: str | None) -> dict[str, Any]:
    if "tools" in call_kwargs:
        convert = _to_openai_tool if source == "anthropic" else _to_anthropic_tool
        call_kwargs["tools"] = [convert(tool) for tool in call_kwargs["tools"]]
    translated = _to_openai(call_kwargs) if source == "anthropic" else _to_anthropic(call_kwargs)
    for name, value in attempt.changes.items():
        if value is None:  # what is called so only now
            translated.pop(name, None)
    if (verbosity := attempt.changes.get("verbosity")) is not None:  # an arm's: the caller's own is left behind
        translated["verbosity"] = verbosity
    asked = take_effort(translated) or effort
    return translated | effort_arguments(attempt.target, attempt.changes.get("reasoning_effort", asked))


def _to_openai(call_kwargs: dict[str, Any]) -> dict[str, Any]:
    choice = call_kwargs.pop("tool_choice", None)
    if isinstance(choice, Mapping):
        named = {"type": "function", "function": {"name": choice.get("name")}}
        call_kwargs["tool_choice"] = {"auto": "auto", "any": "required", "none": "none"}.get(choice["type"], named)
        if choice.get("disable_parallel_tool_use") is not None:
            call_kwargs["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    config = call_kwargs.pop("output_config", None) or {}
    if form := config.get("format"):
        call_kwargs["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": form["schema"], "strict": False},
        }
    effort = call_kwargs.pop("effort", None) or config.get("effort")
    if effort:
        call_kwargs["reasoning_effort"] = effort
    if stop := call_kwargs.pop("stop_sequences", None):
        call_kwargs["stop"] = stop
    return call_kwargs


def _to_anthropic(call_kwargs: dict[str, Any]) -> dict[str, Any]:
    choice, parallel = call_kwargs.pop("tool_choice", None), call_kwargs.pop("parallel_tool_calls", None)
    call_kwargs.pop("strict", None)
    if choice is not None:
        if isinstance(choice, Mapping):
            inner = choice.get("function")
            name = (inner if isinstance(inner, Mapping) else choice).get("name")
            call_kwargs["tool_choice"] = {"type": "tool", "name": name}
        else:
            call_kwargs["tool_choice"] = {"type": {"required": "any"}.get(choice, choice)}
    if parallel is not None and call_kwargs.get("tools"):
        call_kwargs["tool_choice"] = {
            **call_kwargs.get("tool_choice", {"type": "auto"}), "disable_parallel_tool_use": not parallel,
        }  # fmt: skip
    return call_kwargs  # ChatAnthropic reads ``response_format``, class or mapping, as it is


def _to_openai_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {name: tool[name] for name in ("description", "strict") if name in tool}
    return {"type": "function", "function": function}


def _to_anthropic_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    made = {"name": function["name"], "input_schema": schema}
    return {**made, "description": function["description"]} if function.get("description") else made


def _translate_message(message: BaseMessage, there: str) -> BaseMessage:
    """A message whose blocks are in the other provider's words, as both understand it."""
    content = message.content
    if isinstance(message, AIMessage):
        if message.response_metadata.get("model_provider") == there or (type(content) is str and not message.id):
            return message
        # thoughts are signed for their model, results of a provider's tools are its own: words and calls remain
        calls, broken = message.tool_calls, message.invalid_tool_calls
        return AIMessage(content=_words(content), tool_calls=calls, invalid_tool_calls=broken, name=message.name)
    if type(content) is str or there == "anthropic":
        return message
    return message.model_copy(update={"content": [_neutral(block) for block in content]})


def _words(content: Any) -> str:
    if type(content) is str:
        return content
    texts = (block if isinstance(block, str) else block.get("text") for block in content if _is_words(block))
    return "".join(text for text in texts if text)


def _is_words(block: Any) -> bool:
    return isinstance(block, str) or block.get("type") in ("text", "output_text")


def _neutral(block: Any) -> Any:
    """Anthropic's document block in LangChain's own words, which ChatOpenAI converts."""
    if not isinstance(block, Mapping) or block.get("type") != "document":
        return block
    source = block.get("source") or {}
    if source.get("type") == "text":
        return {"type": "text", "text": source.get("data", "")}
    if source.get("type") == "base64":
        return {"type": "file", "base64": source["data"], "mime_type": source["media_type"], "filename": "document.pdf"}
    return block


def _system_first(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Claude takes instructions at the head of the conversation only; OpenAI takes them anywhere."""
    system = [message for message in messages if message.type == "system"]
    if not system or all(message.type == "system" for message in messages[: len(system)]):
        return list(messages)
    return [*system, *(message for message in messages if message.type != "system")]
