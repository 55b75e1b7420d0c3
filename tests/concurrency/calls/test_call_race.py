"""The race, with real clients: however many call at once, a budget lets through what it can pay.

(a) A budget of five times the bound of one call lets exactly five leave. (b) A budget of five times the true cost is
called on until it refuses: the bill stays inside it. Run with ``-s`` to see the table.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from decimal import Decimal

import pytest

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.simulator import CountingRules, Simulator, SimulatorProcess, fill

CALLERS = 50
MODELS = {"anthropic": "claude-haiku-4-5-20251001", "openai": "gpt-5-mini"}
CAPS = {"anthropic": "max_tokens", "openai": "max_completion_tokens"}
PAIRWISE = {0, 3, 5, 6, 8, 11}
FORMS = {"threads": (CALLERS, 0), "tasks": (0, CALLERS), "both": (CALLERS // 2, CALLERS // 2)}


@pytest.fixture(scope="module")
def loopback():
    with Simulator(responder=fill, keep_bodies=False) as simulator:
        simulator.counting = CountingRules(offered=False)  # so that every call holds the bound of its bytes
        yield simulator


@pytest.fixture
def url(ledger, tmp_path):
    return "memory://" if ledger == "memory" else f"sqlite:///{tmp_path}/ledger.db"


def pytest_generate_tests(metafunc):
    """Every pair of form, ledger and provider; every triple in the long form."""
    if "form" in metafunc.fixturenames:
        triples = itertools.product(FORMS, ("memory", "sqlite"), sorted(MODELS))
        long = metafunc.config.getoption("--soak", default=False)
        chosen = [triple for number, triple in enumerate(triples) if long or number in PAIRWISE]
        metafunc.parametrize(("form", "ledger", "provider"), chosen)


def _pipeline(url, limit):
    return CostPipeline(
        CostConfig(
            ledger={"url": url, "durability": "normal"},
            budgets=[{"scope": "global", "limit": str(limit)}],
            output={"on_insufficient": ["raise"]},
            retry={"max_attempts": 1},
        )
    )


def _doors(provider, sim, pipeline, hooks, ahooks):
    """The governed method of a synchronous and of an asynchronous client."""
    import anthropic
    import openai

    if provider == "anthropic":
        kit, wrap, base = (anthropic.Anthropic, anthropic.AsyncAnthropic), wrap_anthropic, sim.anthropic_url
        plain, asynchronous = anthropic.DefaultHttpxClient, anthropic.DefaultAsyncHttpxClient
    else:
        kit, wrap, base = (openai.OpenAI, openai.AsyncOpenAI), wrap_openai, sim.openai_url
        plain, asynchronous = openai.DefaultHttpxClient, openai.DefaultAsyncHttpxClient
    clients = (
        kit[0](base_url=base, api_key="k", http_client=plain(event_hooks={"request": hooks})),
        kit[1](base_url=base, api_key="k", http_client=asynchronous(event_hooks={"request": ahooks})),
    )
    governed = [wrap(client, pipeline) for client in clients]
    return clients, [c.messages.create if provider == "anthropic" else c.chat.completions.create for c in governed]


def _body(provider):
    return {
        "model": MODELS[provider],
        "messages": [{"role": "user", "content": "hello there"}],
        CAPS[provider]: 200,
    }


def _cost_of_one(provider, sim):
    """What one such call reserves and costs, in nano-dollars."""
    pipeline = _pipeline("memory://", 100)
    (client, aclient), (call, _) = _doors(provider, sim, pipeline, [], [])
    call(**_body(provider))
    client.close()
    asyncio.run(aclient.close())
    (record,) = pipeline.records()
    sim.reset()
    return record.reserved_nanousd, record.cost_nanousd


def _race(provider, sim, url, limit, form, *, calls, hold):
    """Everybody calls until he is refused, or ``calls`` times. Returns how many were answered and refused.

    ``hold``: what has left waits at the door of the client until everybody else was refused, so that no settlement
    makes room meanwhile.
    """
    threads, tasks = FORMS[form]
    answered, refused, enough = [], [], threading.Event()

    def holds(request):
        return hold and not request.url.path.endswith("count_tokens")  # asked before money is set aside

    def wait(request):
        if holds(request):
            assert enough.wait(300)

    async def await_(request):
        while holds(request) and not enough.is_set():  # noqa: ASYNC110 - set by threads too
            await asyncio.sleep(0.01)

    pipeline = _pipeline(url, limit)
    (client, aclient), (call, acall) = _doors(provider, sim, pipeline, [wait], [await_])

    def note(log):
        log.append(1)
        if len(refused) >= threads + tasks - 5:
            enough.set()

    def work():
        try:
            for _ in range(calls):
                call(**_body(provider))
                note(answered)
        except BudgetExceededError:
            note(refused)

    async def task():
        try:
            for _ in range(calls):
                await acall(**_body(provider))
                note(answered)
        except BudgetExceededError:
            note(refused)

    async def everybody():
        await asyncio.gather(*(task() for _ in range(tasks)))
        await aclient.close()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    asyncio.run(everybody())
    for worker in workers:
        worker.join()
    asyncio.run(pipeline.aclose())
    client.close()
    return len(answered), len(refused), pipeline


def _row(what, form, url, provider, sent, bill, budget):
    print(
        f"\n{what}  {form:<10} {url.partition(':')[0]:<7} {provider:<10} sent {sent:>3}"
        f"  bill/budget {bill / budget:.3f}", end=""
    )  # fmt: skip


def _usd(nano):
    return Decimal(nano).scaleb(-9)


def test_five_bounds_let_exactly_five_leave(loopback, url, provider, form):
    loopback.reset()
    bound, _ = _cost_of_one(provider, loopback)
    answered, refused, pipeline = _race(provider, loopback, url, _usd(5 * bound), form, calls=1, hold=True)
    bill = loopback.bill.total_nanousd
    _row("(a)", form, url, provider, len(loopback.bill.lines), bill, 5 * bound)
    assert (answered, refused, len(loopback.bill.lines)) == (5, CALLERS - 5, 5)
    assert bill <= 5 * bound
    with pipeline:
        balance = pipeline.ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (bill, 0)


def test_the_bill_stays_inside_a_budget_that_is_called_on_until_it_refuses(loopback, url, provider, form):
    loopback.reset()
    bound, cost = _cost_of_one(provider, loopback)
    budget = 5 * cost
    _, refused, pipeline = _race(provider, loopback, url, _usd(budget), form, calls=100, hold=False)
    bill, sent = loopback.bill.total_nanousd, len(loopback.bill.lines)
    _row("(b)", form, url, provider, sent, bill, budget)
    assert bill <= budget
    assert refused == CALLERS
    assert sent >= (budget - bound) // cost  # whoever comes alone gets what is left
    with pipeline:
        balance = pipeline.ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (bill, 0)


# --- processes --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider_process():
    with SimulatorProcess(("--responder", "fill", "--no-bodies", "--latency", "0.05")) as process:
        yield process


def _one(provider, sim):
    """The same for what a worker asks."""
    pipeline = _pipeline("memory://", 100)
    (client, aclient), (call, _) = _doors(provider, sim, pipeline, [], [])
    call(**{**_body(provider), CAPS[provider]: 40})
    client.close()
    asyncio.run(aclient.close())
    sim.reset()
    (record,) = pipeline.records()
    return record.reserved_nanousd, record.cost_nanousd


def test_processes_share_one_budget(shared_url, provider_process, workers, tmp_path, soak):
    processes, threads = (8, 6) if soak else (4, 6)
    provider = "openai"
    provider_process.reset()
    bound, cost = _one(provider, provider_process)
    budget = 50 * cost
    Ledger.open(shared_url).set_budget(Budget("global", NanoUSD(budget)))
    start = time.time() + 1.5
    for number in range(processes):
        workers.begin(
            job="race", out=f"{tmp_path}/sent-{number}", url=shared_url, simulator=provider_process.url,
            provider=provider, budget=str(_usd(budget)), threads=threads, calls=1_000, at=start,
        )  # fmt: skip
    workers.join(600)
    counts = [int((tmp_path / f"sent-{number}").read_text()) for number in range(processes)]
    bill, sent = provider_process.total_nanousd, provider_process.request_count
    _row("(b)", f"{processes} x {threads}", shared_url, provider, sent, bill, budget)
    assert sum(counts) == sent
    assert bill <= budget
    assert sent >= (budget - processes * threads * bound) // cost
    with Ledger.open(shared_url) as ledger:
        balance = ledger.balance("global")
        assert (balance.settled_nanousd, balance.pending_nanousd) == (bill, 0)
