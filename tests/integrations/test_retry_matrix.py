"""Every fault, through every host, synchronous and asynchronous: requests at the server, sleeps, rows of the ledger.

One table says what each fault comes to, and it is the same for every host: a retry that a host made on its own, a
status that it rewrote or a header that it lost would show as another number.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import socket
from random import Random
from typing import NamedTuple

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.events import Retried
from llm_cost_middleware.simulator import Fault, fill
from llm_cost_middleware.testing import FakeClock

CLAUDE, GPT = "claude-haiku-4-5-20251001", "gpt-5-mini"
ASK = [{"role": "user", "content": "Count to forty."}]
MAX_TOKENS = 64
TIMEOUT_S = {"persists": 0.5, "passes": 2}  # real time: what is answered must be so in it, on a slow machine too
TRANSIENT, THROTTLED, ASKED = (0.5, 1.0), (1.0, 2.0), (3.0, 4.0)
"""The longest sleeps that may be drawn: from 0.5 s or 1 s, doubling; and above the 2 s that are asked for."""


class Row(NamedTuple):
    """What a fault that does not pass comes to."""

    fault: Fault | None
    sleeps: tuple[float, ...]
    """One a retry; none where a retry does not help."""
    booked: str
    """Of every attempt: ``void``, or the status it is booked with."""
    why: str
    shapes: tuple[str, ...] = ("answer", "stream")

    @property
    def attempts(self) -> int:
        """Requests sent, and reservations made."""
        return 1 + len(self.sleeps)


TABLE = {
    "400": Row(Fault.status(400), (), "void", "the request is wrong, and stays so"),
    "401": Row(Fault.status(401), (), "void", "the key is wrong, and stays so"),
    "402": Row(Fault.status(402), (), "void", "nobody pays the bill while we wait"),
    "403": Row(Fault.status(403), (), "void", "nobody gives permission while we wait"),
    "404": Row(Fault.status(404), (), "void", "there is no such model"),
    "408": Row(Fault.status(408), TRANSIENT, "void", "the provider gave up before it began"),
    "409": Row(Fault.status(409), TRANSIENT, "void", "the other request ends"),
    "413": Row(Fault.status(413), (), "void", "the request does not shrink"),
    "422": Row(Fault.status(422), (), "void", "the request is wrong, and stays so"),
    "429": Row(Fault.status(429), THROTTLED, "void", "the allowance grows back"),
    "429 retry-after": Row(Fault.status(429, retry_after=2), ASKED, "void", "not sooner than is asked for"),
    "429 quota": Row(Fault.insufficient_quota(), (), "void", "the money does not grow back"),
    "429 too large": Row(Fault.request_too_large(), (), "void", "one request above the whole allowance"),
    "500 no retry": Row(Fault.status(500, should_retry=False), (), "void", "the provider says that it is useless"),
    "500 retry": Row(Fault.status(500, should_retry=True), TRANSIENT, "void", "the provider says that it helps"),
    "502": Row(Fault.status(502), TRANSIENT, "void", "in the provider's words: nothing was answered"),
    "502 gateway": Row(Fault.status(502, body="bad gateway"), TRANSIENT, "unconfirmed", "in a gateway's: who knows"),
    "503": Row(Fault.proxy_503(), TRANSIENT, "void", "the proxy in front did not let it through"),
    "504": Row(Fault.status(504), TRANSIENT, "void", "in the provider's words: nothing was answered"),
    "504 gateway": Row(Fault.status(504, body="timed out"), TRANSIENT, "unconfirmed", "in a gateway's: who knows"),
    "529": Row(Fault.status(529), TRANSIENT, "void", "overloads pass"),
    "refused": Row(None, TRANSIENT, "void", "it never left"),
    "reset": Row(Fault.reset(billed=True), TRANSIENT, "unconfirmed", "it arrived, and may have been answered"),
    "read timeout": Row(Fault.hang(billed=True), TRANSIENT, "unconfirmed", "it arrived, and may be being answered"),
    "answer cut": Row(Fault.cut(after=0), TRANSIENT, "unconfirmed", "it was answered, and billed", ("answer",)),
    "stream cut at once": Row(
        Fault.cut(after=0), TRANSIENT, "unconfirmed", "nothing was handed on that a retry would repeat", ("stream",)
    ),
    "error event at once": Row(
        Fault.error_event(after=0), TRANSIENT, "unconfirmed", "nothing was handed on that a retry would repeat",
        ("stream",),
    ),
    "stream cut": Row(Fault.cut(after=6), (), "estimated", "a part of the answer was handed on", ("stream",)),
    "error event": Row(Fault.error_event(after=6), (), "estimated", "a part was handed on", ("stream",)),
}  # fmt: skip


AZURE = {
    **TABLE,
    "402": Row(Fault.status(402), (), "void", "nobody pays the bill while we wait"),
    "408": TABLE["408"]._replace(booked="unconfirmed", why="what it has worked on is billed"),
    "429 retry-after": Row(Fault.status(429, retry_after_ms=2_000), ASKED, "void", "not sooner than is asked for"),
    "429": Row(Fault.status(429, retry_after_ms=2_000), ASKED, "void", "its gateway always says when"),
    "content filter": Row(Fault.azure("content_filter"), (), "unconfirmed", "what the filter has read is billed"),
    "no deployment": Row(Fault.azure("DeploymentNotFound"), (), "void", "there is no such deployment"),
}
"""What a fault of Azure's comes to (learn.microsoft.com, "Plan to manage costs": errors that are billed)."""
TABLES = {"anthropic": TABLE, "openai": TABLE, "azure": AZURE}


