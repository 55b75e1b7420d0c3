"""What an answer cost and what its run has left, asked of the answer itself, through every host."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic

from llm_cost_middleware.call_ids import call_id_of
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture
def pipeline():
    with CostPipeline(CostConfig(budgets=[{"scope": "run:*", "limit": "1"}])) as made:
        yield made


def anthropics(pipeline, sim):
    client = wrap_anthropic(anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k"), pipeline)
    return client.messages.create(model="claude-haiku-4-5", max_tokens=20, messages=ASK)


def streamed(pipeline, sim):
    client = wrap_anthropic(anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k"), pipeline)
    stream = client.messages.create(model="claude-haiku-4-5", max_tokens=20, messages=ASK, stream=True)
    assert list(stream)
    return stream


def openais(pipeline, sim):
    async def ask():
        async with openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k") as client:
            return await wrap_openai(client, pipeline).chat.completions.create(model="gpt-5-mini", messages=ASK)

    return asyncio.run(ask())


def raw(pipeline, sim):
    client = wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
    return client.responses.with_raw_response.create(model="gpt-5-mini", input="hello")


def routers(pipeline, sim):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "mini", "litellm_params": params}], pipeline=pipeline)
    return router.completion("mini", ASK)


def langchains(pipeline, sim):
    return guard(ChatAnthropic(model="claude-haiku-4-5", base_url=sim.anthropic_url, api_key="k"), pipeline).invoke(
        "hi"
    )


DOORS = [anthropics, streamed, openais, raw, routers, langchains]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_an_answer_of_every_host_tells_its_cost_and_what_its_run_has_left(door, pipeline, sim):
    with cost_context(run="r1"):
        answer = door(pipeline, sim)
    told = pipeline.told(answer)
    assert told["call_id"] == call_id_of(answer)
    assert Decimal(told["cost"]) == Decimal(sim.bill.total_nanousd).scaleb(-9) > 0
    assert Decimal(told["run_left"]) == 1 - Decimal(told["cost"])


def test_what_no_call_returned_tells_nothing(pipeline):
    with pytest.raises(ConfigurationError, match="no governed call"):
        pipeline.told(object())
    assert pipeline.told("no such call") == {}
