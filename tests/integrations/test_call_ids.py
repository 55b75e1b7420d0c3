"""From the response of any host its call can be rated."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

from llm_cost_middleware import ConfigurationError, CostConfig, CostPipeline, CostTracker, call_id_of, process
from llm_cost_middleware.call_ids import _answered
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai

ASK = [{"role": "user", "content": "hello"}]


@pytest.fixture
def pipeline():
    with CostPipeline(CostConfig()) as made:
        yield made


@pytest.fixture
def hosts(sim, pipeline):
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    gpt = wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
    claude = wrap_anthropic(anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k"), pipeline)
    agpt = wrap_openai(openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
    chat = guard(ChatOpenAI(model="gpt-5-mini", base_url=sim.openai_url, api_key="k", max_tokens=20), pipeline)
    plain = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    said = {"messages": ASK, "model": "smart"}

    def consumed(stream):
        list(stream)
        return stream

    return {
        "chat": lambda: gpt.chat.completions.create(max_completion_tokens=20, **said),
        "chat, raw": lambda: gpt.chat.completions.with_raw_response.create(max_completion_tokens=20, **said),
        "chat, stream": lambda: consumed(gpt.chat.completions.create(max_completion_tokens=20, stream=True, **said)),
        "chat, async": lambda: asyncio.run(agpt.chat.completions.create(max_completion_tokens=20, **said)),
        "responses": lambda: gpt.responses.create(model="smart", input="hello", max_output_tokens=20),
        "messages": lambda: claude.messages.create(max_tokens=20, **said),
        "messages, stream": lambda: consumed(claude.messages.create(max_tokens=20, stream=True, **said)),
        "guard": lambda: chat.invoke("hello"),
        "process": lambda: process("hello", pipeline, CostTracker(None), client=plain)[0],
        "process, the SDK's response": lambda: process("hello", pipeline, CostTracker(None), client=plain)[0].response,
    }


HOSTS = (
    "chat", "chat, raw", "chat, stream", "chat, async", "responses", "messages", "messages, stream", "guard", "process",
    "process, the SDK's response",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_the_response_of_every_host_tells_its_call(hosts, pipeline, host):
    response = hosts[host]()
    assert call_id_of(response) == pipeline.records()[-1].call_id
    pipeline.feedback(response, 0.5)
    assert "llm_cost" not in str(getattr(response, "model_dump", dict)()) or host == "guard"


@pytest.mark.parametrize("host", ["chat", "messages", "guard"])
def test_calls_at_once_are_told_apart(hosts, pipeline, host):
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: hosts[host](), range(16)))
    assert {call_id_of(response) for response in responses} == {record.call_id for record in pipeline.records()}


def test_what_is_dropped_is_forgotten(hosts):
    response = hosts["chat"]()
    key = id(response)
    assert key in _answered._objects
    del response
    gc.collect()
    assert key not in _answered._objects


@pytest.mark.parametrize("stranger", [None, 5, {}, {"id": "msg_other"}, object(), [1]])
def test_a_response_of_nobody_is_refused(pipeline, stranger):
    with pytest.raises(ConfigurationError, match="no governed call"):
        call_id_of(stranger)
    with pytest.raises(ConfigurationError):
        pipeline.feedback(stranger, 1.0)


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/l.db"])
def test_feedback_on_a_call_that_is_not_in_the_log_is_refused(sim, tmp_path, url):
    config = CostConfig.from_mapping({"ledger": {"url": url.format(tmp_path)}})
    with CostPipeline(config) as pipeline:
        client = wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
        answer = client.chat.completions.create(model="smart", messages=ASK, max_completion_tokens=20)
        pipeline.feedback(answer, 1.0)
        with pytest.raises(ConfigurationError, match="no call 'nobody'"):
            pipeline.feedback("nobody", 1.0)
        known = call_id_of(answer)
    if url.startswith("sqlite"):
        with CostPipeline(config) as later:  # of another process: the log knows it
            later.feedback(known, 0.0)


@pytest.mark.parametrize("given", ["x" * 191, "ü" * 100, "", 7, None], ids=str)
def test_an_id_that_cannot_be_used_is_refused_by_every_form_before_it_is_sent(sim, given):
    with CostPipeline(CostConfig(), new_id=lambda: given) as pipeline:
        gpt = wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
        agpt = wrap_openai(openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
        said = {"model": "gpt-5-mini", "messages": ASK, "max_completion_tokens": 20}
        for call in (
            lambda: gpt.chat.completions.create(**said),
            lambda: list(gpt.chat.completions.create(stream=True, **said)),
            lambda: asyncio.run(agpt.chat.completions.create(**said)),
        ):
            with pytest.raises(ConfigurationError, match="bytes"):
                call()
    assert not sim.requests


def test_the_longest_id_serves_every_form(sim):
    ids = iter(f"{number:0190}" for number in range(9))
    with CostPipeline(CostConfig(), new_id=lambda: next(ids)) as pipeline:
        gpt = wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
        agpt = wrap_openai(openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
        said = {"model": "gpt-5-mini", "messages": ASK, "max_completion_tokens": 20}
        gpt.chat.completions.create(**said)
        asyncio.run(agpt.chat.completions.create(**said))
        assert [record.call_id for record in pipeline.records()] == [f"{number:0190}" for number in range(2)]
