"""Every shape of chain instrumented: the copy is governed, the original is not touched."""

from __future__ import annotations

import functools
import warnings
from operator import itemgetter

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import (
    ConfigurableField,
    RouterRunnable,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool
from pydantic import BaseModel

from llm_cost_middleware.errors import NoModelFoundError
from llm_cost_middleware.integrations.langchain import guard, instrument

PROMPT = ChatPromptTemplate.from_messages([("system", "Be kind."), ("human", "{q}")])
ASK = {"q": "hi"}


class City(BaseModel):
    """A city."""

    name: str


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def closure(model):
    inner = PROMPT | model
    return RunnableLambda(lambda given: inner.invoke(given))  # noqa: PLW0108 - the closure is the point


def nested_closure(model):
    def ask(given):
        return model.invoke(given["q"])

    async def aask(given):
        return await model.ainvoke(given["q"])

    return RunnableLambda(lambda given: ask(given), afunc=aask)  # noqa: PLW0108 - the closure is the point


def generator(model):
    def ask(given):
        for one in given:
            yield from model.stream(one["q"])

    async def aask(given):
        async for one in given:
            async for chunk in model.astream(one["q"]):
                yield chunk

    return RunnableGenerator(ask, aask)


def partial(model):
    return RunnableLambda(functools.partial(lambda given, llm: llm.invoke(given["q"]), llm=model))


def history(model):
    from langchain_core.chat_history import InMemoryChatMessageHistory
    from langchain_core.runnables.history import RunnableWithMessageHistory

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chain = RunnableWithMessageHistory(PROMPT | model, lambda session_id: kept, input_messages_key="q")
        kept = InMemoryChatMessageHistory()
    return chain


SHAPES = {
    "the model itself": (lambda model: itemgetter("q") | model, 1),
    "prompt, model, parser": (lambda model: PROMPT | model | StrOutputParser(), 1),
    "bound tools": (lambda model: PROMPT | model.bind_tools([weather]), 1),
    "structured output": (lambda model: PROMPT | model.with_structured_output(City), 1),
    "structured output with raw": (lambda model: PROMPT | model.with_structured_output(City, include_raw=True), 1),
    "fallbacks": (lambda model: PROMPT | model.with_fallbacks([model.bind(stop=["x"])]), 1),
    "retry": (lambda model: (PROMPT | model).with_retry(), 1),
    "parallel": (lambda model: RunnableParallel(a=PROMPT | model, b=PROMPT | model, c=itemgetter("q")), 2),
    "assign": (lambda model: RunnablePassthrough.assign(a=PROMPT | model), 1),
    "branch": (lambda model: RunnableBranch((lambda given: "x" in given["q"], PROMPT), PROMPT | model), 1),
    "map": (lambda model: RunnableLambda(lambda given: [given, given]) | (PROMPT | model).map(), 2),
    "config": (lambda model: (PROMPT | model).with_config(tags=["t"]), 1),
    "listeners": (lambda model: (PROMPT | model).with_listeners(on_end=lambda run: None), 1),
    "alternatives": (
        lambda model: PROMPT | model.configurable_alternatives(ConfigurableField("which"), other=lambda: model), 1,
    ),
    "a made alternative": (
        lambda model: (PROMPT | model.configurable_alternatives(ConfigurableField("which"), other=lambda: model))
        .with_config(configurable={"which": "other"}), 1,
    ),
    "configurable fields": (
        lambda model: (PROMPT | model.configurable_fields(temperature=ConfigurableField("warmth")))
        .with_config(configurable={"warmth": 0.5}), 1,
    ),
    "router": (
        lambda model: RunnableLambda(lambda given: {"key": "a", "input": given["q"]}) | RouterRunnable({"a": model}), 1,
    ),
    "closure": (closure, 1),
    "nested closure": (nested_closure, 1),
    "generator": (generator, 1),
    "partial": (partial, 1),
    "bound method": (lambda model: itemgetter("q") | RunnableLambda(model.invoke), 1),
    "message history": (
        lambda model: history(model).with_config(configurable={"session_id": "1"}), 1,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::langchain_core._api.deprecation.LangChainDeprecationWarning")
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_chain_of_this_shape_is_governed_and_the_original_is_not(shape, make_harness, claude, sim):
    build, calls = SHAPES[shape]
    harness = make_harness()
    chain = build(claude())
    copy, found = instrument(chain, harness.pipeline, explain=True)
    assert all(one.guarded for one in found), found
    copy.invoke(ASK)
    await copy.ainvoke(ASK)
    list(copy.stream(ASK))
    assert sim.request_count == 3 * calls
    harness.check()
    chain.invoke(ASK)
    assert sim.request_count == 4 * calls
    assert len(harness.observer.ended) == 3 * calls


def test_it_reports_what_it_found_and_where(make_harness, claude, gpt):
    chain = PROMPT | RunnableParallel(a=claude(), b=gpt() | StrOutputParser())
    _, found = instrument(chain, make_harness().pipeline, explain=True)
    assert {one.what for one in found} == {"ChatAnthropic(claude-haiku-4-5-20251001)", "ChatOpenAI(gpt-5-mini)"}
    assert all(one.path.startswith(".last.steps__[") for one in found)


def test_the_same_model_in_two_places_is_guarded_once(make_harness, claude):
    model = claude()
    both = instrument(RunnableParallel(a=model, b=model), make_harness().pipeline)
    assert both.steps__["a"] is both.steps__["b"]


def test_a_guarded_model_stays_as_it_is(make_harness, claude):
    guarded = guard(claude(), make_harness().pipeline)
    _, found = instrument(PROMPT | guarded, make_harness().pipeline, explain=True)
    assert found[0].note == "was guarded before"


def test_a_bare_model_can_be_instrumented(make_harness, claude, sim):
    harness = make_harness()
    instrument(claude(), harness.pipeline).invoke("hi")
    harness.check()


@pytest.mark.parametrize("chain", [PROMPT, RunnableLambda(len), StrOutputParser()])
def test_a_chain_without_a_model_is_an_error_with_advice(chain, make_harness):
    with pytest.raises(NoModelFoundError, match=r"guard\(\) the model where it is made"):
        instrument(chain, make_harness().pipeline)


def test_a_model_among_the_globals_of_a_function_is_named_as_out_of_reach(make_harness, claude):
    names = {"model": claude()}
    exec("def ask(given):\n    return model.invoke(given)", names)  # noqa: S102 - a function with globals of its own
    with pytest.raises(NoModelFoundError, match="'model' among its globals"):
        instrument(RunnableLambda(names["ask"]), make_harness().pipeline)


def test_a_variable_that_the_function_assigns_anew_is_left_alone(make_harness, claude):
    model = claude()

    def ask(given):
        nonlocal model
        answer = model.invoke(given)
        model = model.bind(stop=["x"])
        return answer

    with pytest.raises(NoModelFoundError, match="assigns 'model' anew"):
        instrument(RunnableLambda(ask), make_harness().pipeline)


def test_an_agent_is_named_as_out_of_reach(make_harness, claude):
    from langchain.agents import create_agent

    with pytest.raises(NoModelFoundError, match="CostMiddleware"):
        instrument(create_agent(claude(), []), make_harness().pipeline)


def test_a_guarded_chain_answers_as_the_plain_one(make_harness, claude, sim):
    chain = PROMPT | claude() | StrOutputParser()
    assert instrument(chain, make_harness().pipeline).invoke(ASK) == chain.invoke(ASK)
