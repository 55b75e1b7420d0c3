"""A provider in one file: what a package under ``providers/`` must say, for a service that nobody offers."""

from __future__ import annotations

import json

from llm_cost_middleware.cache_marks import CacheFields
from llm_cost_middleware.provider import CacheCapabilities, ErrorRule, FailureKind, Provider
from llm_cost_middleware.request import CallRequest, Message, Part
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport


def read_request(body, endpoint="chat.completions"):
    messages = tuple(Message(message["role"], (Part("text", message["content"]),)) for message in body["messages"])
    return CallRequest("toy", body.get("model", ""), messages, endpoint=endpoint, max_tokens=body.get("most"))


def write_request(body, attempt, endpoint):
    del endpoint
    cap = {} if attempt.max_tokens is None else {"most": attempt.max_tokens}
    return {**body, "model": attempt.target.model, **cap}


def write_prompt(system, text):
    prefix = [{"role": "system", "content": system}] if system else []
    return {"messages": [*prefix, {"role": "user", "content": text}]}


def read_usage(response):
    answer = json.loads(response) if isinstance(response, str | bytes) else response
    meter = answer.get("meter")
    if meter is None:
        return UsageReport(error=json.dumps(answer.get("fault")), unbilled="fault" in answer)
    usage = TokenUsage(uncached_input=meter["in"], output=meter["out"])
    return UsageReport((BilledItem(usage),), model=answer["model"], complete=True, finish_reason="stop")


class StreamReader:
    def __init__(self):
        self._last = UsageReport()

    def feed(self, event):
        if "meter" in event:
            self._last = read_usage(event)

    def reading(self):
        return self._last


def read_error(body):
    fault = body.get("fault") if isinstance(body, dict) else None
    return ("", fault["kind"], fault["text"]) if fault else ("", "", "")


PROVIDER = Provider(
    name="toy",
    model_prefixes=("toy-",),
    domains=("toy.example",),
    endpoints=("chat.completions",),
    write_prompt=write_prompt,
    read_usage=read_usage,
    read_request=read_request,
    write_request=write_request,
    new_stream_reader=StreamReader,
    read_error=read_error,
    error_rules=(ErrorRule(FailureKind.OVERLOADED, codes=("full",)),),
    cache_capabilities=lambda _: CacheCapabilities("none"),
    cache_fields=CacheFields("toy_mark", lambda ttl: {"for": ttl}, frozenset({"toy_key"}), lambda _: {}),
    default_write_ttl="5m",
    billable_cache_writes=lambda request, marks, planned: (),
    tokens_per_byte=1.0,
    tokens_per_message=4,
    tokens_for_tools=0,
    count_fields=(),
    charges_tool_calls=False,
)
