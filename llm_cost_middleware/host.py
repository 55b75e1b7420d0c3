"""The contract of hosts: what one call of a host must offer, and the one way in which all of them are sent.

``integrations/`` holds the hosts, ``patterns/`` uses the same contract. A host writes one ``HostCall`` and hands it to
``invoke`` or ``ainvoke`` with the function that sends; everything between is the pipeline's.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Protocol, TypeVar

from llm_cost_middleware.call_ids import note_call
from llm_cost_middleware.event_loops import in_thread
from llm_cost_middleware.lifecycle import AsyncGovernedStream, CallOutcome, GovernedStream, RoutedCall
from llm_cost_middleware.nesting import enclosing_run
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.provider import Provider, StreamUsageReader
from llm_cost_middleware.request import (
    Attempt,
    CallRequest,
    CallResult,
    CallStream,
    FixedRetries,
    InputCounter,
    ModelRef,
    RetryTerms,
)
from llm_cost_middleware.usage import FAILED_LOCALLY, UsageReport, attach_usage, read_or_unknown

Rendered = TypeVar("Rendered")
Raw = TypeVar("Raw")
Rendered_co = TypeVar("Rendered_co", covariant=True)
Raw_contra = TypeVar("Raw_contra", contravariant=True)
Governed = CallOutcome | GovernedStream | AsyncGovernedStream


class HostCall(Protocol[Rendered_co, Raw_contra]):
    """One call of a host: read into the neutral view, rendered for each attempt, delivered as the host's own object.

    A call may also have a ``counter``, an ``InputCounter``: it asks the provider how many input tokens the call has.
    """

    @property
    def request(self) -> CallRequest:
        """The neutral view of the call."""
        ...

    @property
    def providers(self) -> frozenset[str]:
        """The providers that the host can reach with this call."""
        ...

    def render(self, attempt: Attempt) -> Rendered_co:
        """What the host's own method takes to send exactly one request, on copies, its hidden retries off."""
        ...

    def read(self, attempt: Attempt, raw: Raw_contra) -> CallResult | CallStream:
        """What came back: an answer with its usage, or an open stream."""
        ...

    def billed_usage(self, attempt: Attempt, error: Exception) -> UsageReport | None:
        """The usage of an answer that arrived although sending raised, such as one that did not parse.

        ``None``: no answer is known to have arrived.
        """
        ...

    def deliver(self, answer: Governed) -> Any:
        """What the caller of the host gets."""
        ...


def invoke(
    pipeline: CostPipeline,
    call: HostCall[Rendered, Raw],
    send: Callable[[Rendered], Raw],
    *,
    prepared: RoutedCall | None = None,
    accept: Callable[[CallResult], bool] | None = None,
) -> Any:
    """Govern one call of a host.

    Args:
        pipeline: Governs it.
        call: The call.
        send: The host's own method: sends once what ``call.render`` returned.
        prepared: As for ``CostPipeline.run``.
        accept: As for ``CostPipeline.run``.

    Returns:
        What ``call.deliver`` makes of the answer or the governed stream.

    Raises:
        LLMCostError: As ``CostPipeline.run``; otherwise what the last attempt raised.
    """
    run = enclosing_run(pipeline, call.request.model)
    if run is not None:
        run.give_back()

    def attempt_once(attempt: Attempt) -> CallResult | CallStream:
        if run is not None:
            run.call_ids.add(attempt.call_id)
        rendered = _rendered(call, attempt)
        try:
            raw = send(rendered)
        except Exception as error:
            attach_billed_usage(error, call.billed_usage(attempt, error))
            raise
        return call.read(attempt, raw)

    # ``call``, not ``run``: hosts differ in what they deliver of an outcome
    answer = pipeline.call(
        call.request, attempt_once, providers=call.providers, prepared=prepared, accept=accept, counter=_counter(call)
    )
    return _delivered(call, answer)


