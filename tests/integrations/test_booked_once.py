"""One call is one booking, however many layers on one ledger see it: wrapped clients, guards, handlers, loggers."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from llm_cost_middleware import CostTracker, aprocess, process
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.patterns import process_many
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import fill

ASK = [{"role": "user", "content": "Count to forty."}]
MODELS = {"openai": "gpt-5-mini", "anthropic": "claude-haiku-4-5"}
WRAP = {"openai": wrap_openai, "anthropic": wrap_anthropic}
every_provider = pytest.mark.parametrize("provider", MODELS)


@pytest.fixture
def pipeline(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    sim.responder = fill
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "5"}])) as made:
        yield made


def check(sim, pipeline, requests=1):
    """Ledger, records and bill agree, and nothing is pending."""
    balance = pipeline.ledger.balance("global")
    assert sim.request_count == requests
    assert (balance.settled_nanousd, balance.pending_nanousd) == (sim.bill.total_nanousd, 0)
    assert sum(record.cost_nanousd for record in pipeline.records()) == sim.bill.total_nanousd > 0


def create(client, provider, **more):
    if provider == "openai":
        return client.chat.completions.create(model=MODELS[provider], messages=ASK, max_completion_tokens=40, **more)
    return client.messages.create(model=MODELS[provider], messages=ASK, max_tokens=40, **more)


# --- clients of the SDKs ---------------------------------------------------------------------------------------------

SHAPES = {
    "twice": lambda wrap, client, pipeline: wrap(wrap(client, pipeline), pipeline),
    "three times": lambda wrap, client, pipeline: wrap(wrap(wrap(client, pipeline), pipeline), pipeline),
    "a copy": lambda wrap, client, pipeline: wrap(wrap(client, pipeline).with_options(timeout=30), pipeline),
    "then copied": lambda wrap, client, pipeline: wrap(wrap(client, pipeline), pipeline).with_options(timeout=30),
}


@every_provider
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_is_wrapped_twice_books_once(
    provider, shape, stream, sim, pipeline, clients, async_clients
):
    answer = create(SHAPES[shape](WRAP[provider], clients[provider], pipeline), provider, stream=stream)
    list(answer)
    check(sim, pipeline)
    answer = await create(SHAPES[shape](WRAP[provider], async_clients[provider], pipeline), provider, stream=stream)
    if stream:
        assert [chunk async for chunk in answer]
    check(sim, pipeline, 2)


@every_provider
async def test_process_with_a_wrapped_client_books_once(provider, sim, pipeline, clients, async_clients):
    wrap = WRAP[provider]
    _, tracker = process("hello", pipeline, CostTracker(None), client=wrap(clients[provider], pipeline))
    check(sim, pipeline)
    _, tracker = await aprocess("hello", pipeline, tracker, client=wrap(async_clients[provider], pipeline))
    done = process_many(["a", "b"], pipeline, tracker, client=wrap(clients[provider], pipeline))
    check(sim, pipeline, 4)
    assert int(done.tracker.total_cost * 10**9) == sim.bill.total_nanousd


@every_provider
def test_two_pipelines_over_one_file_are_one_ledger(provider, sim, pipeline, clients, tmp_path):
    config = CostConfig(ledger={"url": f"sqlite:///{tmp_path}/ledger.db"})
    with CostPipeline(config) as other:
        process("hello", config, CostTracker(None), client=WRAP[provider](clients[provider], other))
        create(WRAP[provider](WRAP[provider](clients[provider], config), other), provider)
        check_ledger = other.ledger.balance("global")
        assert (check_ledger.settled_nanousd, check_ledger.pending_nanousd) == (sim.bill.total_nanousd, 0)


@every_provider
def test_two_ledgers_book_one_call_each(provider, sim, pipeline, clients):
    with CostPipeline(CostConfig()) as other:
        create(WRAP[provider](WRAP[provider](clients[provider], pipeline), other), provider)
        check(sim, pipeline)
        assert other.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd


# --- LangChain's models, plain or guarded, with handlers and LiteLLM's logger ----------------------------------------


def chat_model(provider, sim, **more):
    if provider == "openai":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(
            model=MODELS[provider], base_url=sim.openai_url, max_tokens=40, max_retries=0, stream_usage=True, **more
        )
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model=MODELS[provider], base_url=sim.anthropic_url, max_tokens=40, max_retries=0, **more)


def lite_model(sim, pipeline, *, routed):
    """LiteLLM's model for LangChain, over LiteLLM or over a governed router."""
    from langchain_litellm import ChatLiteLLM, ChatLiteLLMRouter

    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    if not routed:
        return ChatLiteLLM(
            model="openai/gpt-5-mini", api_base=sim.openai_url, api_key="k", max_tokens=40, max_retries=0
        )
    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "gpt-5-mini", "litellm_params": params}], pipeline=pipeline)
    return ChatLiteLLMRouter(router=router, max_tokens=40)


