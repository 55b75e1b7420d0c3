"""boto3's ``bedrock-runtime`` client as ``ChatBedrockConverse`` holds it: what it sends to Converse is governed.

What LangChain sends is complete there: messages, tools, cache points, fields that only the model knows. So it is read,
held, capped and marked there, and not a second time in LangChain's words.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llm_cost_middleware.host import Governed, ObservedStream, connection_id, invoke
from llm_cost_middleware.integrations.langchain.call import booked_as
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.platforms.bedrock.content import read_content
from llm_cost_middleware.platforms.bedrock.converse import read_converse, write_converse
from llm_cost_middleware.platforms.bedrock.names import parse, reached_from, region_of
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import (
    NO_CONTEXT,
    Attempt,
    CallContext,
    CallRequest,
    CallResult,
    FixedRetries,
    ModelRef,
    RetryTerms,
)
from llm_cost_middleware.sdk_clients.bodies import plain_body
from llm_cost_middleware.usage import UsageReport, read_or_unknown

_PLATFORM = "bedrock"
_ADVICE = "call the guarded model; as it is, this passes the budgets"
_BILLED = frozenset({"invoke_model", "invoke_model_with_response_stream", "invoke_model_with_bidirectional_stream",
                     "start_async_invoke", "apply_guardrail"})  # fmt: skip


class ConverseTerms(NamedTuple):
    """How a guarded model's calls are governed."""

    pipeline: CostPipeline
    pinned: bool
    """Never routed."""
    base_model: str | None
    """The model behind an application inference profile, where LangChain has asked AWS for it."""
    retries: RetryTerms | None
    """Those that the model's owner set; ``None``: those of ``[retry]``."""


class ConverseClient:
    """Stands in for a client.

    Args:
        plain: boto3's own client. It is not changed.
        terms: How its calls are governed.
        context: Whose call the next one is.
    """

    def __init__(self, plain: Any, terms: ConverseTerms, context: CallContext = NO_CONTEXT) -> None:
        self.plain, self.terms, self._context = plain, terms, context
        self.request: CallRequest | None = None
        """The call that was made last, and under ``booked`` how; a client is made for each call."""
        self.booked: Mapping[str, Any] | None = None

    def for_call(self, context: CallContext) -> ConverseClient:
        """One for a single call."""
        return ConverseClient(self.plain, self.terms, context)

    def converse(self, **body: Any) -> Any:
        """As the client's, governed."""
        return self._govern(body, stream=False)

    def converse_stream(self, **body: Any) -> Any:
        """As the client's, governed; its money is held until ``stream`` ends or is closed."""
        return self._govern(body, stream=True)

    def count_tokens(self, **body: Any) -> Any:
        """As the client's: it costs nothing, and sends nothing outside ``[routing] regions``."""
        pipeline, name = self.terms.pipeline, str(body.get("modelId") or "")
        target = pipeline.config.platforms[_PLATFORM].sent_from(place_of(self.plain), name)
        pipeline.keep_inside("bedrock-runtime.count_tokens", target)
        return self.plain.count_tokens(**body)

    def _govern(self, body: dict[str, Any], *, stream: bool) -> Any:
        call = ConverseCall(self, body, self._context, stream=stream)
        self.request = call.request
        once = sends_once(self.plain)
        send: Callable[..., Any] = once.converse_stream if stream else once.converse
        return invoke(self.terms.pipeline, call, lambda sent: send(**sent))

    def __getattr__(self, name: str) -> Any:
        if name in ("plain", "terms"):  # of a copy in the making
            raise AttributeError(name)
        if name in _BILLED:
            self.terms.pipeline.ungoverned(f"bedrock-runtime.{name}", _ADVICE, context=self._context)
        return getattr(self.plain, name)


