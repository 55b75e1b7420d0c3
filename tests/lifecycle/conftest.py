"""One pipeline over a memory or a SQLite ledger, real clients on a loopback provider, and both kinds of caller."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from contextvars import copy_context
from random import Random
from urllib.request import urlopen

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.context import read_context
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pricing.tokenizer import warm_up
from llm_cost_middleware.pricing.vocabulary import tiktoken_encoding
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.simulator import Simulator, fill
from llm_cost_middleware.testing import FakeClock

WRAP = {"anthropic": wrap_anthropic, "openai": wrap_openai}
MODELS = {"anthropic": "claude-haiku-4-5-20251001", "openai": "gpt-5-mini"}
CAPS = {"anthropic": "max_tokens", "openai": "max_completion_tokens"}
MAX_TOKENS = 64
KINDS = {"memory-sync": False, "sqlite-async": False, "memory-async": True, "sqlite-sync": True}
"""Which ledger under which caller, and whether it runs only in the long form."""


class SyncCaller:
    """Calls made in this thread."""

    name = "sync"

    def __init__(self, clients):
        self._clients = clients

    def plain(self, provider):
        return self._clients[provider]

    def client(self, provider, pipeline):
        return WRAP[provider](self._clients[provider], pipeline)

    def ask(self, client, provider, **body):
        return _create(client, provider)(**body)

    def stream(self, client, provider, leave, **body):
        return leave.sync(_create(client, provider)(stream=True, **body))

    def run(self, call, acall):
        del acall
        return call()


def _create(client, provider):
    return client.messages.create if provider == "anthropic" else client.chat.completions.create


class AsyncCaller:
    """The same calls on an event loop."""

    name = "async"

    def __init__(self, clients, runner):
        self._clients, self._runner = clients, runner

    def plain(self, provider):
        return self._clients[provider]

    def client(self, provider, pipeline):
        return WRAP[provider](self._clients[provider], pipeline)

    def ask(self, client, provider, **body):
        return self._run(_create(client, provider)(**body))

    def _run(self, coroutine):
        return self._runner.run(coroutine, context=copy_context())

    def stream(self, client, provider, leave, **body):
        async def go():
            answer = await leave.asynchronous(await _create(client, provider)(stream=True, **body))
            for _ in range(5):  # a loop that goes on, as loops do: dropped generators end on it
                await asyncio.sleep(0)
            return answer

        return self._run(go())

    def run(self, call, acall):
        del call
        return self._run(acall())


class Harness:
    """What a call leaves behind: rows, records, events, and the provider's bill beside them."""

    def __init__(self, sim, url, caller, **config):
        self.sim, self.caller, self.clock, self.events, self.attempts = sim, caller, FakeClock(), [], []
        config.setdefault("budgets", [{"scope": "global", "limit": "100"}])
        config["ledger"] = {"url": url, "durability": "normal", **config.get("ledger", {})}
        config.setdefault("providers", {name: {"timeout_s": 30} for name in MODELS})
        self.numbers = iter(range(1, 10**6))
        self.config = CostConfig(**config)
        self.pipeline = CostPipeline(
            self.config, clock=self.clock, rng=Random(7), observers=[self], new_id=lambda: f"call{next(self.numbers)}"
        )

    def on_event(self, event):
        self.events.append(event)

    def reported(self, *kinds):
        """Events of some kinds, by name; of all without one."""
        return [event for event in self.events if not kinds or type(event).__name__ in kinds]

    def body(self, provider, **more):
        return {
            "model": MODELS[provider],
            "messages": [{"role": "user", "content": "hello there"}],
            CAPS[provider]: MAX_TOKENS,
            **more,
        }

    def ask(self, provider, **more):
        return self.caller.ask(self.caller.client(provider, self.pipeline), provider, **self.body(provider, **more))

    def stream(self, provider, leave, **more):
        client = self.caller.client(provider, self.pipeline)
        return self.caller.stream(client, provider, leave, **self.body(provider, **more))

    def call(self, text="hello", *, max_tokens=None, model="smart", providers=tuple(MODELS), **said):
        """A call through a host that reaches both providers. Returns what ``CostPipeline.call`` does."""
        request = CallRequest(
            "openai", model, (Message("user", (Part("text", text),)),), endpoint="chat.completions",
            max_tokens=max_tokens, context=read_context(said), model_pinned=model != "smart",
        )  # fmt: skip

        def sent(attempt):
            self.attempts.append(attempt)
            provider = attempt.target.provider
            create = _create(self.caller.plain(provider).with_options(max_retries=0), provider)
            return create(
                model=attempt.target.model, messages=[{"role": "user", "content": text}],
                timeout=attempt.timeout_s, **{CAPS[provider]: attempt.max_tokens},
            )  # fmt: skip

        def read(attempt, response):
            return CallResult(response, get_provider(attempt.target.provider).read_usage(response))

        def send(attempt):
            return read(attempt, sent(attempt))

        async def asend(attempt):
            return read(attempt, await sent(attempt))

        options = {"providers": frozenset(providers)}
        return self.caller.run(
            lambda: self.pipeline.call(request, send, **options),
            lambda: self.pipeline.acall(request, asend, **options),
        )

    @property
    def resolutions(self):
        """How each attempt was resolved, in order: ``void``, or the status it was booked with."""
        self.balance  # noqa: B018 - looking settles what was dropped
        return tuple(row.status for row in self.pipeline.ledger.rows() if row.kind not in {"reserve", "reduce"})

    @property
    def balance(self):
        balance = self.pipeline.ledger.balance("global")
        if balance.pending_nanousd:  # a dropped stream may still be held by a cycle of references
            gc.collect()
            balance = self.pipeline.ledger.balance("global")
        return balance

    def check(self):
        """The invariants that hold after every call, however it went."""
        balance, bill = self.balance, self.sim.bill.total_nanousd
        assert balance.pending_nanousd == 0
        assert balance.settled_nanousd >= bill
        if set(self.resolutions) <= {"exact", "void"}:
            assert balance.settled_nanousd == bill
        rows = [row for row in self.pipeline.ledger.rows() if row.kind in {"settle", "book", "expire"}]
        assert sum(row.amount_nanousd for row in rows) == balance.settled_nanousd
        records = self.pipeline.records()
        assert [record.cost_nanousd for record in records] == [row.amount_nanousd for row in rows]
        assert [record.status for record in records] == [row.status for row in rows]
        reserved = {row.id: row.amount_nanousd for row in self.pipeline.ledger.rows() if row.kind == "reserve"}
        for row in rows:
            if row.status == "unconfirmed":
                assert row.amount_nanousd == reserved[row.id]
            elif row.id in reserved:
                assert row.amount_nanousd <= reserved[row.id]
        seen = Counter(type(event).__name__ for event in self.events)
        assert seen["Settled"] == len(rows)
        assert seen["Voided"] == self.resolutions.count("void")
        assert seen["Reserved"] == len(reserved)


