"""``process``: the pattern's pipeline for one text, with an ``anthropic`` or an ``openai`` client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.context import current_context
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.prompt_cache.breakpoints import render_anthropic, render_openai_chat
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.providers.said import read_said
from llm_cost_middleware.request import Attempt, CallRequest, CallResult
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.outcomes import AUTOMATIC, PARSE_FAILED
from llm_cost_middleware.tracker import CostRecord, CostTracker

_PIPELINES = 16
Check = Callable[[CallResult], bool]


class Result(NamedTuple):
    """What ``process`` returns for one text."""

    text: str
    """The answer's text."""
    value: Any
    """What ``parse_result`` made of the response; the text without one."""
    response: Any
    """The SDK's own response."""
    decision: RoutingDecision
    record: CostRecord
    """The attempt that answered. Failed attempts that were billed stand in the tracker too."""


def process(
    text: str,
    config: CostConfig | CostPipeline,
    tracker: CostTracker,
    *,
    client: Any,
    system_prompt: str = "",
    item_count: int = 1,
    parse_result: Callable[[Any], Any] | None = None,
    accept: Callable[[Any], bool] | None = None,
) -> tuple[Result, CostTracker]:
    """Route, check the budget, call with retry and caching, and book.

    Args:
        text: The user's text.
        config: A configuration (one pipeline is kept for each), or a pipeline.
        tracker: What was spent so far; it is checked before the call and never changed.
        client: An ``anthropic`` or ``openai`` client; the call goes to the tiers' models of its provider.
        system_prompt: The stable prefix, cached where that pays.
        item_count: How many items the text batches.
        parse_result: Makes a value of the SDK's response.
        accept: Checks that value (the text, without ``parse_result``). What it rejects, or what does not parse, is
            asked again of a model a tier up, where there is one and the budget allows; both answers are booked.

    Returns:
        The result, and a new tracker with what the call cost added.

    Raises:
        BudgetExceededError: The tracker is over its limit, or the ledger has not enough for this call.
        ConfigurationError: The client is neither.
        Exception: What the last attempt raised; whatever ``parse_result`` raises, after the answer was booked.
    """
    refuse_if_over(tracker)
    job = Job(client, config, system_prompt, item_count)
    answer = job.call(text, job.check(accept, parse_result))
    return job.result(answer, parse_result), add_all(tracker, answer)


async def aprocess(
    text: str,
    config: CostConfig | CostPipeline,
    tracker: CostTracker,
    *,
    client: Any,
    system_prompt: str = "",
    item_count: int = 1,
    parse_result: Callable[[Any], Any] | None = None,
    accept: Callable[[Any], bool] | None = None,
) -> tuple[Result, CostTracker]:
    """``process`` with an asynchronous client."""
    refuse_if_over(tracker)
    job = Job(client, config, system_prompt, item_count, is_async=True)
    answer = await job.acall(text, job.check(accept, parse_result))
    return job.result(answer, parse_result), add_all(tracker, answer)


def refuse_if_over(tracker: CostTracker) -> None:
    """Raise ``BudgetExceededError`` where the tracker has spent more than its limit."""
    if tracker.over_budget and tracker.budget_limit is not None:
        raise BudgetExceededError(tracker.total_cost, tracker.budget_limit)


def add_all(tracker: CostTracker, answer: CallOutcome) -> CostTracker:
    """A tracker with every billed attempt of a call added."""
    for record in answer.records:
        tracker = tracker.add(record)
    return tracker


