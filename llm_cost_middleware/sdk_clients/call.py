"""One governed call of an SDK client: from what the resource method posts to what its caller gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llm_cost_middleware.config.sent_names import SentNames
from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import UnsupportedRequestError
from llm_cost_middleware.host import (
    ClientCounter,
    Governed,
    ObservedStream,
    attach_billed_usage,
    client_connection,
    retries_of,
)
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.request import AnswerContent, Attempt, CallResult, Endpoint, ModelRef
from llm_cost_middleware.sdk_clients.api import Api
from llm_cost_middleware.sdk_clients.bodies import fields_of, plain_body
from llm_cost_middleware.sdk_clients.response_bodies import BodyReader, body_of, rewrap_body
from llm_cost_middleware.sdk_clients.rewrapping import rewrap_response, rewrap_stream
from llm_cost_middleware.timeouts import capped_timeout
from llm_cost_middleware.unread_counts import carry_note
from llm_cost_middleware.usage import UsageReport, read_or_unknown

RAW_RESPONSE = "X-Stainless-Raw-Response"
"""The header by which both SDKs tell themselves to return the response unparsed; it is not sent."""


_RETRY_COUNT = "x-stainless-retry-count"


class Reply(NamedTuple):
    """What the SDK's ``post`` returned."""

    response: Any
    """A parsed answer, a stream, or an unparsed response of either."""
    stream: Any = None
    """The open stream; ``None`` for an answer in one piece."""


class SdkCall:
    """What a resource method posts, as a ``HostCall``.

    Args:
        api: The SDK.
        endpoint: What is called.
        body: What the resource method posts; never changed.
        options: The SDK's request options; never changed.
        names: What the names that are sent stand for.
        stream: Whether a stream is asked for.
        routed: The model name that is routed; every other is called as it is.
        providers: The SDK's own.
        client: The client as its owner set it: its timeout and its retries hold.
        retries_chosen: The client's number of retries was set, even if it is the SDK's default.
        bare: It goes to a gateway.

    Raises:
        ConfigurationError: The attributes under ``llm_cost`` cannot be used.
        UnsupportedRequestError: Embeddings of the name that is routed.
    """

    __slots__ = (
        "_api", "_body", "_called", "_client", "_names", "_options", "_raw", "_reply", "_rules", "_stream", "_unread",
        "providers",
        "request",
    )  # fmt: skip

    def __init__(
        self,
        api: Api,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        names: SentNames,
        stream: bool,
        routed: str,
        providers: frozenset[str],
        client: Any,
        retries_chosen: bool = False,
        bare: bool = False,
    ) -> None:
        self.providers = providers
        self._api, self._stream, self._client = api, stream, client
        self._options = options
        self._body = plain_body(body, options.get("extra_json"))
        attributes = self._body.pop(METADATA_KEY, None)
        raw = (options.get("headers") or {}).get(RAW_RESPONSE)
        self._raw, self._unread = raw is not None, raw == "stream"
        self._reply = Reply(None)
        self._rules = rules = get_provider(api.provider)
        request = rules.read_request(self._body, endpoint)
        self._names, self._called = names, request.model
        request = names.read(request, routed)
        if endpoint == "embeddings" and self._called == routed:
            raise UnsupportedRequestError(
                f"embeddings of {routed!r}",
                "another model's vectors mean something else, so that none is chosen: name it",
            )
        context = read_context(attributes)
        self.request = request._replace(
            stream=stream, context=context, model_pinned=request.model_pinned or self._called != routed,
            retry_terms=retries_of(client, asked=options.get("max_retries"), chosen=retries_chosen),
            connection=client_connection(client), bare=bare,
        )  # fmt: skip

    def render(self, attempt: Attempt) -> dict[str, Any]:
        """The body and the options of an attempt, as keyword arguments of the SDK's ``post``."""
        options = {**self._options, "max_retries": 0}  # a hidden retry would spend without a reservation
        options.pop("extra_json", None)  # it is part of the body
        own = options.get("timeout", self._client.timeout)
        # the anthropic SDK fills the client's own in
        chosen = "timeout" in options and own != self._client.timeout
        timeout = capped_timeout(own, limit_s := attempt.limit_s(chosen=chosen))
        if limit_s is not None:
            options["timeout"] = timeout
        if attempt.number > 1:  # as the SDK tells the provider of its own retries
            options["headers"] = {_RETRY_COUNT: str(attempt.number - 1), **(options.get("headers") or {})}
        if (parser := options.get("post_parser")) is not None:
            options["post_parser"] = self._billing(parser)
        body = self._rules.write_request(self._body, attempt, self.request.endpoint)
        body["model"] = self._names.written(attempt.target, self._called)
        return {"body": body, "options": options}

    def open(self, response: Any) -> Any:
        """The stream in what ``post`` returned; a coroutine of it for an unparsed response of an asynchronous client.

        ``None`` for an answer in one piece.
        """
        if self._unread:
            return response.http_response
        if not self._stream:
            return None
        return response.parse() if self._raw else response

    def read(self, attempt: Attempt, raw: Reply) -> CallResult | ObservedStream:
        """What the SDK answered: a response with its usage, or an open stream."""
        response, stream = raw
        if self._raw:
            response.retries_taken = attempt.number - 1  # ours; the SDK took none
        if stream is None:
            return CallResult(response, self._usage(response), None, _read_unparsed if self._raw else read_content)
        self._reply = raw  # of the attempt that answered: the caller gets an object of its class
        if self._unread:
            body = body_of(stream, self._api.injected_chunks(self._body))
            reader = BodyReader(self._rules, is_stream=body.is_stream)
            return ObservedStream(body.chunks, reader, body.close, is_injected=body.is_injected)
        chunks = stream._iterator  # noqa: SLF001 - below the SDK's own tracing, which watches the outer iterator
        is_injected = None if attempt.bare else self._api.injected_chunks(self._body)
        return ObservedStream(chunks, self._rules.new_stream_reader(), stream.close, is_injected=is_injected)

    def billed_usage(self, attempt: Attempt, error: Exception) -> None:
        """``None``: the parser, which has the answer in its hands, leaves the usage on its error."""

    def deliver(self, answer: Governed) -> Any:
        """The SDK's own object."""
        if isinstance(answer, CallOutcome):
            return answer.response
        response, inner = self._reply
        if self._unread:
            return rewrap_body(response, answer)
        outer = rewrap_stream(inner, answer)
        return rewrap_response(response, outer) if self._raw else outer

    @property
    def counter(self) -> ClientCounter | None:
        """Asks the client, where its provider counts."""
        if not self._rules.count_fields or self.request.endpoint != self._rules.endpoints[0]:
            return None
        return ClientCounter(self._client, self._rules, self._body, self._options.get("headers"), self._sent)

    def _sent(self, target: ModelRef) -> str:
        return self._names.written(target, self._called)

    def _usage(self, answer: Any) -> UsageReport:
        return read_or_unknown(self._rules.read_usage, answer.http_response.content if self._raw else fields_of(answer))

    def _billing(self, parser: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A parser that leaves on its error the usage of the answer it could not parse: that answer was billed."""

        def parse(answer: Any) -> Any:
            try:
                return carry_note(answer, parser(answer))
            except Exception as error:
                attach_billed_usage(error, read_or_unknown(self._rules.read_usage, answer))
                raise

        return parse


def _read_unparsed(response: Any) -> AnswerContent:
    return read_content(response.http_response.json())
