"""A gateway behind an address of its own is sent what the caller wrote, and nothing else."""

from __future__ import annotations

import anthropic
import openai
import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.config.gateways import is_gateway
from llm_cost_middleware.errors import BudgetExceededError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

LONG = "You know everything about the old town of Prague. " * 800
ASKED = [{"role": "system", "content": LONG}, {"role": "user", "content": "hi"}]


def pipeline(limit="100", gateway="foreign"):
    providers = {"openai": {"gateway": gateway}, "anthropic": {"gateway": gateway}}
    return CostPipeline(
        CostConfig(budgets=[{"scope": "global", "limit": limit}], providers=providers, cache={"mode": "system"})
    )


@pytest.mark.parametrize(
    ("url", "foreign"),
    [
        ("", False),
        (None, False),
        ("https://api.openai.com/v1", False),
        ("https://eu.api.openai.com/v1", False),
        ("https://resource.openai.azure.com/openai/v1/", False),
        ("http://127.0.0.1:4000", False),
        ("http://localhost:8000/v1", False),
        ("http://[::1]:8000/v1", False),
        ("https://gateway.example/v1", True),
        ("https://openai.com.example/v1", True),
        ("https://notopenai.com/v1", True),
        ("http://10.0.0.7:8000/v1", True),
    ],
)
def test_every_address_but_the_providers_and_this_machines_is_a_gateway(url, foreign):
    assert is_gateway(CostConfig(), "openai", url) is foreign


def test_the_configuration_decides_what_is_a_gateway():
    provider = CostConfig(providers={"openai": {"base_url": "https://gateway.example/v1"}})
    assert not is_gateway(provider, "openai", "https://gateway.example/v1/")
    assert is_gateway(provider, "openai", "https://another.example/v1")
    trusted = CostConfig(providers={"openai": {"gateway": "provider"}})
    assert not is_gateway(trusted, "openai", "https://gateway.example/v1")
    foreign = CostConfig(providers={"openai": {"gateway": "foreign"}})
    assert is_gateway(foreign, "openai", "http://localhost:8000/v1")
    assert not is_gateway(foreign, "openai", "https://api.openai.com/v1")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_through_a_gateway_is_the_callers_body(stream, sim):
    client = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    bodies = []
    for each in (client, wrap_openai(client, pipeline())):
        answer = each.chat.completions.create(model="gpt-4.1", messages=ASKED, stream=stream, temperature=0)
        list(answer) if stream else answer
        bodies.append(sim.requests[-1].body)
    assert bodies[0] == bodies[1]
    governed = wrap_openai(client, pipeline(gateway="provider"))
    list(governed.chat.completions.create(model="gpt-4.1", messages=ASKED, stream=True))
    added = sim.requests[-1].body.keys() - {"model", "messages", "stream"}
    assert {"max_completion_tokens", "stream_options"} <= added


def test_responses_and_messages_through_a_gateway_are_the_callers_body(sim):
    gpt = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    claude = anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k")
    for plain, governed in (
        (gpt.responses.create, wrap_openai(gpt, pipeline()).responses.create),
        (claude.messages.create, wrap_anthropic(claude, pipeline()).messages.create),
    ):
        asked = (
            {"model": "gpt-4.1", "instructions": LONG, "input": "hi"}
            if plain == gpt.responses.create
            else {"model": "claude-haiku-4-5", "system": LONG, "messages": ASKED[1:], "max_tokens": 200}
        )
        bodies = [call(**asked) and sim.requests[-1].body for call in (plain, governed)]
        assert bodies[0] == bodies[1]


def test_a_hold_at_a_gateway_covers_the_most_that_the_model_gives(sim):
    client = openai.OpenAI(base_url=sim.openai_url, api_key="k")
    governed = pipeline()
    wrap_openai(client, governed).chat.completions.create(model="gpt-4.1", messages=ASKED[1:])
    quote = governed.records()[-1]
    assert quote.status == "exact"
    poor = pipeline(limit="0.05")  # 32,768 tokens of output cost $0.26
    wrap_openai(client, poor).chat.completions.create(model="gpt-4.1", messages=ASKED[1:])
    sent = sim.requests[-1].body
    assert 256 <= sent["max_tokens"] < 32_768  # the budget needs a cap: the field that every gateway knows
    with pytest.raises(BudgetExceededError):
        wrap_openai(client, pipeline(limit="0.0001")).chat.completions.create(model="gpt-4.1", messages=ASKED[1:])


def test_a_guarded_model_behind_a_gateway_sends_what_it_sends_alone(sim, monkeypatch):
    langchain_openai = pytest.importorskip("langchain_openai")
    from llm_cost_middleware.integrations.langchain import guard

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    plain = langchain_openai.ChatOpenAI(model="gpt-4.1", base_url=sim.openai_url, api_key="k", max_retries=0)
    bodies = []
    for each in (plain, guard(plain, pipeline(), pinned=True)):
        each.invoke([("system", LONG), ("user", "hi")])
        list(each.stream([("system", LONG), ("user", "hi")]))
        bodies.append([exchange.body for exchange in sim.requests[-2:]])
    assert bodies[0] == bodies[1]
