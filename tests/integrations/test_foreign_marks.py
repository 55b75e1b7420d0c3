"""Cache marks of one provider never reach the other, whichever host carries them; the simulator refuses them."""

import asyncio
import copy
import json

import pytest

from llm_cost_middleware import CostConfig, CostPipeline, cost_context
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai

LONG = "a rule that never changes. " * 900
MARK = {"cache_control": {"type": "ephemeral"}}
CLAUDE, GPT = "anthropic/claude-haiku-4-5-20251001", "openai/gpt-5-mini"
FOREIGN = {
    "anthropic": ("prompt_cache_key", "prompt_cache_retention", "prompt_cache_breakpoint", "prompt_cache_options"),
    "openai": ("cache_control",),
}


@pytest.fixture
def pipeline(sim, monkeypatch):
    monkeypatch.setenv("FOREIGN_MARKS_KEY", "k")
    providers = {
        "anthropic": {"base_url": sim.anthropic_url, "api_key_env": "FOREIGN_MARKS_KEY"},
        "openai": {"base_url": sim.openai_url, "api_key_env": "FOREIGN_MARKS_KEY"},
    }
    with CostPipeline(CostConfig(providers=providers, cache={"mode": "system"})) as made:
        yield made


def _check(sim, provider, calls):
    assert [exchange.status for exchange in sim.requests] == [200] * calls
    for exchange in sim.requests:
        assert exchange.provider == provider
        sent = json.dumps(exchange.body)
        assert not [key for key in FOREIGN[provider] if key in sent]
        assert sent.count('"cache_control"') <= 4


@pytest.mark.parametrize("target", [CLAUDE, GPT])
@pytest.mark.parametrize("home", ["anthropic", "openai"])
def test_through_a_guarded_model(sim, pipeline, home, target):
    pytest.importorskip("langchain_anthropic", reason="needs the demo extra: langchain-anthropic")
    from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    if home == "anthropic":
        model = ChatAnthropic(model="claude-sonnet-4-6", base_url=sim.anthropic_url, api_key="k")
        block = {"type": "text", "text": LONG, **MARK}
    else:
        model = ChatOpenAI(
            model="gpt-5.1", base_url=sim.openai_url, api_key="k", model_kwargs={"prompt_cache_key": "mine"}
        )
        block = {"type": "text", "text": LONG}
    messages = [SystemMessage([block]), HumanMessage("hello")]
    before = copy.deepcopy(messages)
    guarded = guard(model, pipeline)
    for _ in range(2):
        guarded.invoke(messages, config={"metadata": {"llm_cost": {"force_model": target}}})
    assert messages == before
    _check(sim, target.partition("/")[0], 2)


@pytest.mark.litellm
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # LiteLLM's own
@pytest.mark.parametrize("target", [CLAUDE, GPT])
async def test_through_the_router(sim, pipeline, target):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter, router_config

    router = CostAwareRouter(router_config(pipeline.config)["model_list"], pipeline=pipeline)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": LONG, **MARK}]},
        {"role": "user", "content": "hello"},
    ]
    before = copy.deepcopy(messages)
    for _ in range(2):
        await router.acompletion("smart", messages, metadata={"llm_cost": {"force_model": target}})
    await asyncio.sleep(0)
    assert messages == before
    _check(sim, target.partition("/")[0], 2)
    router.discard()


def test_through_the_wrapped_clients(sim, pipeline, clients):
    blocks = [{"type": "text", "text": LONG}]
    with cost_context(user="1"):
        for _ in range(2):
            wrap_anthropic(clients["anthropic"], pipeline).messages.create(
                model="smart", max_tokens=64, system=blocks, messages=[{"role": "user", "content": "hello"}]
            )
    assert blocks == [{"type": "text", "text": LONG}]
    _check(sim, "anthropic", 2)
    assert sum('"cache_control"' in json.dumps(exchange.body) for exchange in sim.requests) == 2
    sim.reset()
    messages = [{"role": "system", "content": LONG}, {"role": "user", "content": "hello"}]
    for _ in range(2):
        wrap_openai(clients["openai"], pipeline).chat.completions.create(model="smart", messages=messages)
    _check(sim, "openai", 2)
