"""One governed call of an SDK client: from what the resource method posts to what its caller gets."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import UnreadableUsageError
from llm_cost_middleware.lifecycle import AsyncGovernedStream, GovernedStream
from llm_cost_middleware.provider import UsageReading
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.providers.said import read_said
from llm_cost_middleware.request import Attempt, CallResult, Endpoint, Said
from llm_cost_middleware.sdk.api import Api
from llm_cost_middleware.sdk.bodies import fields_of, plain_body
from llm_cost_middleware.sdk.streams import SdkStream, put_back

RAW_RESPONSE = "X-Stainless-Raw-Response"
"""The header by which both SDKs tell themselves to return the response unparsed; it is not sent."""
_STREAMS = (GovernedStream, AsyncGovernedStream)


class SdkCall:
    """What a resource method posts, as a request, and the way back.

    Args:
        api: The SDK.
        endpoint: What is called.
        body: What the resource method posts; never changed.
        options: The SDK's request options; never changed.
        stream: Whether a stream is asked for.
        routed: The model name that is routed; every other is called as it is.
        timeout: The client's own timeout: seconds where its owner set it, else the SDK's default.

    Raises:
        ConfigurationError: What the call says under ``llm_cost`` cannot be used.
    """

    __slots__ = ("_api", "_body", "_endpoint", "_inner", "_options", "_raw", "_rules", "_stream", "_timeout", "request")

    def __init__(
        self,
        api: Api,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        options: Mapping[str, Any],
        *,
        stream: bool,
        routed: str,
        timeout: Any,
    ) -> None:
        self._api, self._endpoint, self._stream, self._timeout = api, endpoint, stream, timeout
        self._options = options
        self._body = plain_body(body, options.get("extra_json"))
        said = self._body.pop(METADATA_KEY, None)
        self._raw = RAW_RESPONSE in (options.get("headers") or ())
        self._inner: Any = None
        self._rules = rules = get_provider(api.provider)
        request = rules.read_request(self._body, endpoint)
        self.request = request._replace(stream=stream, context=read_context(said), pinned=request.model != routed)

    def rendered(self, attempt: Attempt) -> dict[str, Any]:
        """The body and the options of an attempt, as keyword arguments of the SDK's ``post``."""
        options = {**self._options, "max_retries": 0}
        options.pop("extra_json", None)  # it is part of the body
        timeout = options.get("timeout", self._timeout)
        if attempt.timeout_s is not None and (timeout is self._timeout or timeout == self._timeout):
            # nobody chose one for this call; the anthropic SDK fills its default in
            own = self._timeout if isinstance(self._timeout, int | float) else attempt.timeout_s
            options["timeout"] = min(attempt.timeout_s, own)
        if (parser := options.get("post_parser")) is not None:
            options["post_parser"] = self._watched(parser)
        return {"body": self._rules.write_request(self._body, attempt, self._endpoint), "options": options}

    def read(self, answer: Any) -> CallResult | SdkStream:
        """What the SDK answered: a response with its usage, or an open stream."""
        if not self._stream:
            return CallResult(answer, self._reading(answer), None, _said_unparsed if self._raw else read_said)
        return self._opened(answer, answer.parse() if self._raw else answer)

    async def aread(self, answer: Any) -> CallResult | SdkStream:
        """The same for an asynchronous client, whose unparsed responses may parse asynchronously."""
        if not self._stream:
            return CallResult(answer, self._reading(answer), None, _said_unparsed if self._raw else read_said)
        stream = answer.parse() if self._raw else answer
        return self._opened(answer, await stream if inspect.isawaitable(stream) else stream)

    def deliver(self, answer: Any) -> Any:
        """What the caller gets: the SDK's own object."""
        if not isinstance(answer, _STREAMS):
            return answer
        whole, inner = self._inner
        outer = put_back(inner, answer)
        return _parsing_to(whole, outer) if self._raw else outer

    def _opened(self, answer: Any, stream: Any) -> SdkStream:
        self._inner = answer, stream
        return SdkStream(stream, self._rules.new_stream_reader(), self._api.surplus(self._body))

    def _reading(self, answer: Any) -> UsageReading:
        try:
            return self._rules.read_usage(answer.http_response.content if self._raw else fields_of(answer))
        except UnreadableUsageError as error:
            return UsageReading(notes=(str(error),))

    def _watched(self, parser: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A parser whose failure tells what the answer it could not parse has cost."""

        def parse(answer: Any) -> Any:
            try:
                return parser(answer)
            except Exception as error:
                error.llm_cost_reading = self._rules.read_usage(answer)  # type: ignore[attr-defined]  # read by the lifecycle
                raise

        return parse


def _said_unparsed(response: Any) -> Said:
    return read_said(response.http_response.json())


def _parsing_to(response: Any, stream: Any) -> Any:
    """A copy of an unparsed response whose ``parse`` hands out ``stream``, awaited where the original's is."""
    twin = copy.copy(response)

    def parse(**_: Any) -> Any:
        return stream

    async def aparse(**_: Any) -> Any:
        return stream

    awaited: Callable[..., Awaitable[Any]] | Callable[..., Any] = (
        aparse if inspect.iscoroutinefunction(type(response).parse) else parse
    )
    twin.parse = awaited
    return twin
