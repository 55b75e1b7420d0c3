"""Cascades through real clients: whatever host asks, a cheap answer that fits stands, and one that does not goes up."""

from __future__ import annotations

import gc
import json
import warnings

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, ToolCall

pytestmark = pytest.mark.litellm

HI = [{"role": "user", "content": "Where should I go in May?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
TOOLS = [{"type": "function", "function": {"name": "book", "parameters": SCHEMA}}]
SMALL = ("mini", "haiku")


@pytest.fixture
def pipeline(sim, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    made = []

    def make(accept="schema", **more):
        providers = {"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}}
        routing = {"policy": "cascade", "accept": accept}
        made.append(CostPipeline(CostConfig(providers=providers, routing=routing, **more)))
        return made[-1]

    yield make
    for pipe in made:
        pipe.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def by_openai(pipeline, clients, sim):
    del sim
    wrap_openai(clients["openai"], pipeline).chat.completions.create(model="smart", messages=HI, response_format=FORMAT)


def by_responses(pipeline, clients, sim):
    del sim
    wrap_openai(clients["openai"], pipeline).responses.create(
        model="smart", input="Where?", text={"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}}
    )


def by_anthropic(pipeline, clients, sim):
    del sim
    wrap_anthropic(clients["anthropic"], pipeline).messages.create(
        model="smart", max_tokens=500, messages=HI, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}
    )


def by_langchain(pipeline, clients, sim):
    del clients
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    guard(ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url), pipeline).invoke(
        HI, response_format=FORMAT
    )


def by_litellm(pipeline, clients, sim):
    del clients, sim
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    CostAwareRouter(pipeline=pipeline).completion("smart", HI, response_format=FORMAT)


HOSTS = pytest.mark.parametrize("host", [by_openai, by_responses, by_anthropic, by_langchain, by_litellm])


@HOSTS
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_an_answer_that_fits_its_schema_is_accepted_and_another_escalates(host, pipeline, clients, sim):
    sim.responder = lambda _: Answer(text=json.dumps({"city": "Rome"}))
    host(pipeline(), clients, sim)
    assert sim.request_count == 1
    weak = json.dumps({"town": "Rome"})
    sim.responder = lambda request: Answer(
        text=weak if any(name in request.model for name in SMALL) else json.dumps({"city": "Rome"})
    )
    asked = pipeline()
    host(asked, clients, sim)
    assert sim.request_count == 3
    assert [record.status for record in asked.records()] == ["exact"] * 2
    assert int(asked.ledger.balance("global").settled_nanousd) == sum(line.cost_nanousd for line in sim.bill.lines[1:])


def test_a_model_that_was_not_accepted_is_not_asked_again_where_the_stronger_does_not_fit(pipeline, clients, sim):
    """It was, as a step down from the stronger one: the same answer, paid for twice."""
    sim.responder = lambda _: Answer(text="no idea")
    governed = wrap_openai(clients["openai"], pipeline(budgets=[{"scope": "global", "limit": "0.0008"}]))
    answer = governed.chat.completions.create(
        model="smart", messages=HI, response_format=FORMAT, max_completion_tokens=100
    )
    assert answer.choices[0].message.content == "no idea"
    assert [exchange.body["model"] for exchange in sim.requests] == ["gpt-5-mini"]


def test_a_tool_call_that_does_not_fit_escalates(pipeline, clients, sim):
    said = {"small": {"town": "Rome"}, "large": {"city": "Rome"}}

    def responder(request):
        size = "small" if any(name in request.model for name in SMALL) else "large"
        return Answer(tool_calls=(ToolCall("book", said[size]),))

    sim.responder = responder
    api = wrap_openai(clients["openai"], pipeline())
    answer = api.chat.completions.create(model="smart", messages=HI, tools=TOOLS)
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Rome"}'
    assert sim.request_count == 2


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_an_answer_that_two_cheap_models_agree_on_is_accepted_through_a_host_that_reaches_both_providers(pipeline, sim):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    sim.responder = lambda _: Answer(text="42")
    router = CostAwareRouter(pipeline=pipeline("agreement"))
    router.completion("smart", HI)
    assert sim.request_count == 2
    # another pipeline: this one has learned that answers here are so short that asking two cheap models does not pay
    router = CostAwareRouter(pipeline=pipeline("agreement"))
    sim.responder = lambda request: Answer(text={"mini": "41", "haiku": "43"}.get(_size(request.model), "42"))
    assert router.completion("smart", HI).choices[0].message.content == "42"
    assert sim.request_count == 5


def _size(model):
    return next((name for name in SMALL if name in model), "")


TIERS = [{"name": "small", "models": ["openai/gpt-5-mini"]}, {"name": "large", "models": ["openai/gpt-5.1"]}]


@pytest.fixture
def tiered(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with CostPipeline(CostConfig(tiers=TIERS, providers={"openai": {"base_url": sim.openai_url}})) as pipe:
        yield pipe


def asked_of(sim):
    return [exchange.body["model"] for exchange in sim.requests]


def failing(stop, *, everywhere=False):
    return lambda request: Answer(
        text="Rome", stop=stop if everywhere or "mini" in request.model else None, output_tokens=5
    )


@pytest.mark.parametrize("stop", ["length", "refusal"])
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_with_tiers_alone_a_call_starts_cheap_and_goes_up_where_it_visibly_fails(tiered, clients, sim, stop, endpoint):
    client = wrap_openai(clients["openai"], tiered)

    def send():
        if endpoint == "chat":
            client.chat.completions.create(model="smart", messages=HI)
        else:
            client.responses.create(model="smart", input="Where?")

    sim.responder = lambda _: Answer(text="Rome")
    send()
    sim.responder = failing(stop)
    send()
    assert asked_of(sim) == ["gpt-5-mini", "gpt-5-mini", "gpt-5.1"]
    first, second = tiered.decisions()
    assert first.policy == second.policy == "cascade"


def test_a_stream_does_not_escalate(tiered, clients, sim):
    sim.responder = failing("length")
    client = wrap_openai(clients["openai"], tiered)
    for _ in client.chat.completions.create(model="smart", messages=HI, stream=True):
        pass
    assert asked_of(sim) == ["gpt-5-mini"]


def test_the_classic_functions_go_by_size_alone(tiered, clients, sim):
    from llm_cost_middleware import CostTracker, process, process_many, select_model

    sim.responder = failing("length")
    client = clients["openai"]
    process("short", tiered, CostTracker(None), client=client)
    process("short", tiered.config, CostTracker(None), client=client)
    process_many(["short"], tiered, CostTracker(None), client=client)
    assert set(asked_of(sim)) == {"gpt-5-mini"}
    assert select_model(10, 1, policy=tiered.config) == "gpt-5-mini"
    process("x" * 10_000, tiered, CostTracker(None), client=client)
    assert asked_of(sim)[-1] == "gpt-5.1"


def test_a_site_where_the_stronger_model_fails_too_is_not_escalated_for_ever(tiered, clients, sim):
    sim.responder = failing("length", everywhere=True)
    client = wrap_openai(clients["openai"], tiered)
    for _ in range(12):
        client.chat.completions.create(model="smart", messages=HI)
    asked = asked_of(sim)
    assert asked[-1] == "gpt-5-mini"
    assert asked.count("gpt-5.1") == 5


def test_a_policy_that_was_asked_for_stays(sim, clients, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    sim.responder = failing("length")
    config = CostConfig(tiers=TIERS, routing={"policy": "threshold"})
    with CostPipeline(config) as pipe:
        wrap_openai(clients["openai"], pipe).chat.completions.create(model="smart", messages=HI)
    assert asked_of(sim) == ["gpt-5-mini"]