class Job:
    """Calls of one shape: a client, a pipeline, a system prompt. Shared by ``process`` and ``process_many``."""

    def __init__(
        self,
        client: Any,
        config: CostConfig | CostPipeline,
        system_prompt: str,
        item_count: int = 1,
        *,
        is_async: bool = False,
    ) -> None:
        self._api = _api_of(client)
        if is_async is not any(kind.__name__.startswith("Async") for kind in type(client).__mro__):
            wanted = "an asynchronous" if is_async else "a synchronous"
            raise ConfigurationError(f"expected {wanted} client, not {type(client).__qualname__}", key="client")
        if type(item_count) is not int or item_count < 1:
            raise ConfigurationError(f"must be a positive whole number, not {item_count!r}", key="item_count")
        self._create = self._api.create(client.with_options(max_retries=0))
        self._system, self._item_count = system_prompt, item_count
        self.pipeline = config if isinstance(config, CostPipeline) else _pipeline_of(config)
        self.providers = frozenset((self._api.provider,))

    def request(self, text: str) -> CallRequest:
        """The neutral view of one call."""
        request = get_provider(self._api.provider).read_request(self._api.body(self._system, text), self._api.endpoint)
        return request._replace(context=current_context()._replace(item_count=self._item_count))

    def check(self, accept: Callable[[Any], bool] | None, parse_result: Callable[[Any], Any] | None) -> Check | None:
        """The caller's check of a value, as a check of an answer."""
        if accept is None:
            return None

        def stands(result: CallResult) -> bool:
            try:
                value = result.text if parse_result is None else parse_result(result.response)
            except Exception:  # noqa: BLE001 - whatever it is: the answer cannot be used
                return False
            return accept(value)

        return stands

    def call(self, text: str, accept: Check | None = None) -> CallOutcome:
        """Make one call."""
        body = self._api.body(self._system, text)

        def send(attempt: Attempt) -> CallResult:
            return self._read(self._create(**self._render(body, attempt)))

        answer = self.pipeline.call(self.request(text), send, providers=self.providers, accept=accept)
        assert isinstance(answer, CallOutcome)  # noqa: S101 - nothing was streamed
        return answer

    async def acall(self, text: str, accept: Check | None = None) -> CallOutcome:
        """Make one call with an asynchronous client."""
        body = self._api.body(self._system, text)

        async def send(attempt: Attempt) -> CallResult:
            return self._read(await self._create(**self._render(body, attempt)))

        answer = await self.pipeline.acall(self.request(text), send, providers=self.providers, accept=accept)
        assert isinstance(answer, CallOutcome)  # noqa: S101 - nothing was streamed
        return answer

    def result(self, answer: CallOutcome, parse_result: Callable[[Any], Any] | None) -> Result:
        """What the caller gets of an answer."""
        text = self._api.text(answer.response)
        try:
            value = text if parse_result is None else parse_result(answer.response)
        except Exception:
            self.pipeline.feedback(answer.call_id, AUTOMATIC[PARSE_FAILED], name=PARSE_FAILED)
            raise
        return Result(text, value, answer.response, answer.decision, answer.records[-1])

    def _render(self, body: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
        sent = dict(body if attempt.cache_plan is None else self._api.render(body, attempt.cache_plan))
        sent["model"] = attempt.target.model
        if attempt.max_tokens is not None:
            sent[self._api.cap] = attempt.max_tokens
        return sent | {"timeout": attempt.timeout_s}

    def _read(self, response: Any) -> CallResult:
        reading = get_provider(self._api.provider).read_usage(response)
        return CallResult(response, reading, self._api.text(response), read_said)


class _Api(NamedTuple):
    """How to say one thing to one provider."""

    provider: str
    endpoint: str
    cap: str
    create: Callable[[Any], Callable[..., Any]]
    body: Callable[[str, str], dict[str, Any]]
    render: Callable[..., Mapping[str, Any]]
    text: Callable[[Any], str]


def _messages_body(system: str, text: str) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    return {"system": [{"type": "text", "text": system}], **body} if system else body


def _chat_body(system: str, text: str) -> dict[str, Any]:
    prefix = [{"role": "system", "content": system}] if system else []
    return {"messages": [*prefix, {"role": "user", "content": text}]}


_APIS = {
    "anthropic": _Api(
        "anthropic",
        "messages",
        "max_tokens",
        lambda client: client.messages.create,
        _messages_body,
        render_anthropic,
        lambda response: "".join(block.text for block in response.content if block.type == "text"),
    ),
    "openai": _Api(
        "openai",
        "chat.completions",
        "max_completion_tokens",
        lambda client: client.chat.completions.create,
        _chat_body,
        partial(render_openai_chat, for_provider="openai"),
        lambda response: response.choices[0].message.content or "",
    ),
}


def _api_of(client: Any) -> _Api:
    for kind in type(client).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in NAMES:
            return _APIS[name]
    raise ConfigurationError(
        f"expected a client of {' or '.join(NAMES)}, not {type(client).__qualname__}", key="client"
    )


_pipelines: list[CostPipeline] = []
_pipelines_lock = Lock()


def _pipeline_of(config: CostConfig) -> CostPipeline:
    """One pipeline for equal configurations, so that a memory ledger is not forgotten between two calls."""
    with _pipelines_lock:
        for pipeline in _pipelines:
            if pipeline.config is config or pipeline.config == config:
                return pipeline
        _pipelines.append(pipeline := CostPipeline(config))
        if len(_pipelines) > _PIPELINES:
            _pipelines.pop(0)
        return pipeline