async def ainvoke(
    pipeline: CostPipeline,
    call: HostCall[Rendered, Raw],
    send: Callable[[Rendered], Awaitable[Raw]],
    *,
    prepared: RoutedCall | None = None,
    accept: Callable[[CallResult], bool] | None = None,
) -> Any:
    """Govern one call of a host on an event loop. As ``invoke``."""
    run = enclosing_run(pipeline, call.request.model)
    if run is not None:
        await in_thread(run.give_back)

    async def attempt_once(attempt: Attempt) -> CallResult | CallStream:
        if run is not None:
            run.call_ids.add(attempt.call_id)
        rendered = _rendered(call, attempt)
        try:
            raw = await send(rendered)
        except Exception as error:
            attach_billed_usage(error, call.billed_usage(attempt, error))
            raise
        return call.read(attempt, raw)

    answer = await pipeline.acall(
        call.request, attempt_once, providers=call.providers, prepared=prepared, accept=accept, counter=_counter(call)
    )
    return _delivered(call, answer)


def _counter(call: HostCall[Any, Any]) -> InputCounter | None:
    return getattr(call, "counter", None)


def _delivered(call: HostCall[Any, Any], answer: Governed) -> Any:
    response = call.deliver(answer)
    note_call(response, answer.call_id)
    if isinstance(response, CallOutcome):  # ``process`` hands on the SDK's own object inside
        note_call(response.response, answer.call_id)
    return response


def _rendered(call: HostCall[Rendered, Any], attempt: Attempt) -> Rendered:
    try:
        return call.render(attempt)
    except Exception as error:
        # an argument of the caller that cannot be read, say: nothing was sent, so the reservation is given back
        attach_usage(error, FAILED_LOCALLY)
        raise


def connection_id(address: object, *credentials: object) -> str:
    """The ``CallRequest.connection`` of calls that go to an address under some credentials. Names none of them."""
    return f"{address!s} {hash(tuple(map(str, credentials))):x}"


def client_connection(client: Any) -> str:
    """The connection of a client of the ``anthropic`` or the ``openai`` SDK."""
    names = ("api_key", "auth_token", "organization", "project", "access_token", "project_id", "region")
    credentials = [getattr(client, name, None) for name in names]
    # one SDK has a resource by the name that is a setting in the other
    return connection_id(getattr(client, "base_url", ""), *[value for value in credentials if type(value) is str])


def attach_billed_usage(error: BaseException, usage: UsageReport | None) -> None:
    """Leave the usage of an answer on the error that came instead of it, where the lifecycle looks for it."""
    if usage is not None:
        attach_usage(error, usage)


_ENDLESS = 1_000_000  # one SDK takes infinity


def retries_of(client: Any, *, asked: Any = None, chosen: bool = False) -> RetryTerms | None:
    """The retries that an SDK would make, as terms of the call.

    Args:
        client: A client of an SDK; where its owner left the SDK's default, ``[retry]`` decides.
        asked: What the call itself says.
        chosen: The client's number was set by its owner even if it is the default.
    """
    own = asked if asked is not None else getattr(client, "max_retries", None)
    if not isinstance(own, int | float) or isinstance(own, bool):
        return None
    if asked is None and not chosen:
        packages: Iterator[Any] = (sys.modules.get(kind.__module__.partition(".")[0]) for kind in type(client).__mro__)
        default = next((package.DEFAULT_MAX_RETRIES for package in packages if hasattr(package, _DEFAULT)), None)
        if own == default:
            return None
    return FixedRetries(int(min(own, _ENDLESS)) + 1)


_DEFAULT = "DEFAULT_MAX_RETRIES"  # both SDKs export it