@pytest.fixture
def logged(pipeline):
    """LiteLLM's calls reported to a ``CostLogger`` of the pipeline."""
    import litellm

    from llm_cost_middleware.integrations.litellm import CostLogger

    lists = [litellm.callbacks, litellm.success_callback, litellm._async_success_callback, litellm.input_callback]
    kept = [list(each) for each in lists]
    litellm.callbacks.append(CostLogger(pipeline))
    yield
    for each, before in zip(lists, kept, strict=True):
        each[:] = before


def run(model, how, handlers, reported=0.0):
    config = {"callbacks": handlers}
    if how == "invoke":
        model.invoke("Count to forty.", config)
    elif how == "stream":
        list(model.stream("Count to forty.", config))
    else:

        async def ask():
            if how == "ainvoke":
                await model.ainvoke("Count to forty.", config)
            else:
                async for _ in model.astream("Count to forty.", config):
                    pass
            await asyncio.sleep(reported)  # LiteLLM reports an asynchronous call in a task of its own

        asyncio.run(ask())


WAYS = ["invoke", "stream", "ainvoke", "astream"]
LAYERS = [case for case in itertools.product([False, True], [0, 1, 2], [False, True]) if any(case)]
"""Guarded; handlers of the run; inside ``cost_tracking``."""


def sampled():
    """Every combination of layers in one way of calling, in turn; in the others in the long form."""
    for number, layers in enumerate(LAYERS):
        for place, how in enumerate(WAYS):
            marks = () if (number + place) % len(WAYS) == 0 else pytest.mark.soak
            yield pytest.param(how, *layers, marks=marks)


@pytest.mark.litellm
@every_provider
@pytest.mark.parametrize(("how", "guarded", "handlers", "block"), list(sampled()))
def test_guard_handlers_and_tracking_book_once(provider, how, guarded, handlers, block, sim, pipeline, logged):
    from contextlib import nullcontext

    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, cost_tracking, guard

    model = chat_model(provider, sim)
    if guarded:
        model = guard(guard(model, pipeline), pipeline)
    with cost_tracking(pipeline) if block else nullcontext():
        run(model, how, [CostCallbackHandler(pipeline) for _ in range(handlers)])
    check(sim, pipeline)


def settled(sim, pipeline):
    """Once LiteLLM, in threads and tasks of its own, has reported what it reports; and nothing is booked after that."""
    until = time.monotonic() + 20
    while pipeline.ledger.balance("global").settled_nanousd < sim.bill.total_nanousd and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.3)


@pytest.mark.litellm
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("handlers", [0, 1, 2])
def test_litellms_model_is_booked_once_by_router_handler_and_logger(how, routed, handlers, sim, pipeline, logged):
    from llm_cost_middleware.integrations.langchain import CostCallbackHandler

    model = lite_model(sim, pipeline, routed=routed)
    run(model, how, [CostCallbackHandler(pipeline) for _ in range(handlers)], reported=0.5)
    settled(sim, pipeline)
    check(sim, pipeline)


@pytest.mark.litellm
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_guard_that_can_only_meter_books_once(how, sim, pipeline, logged):
    from llm_cost_middleware.integrations.langchain import guard

    run(guard(lite_model(sim, pipeline, routed=False), pipeline), how, [], reported=0.5)
    settled(sim, pipeline)
    check(sim, pipeline)


@every_provider
@pytest.mark.parametrize("how", ["invoke", "stream"])
@pytest.mark.parametrize("handlers", [0, 1])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_model_over_a_wrapped_client_is_booked_once(provider, how, handlers, guarded, sim, pipeline, clients):
    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard

    wrapped = WRAP[provider](clients[provider], pipeline)
    if provider == "openai":
        model = chat_model(provider, sim, client=wrapped.chat.completions, root_client=wrapped)
    else:
        model = chat_model(provider, sim)
        vars(model)["_client"] = wrapped  # its only place for a client
    run(guard(model, pipeline) if guarded else model, how, [CostCallbackHandler(pipeline) for _ in range(handlers)])
    check(sim, pipeline)


@every_provider
def test_a_call_between_the_chunks_of_a_metered_stream_is_a_call_of_its_own(provider, sim, pipeline, clients):
    from llm_cost_middleware.integrations.langchain import CostCallbackHandler

    wrapped = WRAP[provider](clients[provider], pipeline)
    for number, _ in enumerate(
        chat_model(provider, sim).stream("Count to forty.", {"callbacks": [CostCallbackHandler(pipeline)]})
    ):
        if number == 1:
            create(wrapped, provider)
    check(sim, pipeline, 2)


@pytest.mark.litellm
def test_a_router_that_is_handed_a_wrapped_client_books_once(sim, pipeline, clients):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "mini", "litellm_params": params}], pipeline=pipeline)
    router.completion("mini", ASK, max_tokens=40, client=wrap_openai(clients["openai"], pipeline))
    check(sim, pipeline)
