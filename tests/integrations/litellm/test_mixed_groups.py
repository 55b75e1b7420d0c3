"""A group of deployments of several providers: each answer is priced and booked as the one that gave it."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from llm_cost_middleware.errors import BudgetExceededError

ASK = [{"role": "user", "content": "Count to forty."}]
MODELS = ("openai/gpt-5-mini", "anthropic/claude-haiku-4-5")


async def drained(stream):
    async for _ in await stream:
        pass


WAYS = {
    "chat": lambda router: router.completion("fast", ASK, max_tokens=30),
    "chat, stream": lambda router: list(router.completion("fast", ASK, max_tokens=30, stream=True)),
    "achat": lambda router: asyncio.run(router.acompletion("fast", ASK, max_tokens=30)),
    "achat, stream": lambda router: asyncio.run(drained(router.acompletion("fast", ASK, max_tokens=30, stream=True))),
    "responses": lambda router: router.responses(model="fast", input="Count.", max_output_tokens=30),
    "responses, stream": lambda router: list(
        router.responses(model="fast", input="Count.", max_output_tokens=30, stream=True)
    ),
    "aresponses": lambda router: asyncio.run(router.aresponses(model="fast", input="Count.", max_output_tokens=30)),
    "messages": lambda router: asyncio.run(router.anthropic_messages(model="fast", messages=ASK, max_tokens=30)),
}
every_way = pytest.mark.parametrize("way", WAYS)


def mixed(harness, **params):
    return harness.router([harness.deployment("fast", model, **params) for model in MODELS])


@every_way
def test_each_answer_is_booked_as_the_provider_that_gave_it(way, harness):
    router = mixed(harness)
    for _ in range(12):
        WAYS[way](router)
    harness.agree()
    answered = [request.body["model"] for request in harness.sim.requests]
    assert len(set(answered)) == 2
    records = harness.pipeline.records()
    assert [(record.provider, record.model) for record in records] == [
        ("anthropic" if model.startswith("claude") else "openai", model) for model in answered
    ]
    for record in records:
        own = {f"provider:{record.provider}", f"model:{record.model}"}
        assert {scope for scope in record.scopes if scope.startswith(("provider:", "model:"))} == own
    for provider in ("openai", "anthropic"):
        booked = harness.pipeline.ledger.balance(f"provider:{provider}")
        spent = sum(record.cost_nanousd for record in records if record.provider == provider)
        assert (booked.settled_nanousd, booked.pending_nanousd) == (spent, 0)


@pytest.mark.parametrize("poor", ["openai", "anthropic"])
def test_the_budget_of_each_that_may_answer_is_asked(poor, make_harness):
    """Before it leaves nobody knows which it will be."""
    harness = make_harness(budgets=[{"scope": f"provider:{poor}", "limit": "0.0000001"}])
    with pytest.raises(BudgetExceededError):
        WAYS["chat"](mixed(harness))
    assert harness.sim.request_count == 0
    assert harness.settled == 0


def test_a_stream_that_is_left_is_covered_by_its_own_provider(harness):
    router = mixed(harness)
    for _ in range(8):
        stream = router.completion("fast", ASK, max_tokens=30, stream=True)
        next(stream)
        stream.close()
    harness.cover()
    assert {record.provider for record in harness.pipeline.records()} == {"openai", "anthropic"}


def test_an_answer_from_litellms_cache_costs_nothing(harness):
    import litellm

    router = harness.router([harness.deployment("fast", model) for model in MODELS], cache_responses=True)
    try:
        for _ in range(4):
            WAYS["chat"](router)
    finally:
        litellm.cache = None
    assert harness.sim.request_count <= 2
    assert harness.settled == harness.sim.bill.total_nanousd


BODIES = {
    "/v1/chat/completions": {"messages": ASK, "max_tokens": 30},
    "/v1/responses": {"input": "Count.", "max_output_tokens": 30},
    "/v1/messages": {"messages": ASK, "max_tokens": 30},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_proxy_books_a_mixed_group_as_who_answered(path, stream, proxy):
    before, sent, rows = proxy.since(), len(proxy.sim.requests), len(proxy.rows())
    for _ in range(6):
        answer = httpx.post(
            f"{proxy.url}{path}", json={**BODIES[path], "model": "fast", "stream": stream}, timeout=120,
            headers={"authorization": "Bearer sk-mixer"},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text[:300]
    after = proxy.since()
    assert after[0] - before[0] == after[1] - before[1] > 0
    bodies = [request.body for request in proxy.sim.requests[sent:]]
    answered = sorted(body["model"] for body in bodies if body)  # LiteLLM asks for the list of models on its own
    booked = [row.scopes for row in proxy.rows()[rows:] if row.kind == "book"]
    assert sorted(scope.partition(":")[2] for scopes in booked for scope in scopes if scope[:6] == "model:") == answered


HIDING = {
    "mixes models": [("small", MODELS[0], {}), ("small", MODELS[1], {})],
    "has a silent_model": [("small", MODELS[0], {"silent_model": "big"})],
    "adds n to its calls": [("small", MODELS[0], {"n": 2})],
    "differ in max_tokens": [("small", MODELS[0], {"max_tokens": 5}), ("small", MODELS[0], {"max_tokens": 6})],
    "is not known": [("small", MODELS[0], {}), ("small", "mistral/large", {})],
}
TIERS = [{"name": "s", "models": list(MODELS)}, {"name": "l", "models": ["anthropic/claude-sonnet-4-6"]}]


@pytest.mark.parametrize("why", HIDING)
def test_a_model_that_only_such_a_group_has_is_told_once_where_calls_are_routed(why, make_harness, caplog):
    harness = make_harness(tiers=TIERS, routing={"policy": "threshold"})
    router = harness.router([
        *(harness.deployment(name, model, **params) for name, model, params in HIDING[why]),
        harness.deployment("big", "anthropic/claude-sonnet-4-6"),
    ])  # fmt: skip

    def told():
        return [record.getMessage() for record in caplog.records if "no routed call goes to" in record.getMessage()]

    router.completion("big", ASK, max_tokens=30)
    assert not told()  # who does not route need not know
    for _ in range(2):
        router.completion("smart", ASK, max_tokens=30)
    first = told()[0]
    assert len(told()) == len({message.split(":")[1] for message in told()})
    assert f"tier s: no routed call goes to {MODELS[0]}: model group 'small'" in first
    assert why in first
    assert "model_name of its own" in first


def test_a_model_that_has_a_group_of_its_own_beside_is_no_news(make_harness, caplog):
    harness = make_harness(tiers=TIERS, routing={"policy": "threshold"})
    router = harness.router([
        *(harness.deployment("fast", model) for model in MODELS),
        *(harness.deployment(model, model) for model in [*MODELS, "anthropic/claude-sonnet-4-6"]),
    ])  # fmt: skip
    assert router.completion("smart", ASK, max_tokens=30).model.startswith("gpt-5-mini")
    assert "no routed call" not in caplog.text
