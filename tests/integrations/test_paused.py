"""A stop button stops: at every door, in every mode, by every name of a model, and what is not governed."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from spending_doors import ASK, DOORS, all_doors, sent_by, tried
from watching import Watch

from llm_cost_middleware import CostConfig, CostPipeline, cost_context
from llm_cost_middleware.errors import BudgetExceededError, LedgerUnavailableError, ScopePausedError
from llm_cost_middleware.events import CallPaused
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import fill

pytestmark = pytest.mark.litellm
ALIAS, SNAPSHOT = "claude-haiku-4-5", "claude-haiku-4-5-20251001"


@pytest.fixture
def make(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    sim.responder = fill
    opened = []

    def made(watch=(), **config):
        providers = {"openai": {"base_url": sim.openai_url}, "anthropic": {"base_url": sim.anthropic_url}}
        opened.append(CostPipeline(CostConfig(**{"providers": providers, **config}), observers=watch))
        return opened[-1]

    yield made
    for pipeline in opened:
        pipeline.close()


@pytest.mark.parametrize("name", DOORS)
def test_a_pause_of_everything_stops_an_observer_too(name, make, sim, clients):
    watch = Watch()
    pipeline = make([watch], mode="observe")
    door = all_doors(pipeline, sim, clients)[name]
    pipeline.ledger.pause("global", reason="incident 7")
    error, sent = tried(door, sim)
    assert (isinstance(error, ScopePausedError), sent) == (True, 0), repr(error)
    assert {event.enforced for event in watch.of(CallPaused)} == {True}
    pipeline.ledger.resume("global")
    assert tried(door, sim) == (None, 1)


def at_model(pipeline, sim, clients, model):
    """The kinds of doors, at one model of Anthropic's."""
    from langchain_anthropic import ChatAnthropic

    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    chat = {"model": model, "api_key": "k", "base_url": sim.anthropic_url, "max_tokens": 9, "max_retries": 0}
    params = {"model": f"anthropic/{model}", "api_base": sim.anthropic_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "fast", "litellm_params": params}], pipeline=pipeline)
    claude, guarded = wrap_anthropic(clients["anthropic"], pipeline), guard(ChatAnthropic(**chat), pipeline)
    handler, ask = CostCallbackHandler(pipeline), {"model": model, "max_tokens": 9, "messages": ASK}
    lines = [{"custom_id": "a", "params": ask}, {"custom_id": "b", "params": {**ask, "model": "claude-opus-4-5"}}]
    return {
        "sdk": lambda: claude.messages.create(**ask),
        "batch": lambda: claude.messages.batches.create(requests=lines[:1]),
        "mixed batch": lambda: claude.messages.batches.create(requests=lines),
        "guard": lambda: guarded.invoke("hi"),
        "handler": lambda: ChatAnthropic(**chat).invoke("hi", config={"callbacks": [handler]}),
        "router": lambda: router.completion("fast", messages=ASK, max_tokens=9),
    }


KINDS = ["sdk", "batch", "mixed batch", "guard", "handler", "router"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("called", "paused", "stops"),
    [(SNAPSHOT, ALIAS, True), (ALIAS, ALIAS, True), (SNAPSHOT, SNAPSHOT, True), (ALIAS, SNAPSHOT, False)],
)
def test_a_pause_of_a_model_is_of_its_snapshots(kind, called, paused, stops, make, sim, clients):
    pipeline = make()
    door = at_model(pipeline, sim, clients, called)[kind]
    pipeline.ledger.pause(f"model:{paused}")
    error, sent = tried(door, sim)
    assert (isinstance(error, ScopePausedError), sent) == (stops, int(not stops)), repr(error)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mixed batch"])
def test_a_budget_of_a_model_counts_its_snapshots(kind, make, sim, clients):
    pipeline = make(budgets=[{"scope": f"model:anthropic/{ALIAS}", "limit": "0.01"}])
    door = at_model(pipeline, sim, clients, SNAPSHOT)[kind]
    assert tried(door, sim) == (None, 1)
    known = pipeline.ledger.balance(f"model:{ALIAS}")
    assert known.limit is not None
    assert known.settled + known.pending > 0
    pipeline.ledger.set_budget(f"model:{ALIAS}", "0.0000001")
    error, sent = tried(door, sim)
    assert (isinstance(error, BudgetExceededError), sent) == (True, 0), repr(error)


# --- what is not governed ---------------------------------------------------------------------------------------------


