"""Structured output that does not parse: booked, and on request asked again a tier up."""

from __future__ import annotations

import json

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core import exceptions
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel

from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard
from llm_cost_middleware.simulator import Answer, ToolCall

HAIKU, SONNET, MINI, GPT = "claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5-mini", "gpt-5.1"


class City(BaseModel):
    """A city."""

    name: str
    country: str


def weak(request):
    """A small model forgets the country; a large one does not."""
    said = {"name": "Rome"} if request.model.startswith((HAIKU, MINI)) else {"name": "Rome", "country": "Italy"}
    if request.tools:
        return Answer(tool_calls=(ToolCall(request.tools[0].name, said),))
    return Answer(text=json.dumps(said))


METHODS = pytest.mark.parametrize("method", ["function_calling", "json_schema"])
HOMES = pytest.mark.parametrize("home", ["claude", "gpt"])


@METHODS
@HOMES
async def test_a_failed_parse_escalates_one_tier_and_both_answers_are_booked(home, method, make_harness, sim, request):
    sim.responder, harness = weak, make_harness()
    model = guard(request.getfixturevalue(home)(), harness.pipeline, escalate_on_parse_failure=True)
    chain = model.with_structured_output(City, method=method)
    rome = City(name="Rome", country="Italy")
    assert chain.invoke("Where?") == rome
    assert await chain.ainvoke("Where?") == rome
    assert list(chain.stream("Where?")) == [rome]
    raw = model.with_structured_output(City, method=method, include_raw=True).invoke("Where?")
    assert (raw["parsed"], raw["parsing_error"]) == (rome, None)
    tiers = [decision.tier_name for decision in harness.pipeline.decisions()]
    assert tiers == ["small"] * 4  # an escalation is a second attempt of the same call
    models = [record.model for record in harness.pipeline.records()]
    assert [model in (HAIKU, MINI) for model in models] == [True, False] * 4
    assert sim.request_count == 8
    harness.check()


@METHODS
async def test_without_money_for_a_second_answer_the_first_failure_is_raised(method, make_harness, claude, sim):
    sim.responder = weak
    harness = make_harness(limit="0.07", output={"on_insufficient": ["raise"]})
    chain = guard(claude(), harness.pipeline, escalate_on_parse_failure=True).with_structured_output(
        City, method=method
    )
    with pytest.raises((OutputParserException, ValueError), match="country"):
        chain.invoke("Where?")
    assert sim.request_count == 1
    harness.check()


async def test_the_answer_of_the_strongest_tier_is_final(make_harness, claude, sim):
    sim.responder, harness = lambda _: Answer(text="no JSON at all"), make_harness()
    chain = guard(claude(), harness.pipeline, escalate_on_parse_failure=True).with_structured_output(
        City, method="json_schema"
    )
    with pytest.raises(OutputParserException):
        await chain.ainvoke("Where?")
    assert sim.request_count == 2
    harness.check()


async def test_an_error_without_an_answer_is_not_a_failed_parse(make_harness, claude, sim):
    from llm_cost_middleware.simulator import Fault

    harness = make_harness(retry={"max_attempts": 1})
    sim.script(Fault.status(400))
    chain = guard(claude(), harness.pipeline, escalate_on_parse_failure=True).with_structured_output(City)
    with pytest.raises(Exception, match="400"):
        chain.invoke("Where?")
    assert sim.request_count == 1
    harness.check()


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_raised_after_an_answer_and_booked_at_what_that_cost(stream, make_harness, sim):
    if not hasattr(exceptions, "ModelRefusalError"):
        pytest.skip("this LangChain has no ModelRefusalError")

    class Refusing(ChatAnthropic):
        def _generate(self, *args, **kwargs):
            result = super()._generate(*args, **kwargs)
            answer = result.generations[0].message
            answer.response_metadata |= result.llm_output  # as LangChain finishes it before a parser sees it
            raise exceptions.ModelRefusalError(raw_message=answer)

        def _stream(self, *args, **kwargs):
            chunks = []
            for chunk in super()._stream(*args, **kwargs):
                chunks.append(chunk.message)
                yield chunk
            raise exceptions.ModelRefusalError(raw_message=sum(chunks[1:], start=chunks[0]))

    model, harness = Refusing(model=HAIKU, api_key="k", base_url=sim.anthropic_url), make_harness()
    config = {"callbacks": [CostCallbackHandler(harness.pipeline)]}
    with pytest.raises(exceptions.ModelRefusalError):
        list(model.stream("hi", config)) if stream else model.invoke("hi", config)
    harness.check()
