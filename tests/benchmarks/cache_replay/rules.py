"""The rules to compare: where each puts its cache marks, and what it learns from the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.plan import CachePlan, CachePolicy, CachePrices
from llm_cost_middleware.prompt_cache.planner import plan
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import Attempt, ModelRef
from llm_cost_middleware.usage import TokenUsage

EPHEMERAL = {"type": "ephemeral"}


class Rule(Protocol):
    """One way of placing marks."""

    def send(self, number: int, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """The body as it is sent; ``None``: not yet."""

    def answered(self, number: int, usage: TokenUsage, now: float) -> None:
        """The answer to request ``number`` is in."""


class Blind:
    """A rule that looks at nothing but the request."""

    def __init__(self, place) -> None:
        self._place = place

    def send(self, number: int, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        return self._place(body)

    def answered(self, number: int, usage: TokenUsage, now: float) -> None:
        pass


def uncached(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """No caching."""
    return body


def classic(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The published pattern: one mark on the system prompt."""
    return {**body, "system": _mark_last(body["system"])}


def langchain(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """AnthropicPromptCachingMiddleware: last system block, last tool, and automatic caching of the last block."""
    marked = {**body, "system": _mark_last(body["system"]), "cache_control": EPHEMERAL}
    return {**marked, "tools": _mark_last(body["tools"])} if body.get("tools") else marked


def litellm(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """LiteLLM's enable_prompt_caching: the system prompt and the last message."""
    *before, last = body["messages"]
    last = {**last, "content": _mark_last(last["content"])}
    return {**body, "system": _mark_last(body["system"]), "messages": [*before, last]}


def _mark_last(blocks):
    return [*blocks[:-1], {**blocks[-1], "cache_control": EPHEMERAL}]


def switched_off(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """No caching at GPT-5.6: explicit mode without a breakpoint."""
    return {**body, "prompt_cache_options": {"mode": "explicit"}}


def implicit(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """What GPT-5.6 does by itself: one breakpoint at the end of every request."""
    return body


class Planned:
    """This package: reads, plans, learns."""

    provider = "anthropic"
    endpoint = "messages"

    def __init__(self, prices: CachePrices, model: str, policy: CachePolicy | None = None) -> None:
        self.statistics = PrefixStatistics()
        self._prices, self._policy = prices, policy or CachePolicy()
        self._provider, self._target = get_provider(self.provider), ModelRef(self.provider, model)
        self._open: dict[int, tuple[Any, CachePlan]] = {}

    def send(self, number: int, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        layout = read_layout(self._provider.read_request(body, self.endpoint))
        made = plan(
            layout,
            self._provider.cache_capabilities(self._target.model),
            self._prices,
            self.statistics,
            self._policy,
            now=now,
            target=self._target,
        )
        if made.wait_for is not None:
            return None
        self.statistics.begin(layout, made, now=now)
        self._open[number] = layout, made
        return self.render(body, made)

    def render(self, body: Mapping[str, Any], made: CachePlan) -> Mapping[str, Any]:
        attempt = Attempt("replay", 1, self._target, None, made, None)
        return self._provider.write_request(body, attempt, self.endpoint)

    def answered(self, number: int, usage: TokenUsage, now: float) -> None:
        layout, made = self._open.pop(number)
        self.statistics.observe(layout, self._target, made, usage, now=now)


class OpenAIPlanned(Planned):
    """The same, at OpenAI."""

    provider = "openai"
    endpoint = "chat.completions"
