"""Batches of SDK request bodies: the part of ``CostPipeline`` that sends them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from llm_cost_middleware.batches.book import BatchBook
from llm_cost_middleware.batches.collecting import Collecting
from llm_cost_middleware.batches.lane import BatchWork, Unanswered, Wishes
from llm_cost_middleware.batches.planning import BatchItem
from llm_cost_middleware.batches.results import BatchAnswers, BatchProgress, Collected
from llm_cost_middleware.batches.steps import Steps, arun, run
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.gateways import is_gateway, service_of
from llm_cost_middleware.config.sent_names import SentNames
from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.lifecycle.clerk import Clerk
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.money import DisplayCurrency
from llm_cost_middleware.natural_values import read_patience, read_seconds
from llm_cost_middleware.platform import find_platform, maker_of
from llm_cost_middleware.providers import NAMES, get_provider, provider_of
from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.request import Attempt, CallRequest, CallResult
from llm_cost_middleware.typed_fields import read_choice
from llm_cost_middleware.usage import read_or_unknown

if TYPE_CHECKING:
    from llm_cost_middleware.lifecycle import CallOutcome

Clients = Any
"""A client of the ``anthropic`` or the ``openai`` SDK, or a list of one each."""
_ROUTED = "smart"


class BatchCalls:
    """Batches of a pipeline: ``CostPipeline.batch`` and what belongs to it, where the arguments are described.

    Args:
        flow: Its way of a call.
        ledger: Its ledger.
        clerk: Holds and books the money of a batch.
        clock: Time.
        currency: In which refusals are shown beside US dollars.
        config: Its configuration.
        call: Makes an ordinary call.
        acall: The same on an event loop.
    """

    def __init__(
        self,
        flow: CallFlow,
        ledger: Ledger,
        clerk: Clerk,
        clock: Clock,
        currency: DisplayCurrency | None,
        config: CostConfig,
        call: Callable[..., Any],
        acall: Callable[..., Awaitable[Any]],
    ) -> None:
        self._flow, self._ledger, self._clerk, self._clock = flow, ledger, clerk, clock
        self._currency, self._config, self._call, self._acall = currency, config, call, acall

    def batch(
        self, requests: Any, client: Clients, patience: Any, timeout: Any, unanswered: Unanswered,
        progress: Callable[[int, int], object] | None, *, partial: bool,
    ) -> BatchAnswers:  # fmt: skip
        """Answer many requests that can wait."""
        clients = self._clients(client)
        items = [self._item(at, body, clients) for at, body in enumerate(_listed(requests))]
        wishes = _wishes(patience, timeout, unanswered, progress, partial=partial)
        return run(self.work(items, wishes).steps(), self._clock, lambda place, wait: self._send(items[place], wait))

    async def abatch(
        self, requests: Any, client: Clients, patience: Any,
        timeout: Any,  # noqa: ASYNC109 - as in ``batch``: the batch goes on
        unanswered: Unanswered, progress: Callable[[int, int], object] | None, *, partial: bool,
    ) -> BatchAnswers:  # fmt: skip
        """The same with asynchronous clients."""
        clients = self._clients(client, is_async=True)
        items = [self._item(at, body, clients) for at, body in enumerate(_listed(requests))]
        wishes = _wishes(patience, timeout, unanswered, progress, partial=partial)
        steps = self.work(items, wishes).steps()
        return await arun(steps, self._clock, lambda place, wait: self._asend(items[place], wait))

    def batches(self) -> tuple[BatchProgress, ...]:
        """Every batch that the ledger knows, the oldest first."""
        return tuple(one.progress for one in self._book().all())

    def knows(self, batch_id: str) -> bool:
        """Whether the ledger knows a batch."""
        return any(one.run == batch_id for one in self._book().all())

    def status(self, batch_id: str, client: Clients) -> dict[str, str]:
        """Where the batches of a work stand at their providers, by their keys, in words."""
        return run(self._collecting().status(batch_id, self._clients(client)), self._clock)

    def collect(self, batch_id: str, client: Clients, *, cancel: bool = False) -> Collected:
        """Book what has ended of a batch, or has been answered until it is cancelled here."""
        return run(self._collecting().collect(batch_id, self._clients(client), cancel=cancel), self._clock)

    async def acollect(self, batch_id: str, client: Clients, *, cancel: bool = False) -> Collected:
        """The same with asynchronous clients."""
        clients = self._clients(client, is_async=True)
        return await arun(self._collecting().collect(batch_id, clients, cancel=cancel), self._clock)

    def collecting_steps(self, batch_id: str, client: Clients) -> Steps[Collected]:
        """The same, as steps."""
        return self._collecting().collect(batch_id, self._clients(client, is_async=None))

    def work(self, items: Sequence[BatchItem], wishes: Wishes) -> BatchWork:
        """The way of requests through batches, for ``steps.run`` or ``steps.arun``."""
        book = self._book()
        return BatchWork(self._flow, self._clerk, self._ledger, book, self._clock, items, wishes, self._currency)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _book(self) -> BatchBook:
        return BatchBook(self._ledger.journal, self._clock)

    def _collecting(self) -> Collecting:
        return Collecting(self._flow, self._clerk, self._ledger, self._book(), self._clock)

    def _clients(self, client: Clients, *, is_async: bool | None = False) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in client if isinstance(client, list | tuple) else (client,):
            # a wrapped client would hold and book the same batch once more
            plain = getattr(getattr(one, "__dict__", {}).get("_llm_cost_wrapped"), "client", one)
            name = service_of(plain)
            if not name:
                wanted = " or ".join(NAMES)
                raise ConfigurationError(f"expected a client of {wanted}, not {type(one).__qualname__}", key="client")
            if is_async is not None:
                check_kind_of_client(plain, is_async=is_async)
            found[name] = plain
        return found

    def _item(self, at: int, given: Any, clients: Mapping[str, Any]) -> BatchItem:
        key = f"requests[{at}]"
        if not isinstance(given, Mapping) or not isinstance(given.get("model"), str):
            form = "must be a body such as {'model': ..., 'messages': [...]}"
            raise ConfigurationError(f"{form}, not a {type(given).__name__}", key=key)
        body: dict[str, Any] = as_json({name: value for name, value in given.items() if name != METADATA_KEY}, key)
        model = body["model"]
        name = self._service(model, clients)
        if name is None:
            raise ConfigurationError(f"no client was given for {model!r}", key=key)
        rules, client = get_provider(name), clients[name]
        endpoint = "responses" if "input" in body and "responses" in rules.endpoints else rules.endpoints[0]
        names = SentNames(self._config, name, client, endpoint)
        request = names.read(rules.read_request(body, endpoint), _ROUTED)._replace(
            context=read_context(given.get(METADATA_KEY)), model_pinned=model != _ROUTED,
            bare=is_gateway(self._config, name, getattr(client, "base_url", "")),
        )  # fmt: skip

        def render(attempt: Attempt) -> Mapping[str, Any]:
            return {**rules.write_request(body, attempt, endpoint), "model": names.written(attempt.target, model)}

        return BatchItem(request, client, render, reach=names.reach, alone=names.why_no_batch(model))

    def _service(self, model: str, clients: Mapping[str, Any]) -> str | None:
        """The provider or the platform, of those that there are clients of, whose model it is; ``None``: nobody's."""
        named = [name for name in clients if name in self._config.platforms and self._knows(name, model)]
        maker = provider_of(model)
        if not named and maker in clients:
            return maker
        found = named or [name for name in clients if maker in (None, maker_of(name))]
        return found[0] if len(found) == 1 else None

    def _knows(self, name: str, model: str) -> bool:
        """Whether a platform has a deployment of a name, or the name is one that its own service alone has."""
        platform = find_platform(name)
        served = platform.parse(model) if platform is not None else None
        return model in self._config.platforms[name].deployments or (served is not None and bool(served.place))

    def _send(self, item: BatchItem, patience_s: float | None) -> CallOutcome:
        create = attrgetter(item.request.endpoint)(item.client.with_options(max_retries=0)).create

        def send(attempt: Attempt) -> CallResult:
            return _result(item.request, create(**item.render(attempt)))

        request = with_patience(item.request, patience_s)
        answer: CallOutcome = self._call(request, send, providers=item.reach)
        return answer

    async def _asend(self, item: BatchItem, patience_s: float | None) -> CallOutcome:
        create = attrgetter(item.request.endpoint)(item.client.with_options(max_retries=0)).create

        async def send(attempt: Attempt) -> CallResult:
            return _result(item.request, await create(**item.render(attempt)))

        request = with_patience(item.request, patience_s)
        answer: CallOutcome = await self._acall(request, send, providers=item.reach)
        return answer


