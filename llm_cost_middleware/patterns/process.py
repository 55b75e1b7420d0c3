"""``process``: the pattern for one text, with an ``anthropic`` or an ``openai`` client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

from llm_cost_middleware.batches.calls import check_kind_of_client, with_patience
from llm_cost_middleware.batches.planning import BatchItem
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.gateways import is_gateway, service_of
from llm_cost_middleware.config.sent_names import SentNames
from llm_cost_middleware.context import current_context
from llm_cost_middleware.errors import BudgetExceededError, ConfigurationError
from llm_cost_middleware.fork import ModuleLock
from llm_cost_middleware.host import (
    ClientCounter,
    Governed,
    ainvoke,
    client_connection,
    invoke,
    retries_of,
)
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.nesting import unwrapped
from llm_cost_middleware.pipeline import CostPipeline, PipelineSource
from llm_cost_middleware.provider import Provider
from llm_cost_middleware.providers import NAMES, get_provider
from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.request import Attempt, CallRequest, CallResult, ModelRef
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.routing.signals import PARSE_FAILED, SIGNAL_SCORES
from llm_cost_middleware.timeouts import capped_timeout
from llm_cost_middleware.tracker import CostRecord, CostTracker
from llm_cost_middleware.unread_counts import note_odd_counts
from llm_cost_middleware.usage import read_or_unknown

_PIPELINES = 16
_UNNAMED = ""
"""What a prompt has in the place of a model: it is routed."""
Check = Callable[[CallResult], bool]


class Result(NamedTuple):
    """Result of ``process`` for one text."""

    text: str
    """Text of the answer."""
    value: Any
    """Value that ``parse_result`` returned for the response; without it, the text."""
    response: Any
    """Response of the SDK."""
    decision: RoutingDecision
    record: CostRecord
    """Record of the attempt that answered. The tracker also contains failed attempts that were billed."""


def process(
    text: str,
    config: PipelineSource,
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
        tracker: Spending so far; never changed. No attempt is sent that can cost more than it has left.
        client: An ``anthropic`` or ``openai`` client; the call goes to the tiers' models of its provider.
        system_prompt: The stable prefix, cached where that pays.
        item_count: How many items the text batches.
        parse_result: Makes a value of the SDK's response.
        accept: Checks that value (the text, without ``parse_result``). If it rejects the value, or parsing fails, the
            next tier's model is asked, if there is one and the budget allows; both answers are booked.

    Returns:
        The result, and a new tracker with the cost of the call added.

    Raises:
        BudgetExceededError: The tracker is over its limit, or it or the ledger has too little left for this call.
        ConfigurationError: The client is neither.
        Exception: The error of the last attempt, or of ``accept`` or ``parse_result`` (after the answer was booked).
    """
    check_tracker(tracker)
    call = PatternCall(client, config, system_prompt, item_count)
    answer = call.send(text, call.check(accept, parse_result), tracker=tracker)
    return call.result(answer, parse_result), add_records(tracker, answer)


async def aprocess(
    text: str,
    config: PipelineSource,
    tracker: CostTracker,
    *,
    client: Any,
    system_prompt: str = "",
    item_count: int = 1,
    parse_result: Callable[[Any], Any] | None = None,
    accept: Callable[[Any], bool] | None = None,
) -> tuple[Result, CostTracker]:
    """``process`` with an asynchronous client."""
    check_tracker(tracker)
    call = PatternCall(client, config, system_prompt, item_count, is_async=True)
    answer = await call.asend(text, call.check(accept, parse_result), tracker=tracker)
    return call.result(answer, parse_result), add_records(tracker, answer)


def check_tracker(tracker: CostTracker) -> None:
    """Raise ``BudgetExceededError`` if the tracker has spent more than its limit."""
    if not isinstance(tracker, CostTracker):
        raise ConfigurationError(f"must be a CostTracker, such as CostTracker('1.00'), not {tracker!r}", key="tracker")
    if tracker.over_budget and tracker.budget_limit is not None:
        raise BudgetExceededError(tracker.total_cost, tracker.budget_limit)


def left_nanousd(tracker: CostTracker) -> int | None:
    """Nano-dollars that a tracker has left, 0 where it is over its limit; ``None``: it has none."""
    limit = tracker.budget_limit
    return None if limit is None else max(int((limit - tracker.total_cost).scaleb(9)), 0)


