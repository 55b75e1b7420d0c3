"""What fails on one connection of a pipeline says nothing of another: keys and addresses have breakers apart."""

from __future__ import annotations

import anthropic
import openai
import pytest

from llm_cost_middleware import CircuitOpenError, CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.retry.breaker import MIN_FAILURES
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "hello"}]


def _openai(sim, pipeline, key):
    client = wrap_openai(openai.OpenAI(base_url=f"{sim.url}/v1", api_key=key), pipeline)
    return lambda: client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=20)


def _anthropic(sim, pipeline, key):
    client = wrap_anthropic(anthropic.Anthropic(base_url=sim.url, api_key=key), pipeline)
    return lambda: client.messages.create(model="claude-haiku-4-5", messages=ASK, max_tokens=20)


def _guarded(sim, pipeline, key):
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    model = guard(ChatOpenAI(model="gpt-5-mini", base_url=f"{sim.url}/v1", api_key=key, max_tokens=20), pipeline)
    return lambda: model.invoke("hello")


@pytest.mark.parametrize("host", [_openai, _anthropic, _guarded])
def test_a_key_that_is_refused_opens_the_breaker_of_no_other_key(sim, host):
    pipeline = CostPipeline(CostConfig(retry={"max_attempts": 1, "fallback": False}))
    failing, healthy, same = (host(sim, pipeline, key) for key in ("sk-one", "sk-two", "sk-one"))
    for _ in range(MIN_FAILURES):
        sim.script(Fault.status(503, retry_after=30))
        with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)):
            failing()
    with pytest.raises(CircuitOpenError):
        failing()
    with pytest.raises(CircuitOpenError):  # another client of the same key and address
        same()
    healthy()
    assert "sk-one" not in repr(pipeline._stages.health._states)
