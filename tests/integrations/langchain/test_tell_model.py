"""A model that is told of its money: at the right place of the request, nowhere else, and at no cost of the cache."""

from __future__ import annotations

from dataclasses import replace

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool
from recorded_agents import recorded, replayed

from llm_cost_middleware import CostPipeline
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.integrations.langchain import CostMiddleware
from llm_cost_middleware.simulator import Answer, Replay, Simulator, ToolCall

pytestmark = pytest.mark.usefixtures("forget_connections")
ASK = {"messages": [("user", "look it up")]}
NOTE = "Note on the budget"
LONG = "You know every rule of the house by heart, and quote none. " * 600


@tool
def look(q: str) -> str:
    """Look something up."""
    return f"{q} found, and described at some length. " * 120


def rounds(count):
    """A model that calls a tool so often, then answers."""
    made = iter([Answer(tool_calls=(ToolCall("look", {"q": str(n)}),)) for n in range(count)] + [Answer(text="done")])
    return lambda _: next(made)


def noted(request):
    """Where the note stands in a request: index of the message, and of its block; ``None`` for nowhere."""
    found = [
        (at, number)
        for at, message in enumerate(request.body["messages"])
        for number, block in enumerate(message["content"] if isinstance(message["content"], list) else [])
        if NOTE in str(block.get("text"))
    ]
    assert len(found) <= 1
    return found[0] if found else None


def asked(sim):
    return [request for request in sim.requests if not request.path.endswith("count_tokens")]


@pytest.mark.parametrize("later", [False, True], ids=["sync", "async"])
async def test_the_note_stands_behind_the_last_result_and_is_not_kept(later, make_harness, claude, sim):
    harness = make_harness(budgets=[{"scope": "run:*", "limit": "0.5"}], routing={"policy": "off"})
    sim.responder = rounds(3)
    middleware = CostMiddleware(harness.pipeline, tell_model=1.0)
    agent = create_agent(claude(), [look], middleware=[middleware])
    answer = await agent.ainvoke(ASK) if later else agent.invoke(ASK)
    places = [noted(request) for request in asked(sim)]
    assert places[0] is None  # nothing is spent yet: all of it is left
    for request, place in zip(asked(sim)[1:], places[1:], strict=True):
        last = request.body["messages"][-1]
        kinds = [block["type"] for block in last["content"]]
        assert place == (len(request.body["messages"]) - 1, len(kinds) - 1)
        assert kinds == ["tool_result", "text"]
        assert "cache_control" not in last["content"][-1]
    assert NOTE not in str(answer["messages"])
    harness.check()


@pytest.mark.parametrize(("share", "told"), [(None, False), ("1%", False), ("99.99%", True)])
def test_it_is_told_below_its_share_alone(share, told, make_harness, claude, sim):
    harness = make_harness(budgets=[{"scope": "run:*", "limit": "0.1"}], routing={"policy": "off"})
    sim.responder = rounds(2)
    create_agent(claude(), [look], middleware=[CostMiddleware(harness.pipeline, tell_model=share)]).invoke(ASK)
    assert any(noted(request) for request in asked(sim)) == told