def check_kind_of_client(client: Any, *, is_async: bool) -> None:
    """Raise ``ConfigurationError`` for an asynchronous client where a synchronous one is called, and the reverse."""
    if is_async is not any(kind.__name__.startswith("Async") for kind in type(client).__mro__):
        wanted = "an asynchronous" if is_async else "a synchronous"
        raise ConfigurationError(f"expected {wanted} client, not {type(client).__qualname__}", key="client")


def with_patience(request: CallRequest, patience_s: float | None) -> CallRequest:
    """A request that can wait so long; ``None``: not at all."""
    return request._replace(context=request.context._replace(patience_s=patience_s or 0.0))


def _result(request: CallRequest, response: Any) -> CallResult:
    reading = read_or_unknown(get_provider(request.provider).read_usage, response)
    return CallResult(response, reading, read_content=read_content)


def _wishes(
    patience: Any, timeout: Any, unanswered: Unanswered, progress: Callable[[int, int], object] | None, *, partial: bool
) -> Wishes:
    read_choice(Unanswered, unanswered, "unanswered")
    timeout_s = None if timeout is None else read_seconds(timeout, "timeout")
    return Wishes(read_patience(patience, "patience"), timeout_s, unanswered, partial, progress)


def _listed(requests: Any) -> list[Any]:
    if isinstance(requests, str | bytes | Mapping) or not isinstance(requests, Iterable):
        raise ConfigurationError(f"must be a list of request bodies, not a {type(requests).__name__}", key="requests")
    return list(requests)


def as_json(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A body of JSON's own types, on a copy: batches are files."""
    try:
        made: dict[str, Any] = json.loads(json.dumps(body, default=_dumped))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"cannot be written as JSON: {error}", key=key) from None
    return made


def _dumped(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return dump(exclude_unset=True, mode="json", by_alias=True)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is no JSON")