class ConverseCall:
    """One request of Converse, as a ``HostCall``."""

    def __init__(self, client: ConverseClient, body: dict[str, Any], context: CallContext, *, stream: bool) -> None:
        terms = client.terms
        self._client, self._body, self._stream = client, plain_body(body, None), stream
        self._config = terms.pipeline.config
        self._rules = get_provider(_PLATFORM)
        self._place = place_of(client.plain)
        reached = (f"{_PLATFORM}/{there}" for there in reached_from(self._place))
        self.providers = frozenset(reached if self._place else (_PLATFORM,))
        self._target = self._named(str(body.get("modelId") or ""), terms.base_model)
        self._raw: Any = None
        routed = any(target.provider == _PLATFORM for tier in self._config.tiers for target in tier.models)
        self.request = read_converse(self._body, stream=stream)._replace(
            model=self._target.model, context=context, model_pinned=terms.pinned or not routed,
            retry_terms=terms.retries, connection=connection_of(client.plain),
        )  # fmt: skip

    def _named(self, wire: str, base_model: str | None) -> ModelRef:
        """What an id or an ARN stands for: as configured, as it says, or as AWS said when the model was made."""
        section = self._config.platforms[_PLATFORM]
        target = section.sent_from(self._place, wire)
        if base_model and parse(target.model) is None:
            return section.sent_from(self._place, base_model)
        return target

    def render(self, attempt: Attempt) -> dict[str, Any]:
        """Arguments of ``converse``."""
        self._client.booked = booked_as(attempt)
        return write_converse(self._body, attempt, self._wire(attempt.target))

    def _wire(self, target: ModelRef) -> str:
        if target.plain == self._target:
            return str(self._body.get("modelId"))
        known = self._config.platforms[_PLATFORM].wire(target.plain)
        return known or target.model.rpartition("/")[2]

    def read(self, attempt: Attempt, raw: Any) -> CallResult | ObservedStream:
        """What came back: an answer with its usage, or an open stream."""
        del attempt
        if not self._stream:
            return CallResult(raw, read_or_unknown(self._rules.read_usage, raw), read_content=read_content)
        self._raw = raw
        events = raw["stream"]
        return ObservedStream(events, self._rules.new_stream_reader(), events.close)

    def billed_usage(self, attempt: Attempt, error: Exception) -> UsageReport | None:
        """No answer is known behind an error."""

    def deliver(self, answer: Governed) -> Any:
        """boto3's own mapping."""
        if isinstance(answer, CallOutcome):
            return answer.response
        return {**self._raw, "stream": answer}


def place_of(client: Any) -> str:
    """The region of a boto3 client; empty where it is not known."""
    meta = getattr(client, "meta", None)
    return region_of(getattr(meta, "endpoint_url", ""), getattr(meta, "region_name", None))


def connection_of(client: Any) -> str:
    """The connection of a boto3 client: its endpoint and region."""
    meta = getattr(client, "meta", None)
    return connection_id(getattr(meta, "endpoint_url", ""), getattr(meta, "region_name", ""))


def retries_of(client: Any, *, chosen: bool) -> RetryTerms | None:
    """The retries that a client's owner set; ``None`` where they are botocore's default."""
    config = getattr(getattr(client, "meta", None), "config", None)
    retries = getattr(config, "retries", None) or {}
    total = retries.get("total_max_attempts")
    return FixedRetries(total) if chosen and type(total) is int and total > 0 else None


def sends_once(client: Any) -> Any:
    """A client over the same connections and credentials that sends each request once.

    botocore retries below its methods, four times by default, and each would spend without a reservation. There is no
    documented way to switch that off on a client that exists: the loop asks its endpoint, and a copy of that says no.
    """
    endpoint = getattr(client, "_endpoint", None)
    if endpoint is None or not hasattr(endpoint, "_needs_retry"):
        return client  # no client of boto3's: a stub sends nothing by itself
    twin, once = object.__new__(type(client)), copy.copy(endpoint)
    vars(twin).update(vars(client))  # ``copy`` asks an empty client for a method, and it looks for its own model
    once._needs_retry = _never  # noqa: SLF001 - see above; tests hold that one request is sent
    twin._endpoint = once
    return twin


def _never(*_: Any, **__: Any) -> bool:
    return False