class ClientCounter:
    """An ``InputCounter`` over a client of a provider's SDK: its documented ``messages.count_tokens``.

    Args:
        client: The client. It is not changed; a copy that does not retry asks.
        rules: Its provider.
        body: The body of the call, in the shape of the provider's first endpoint. Read when a count is asked for.
        headers: The headers of the call; those that name betas go along.
        sent: The name that is sent for a target; its model, if ``None``.
    """

    __slots__ = ("_body", "_client", "_headers", "_rules", "_sent")

    def __init__(
        self,
        client: Any,
        rules: Provider,
        body: Mapping[str, Any],
        headers: Mapping[str, Any] | None = None,
        sent: Callable[[ModelRef], str] | None = None,
    ) -> None:
        self._client, self._rules, self._body, self._headers = client, rules, body, headers or {}
        self._sent = sent or (lambda target: target.model)

    def account(self, target: ModelRef) -> str:
        """A digest of the client's key and address."""
        del target  # the client has one of each
        secrets = (
            getattr(self._client, name, None) for name in ("api_key", "auth_token", "access_token", "project_id")
        )
        return account_of(str(next(filter(None, secrets), "")), str(getattr(self._client, "base_url", "")))

    def counts(self, target: ModelRef) -> bool:
        """Whether the model is one of a provider that counts."""
        return bool(self._rules.count_fields) and target.provider == self._rules.name

    def prepare(self) -> None:
        """Nothing: the client is there."""

    def count(self, target: ModelRef, timeout_s: float) -> int:
        """Ask."""
        return int(self._ask(target, timeout_s).input_tokens)

    async def acount(self, target: ModelRef, timeout_s: float) -> int:
        """Ask on an event loop, with an asynchronous client."""
        return int((await self._ask(target, timeout_s)).input_tokens)

    def _ask(self, target: ModelRef, timeout_s: float) -> Any:
        given = {name: self._body[name] for name in self._rules.count_fields if self._body.get(name) is not None}
        betas = {name: value for name, value in self._headers.items() if name.lower() == "anthropic-beta"}
        resource = self._client.with_options(max_retries=0).messages
        return resource.count_tokens(model=self._sent(target), **given, extra_headers=betas or None, timeout=timeout_s)


def account_of(secret: str, address: str) -> str:
    """A name for a key at an address that reveals neither."""
    return blake2b(f"{secret}\n{address}".encode(), digest_size=12).hexdigest()


class ObservedStream:
    """A ``CallStream`` over a host's open stream: every chunk is shown to an observer on its way to the caller.

    Args:
        chunks: The host's chunks, an iterable or an asynchronous one.
        observer: Reads the usage out of them.
        close: Closes the connection; its result is awaited where the stream is asynchronous.
        is_injected: Recognises chunks that were asked for here and not by the caller: observed, and not passed on.
        on_end: Called when the last chunk has passed.
    """

    __slots__ = ("_chunks", "_close", "_is_injected", "_observer", "_on_end")

    def __init__(
        self,
        chunks: Any,
        observer: StreamUsageReader,
        close: Callable[[], Any],
        *,
        is_injected: Callable[[Any], bool] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._chunks, self._observer, self._close = chunks, observer, close
        self._is_injected, self._on_end = is_injected, on_end

    def __iter__(self) -> Iterator[Any]:
        feed, is_injected = self._observer.feed, self._is_injected
        for chunk in self._chunks:
            feed(chunk)  # before it is handed on: a caller may stop at any chunk
            if is_injected is None or not is_injected(chunk):
                yield chunk
        if self._on_end is not None:
            self._on_end()

    async def __aiter__(self) -> AsyncIterator[Any]:
        feed, is_injected = self._observer.feed, self._is_injected
        async for chunk in self._chunks:
            feed(chunk)
            if is_injected is None or not is_injected(chunk):
                yield chunk
        if self._on_end is not None:
            await in_thread(self._on_end)  # it may book

    def reading(self) -> UsageReport:
        """The usage that the chunks so far report. An unreadable count is noted: it must not break the stream."""
        return read_or_unknown(self._observer.reading)

    def close(self) -> None:
        """Close the connection."""
        self._close()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._close()