def test_a_run_without_a_limit_and_a_prefill_are_left_alone(make_harness, claude, sim):
    class Prefills(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            return handler(request.override(messages=[*request.messages, AIMessage("So")]))

    free, limited = make_harness(), make_harness(budgets=[{"scope": "run:*", "limit": "0.1"}])
    sim.responder = lambda _: Answer(text="done")
    create_agent(claude(), [look], middleware=[CostMiddleware(free.pipeline, tell_model=1.0)]).invoke(ASK)
    middleware = [Prefills(), CostMiddleware(limited.pipeline, tell_model=1.0)]
    agent = create_agent(claude(), [], middleware=middleware)
    with_money_spent = {"metadata": {"llm_cost": {"run": "r"}}}
    for _ in range(2):
        agent.invoke(ASK, with_money_spent)
    assert not any(noted(request) for request in asked(sim))


def test_it_costs_no_read_of_the_cache(make_harness, claude, sim):
    """The same conversation with and without: what is read from the cache, and written to it, is the same."""
    usages = []
    for share in (None, 1.0):
        harness = make_harness(budgets=[{"scope": "run:*", "limit": "5"}], routing={"policy": "off"})
        sim.responder = rounds(8)
        started = len(harness.pipeline.records())
        system = f"{share} {LONG}"  # a prompt of its own
        middleware = CostMiddleware(harness.pipeline, tell_model=share)
        create_agent(claude("claude-sonnet-4-6"), [look], middleware=[middleware], system_prompt=system).invoke(ASK)
        usages.append([record.usage for record in harness.pipeline.records()[started:]])
    without, with_note = usages
    assert len(without) == len(with_note) == 9
    assert sum(usage.cache_read for usage in without) > 50_000
    for plain, noted_ in zip(without, with_note, strict=True):
        assert abs(noted_.cache_read - plain.cache_read) <= 40  # the word before each prompt differs in length
        assert abs(noted_.cache_write_5m + noted_.cache_write_1h - plain.cache_write_5m - plain.cache_write_1h) <= 40
        assert 0 <= noted_.uncached_input - plain.uncached_input < 120  # the note itself


def without_note(request):
    """The request as the recordings know it."""
    return replace(request, turns=tuple(turn for turn in request.turns if NOTE not in turn.text))


@pytest.mark.data
def test_it_costs_no_read_of_the_cache_on_recorded_conversations(claude, soak, data_folder):
    """Each recorded conversation twice, at a provider of its own: without the note, and with it in every request."""
    conversations, schemas = recorded(data_folder, 40 if soak else 3)
    sums = []
    for share in (None, 1.0):
        replay, notes, reads, writes = Replay(conversations), 0, 0, 0
        with Simulator(responder=lambda request, replay=replay: replay(without_note(request))) as sim:
            providers = {"anthropic": {"base_url": sim.anthropic_url}}
            config = {"providers": providers, "budgets": [{"scope": "run:*", "limit": "50"}]}
            pipeline = CostPipeline({**config, "routing": {"policy": "off"}})
            for number, conversation in enumerate(conversations):
                messages = conversation["messages"]
                results = [message["content"] for message in messages if message["role"] == "tool"]
                model = ChatAnthropic(
                    model="claude-sonnet-4-6", api_key="k", base_url=sim.anthropic_url,
                    default_headers={"x-sim-conversation": str(number)},
                )  # fmt: skip
                agent = create_agent(
                    model, replayed(schemas, results), system_prompt=messages[0]["content"],
                    middleware=[CostMiddleware(pipeline, tell_model=share)],
                )  # fmt: skip
                state, run = {"messages": []}, {"metadata": {"llm_cost": {"run": f"conversation {number}"}}}
                said = [message["content"] for message in messages if message["role"] == "user"]
                expected = sum(message["role"] == "assistant" for message in messages)
                while sum(isinstance(message, AIMessage) for message in state["messages"]) < expected:
                    state = agent.invoke({"messages": [*state["messages"], HumanMessage(said.pop(0))]}, run)
                assert NOTE not in str(state["messages"])
            notes = sum(noted(request) is not None for request in asked(sim))
            records = pipeline.records()
            assert (notes > len(records) / 2) == (share is not None)
            reads = sum(record.usage.cache_read for record in records)
            writes = sum(record.usage.cache_write_5m + record.usage.cache_write_1h for record in records)
            sums.append((len(records), reads, writes))
            pipeline.close()
    assert sums[0] == sums[1]
    assert sums[0][1] > 10_000


@pytest.mark.parametrize("wrong", [2, "much", 0])
def test_what_is_no_share_is_refused(wrong, make_harness):
    with pytest.raises(ConfigurationError):
        CostMiddleware(make_harness().pipeline, tell_model=wrong)