@pytest.fixture(scope="session")
def loopback():
    """One loopback provider for all of these tests. Its OpenAI models bill by their published vocabulary."""
    assert warm_up("o200k_base")  # before the first call: a cold one would be counted elsewhere than the next
    with Simulator(openai_vocabulary=tiktoken_encoding("o200k_base").encode_ordinary) as simulator:
        yield simulator


@pytest.fixture
def sim(loopback):
    """It, with nothing remembered; its answers are as long as they are allowed to be."""
    _quieten(loopback)
    loopback.reset()
    loopback.responder, loopback.latency_s = fill, 0.0
    return loopback


def _quieten(loopback):
    """Let what the test before left on its way arrive and be billed: it would else stand on the bill of the next."""
    with urlopen(f"{loopback.url}/__sim__/bill"):  # noqa: S310 - our own; what was sent before it has been read by now
        pass
    for _ in range(1_000):
        if all(request.status is not None for request in loopback.requests):
            break
        time.sleep(0.005)


@pytest.fixture(scope="session")
def sync_clients(loopback):
    """Plain SDK clients."""
    import anthropic
    import openai

    with (
        anthropic.Anthropic(base_url=loopback.anthropic_url, api_key="k") as claude,
        openai.OpenAI(base_url=loopback.openai_url, api_key="k") as gpt,
    ):
        yield {"anthropic": claude, "openai": gpt}


@pytest.fixture(scope="session")
def async_caller(loopback):
    """Asynchronous clients, and the loop they live on."""
    import anthropic
    import openai

    with asyncio.Runner() as runner:

        async def make():
            return {
                "anthropic": anthropic.AsyncAnthropic(base_url=loopback.anthropic_url, api_key="k"),
                "openai": openai.AsyncOpenAI(base_url=loopback.openai_url, api_key="k"),
            }

        async def close():
            for client in clients.values():
                await client.close()

        clients = runner.run(make())
        yield AsyncCaller(clients, runner)
        runner.run(close())


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.soak] if soak else []) for kind, soak in KINDS.items()])
def kind(request):
    """Which ledger, and which caller: two pairs that have everything between them; all four in the long form."""
    return request.param


@pytest.fixture
def caller(kind, sim, sync_clients, async_caller):
    """Who makes the calls."""
    return async_caller if kind.endswith("async") else SyncCaller(sync_clients)


@pytest.fixture
def url(kind, tmp_path):
    """Where money is booked."""
    return "memory://" if kind.startswith("memory") else f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def make_harness(sim, url, caller):
    """Factory of harnesses; closes them afterwards."""
    made = []

    def make(**config):
        made.append(Harness(sim, url, caller, **config))
        return made[-1]

    yield make
    for harness in made:
        harness.caller.run(harness.pipeline.close, harness.pipeline.aclose)


@pytest.fixture
def harness(make_harness):
    """Harness with ample money."""
    return make_harness()
