"""Who is named, and who is paused, at every door: what may not be spent never leaves.

Each door is tried without a team, with one that is misspelt, with one in another spelling, with one that is paused, and
with one that is known. The provider's own count of requests decides what left.
"""

from __future__ import annotations

import asyncio
import json

import anthropic
import openai
import pytest
from watching import Watch

from llm_cost_middleware import CostConfig, CostPipeline, aprocess, cost_context, process, process_many
from llm_cost_middleware.errors import AttributionError, ScopePausedError
from llm_cost_middleware.events import CallPaused, Unattributed
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import fill
from llm_cost_middleware.tracker import CostTracker

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "hi"}]
GPT, CLAUDE = {"model": "gpt-5-mini"}, {"model": "claude-haiku-4-5", "max_tokens": 20}
RULE = {"require": ["team"], "names": {"team": ["search", "svc-*", "Café"]}}
DAY = [{"scope": "team:*", "limit": 1, "window": "day"}]


@pytest.fixture
def make(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    sim.responder = fill
    opened = []

    def made(watch=(), **config):
        providers = {"openai": {"base_url": sim.openai_url}, "anthropic": {"base_url": sim.anthropic_url}}
        pipeline = CostPipeline(
            CostConfig(**{"attribution": RULE, "budgets": DAY, "providers": providers, **config}), observers=watch
        )
        opened.append(pipeline)
        return pipeline

    yield made
    for pipeline in opened:
        pipeline.close()


def sdk_doors(pipeline, sim, clients):
    gpt, claude = wrap_openai(clients["openai"], pipeline), wrap_anthropic(clients["anthropic"], pipeline)

    def later(call, kind=openai.AsyncOpenAI, url=sim.openai_url):
        async def once():
            async with kind(api_key="k", base_url=url, max_retries=0) as client:
                return await call(client)

        return lambda: asyncio.run(once())

    def claude_later(call):
        return later(call, anthropic.AsyncAnthropic, sim.anthropic_url)

    async def drained(client):
        stream = await wrap_openai(client, pipeline).chat.completions.create(**GPT, messages=ASK, stream=True)
        return [chunk async for chunk in stream]

    def claude_stream():
        with claude.messages.stream(**CLAUDE, messages=ASK) as stream:
            stream.get_final_message()

    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
            "body": {**GPT, "messages": ASK, "max_completion_tokens": 20}}  # fmt: skip
    uploaded = gpt.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = {"input_file_id": uploaded.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return {
        "openai chat": lambda: gpt.chat.completions.create(**GPT, messages=ASK),
        "openai stream": lambda: list(gpt.chat.completions.create(**GPT, messages=ASK, stream=True)),
        "openai raw": lambda: gpt.chat.completions.with_raw_response.create(**GPT, messages=ASK),
        "openai responses": lambda: gpt.responses.create(**GPT, input="hi"),
        "openai batch": lambda: gpt.batches.create(**batch),
        "openai chat, async": later(lambda c: wrap_openai(c, pipeline).chat.completions.create(**GPT, messages=ASK)),
        "openai stream, async": later(drained),
        "anthropic": lambda: claude.messages.create(**CLAUDE, messages=ASK),
        "anthropic stream": claude_stream,
        "anthropic, async": claude_later(lambda c: wrap_anthropic(c, pipeline).messages.create(**CLAUDE, messages=ASK)),
        "anthropic batch": lambda: claude.messages.batches.create(
            requests=[{"custom_id": "a", "params": {**CLAUDE, "messages": ASK}}]
        ),
        "process": lambda: process("hi", pipeline, CostTracker(1), client=clients["openai"]),
        "aprocess": later(lambda c: aprocess("hi", pipeline, CostTracker(1), client=c)),
        "process_many": lambda: finished(process_many(["hi"], pipeline, CostTracker(1), client=clients["anthropic"])),
    }


def finished(batch):
    """A batch ends softly where it is paused."""
    if batch.exhausted is not None:
        raise batch.exhausted


def langchain_doors(pipeline, sim):
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, CostMiddleware, guard, instrument

    def plain():
        return ChatOpenAI(**GPT, api_key="k", base_url=sim.openai_url, max_retries=0)

    guarded, handler = guard(plain(), pipeline), CostCallbackHandler(pipeline)
    agent = create_agent(plain(), [], middleware=[CostMiddleware(pipeline)])
    chain = instrument(plain() | (lambda message: message.text), pipeline)
    return {
        "guard": lambda: guarded.invoke("hi"),
        "guard stream": lambda: list(guarded.stream("hi")),
        "guard, async": lambda: asyncio.run(guarded.ainvoke("hi")),
        "guard batch": lambda: guarded.batch(["hi"]),
        "handler": lambda: plain().invoke("hi", config={"callbacks": [handler]}),
        "instrument": lambda: chain.invoke("hi"),
        "middleware": lambda: agent.invoke({"messages": [("user", "hi")]}),
    }


def router_doors(pipeline, sim):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "fast", "litellm_params": params}], pipeline=pipeline)
    return {
        "router": lambda: router.completion("fast", messages=ASK),
        "router stream": lambda: list(router.completion("fast", messages=ASK, stream=True)),
        "router, async": lambda: asyncio.run(router.acompletion("fast", messages=ASK)),
        "router responses": lambda: router.responses(model="fast", input="hi"),
    }


DOORS = [
    "openai chat", "openai stream", "openai raw", "openai responses", "openai batch", "openai chat, async",
    "openai stream, async", "anthropic", "anthropic stream", "anthropic, async", "anthropic batch", "process",
    "aprocess", "process_many", "guard", "guard stream", "guard, async", "guard batch", "handler", "instrument",
    "middleware", "router", "router stream", "router, async", "router responses",
]  # fmt: skip
SAMPLE = ["openai chat", "openai batch", "process", "guard", "handler", "router, async"]


