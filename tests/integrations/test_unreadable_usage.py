"""Counts that cannot be read, in every host: the caller gets the answer, and what was set aside is booked."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anthropic
import litellm
import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline, CostTracker, process
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.langchain import CostCallbackHandler, guard, instrument
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Fault, fill

pytestmark = pytest.mark.litellm

HAIKU, MINI = "claude-haiku-4-5-20251001", "gpt-5-mini"
ASK = [{"role": "user", "content": "Count."}]
ODD = {
    "missing": {"input": "gone"}, "null": {"output": None}, "negative": {"output": -50}, "absurd": {"output": 10**18},
    "nothing": {"input": 0, "output": 0},
}  # fmt: skip
"""Also LangChain and LiteLLM deliver answers with these."""


class Harness:
    """A pipeline, its ledger, and what it is to be asked about."""

    def __init__(self, sim):
        self.sim = sim
        self.pipeline = CostPipeline(CostConfig(
            budgets=[{"scope": "global", "limit": "5"}], retry={"max_attempts": 1},
            providers={"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}},
        ))  # fmt: skip

    def anthropic(self):
        return anthropic.Anthropic(base_url=self.sim.anthropic_url, api_key="k", max_retries=0)

    def openai(self):
        return openai.OpenAI(base_url=self.sim.openai_url, api_key="k", max_retries=0)

    def claude(self, **more):
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(
            model=HAIKU, base_url=self.sim.anthropic_url, api_key="k", max_tokens=40, max_retries=0, **more
        )

    def gpt(self, **more):
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(
            model=MINI, base_url=self.sim.openai_url, api_key="k", max_completion_tokens=40, max_retries=0, **more
        )

    def router(self):
        from llm_cost_middleware.integrations.litellm import CostAwareRouter

        urls = {f"anthropic/{HAIKU}": self.sim.anthropic_url, f"openai/{MINI}": self.sim.openai_url}
        models = [
            {"model_name": name.partition("/")[2], "litellm_params": {"model": name, "api_base": url, "api_key": "k"}}
            for name, url in urls.items()
        ]
        return CostAwareRouter(models, pipeline=self.pipeline)


def wrap_claude(harness, model):
    client = wrap_anthropic(harness.anthropic(), harness.pipeline)
    return client.messages.create(model=model, max_tokens=40, messages=ASK).content[0].text


def wrap_chat(harness, model):
    client = wrap_openai(harness.openai(), harness.pipeline)
    answer = client.chat.completions.create(model=model, max_completion_tokens=40, messages=ASK)
    return answer.choices[0].message.content


def wrap_responses(harness, model):
    client = wrap_openai(harness.openai(), harness.pipeline)
    return client.responses.create(model=model, max_output_tokens=40, input="Count.").output_text


def wrap_claude_stream(harness, model):
    client = wrap_anthropic(harness.anthropic(), harness.pipeline)
    with client.messages.stream(model=model, max_tokens=40, messages=ASK) as stream:
        return "".join(stream.text_stream)


def wrap_chat_stream(harness, model):
    client = wrap_openai(harness.openai(), harness.pipeline)
    chunks = client.chat.completions.create(model=model, max_completion_tokens=40, messages=ASK, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def guarded(harness, model):
    return guard(harness.claude() if model == HAIKU else harness.gpt(), harness.pipeline, pinned=True).invoke("hi").text


def guarded_stream(harness, model):
    chat = guard(harness.claude() if model == HAIKU else harness.gpt(), harness.pipeline, pinned=True)
    return "".join(chunk.text for chunk in chat.stream("hi"))


def instrumented(harness, model):
    chain = (harness.claude() if model == HAIKU else harness.gpt()) | (lambda message: message.text)
    return instrument(chain, harness.pipeline).invoke("hi")


def handled(harness, model):
    chat = harness.claude() if model == HAIKU else harness.gpt()
    return chat.invoke("hi", {"callbacks": [CostCallbackHandler(harness.pipeline)]}).text


def routed(harness, model):
    return harness.router().completion(model, ASK, max_tokens=40).choices[0].message.content


def arouted(harness, model):
    return asyncio.run(harness.router().acompletion(model, ASK, max_tokens=40)).choices[0].message.content


def processed(harness, model):
    client = harness.anthropic() if model == HAIKU else harness.openai()
    result, _ = process("Count.", harness.pipeline, CostTracker("1"), client=client)
    return result.text


HOSTS = {
    "wrap_anthropic": (wrap_claude, HAIKU), "wrap_anthropic stream": (wrap_claude_stream, HAIKU),
    "wrap_openai": (wrap_chat, MINI), "wrap_openai stream": (wrap_chat_stream, MINI),
    "wrap_openai responses": (wrap_responses, MINI), "guard claude": (guarded, HAIKU), "guard gpt": (guarded, MINI),
    "guard claude stream": (guarded_stream, HAIKU), "guard gpt stream": (guarded_stream, MINI),
    "instrument": (instrumented, HAIKU), "handler claude": (handled, HAIKU), "handler gpt": (handled, MINI),
    "process claude": (processed, HAIKU), "process gpt": (processed, MINI),
    "router claude": (routed, HAIKU), "router gpt": (routed, MINI), "router gpt async": (arouted, MINI),
}  # fmt: skip


@pytest.fixture
def harness(sim, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    sim.responder = fill
    return Harness(sim)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("host", HOSTS)
def test_an_unreadable_count_takes_no_answer_away_and_is_booked_at_what_was_set_aside(host, odd, harness):
    call, model = HOSTS[host]
    harness.sim.script(Fault.odd_usage(**ODD[odd]))
    needed = host.startswith(("guard", "router", "handler", "instrument"))  # LiteLLM and LangChain calculate with some
    with suppress(*((AttributeError, KeyError, TypeError, litellm.APIError) if needed else ())):
        assert call(harness, model)
    assert harness.sim.request_count == 1
    (reserved,) = (row.amount_nanousd for row in harness.pipeline.ledger.rows() if row.kind == "reserve")
    balance = harness.pipeline.ledger.balance("global")
    assert balance.pending_nanousd == 0
    bill = harness.sim.bill.total_nanousd
    assert bill <= balance.settled_nanousd <= reserved
    (record,) = harness.pipeline.records()
    assert record.status != "exact"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("said", ["many", "5O", "", "-1"])
@pytest.mark.parametrize("host", [name for name in HOSTS if name.startswith("wrap")])
def test_a_count_that_is_text_takes_no_answer_away_from_the_sdks(host, said, harness):
    call, model = HOSTS[host]
    harness.sim.script(Fault.odd_usage(output=said))
    assert call(harness, model)
    (record,) = harness.pipeline.records()
    assert record.status != "exact"
