"""``init_chat_model(configurable_fields=…)``: models that are made in each call are governed."""

from __future__ import annotations

import asyncio

import pytest
from langchain.agents import create_agent
from langchain.chat_models import init_chat_model
from langchain_core.prompts import ChatPromptTemplate
from pydantic import BaseModel

from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.langchain import CostMiddleware, guard, instrument, is_guarded


class Sky(BaseModel):
    """The sky."""

    colour: str


@pytest.fixture
def recipe(sim):
    def make(**more):
        return init_chat_model(  # not "any": LangChain hands a graph's own settings to the model then
            "openai:gpt-5-mini",
            configurable_fields=("model", "model_provider", "base_url"),
            api_key="k",
            base_url=sim.openai_url,
            **more,
        )

    return make


def other(sim):
    claude = {"model": "claude-haiku-4-5-20251001", "model_provider": "anthropic", "base_url": sim.anthropic_url}
    return {"configurable": claude}


WAYS = {
    "invoke": lambda model, config: model.invoke("x", config).text,
    "stream": lambda model, config: "".join(chunk.text for chunk in model.stream("x", config)),
    "batch": lambda model, config: [answer.text for answer in model.batch(["x"], config)],
    "ainvoke": lambda model, config: asyncio.run(model.ainvoke("x", config)).text,
    "with_config": lambda model, config: model.with_config(config or {"tags": ["t"]}).invoke("x").text,
    "bind_tools": lambda model, config: model.bind_tools([Sky]).invoke("x", config),
    "with_structured_output": lambda model, config: model.with_structured_output(Sky, include_raw=True).invoke(
        "x", config
    ),
    "chain": lambda model, config: (ChatPromptTemplate.from_template("{x}") | model).invoke({"x": "y"}, config).text,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("chosen", ["default", "configured"])
def test_every_way_is_booked(make_harness, recipe, sim, way, chosen):
    harness = make_harness()
    plain = recipe()
    model = guard(plain, harness.pipeline, pinned=True)
    assert is_guarded(model)
    assert not is_guarded(plain)
    assert WAYS[way](model, other(sim) if chosen == "configured" else None)
    assert sim.request_count == 1
    harness.check()
    (record,) = harness.pipeline.records()
    assert record.model.startswith("claude" if chosen == "configured" else "gpt")


def test_it_is_refused(make_harness, recipe, sim):
    model = guard(recipe(), make_harness(limit="0.0000001").pipeline, pinned=True)
    for refused in (model, model.bind_tools([Sky])):
        with pytest.raises(BudgetExceededError):
            refused.invoke("x")
    assert sim.request_count == 0


def test_a_chain_and_an_agent_of_one_are_governed(make_harness, recipe, sim):
    harness = make_harness()
    chain = ChatPromptTemplate.from_template("{x}") | recipe()
    instrument(chain, harness.pipeline).invoke({"x": "y"})
    create_agent(recipe(), [], middleware=[CostMiddleware(harness.pipeline)]).invoke({"messages": [("user", "x")]})
    assert sim.request_count == 2
    harness.check()


def test_a_model_is_made_once_for_equal_settings(make_harness, recipe, sim):
    """It holds connections."""
    model = guard(recipe(), make_harness().pipeline, pinned=True)
    assert model._model() is model._model()
    assert model._model(other(sim)) is not model._model()
