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
from llm_cost_middleware.clock import Clock
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.gateways import is_gateway
from llm_cost_middleware.context import METADATA_KEY, read_context
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.lifecycle.clerk import Clerk
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.runtimes import RuntimePool
from llm_cost_middleware.natural_values import read_patience, read_seconds
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.providers import NAMES, get_provider, provider_of
from llm_cost_middleware.providers.content import read_content
from llm_cost_middleware.request import Attempt, CallRequest, CallResult
from llm_cost_middleware.routing.decision import RoutingDecision
from llm_cost_middleware.typed_fields import read_choice
from llm_cost_middleware.usage import read_or_unknown

if TYPE_CHECKING:
    from llm_cost_middleware.lifecycle import CallOutcome

Clients = Any
"""A client of the ``anthropic`` or the ``openai`` SDK, or a list of one each."""
_ROUTED = "smart"


class BatchCalls:
    """``batch`` and what belongs to it. The pipeline sets what it works on."""

    _flow: CallFlow
    _runtimes: RuntimePool
    _clerk: Clerk
    clock: Clock
    catalogue: Catalogue
    config: CostConfig
    call: Callable[..., Any]
    acall: Callable[..., Awaitable[Any]]

    def batch(
        self,
        requests: Iterable[Mapping[str, Any]],
        *,
        client: Clients,
        patience: Any = "24h",
        timeout: Any = None,
        unanswered: Unanswered = "resend",
        anyway: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> BatchAnswers:
        """Answer many requests that can wait, in batches at half price where that pays.

        Args:
            requests: Bodies as of ``messages.create``, ``chat.completions.create`` or ``responses.create``; what a
                request says of itself stands under ``llm_cost``. They are divided by model, endpoint, scopes and the
                provider's limits.
            client: A client, or a list of one of each provider.
            patience: How long the answers may take: ``"24h"``, a ``timedelta``, seconds. Less than a day is too short
                for a batch: ordinary calls are made. A batch that is not answered shortly before that (a tenth of it,
                half an hour at most) is cancelled, and what it lacks is sent as ordinary calls.
            timeout: How long to block; ``None``: until all is answered.
            unanswered: ``resend`` what expired, failed or was cancelled, as a batch or as ordinary calls; or
                ``return`` it as ``BatchItemError``.
            anyway: Send what fits; without it a batch that does not fit is refused whole.
            progress: Called with how many are answered, and how many there are.

        Returns:
            The answers in the order of the requests, as the SDK's own objects; an exception where there is none.

        Raises:
            BudgetExceededError: It does not fit: one hold a batch, at the most that it can cost. Nothing was sent.
            BatchPendingError: It was not answered within the timeout; its ``batch_id`` collects it.
            ConfigurationError: A request or an argument that cannot be used.
        """
        clients = self._clients(client)
        items = [self._item(at, body, clients) for at, body in enumerate(_listed(requests))]
        wishes = _wishes(patience, timeout, unanswered, progress, partial=anyway)
        return run(self._work(items, wishes).steps(), self.clock, lambda place, wait: self._send(items[place], wait))

    async def abatch(
        self,
        requests: Iterable[Mapping[str, Any]],
        *,
        client: Clients,
        patience: Any = "24h",
        timeout: Any = None,  # noqa: ASYNC109 - as in ``batch``: the batch goes on
        unanswered: Unanswered = "resend",
        anyway: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> BatchAnswers:
        """``batch`` with asynchronous clients."""
        clients = self._clients(client, is_async=True)
        items = [self._item(at, body, clients) for at, body in enumerate(_listed(requests))]
        wishes = _wishes(patience, timeout, unanswered, progress, partial=anyway)
        return await arun(
            self._work(items, wishes).steps(), self.clock, lambda place, wait: self._asend(items[place], wait)
        )

    def batches(self) -> tuple[BatchProgress, ...]:
        """Every batch that the ledger knows, by whatever process, the oldest first. Asks no provider."""
        return tuple(one.progress for one in self._book().all())

    def batch_status(self, batch_id: str, *, client: Clients) -> dict[str, str]:
        """Where the batches of a work stand at their providers, by their keys, in words; as ``collect_batch``."""
        return run(self._collecting().status(batch_id, self._clients(client)), self.clock)

    def collect_batch(self, batch_id: str, *, client: Clients) -> Collected:
        """Book what has ended of a batch of whatever process, and return its answers by the places of its requests.

        Args:
            batch_id: The id that ``BatchPendingError`` or ``batches`` names, or the provider's.
            client: As of ``batch``.

        Raises:
            ConfigurationError: The ledger knows no such batch.
        """
        return run(self._collecting().collect(batch_id, self._clients(client)), self.clock)

    async def acollect_batch(self, batch_id: str, *, client: Clients) -> Collected:
        """``collect_batch`` with asynchronous clients."""
        return await arun(self._collecting().collect(batch_id, self._clients(client, is_async=True)), self.clock)

    def cancel_batch(self, batch_id: str, *, client: Clients) -> Collected:
        """Cancel a batch and collect what it has answered, which is billed. As ``collect_batch`` otherwise."""
        return run(self._collecting().collect(batch_id, self._clients(client), cancel=True), self.clock)

    async def acancel_batch(self, batch_id: str, *, client: Clients) -> Collected:
        """``cancel_batch`` with asynchronous clients."""
        clients = self._clients(client, is_async=True)
        return await arun(self._collecting().collect(batch_id, clients, cancel=True), self.clock)

    def batch_work(self, items: Sequence[BatchItem], wishes: Wishes) -> BatchWork:
        """The way of a host's requests through batches, for ``steps.run`` or ``steps.arun``."""
        return self._work(items, wishes)

    def knows_batch(self, batch_id: str) -> bool:
        """Whether the ledger knows a batch."""
        return any(one.run == batch_id for one in self._book().all())

    def collecting_steps(self, batch_id: str, client: Clients) -> Steps[Collected]:
        """``collect_batch``, as steps."""
        return self._collecting().collect(batch_id, self._clients(client, is_async=None))

    def decision_of(self, request: CallRequest) -> RoutingDecision:
        """The decision that a request would get now; nothing is remembered of it."""
        return self._flow.route_dry_run(request, frozenset((request.provider,))).decision

    # --- inside ----------------------------------------------------------------------------------------------------

    def _book(self) -> BatchBook:
        return BatchBook(self._runtimes.ledger.journal, self.clock)

    def _collecting(self) -> Collecting:
        return Collecting(self._flow, self._clerk, self._runtimes.ledger, self._book(), self.clock)

    def _work(self, items: Sequence[BatchItem], wishes: Wishes) -> BatchWork:
        ledger, currency = self._runtimes.ledger, self.catalogue.currency
        return BatchWork(self._flow, self._clerk, ledger, self._book(), self.clock, items, wishes, currency)

    def _clients(self, client: Clients, *, is_async: bool | None = False) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in client if isinstance(client, list | tuple) else (client,):
            # a wrapped client would hold and book the same batch once more
            plain = getattr(getattr(one, "__dict__", {}).get("_llm_cost_wrapped"), "client", one)
            names = [kind.__module__.partition(".")[0] for kind in type(plain).__mro__]
            name = next((name for name in names if name in NAMES), None)
            if name is None:
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
        name = provider_of(model) or (next(iter(clients)) if len(clients) == 1 else None)
        if name is None or name not in clients:
            raise ConfigurationError(f"no client was given for {model!r}", key=key)
        rules, client = get_provider(name), clients[name]
        endpoint = "responses" if "input" in body and "responses" in rules.endpoints else rules.endpoints[0]
        request = rules.read_request(body, endpoint)._replace(
            context=read_context(given.get(METADATA_KEY)), model_pinned=model != _ROUTED,
            bare=is_gateway(self.config, name, getattr(client, "base_url", "")),
        )  # fmt: skip
        return BatchItem(request, client, lambda attempt: rules.write_request(body, attempt, endpoint))

    def _send(self, item: BatchItem, patience_s: float | None) -> CallOutcome:
        create = attrgetter(item.request.endpoint)(item.client.with_options(max_retries=0)).create

        def send(attempt: Attempt) -> CallResult:
            return _result(item.request, create(**item.render(attempt)))

        request = with_patience(item.request, patience_s)
        answer: CallOutcome = self.call(request, send, providers=frozenset((request.provider,)))
        return answer

    async def _asend(self, item: BatchItem, patience_s: float | None) -> CallOutcome:
        create = attrgetter(item.request.endpoint)(item.client.with_options(max_retries=0)).create

        async def send(attempt: Attempt) -> CallResult:
            return _result(item.request, await create(**item.render(attempt)))

        request = with_patience(item.request, patience_s)
        answer: CallOutcome = await self.acall(request, send, providers=frozenset((request.provider,)))
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