def ungoverned_doors(pipeline, sim, clients):
    from langchain_openai import OpenAI

    from llm_cost_middleware.integrations.langchain import CostCallbackHandler
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    gpt, handler = wrap_openai(clients["openai"], pipeline), CostCallbackHandler(pipeline)
    params = {"model": "openai/text-embedding-3-small", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "embed", "litellm_params": params}], pipeline=pipeline)
    embed = {"model": "text-embedding-3-small", "input": "hi"}

    async def later():
        async with openai.AsyncOpenAI(api_key="k", base_url=sim.openai_url, max_retries=0) as client:
            return await wrap_openai(client, pipeline).embeddings.create(**embed)

    completions = OpenAI(model="gpt-3.5-turbo-instruct", api_key="k", base_url=sim.openai_url, max_retries=0)
    return {
        "embeddings": lambda: gpt.embeddings.create(**embed),
        "embeddings, raw": lambda: gpt.embeddings.with_raw_response.create(**embed),
        "embeddings, async": lambda: asyncio.run(later()),
        "images": lambda: gpt.images.generate(model="gpt-image-1", prompt="a cat"),
        "speech": lambda: gpt.audio.speech.create(model="tts-1", voice="alloy", input="hi"),
        "completions": lambda: gpt.completions.create(model="gpt-3.5-turbo-instruct", prompt="hi"),
        "realtime": lambda: gpt.realtime.connect(model="gpt-realtime"),
        "handler, completions": lambda: completions.invoke("hi", config={"callbacks": [handler]}),
        "router": lambda: router.embedding("embed", "hi"),
        "router, async": lambda: asyncio.run(router.aembedding("embed", "hi")),
        "router, images": lambda: router.image_generation("a cat", "embed"),
    }


UNGOVERNED = [
    "embeddings", "embeddings, raw", "embeddings, async", "images", "speech", "completions", "realtime",
    "handler, completions", "router", "router, async", "router, images",
]  # fmt: skip


@pytest.mark.parametrize("choice", ["warn", "allow"])
@pytest.mark.parametrize("name", UNGOVERNED)
def test_a_pause_stops_what_is_not_governed(name, choice, make, sim, clients):
    watch = Watch()
    pipeline = make([watch], on_ungoverned=choice, mode="observe" if choice == "allow" else "enforce")
    doors = ungoverned_doors(pipeline, sim, clients)
    assert list(doors) == UNGOVERNED
    pipeline.ledger.pause("global", reason="incident 7")
    error, sent = tried(doors[name], sim)
    assert (isinstance(error, ScopePausedError), sent) == (True, 0), repr(error)
    assert "incident 7" in str(error)
    assert list(pipeline.ledger.rows()) == []
    assert [event.enforced for event in watch.of(CallPaused)] == [True]
    pipeline.ledger.resume("global")
    error, _ = tried(doors[name], sim)  # which the simulator may not know
    assert not isinstance(error, ScopePausedError)


@pytest.mark.parametrize("scope", ["team:*", "team:search", "provider:openai", "model:text-embedding-3-small"])
def test_what_is_not_governed_is_somebody_s_too(scope, make, sim, clients):
    pipeline = make(on_ungoverned="allow")
    door = ungoverned_doors(pipeline, sim, clients)["embeddings"]
    pipeline.ledger.pause(scope)
    with cost_context(team="search"):
        error, sent = tried(door, sim)
    assert (isinstance(error, ScopePausedError), sent) == (True, 0), repr(error)
    pipeline.ledger.resume(scope)
    pipeline.ledger.pause("team:ads")
    with cost_context(team="search"):
        assert not isinstance(tried(door, sim)[0], ScopePausedError)


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_the_provider_is_not_asked_for_a_count_either(mode, make, sim, clients):
    """Where money is short a call is counted before it is held; a pause comes before both, and before the refusal."""
    pipeline = make(mode=mode, budgets=[{"scope": "global", "limit": "0.0005"}])
    claude = wrap_anthropic(clients["anthropic"], pipeline)
    ask = {"model": ALIAS, "max_tokens": 50, "messages": [{"role": "user", "content": "hi " * 400}]}
    for reason in ("first", "again"):
        pipeline.ledger.pause("global", reason=reason)
        error, sent = tried(lambda: claude.messages.create(**ask), sim)
        assert (isinstance(error, ScopePausedError), sent) == (True, 0), repr(error)
        pipeline.ledger.resume("global")
        pipeline.ledger.set_budget("global", "0.0000001")  # which nothing fits


def test_what_costs_nothing_goes_on(make, sim, clients):
    """Files, models and counts of tokens are free: whoever stops spending can still look."""
    pipeline = make()
    pipeline.ledger.pause("global")
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {}}
    wrap_openai(clients["openai"], pipeline).files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    claude = wrap_anthropic(clients["anthropic"], pipeline)
    assert claude.messages.count_tokens(model=ALIAS, messages=ASK).input_tokens > 0
    assert sent_by(sim) == 1


@pytest.mark.parametrize("choice", ["deny", "allow"])
def test_where_the_ledger_is_away_on_unavailable_decides(choice, make, sim, clients, tmp_path):
    pipeline = make(on_ungoverned="allow", ledger={"url": f"sqlite:///{tmp_path}/l.db", "on_unavailable": choice})
    door = ungoverned_doors(pipeline, sim, clients)["embeddings"]
    for file in tmp_path.glob("l.db*"):
        file.unlink()
    error, sent = tried(door, sim)
    assert isinstance(error, LedgerUnavailableError) is (choice == "deny"), repr(error)
    assert bool(sent) is (choice == "allow")
