"""A storage of somebody's own that fails: what was paid for is delivered, and errors are the provider's."""

from __future__ import annotations

import asyncio
import threading

import anthropic
import openai
import pytest

from llm_cost_middleware.budget.backends.memory import MemoryBackend
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import BudgetExceededError, LedgerUnavailableError
from llm_cost_middleware.events import BudgetRefused
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.system_clock import SystemClock

ASK = [{"role": "user", "content": "Count."}]
REQUESTS = [
    {"custom_id": "0", "params": {"model": "claude-haiku-4-5", "max_tokens": 30, "messages": ASK}},
]


class Storage(MemoryBackend):
    """A backend from outside the tree, of which some verbs fail when they are told to."""

    def __init__(self, blocks=False, **failures):
        super().__init__(SystemClock())
        self._blocks, self.failures = blocks, failures
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    @property
    def blocks(self):
        return self._blocks

    @property
    def journal(self):
        return Journal(self)

    def reserve(self, *arguments, **options):
        self.entered.set()
        self.go_on.wait()
        return super().reserve(*arguments, **options)

    def resolve(self, *arguments, **options):
        self.fail("resolve")
        return super().resolve(*arguments, **options)

    def fail(self, verb):
        if verb in self.failures:
            raise self.failures[verb]


class Journal:
    """What such a backend keeps beside money: nothing."""

    def __init__(self, storage):
        self._storage = storage

    def append(self, kind, id_, at, data):
        self._storage.fail("append")

    def read(self, kind, since=None):
        self._storage.fail("append")
        return iter(())


ERRORS = {
    "ours": LedgerUnavailableError("own://", "away"),
    "os": OSError(28, "No space left on device"),
    "its own": RuntimeError("the storage is shut"),
}
every_error = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)


def pipeline_over(storage, **config):
    return CostPipeline(CostConfig(retry={"max_attempts": 1}, **config), ledger=storage)


@every_error
@pytest.mark.parametrize("stream", [False, True])
async def test_a_settle_that_fails_takes_no_answer_away(error, stream, clients, async_clients):
    storage = Storage(resolve=error)
    pipeline = pipeline_over(storage)
    ask = {"model": "claude-haiku-4-5", "max_tokens": 20, "messages": ASK, "stream": stream}
    answer = wrap_anthropic(clients["anthropic"], pipeline).messages.create(**ask)
    assert list(answer) if stream else answer.content
    answer = await wrap_anthropic(async_clients["anthropic"], pipeline).messages.create(**ask)
    assert [chunk async for chunk in answer] if stream else answer.content
    assert pipeline.ledger.balance("global").pending_nanousd > 0  # they expire, and are charged


@every_error
async def test_a_void_that_fails_does_not_replace_the_providers_error(error, sim, clients, async_clients):
    pipeline = pipeline_over(Storage(resolve=error))
    ask = {"model": "gpt-5-mini", "max_completion_tokens": 20, "messages": ASK}
    for _ in range(4):
        sim.script(Fault.status(401))
    with pytest.raises(openai.AuthenticationError):
        wrap_openai(clients["openai"], pipeline).chat.completions.create(**ask)
    with pytest.raises(openai.AuthenticationError):
        await wrap_openai(async_clients["openai"], pipeline).chat.completions.create(**ask)
    with pytest.raises(anthropic.AuthenticationError):
        wrap_anthropic(clients["anthropic"], pipeline).messages.batches.create(requests=REQUESTS)
    with pytest.raises(anthropic.AuthenticationError):
        await wrap_anthropic(async_clients["anthropic"], pipeline).messages.batches.create(requests=REQUESTS)


@every_error
async def test_a_journal_that_fails_takes_no_batch_away(error, sim, clients, async_clients):
    pipeline = pipeline_over(Storage(append=error))
    client = wrap_anthropic(clients["anthropic"], pipeline)
    batch = client.messages.batches.create(requests=REQUESTS)
    list(client.messages.batches.results(batch.id))  # this process still knows whose it is
    assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd > 0
    batch = await wrap_anthropic(async_clients["anthropic"], pipeline).messages.batches.create(requests=REQUESTS)
    assert batch.id


