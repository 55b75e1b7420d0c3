"""The usage in LiteLLM's answers: in OpenAI's form for every provider, out of which Claude's own is restored.

LiteLLM fills a stream's last usage with an estimate of its own where the provider sent none, and does not mark it. Only
what stands in the chunks as they came from the provider is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from llm_cost_middleware.integrations.litellm.mocks import provider_id
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platform import maker_of
from llm_cost_middleware.providers import get_provider, provider_of_endpoint
from llm_cost_middleware.request import Endpoint
from llm_cost_middleware.sdk_clients.bodies import fields_of
from llm_cost_middleware.usage import UsageReport, read_or_unknown, without_zero_output
from llm_cost_middleware.wire import EMPTY_MAPPING, as_mapping, field_reader, required_count, token_count

FREE = UsageReport(unbilled=True, complete=True, warnings=("answered from LiteLLM's cache",))
_CLAUDE = "anthropic"
"""The provider whose usage LiteLLM rewrites, wherever it is served; of the others it keeps the form."""


def is_cached(answer: Any) -> bool:
    """Whether LiteLLM answered from its own cache."""
    hidden = field_reader(answer)("_hidden_params")
    if hidden is not None and as_mapping(hidden).get("cache_hit"):
        return True
    # a stream from the cache names its source where others name the provider
    streaming = not hasattr(answer, "__pydantic_extra__")
    return streaming and getattr(answer, "custom_llm_provider", None) == "cached_response"


def read_answer(answer: Any, provider: str, endpoint: Endpoint) -> UsageReport:
    """The usage of a whole answer, of any endpoint. Unreadable usage is noted, and never zero."""
    if is_cached(answer):
        return FREE
    reading = read_or_unknown(_read_answer, fields_of(answer), provider, endpoint)
    return reading if endpoint == "embeddings" else without_zero_output(reading, "LiteLLM")


def settle_retrieved(pipeline: CostPipeline, answer: Any) -> None:
    """Book an answer in the background, if this is one that is awaited. May block."""
    if field_reader(answer)("object") != "response":
        return
    name = provider_of_endpoint("responses").name
    pipeline.settle_retrieved(name, read_answer(answer, name, "responses"))


def _read_answer(answer: Any, provider: str, endpoint: Endpoint) -> UsageReport:
    get = field_reader(answer)
    usage = get("usage")
    if endpoint == "responses" and isinstance(own := get("id"), str):
        # LiteLLM wraps the provider's id, by which any client may retrieve an answer in the background
        answer = {**as_mapping(answer), "id": provider_id(own)}
    if endpoint == "embeddings":
        return get_provider(provider).read_usage(answer)
    if endpoint == "messages":  # the endpoint's own form, whichever provider answered
        return provider_of_endpoint(endpoint).read_usage(answer)
    if maker_of(provider) == _CLAUDE and usage is not None:
        choices = get("choices")
        finish = field_reader(choices[0])("finish_reason") if choices else get("status")
        return _claude(get("id"), get("model"), claude_usage(usage), finish)
    return get_provider(provider).read_usage(answer)


def read_chunks(chunks: Sequence[Any], provider: str) -> UsageReport:
    """The usage in the chunks of a chat stream, as LiteLLM keeps them: those with usage got it from the provider.

    Raises:
        UnreadableUsageError: A count is none.
    """
    usages = [usage for chunk in chunks if (usage := extra(chunk, "usage")) is not None]
    finish = finish_reason(chunks)
    if not usages:
        return UsageReport(finish_reason=finish, warnings=("the stream carries no usage of the provider",))
    last = chunks[-1]
    if maker_of(provider) == _CLAUDE:
        # the input is counted when the stream begins, the output when it ends
        start, end = claude_usage(usages[0]), claude_usage(usages[-1])
        merged = start | {name: value for name, value in end.items() if value}
        reading = _claude(last.id, last.model, merged, finish)
    else:
        # LiteLLM's chunk with the usage does not always name the tier; the provider's own chunks all do
        tier = next((found for chunk in reversed(chunks) if (found := extra(chunk, "service_tier"))), None)
        reading = get_provider(provider).read_usage(
            {"id": last.id, "model": last.model, "usage": as_mapping(usages[-1]), "service_tier": tier}
        )
    reading = structs.replace(reading, complete=finish is not None and bool(reading.items), finish_reason=finish)
    return without_zero_output(reading, "LiteLLM")


def finish_reason(chunks: Sequence[Any]) -> str | None:
    """Why the answer in the chunks of a chat stream ended; ``None`` while it runs, or where it broke off."""
    for chunk in reversed(chunks):
        choices = field_reader(chunk)("choices")
        reason: str | None = field_reader(choices[0])("finish_reason") if choices else None
        if reason:
            return reason
    return None


def claude_usage(usage: Any) -> dict[str, Any]:
    """Claude's own usage object out of LiteLLM's, whose input count includes what was cached and written."""
    # each has a price of its own, so the cached and the written input are taken out of the count again
    get = field_reader(fields_of(usage))
    responses = get("prompt_tokens") is None
    total = required_count(get("input_tokens" if responses else "prompt_tokens"), _CLAUDE, "prompt_tokens")
    detail = field_reader(get("input_tokens_details" if responses else "prompt_tokens_details"))
    read = token_count(get("cache_read_input_tokens") or detail("cached_tokens"), _CLAUDE, "cached_tokens")
    written = get("cache_creation_input_tokens") or detail("cache_creation_tokens")
    written = token_count(written, _CLAUDE, "cache_creation_tokens")
    out = field_reader(get("output_tokens_details" if responses else "completion_tokens_details"))
    raw = {
        "input_tokens": max(total - read - written, 0),
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": dict(as_mapping(detail("cache_creation_token_details"))),
        "output_tokens": get("output_tokens" if responses else "completion_tokens"),
        "output_tokens_details": {"thinking_tokens": out("reasoning_tokens")},
        "server_tool_use": dict(as_mapping(get("server_tool_use"))),
    }
    for name in ("iterations", "service_tier", "speed", "inference_geo"):
        raw[name] = get(name)
    return raw


def extra(chunk: Any, name: str) -> Any:
    """A field that only some chunks have; ``None`` for the others, where asking pydantic would be slow."""
    fields: Mapping[str, Any] = getattr(chunk, "__dict__", EMPTY_MAPPING)
    return fields[name] if name in fields else (getattr(chunk, "__pydantic_extra__", None) or EMPTY_MAPPING).get(name)


def _claude(answer_id: Any, model: Any, usage: Mapping[str, Any], finish: Any) -> UsageReport:
    body = {"type": "message", "id": answer_id, "model": model, "usage": usage, "stop_reason": finish}
    return get_provider(_CLAUDE).read_usage(body)