class HostHarness:
    """A pipeline over a loopback provider, and one call through a host."""

    def __init__(self, sim, url, timeout_s, clock=None):
        self.sim, self.clock, self.events = sim, clock or FakeClock(), []
        self.urls = {"anthropic": url, "openai": f"{url}/v1"}
        providers = {name: {"base_url": base, "timeout_s": timeout_s} for name, base in self.urls.items()}
        self.azure = {"azure_endpoint": url, "api_key": "k", "api_version": "2024-10-21"}
        config = CostConfig(
            providers=providers, budgets=[{"scope": "global", "limit": "100"}], retry={"fallback": False},
            platforms={"azure": {"place": "global", "timeout_s": timeout_s}},
        )  # fmt: skip
        self.pipeline = CostPipeline(config, clock=self.clock, rng=Longest(), observers=[self])

    def on_event(self, event):
        self.events.append(event)

    @property
    def rows(self):
        """How each attempt ended."""
        if self.pipeline.ledger.balance("global").pending_nanousd:  # a cycle of references may hold a broken stream
            gc.collect()
        return [row.status for row in self.pipeline.ledger.rows() if row.kind != "reserve"]

    def check(self):
        """Nothing is pending, and nothing that was billed is unbooked."""
        balance, bill = self.pipeline.ledger.balance("global"), self.sim.bill.total_nanousd
        assert balance.pending_nanousd == 0
        assert balance.settled_nanousd >= bill
        if set(self.rows) <= {"exact", "void"}:
            assert balance.settled_nanousd == bill


class Longest(Random):
    """Draws the longest sleep that may be drawn, so that the table can say it."""

    def uniform(self, a, b):
        return max(a, b)


async def ask_wrapped(harness, caller, stream, *, provider):
    """Through a wrapped client of an SDK."""
    import anthropic
    import openai

    from llm_cost_middleware.integrations.anthropic import wrap_anthropic
    from llm_cost_middleware.integrations.openai import wrap_openai

    sdk, wrap = (anthropic, wrap_anthropic) if provider == "anthropic" else (openai, wrap_openai)
    names = {"anthropic": "Anthropic", "openai": "OpenAI", "azure": "AzureOpenAI"}
    kind = getattr(sdk, {"sync": "", "async": "Async"}[caller] + names[provider])
    given = harness.azure if provider == "azure" else {"base_url": harness.urls[provider], "api_key": "k"}
    cap = "max_tokens" if provider == "anthropic" else "max_completion_tokens"
    body = {"model": CLAUDE if provider == "anthropic" else GPT, "messages": ASK, cap: MAX_TOKENS, "stream": stream}

    def create(client):
        client = wrap(client, harness.pipeline)
        return (client.messages if provider == "anthropic" else client.chat.completions).create(**body)

    def go():
        with kind(**given) as client:
            answer = create(client)
            if stream:
                list(answer)

    if caller == "sync":
        return await asyncio.to_thread(go)
    async with kind(**given) as client:
        answer = await create(client)
        if stream:
            async for _ in answer:
                pass
    return None


async def ask_langchain(harness, caller, stream, *, provider):
    """Through a guarded chat model."""
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import AzureChatOpenAI, ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    kind, model = (ChatAnthropic, CLAUDE) if provider == "anthropic" else (ChatOpenAI, GPT)
    if provider == "azure":
        plain = AzureChatOpenAI(azure_deployment=GPT, **harness.azure, max_tokens=MAX_TOKENS)
    else:
        plain = kind(model=model, api_key="k", base_url=harness.urls[provider], max_tokens=MAX_TOKENS)
    guarded = guard(plain, harness.pipeline, pinned=True)
    if caller == "sync":
        return await asyncio.to_thread(lambda: list(guarded.stream("Count.")) if stream else guarded.invoke("Count."))
    if not stream:
        return await guarded.ainvoke("Count.")
    return [chunk async for chunk in guarded.astream("Count.")]


async def ask_router(harness, caller, stream, *, provider):
    """Through a ``CostAwareRouter``; LiteLLM's synchronous calls need a thread that has no loop."""
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    own = harness.azure | {"model": f"azure/{GPT}"}
    own["api_base"] = own.pop("azure_endpoint")
    models = [{"model_name": GPT, "litellm_params": own}] if provider == "azure" else None
    router = CostAwareRouter(models, pipeline=harness.pipeline)
    call = {"model": CLAUDE if provider == "anthropic" else GPT, "messages": ASK, "max_tokens": MAX_TOKENS}
    if caller == "sync":

        def go():
            answer = router.completion(**call, stream=stream)
            return list(answer) if stream else answer

        return await asyncio.to_thread(go)
    answer = await router.acompletion(**call, stream=stream)
    return [chunk async for chunk in answer] if stream else answer