@contextmanager
def _held_to(tracker: CostTracker | None, accept: Check | None) -> Iterator[tuple[int | None, Check | None]]:
    """What one call may cost by a tracker, where that is the least, and its check; told of the tracker if refused."""
    left, own, asked = None if tracker is None else left_nanousd(tracker), current_context().max_cost_nanousd, []
    if tracker is None or tracker.budget_limit is None or left is None or (own is not None and own <= left):
        yield None, accept
        return

    def check(result: CallResult) -> bool:
        asked.append(result)
        return accept is not None and accept(result)

    try:
        yield left, accept and check
    except BudgetExceededError as refusal:
        # Once there is an answer to check, what refuses this call keeps it: the refusal is of a call of the check's.
        if refusal.scope != "call" or asked:
            raise
        spent = tracker.total_cost + refusal.total_cost  # by earlier attempts of this call
        raise BudgetExceededError(spent, tracker.budget_limit, requested=refusal.requested) from refusal.__cause__


def add_records(tracker: CostTracker, answer: CallOutcome) -> CostTracker:
    """Return a tracker with every billed attempt of a call added."""
    for record in answer.records:
        tracker = tracker.add(record)
    return tracker


class PatternCall:
    """Calls with one client, pipeline and system prompt. Shared by ``process`` and ``process_many``."""

    def __init__(
        self,
        client: Any,
        config: PipelineSource,
        system_prompt: str,
        item_count: int = 1,
        *,
        is_async: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
            raise ConfigurationError(f"must be a positive whole number, not {max_tokens!r}", key="max_tokens")
        self._max_tokens = max_tokens
        service = service_of(client)
        if not service:
            wanted = " or ".join(NAMES)
            raise ConfigurationError(f"expected a client of {wanted}, not {type(client).__qualname__}", key="client")
        self._rules, self.service = get_provider(service), service
        check_kind_of_client(client, is_async=is_async)
        if not isinstance(system_prompt, str):
            raise ConfigurationError(f"must be a text, not a {type(system_prompt).__name__}", key="system_prompt")
        if type(item_count) is not int or item_count < 1:
            raise ConfigurationError(f"must be a positive whole number, not {item_count!r}", key="item_count")
        self._client, self._retry_terms = client, retries_of(client)
        # The pipeline retries: the SDK's own retries would multiply with it, and go unbooked.
        # An endpoint is named as its resource in the SDK: ``chat.completions``.
        self.pipeline = config if isinstance(config, CostPipeline) else _pipeline_of(CostConfig.read(config))
        self.plain = plain = unwrapped(client, self.pipeline).with_options(max_retries=0)
        note_odd_counts(plain)
        self._create = attrgetter(self._rules.endpoints[0])(plain).create
        self._system, self._item_count = system_prompt, item_count
        self._connection = client_connection(client)
        self._bare = is_gateway(self.pipeline.config, self._rules.name, client.base_url)
        self._names = SentNames(self.pipeline.config, service, plain, self._rules.endpoints[0])
        self.providers = self._names.reach

    def request(self, text: str) -> CallRequest:
        """Return the provider-neutral request of one call."""
        request = self._rules.read_request(self._rules.write_prompt(self._system, text), self._rules.endpoints[0])
        request = self._names.read(request, _UNNAMED)
        context = current_context()._replace(item_count=self._item_count)
        return request._replace(
            context=context,
            retry_terms=self._retry_terms,
            connection=self._connection,
            max_tokens=self._max_tokens,
            bare=self._bare,
            size_only=self.pipeline.config.routing.by_default,
            needs_cap=self._rules.endpoints[0] == "messages",
        )

    def check(self, accept: Callable[[Any], bool] | None, parse_result: Callable[[Any], Any] | None) -> Check | None:
        """Return the caller's check of a value as a check of an answer."""
        if accept is None:
            return None

        def is_acceptable(result: CallResult) -> bool:
            try:
                value = read_content(result.response).text if parse_result is None else parse_result(result.response)
            except Exception:  # noqa: BLE001 - any error means that the answer cannot be used
                return False
            return accept(value)

        return is_acceptable

    def send(
        self, text: str, accept: Check | None = None, *, wait_s: float | None = None, tracker: CostTracker | None = None
    ) -> CallOutcome:
        """Make one call; it can wait for ``wait_s`` and cost what ``tracker`` has left, where they are given."""
        with _held_to(tracker, accept) as (ceiling, check):
            prompt = self._prompt(text, wait_s, ceiling)
            made: CallOutcome = invoke(self.pipeline, prompt, self._send_once, accept=check)
            return made

    async def asend(
        self, text: str, accept: Check | None = None, *, wait_s: float | None = None, tracker: CostTracker | None = None
    ) -> CallOutcome:
        """Make one call with an asynchronous client."""
        with _held_to(tracker, accept) as (ceiling, check):
            prompt = self._prompt(text, wait_s, ceiling)
            made: CallOutcome = await ainvoke(self.pipeline, prompt, self._send_once, accept=check)
            return made

    def batch_item(self, text: str) -> BatchItem:
        """One text as a request of a batch."""
        rules, names, body = self._rules, self._names, self._rules.write_prompt(self._system, text)
        reach, alone = self.providers, names.why_no_batch(_UNNAMED)
        return BatchItem(
            self.request(text), self.plain, partial(_written, rules, names, body), reach=reach, alone=alone
        )

    def _prompt(self, text: str, wait_s: float | None, ceiling: int | None) -> _Prompt:
        body, request = self._rules.write_prompt(self._system, text), self.request(text)
        if wait_s is not None:
            request = with_patience(request, wait_s)
        if ceiling is not None:  # of this call alone: what ``accept`` calls is not held to it
            request = request._replace(context=request.context._replace(max_cost_nanousd=ceiling))
        counter = None
        if self._rules.count_fields:
            counter = ClientCounter(
                self._client, self._rules, body, sent=lambda one: self._names.written(one, _UNNAMED)
            )
        render = partial(_written, self._rules, self._names, body)
        return _Prompt(self._rules, render, request, self.providers, self._client.timeout, counter)

    def _sent(self, target: ModelRef) -> str:
        return self._names.written(target, _UNNAMED)

    def _send_once(self, rendered: dict[str, Any]) -> Any:
        return self._create(**rendered)

    def result(self, answer: CallOutcome, parse_result: Callable[[Any], Any] | None) -> Result:
        """Return the caller's result of an answer."""
        text = read_content(answer.response).text
        try:
            value = text if parse_result is None else parse_result(answer.response)
        except Exception:
            # The answer is booked already; as a quality signal the failure teaches the router.
            self.pipeline.feedback(answer.call_id, SIGNAL_SCORES[PARSE_FAILED], name=PARSE_FAILED)
            raise
        return Result(text, value, answer.response, answer.decision, answer.records[-1])


class _Prompt(NamedTuple):
    """One call of ``process``, as a ``HostCall``."""

    rules: Provider
    write: Callable[[Attempt], dict[str, Any]]
    request: CallRequest
    providers: frozenset[str]
    timeout: Any
    """The client's own."""
    counter: ClientCounter | None = None

    def render(self, attempt: Attempt) -> dict[str, Any]:
        """The arguments of the SDK's ``create``."""
        body = self.write(attempt)
        timeout = capped_timeout(self.timeout, limit_s := attempt.limit_s(chosen=False))
        return body if limit_s is None else {**body, "timeout": timeout}

    def read(self, attempt: Attempt, raw: Any) -> CallResult:
        """The answer with its usage."""
        del attempt
        return CallResult(raw, read_or_unknown(self.rules.read_usage, raw), read_content=read_content)

    def billed_usage(self, attempt: Attempt, error: Exception) -> None:
        """``None``: nothing of the answer is parsed while it is sent."""

    def deliver(self, answer: Governed) -> CallOutcome:
        """The whole outcome: the result needs the decision and the records, not only the response."""
        assert isinstance(answer, CallOutcome)  # noqa: S101 - nothing was streamed
        return answer


def _written(rules: Provider, names: SentNames, body: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
    """The body of an attempt, under the name that its client sends."""
    made = rules.write_request(body, attempt, rules.endpoints[0])
    return {**made, "model": names.written(attempt.target, _UNNAMED)}


_pipelines: list[CostPipeline] = []
_pipelines_lock = ModuleLock()


def _pipeline_of(config: CostConfig) -> CostPipeline:
    """Return one pipeline for equal configurations, so that a memory ledger lives on between two calls."""
    with _pipelines_lock.held:
        # A list, not a dict: a configuration holds mappings and has no hash.
        for pipeline in _pipelines:
            if pipeline.config is config or pipeline.config == config:
                return pipeline
        _pipelines.append(pipeline := CostPipeline(config))
        if len(_pipelines) > _PIPELINES:
            _pipelines.pop(0)
        return pipeline