@pytest.fixture
def doors(sim, clients):
    def of(pipeline):
        found = sdk_doors(pipeline, sim, clients)
        found |= langchain_doors(pipeline, sim) | router_doors(pipeline, sim)
        assert list(found) == DOORS, "every door stands in the list"
        return found

    return of


def sent_by(sim):
    return sum("/files" not in exchange.path for exchange in sim.requests)  # reading a file costs nothing


def tried(door, sim):
    """What one call raised, and how many requests left."""
    before, error = sent_by(sim), None
    try:
        door()
    except Exception as raised:  # noqa: BLE001 - of any host's class
        error = raised
    return error, sent_by(sim) - before


@pytest.mark.parametrize("name", DOORS)
def test_what_names_no_known_team_or_a_paused_one_never_leaves(name, make, doors, sim):
    watch = Watch()
    pipeline = make([watch])
    door = doors(pipeline)[name]
    error, sent = tried(door, sim)
    assert (isinstance(error, AttributionError), sent) == (True, 0), repr(error)
    for wrong in ("serach", "SEARCH"):
        with cost_context(team=wrong):
            error, sent = tried(door, sim)
        assert (isinstance(error, AttributionError), sent) == (True, 0), repr(error)
        assert error.nearest == ("search",)
    assert {(event.kind, event.reason) for event in watch.of(Unattributed)} == {
        ("team", "missing"),
        ("team", "unknown"),
    }
    assert list(pipeline.ledger.rows()) == []

    pipeline.ledger.pause("team:search", reason="incident 7")
    with cost_context(team="search"):
        error, sent = tried(door, sim)
    assert (isinstance(error, ScopePausedError), sent) == (True, 0), repr(error)
    assert "incident 7" in str(error)
    assert list(pipeline.ledger.rows()) == []
    pipeline.ledger.resume("team:search")
    with cost_context(team="search"):
        error, sent = tried(door, sim)
    assert (error, sent) == (None, 1)
    assert {scope for row in pipeline.ledger.rows() for scope in row.scopes if scope.startswith("team:")} == {
        "team:search"
    }


@pytest.mark.parametrize("on_missing", ["warn", "team:unassigned"])
@pytest.mark.parametrize("name", SAMPLE)
def test_what_is_let_through_is_booked_as_unassigned(name, on_missing, make, doors, sim):
    watch = Watch()
    pipeline = make([watch], attribution={**RULE, "on_missing": on_missing})
    error, sent = tried(doors(pipeline)[name], sim)
    assert (error, sent) == (None, 1)
    assert pipeline.ledger.balance("team:unassigned").limit == 1, "a budget of each team is one of nobody, too"
    assert {"team:unassigned"} == {s for row in pipeline.ledger.rows() for s in row.scopes if s.startswith("team:")}
    assert bool(watch.of(Unattributed)) == (on_missing == "warn")


@pytest.mark.parametrize("name", SAMPLE)
def test_an_observer_sends_everything_and_tells_it(name, make, doors, sim):
    watch = Watch()
    pipeline = make([watch], mode="observe")
    door = doors(pipeline)[name]
    error, sent = tried(door, sim)
    assert (error, sent) == (None, 1)
    assert [(event.kind, event.enforced) for event in watch.of(Unattributed)] == [("team", False)], "told once"
    pipeline.ledger.pause("team:*")
    error, sent = tried(door, sim)
    assert (error, sent) == (None, 1)
    if "batch" not in name:
        assert [event.enforced for event in watch.of(CallPaused)] == [False]


@pytest.mark.parametrize(
    ("rule", "written", "booked"),
    [
        ({}, "Cafe\u0301", "team:Caf%C3%A9"),
        ({}, "svc-billing", "team:svc-billing"),
        ({"normalise": "case"}, "SEARCH", "team:search"),
        ({"normalise": "case"}, "ＣＡＦÉ", "team:caf%C3%A9"),
    ],
)
def test_names_are_written_by_the_rule_in_calls_and_budgets_alike(rule, written, booked, make, doors, sim):
    limited = [{"scope": f"team:{written}", "limit": 1, "window": "day"}]
    pipeline = make(attribution={**RULE, **rule}, budgets=limited)
    with cost_context(team=written):
        error, sent = tried(doors(pipeline)["openai chat"], sim)
    assert (error, sent) == (None, 1)
    assert pipeline.ledger.balance(booked).limit == 1
    assert pipeline.ledger.balance(booked).settled > 0


def test_what_a_logger_reports_is_booked_as_unassigned(make, sim):
    import litellm

    from llm_cost_middleware.integrations.litellm import CostLogger

    pipeline = make()
    logger = CostLogger(pipeline)
    with cost_context(team="serach"):
        logger.log_success_event(
            {"model": "gpt-5-mini", "custom_llm_provider": "openai", "litellm_call_id": "a", "litellm_params": {}},
            litellm.ModelResponse(model="gpt-5-mini", usage=litellm.Usage(prompt_tokens=5, completion_tokens=5)),
            None, None,
        )  # fmt: skip
    assert pipeline.ledger.balance("team:unassigned").settled > 0


def test_a_budget_that_no_call_can_be_for_is_refused(make):
    with pytest.raises(ValueError, match="did you mean 'search'"):
        make(budgets=[{"scope": "team:serach", "limit": 1}])


def test_a_quote_needs_no_name(make):
    from llm_cost_middleware.request import CallRequest, Message, Part

    request = CallRequest("openai", "gpt-5-mini", (Message("user", (Part("text", "hi"),)),), max_tokens=5)
    assert make().quote([request]).calls == 1