DOORS = {"sdk": ask_wrapped, "langchain": ask_langchain, "litellm": ask_router}
HOSTS = tuple(itertools.product(DOORS, ("anthropic", "openai")))
PLATFORMS = ("azure",)
CALLERS = ("sync", "async")
COURSES = ("persists", "passes")
THEIRS = (
    pytest.mark.litellm,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),  # raised, they would be faults
)
# LangChain and LiteLLM keep clients of their own and leave them to the garbage collector, whose test it may hit next
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def cases():
    """Everything with everything: (fault, door, provider, caller, shape, course)."""
    for name, row in TABLE.items():
        for (door, provider), caller, shape, course in itertools.product(HOSTS, CALLERS, row.shapes, courses_of(row)):
            yield name, door, provider, caller, shape, course


def courses_of(row):
    return COURSES if row.sleeps and row.fault is not None else ("persists",)


def platform_cases():
    """``cases`` of the platforms, whose faults may come to something else."""
    for provider in PLATFORMS:
        for name, row in TABLES[provider].items():
            for case in itertools.product(DOORS, (provider,), CALLERS, row.shapes, courses_of(row)):
                yield name, *case


def platform_sample(everything):
    """Every fault of each platform once: doors, callers, shapes and courses take turns."""
    for place, (_, group) in enumerate(itertools.groupby(everything, key=lambda case: (case[2], case[0]))):
        choices = list(group)
        yield choices[place * 7 % len(choices)]


def sample(everything):
    """Every fault through every host and caller; the shape of the call and the course of the fault take turns."""
    for place, (_, group) in enumerate(itertools.groupby(everything, key=lambda case: case[:4])):
        choices = list(group)
        fault, site = divmod(place, len(HOSTS) * len(CALLERS))
        yield choices[(fault + site) % len(choices)]


def pytest_generate_tests(metafunc):
    if "fault" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("--soak"):
        chosen = itertools.chain(cases(), platform_cases())
    else:
        chosen = itertools.chain(sample(cases()), platform_sample(platform_cases()))
    parameters = [
        pytest.param(*case, id="-".join(case), marks=THEIRS if case[1] == "litellm" else ()) for case in chosen
    ]
    metafunc.parametrize(("fault", "door", "provider", "caller", "shape", "course"), parameters)


@pytest.fixture
def closed_port():
    """A port that nobody listens at, and nobody else can take."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(autouse=True, scope="module")
def leave_nothing():
    """What the hosts left is collected here, and not in somebody else's test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in ("ANTHROPIC", "OPENAI"):
        monkeypatch.setenv(f"{name}_API_KEY", "k")
        for where in ("BASE_URL", "API_BASE", "API_URL"):
            monkeypatch.delenv(f"{name}_{where}", raising=False)


async def test_a_fault_costs_the_same_requests_sleeps_and_rows_through_every_host(
    fault, door, provider, caller, shape, course, sim, closed_port
):
    row = TABLES[provider][fault]
    sim.responder = fill
    url = sim.url if row.fault is not None else f"http://127.0.0.1:{closed_port}"
    harness = HostHarness(sim, url, timeout_s=TIMEOUT_S[course] if fault == "read timeout" else 30)
    if row.fault is not None:
        sim.script(row.fault, times=100 if course == "persists" else 1)
    call = DOORS[door](harness, caller, shape == "stream", provider=provider)
    if course == "persists":
        with pytest.raises(Exception, match=r"^"):  # the classes differ by host
            await call
        expected, sleeps = [row.booked] * row.attempts, row.sleeps
    else:
        await call
        expected, sleeps = [row.booked, "exact"], row.sleeps[:1]
    asked = [request.served_by or request.provider for request in sim.requests]
    assert asked == [provider] * (len(expected) if row.fault else 0)
    assert harness.clock.slept == list(sleeps)
    assert [event.delay_s for event in harness.events if isinstance(event, Retried)] == list(sleeps)
    assert harness.rows == expected
    assert sum(row.kind == "reserve" for row in harness.pipeline.ledger.rows()) == len(expected)
    harness.check()
    harness.pipeline.close()


class Sluggish(FakeClock):
    """Once a request has arrived, seven minutes pass whenever somebody looks."""

    def __init__(self, sim):
        super().__init__()
        self._sim = sim

    def monotonic(self):
        self.advance(400 if self._sim.request_count else 0)
        return super().monotonic()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("door", "provider"), [pytest.param(*host, marks=THEIRS) for host in HOSTS])
async def test_a_stream_that_drips_ends_at_the_deadline_through_every_host(door, provider, caller, sim):
    sim.responder = fill
    harness = HostHarness(sim, sim.url, timeout_s=300, clock=Sluggish(sim))
    with pytest.raises(TimeoutError, match="deadline"):
        await DOORS[door](harness, caller, True, provider=provider)
    assert sim.request_count == 1
    assert harness.rows == ["estimated"]
    harness.check()
    harness.pipeline.close()