async def test_copies_of_a_client_know_its_batches_without_a_journal(sim, clients, async_clients):
    pipeline = pipeline_over(Storage(append=ERRORS["os"]))
    client = wrap_anthropic(clients["anthropic"], pipeline)
    batch = client.with_options(timeout=9).messages.batches.create(requests=REQUESTS)
    list(client.copy().with_options(timeout=8).messages.batches.results(batch.id))
    aclient = wrap_anthropic(async_clients["anthropic"], pipeline)
    batch = await aclient.messages.batches.create(requests=REQUESTS)
    assert [one async for one in await aclient.with_options(timeout=9).messages.batches.results(batch.id)]
    balance = pipeline.ledger.balance("global")
    assert (balance.pending_nanousd, balance.settled_nanousd) == (0, sim.bill.total_nanousd)


@every_error
@pytest.mark.parametrize("verb", ["append", "resolve"])
async def test_a_retrieved_answer_in_the_background_is_its_callers(error, verb, clients, async_clients):
    pipeline = pipeline_over(Storage(**{verb: error}))
    ask = {"model": "gpt-5-mini", "input": "Count.", "max_output_tokens": 20, "background": True}
    client = wrap_openai(clients["openai"], pipeline)
    name = client.responses.create(**ask).id
    foreign = clients["openai"].responses.create(**ask).id
    aclient = wrap_openai(async_clients["openai"], pipeline)
    for each in (name, name, foreign, foreign):
        answer = client.responses.retrieve(each)
    assert answer.usage is not None
    assert (await aclient.responses.retrieve(name)).usage is not None
    assert (await aclient.responses.retrieve(foreign)).usage is not None


def test_a_batch_whose_answer_is_left_unparsed_is_known_too(sim, clients):
    pipeline = pipeline_over(Storage())
    client = wrap_anthropic(clients["anthropic"], pipeline)
    raw = client.messages.batches.with_raw_response.create(requests=REQUESTS)
    list(client.messages.batches.results(raw.parse().id))
    assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd > 0


async def test_a_batch_that_is_cancelled_while_its_money_is_set_aside_leaves_none(sim, async_clients):
    storage = Storage(blocks=True)
    storage.go_on.clear()
    pipeline = pipeline_over(storage)
    create = wrap_anthropic(async_clients["anthropic"], pipeline).messages.batches.create
    creating = asyncio.create_task(create(requests=REQUESTS))
    await asyncio.to_thread(storage.entered.wait)
    creating.cancel()
    await asyncio.sleep(0)
    storage.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await creating
    balance = pipeline.ledger.balance("global")
    assert (balance.pending_nanousd, balance.settled_nanousd, sim.request_count) == (0, 0, 0)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_an_observer_creates_the_batch_that_would_not_fit(provider, sim, clients):
    seen = []

    class Observer:
        def on_event(self, event):
            seen.append(event)

    def create(pipeline):
        if provider == "anthropic":
            client = wrap_anthropic(clients["anthropic"], pipeline)
            return client, client.messages.batches.create(requests=REQUESTS)
        client = wrap_openai(clients["openai"], pipeline)
        line = (
            b'{"custom_id": "0", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-5-mini", '
            b'"max_completion_tokens": 30, "messages": [{"role": "user", "content": "Count."}]}}'
        )
        uploaded = client.files.create(file=("batch.jsonl", line), purpose="batch")
        batch = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        return client, batch

    budgets = [Budget("global", "0.0000001")]
    with CostPipeline(CostConfig(budgets=budgets)) as strict, pytest.raises(BudgetExceededError):
        create(strict)
    with CostPipeline(CostConfig(mode="observe", budgets=budgets), observers=[Observer()]) as pipeline:
        client, batch = create(pipeline)
        refused = [event for event in seen if isinstance(event, BudgetRefused)]
        assert [event.enforced for event in refused] == [False]
        for _ in range(2):  # the second time changes nothing
            if provider == "anthropic":
                list(client.messages.batches.results(batch.id))
            else:
                client.files.content(client.batches.retrieve(batch.id).output_file_id).read()
        balance = pipeline.ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd, 0)
        assert sim.bill.total_nanousd > 0
