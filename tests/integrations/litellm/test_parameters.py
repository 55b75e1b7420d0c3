"""Every parameter at every target through LiteLLM: the routed name, the two SDK shapes, a forced model, the proxy."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import anthropic
import openai
import parameter_cases as cases
import pytest
from parameter_product import TARGETS, Outcomes, pipeline_to, product

from llm_cost_middleware.errors import BudgetExceededError, NoEligibleModelError
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Simulator

SAY = [{"role": "user", "content": cases.SAY}]


@pytest.fixture(scope="module")
def provider():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def routers(provider):
    """A governed router for each target, over one router of LiteLLM's."""
    import litellm

    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    urls = {"anthropic": provider.anthropic_url, "openai": provider.openai_url}
    entries = [
        {
            "model_name": model,
            "litellm_params": {"model": f"{maker}/{model}", "api_base": urls[maker], "api_key": "k"},
        }
        for maker, model in TARGETS
    ]
    held = litellm.Router(model_list=entries, num_retries=0)
    return {target: CostAwareRouter(held, pipeline=pipeline_to(target, provider)) for target in TARGETS}


@pytest.fixture
def soak(request):
    return request.config.getoption("--soak")


def test_a_routed_chat_carries_only_what_its_target_takes(routers, provider, soak):
    found = Outcomes()
    for _, value, target in product(cases.CHAT, TARGETS, soak):
        call = routers[target].completion
        found.note(
            f"{target[1]} {value}", lambda call=call, value=value: call("smart", **{"messages": SAY, **value}), provider
        )
    found.check("CostAwareRouter, chat")


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_a_routed_call_of_another_shape_carries_only_what_its_target_takes(endpoint, routers, provider, soak):
    names = cases.RESPONSES if endpoint == "responses" else cases.MESSAGES
    # each shape at home: LiteLLM makes a chat of a shape that is the other provider's
    targets = [target for target in TARGETS if (target[0] == "openai") == (endpoint == "responses")]
    found = Outcomes()
    with asyncio.Runner() as runner:

        async def ask(router, value):
            if endpoint == "responses":
                return await router.aresponses(**{"model": "smart", "input": cases.SAY, **value})
            return await router.anthropic_messages(**{"model": "smart", "messages": SAY, "max_tokens": 500, **value})

        async def drained(router, value):
            answer = await ask(router, value)
            if value.get("stream"):
                [chunk async for chunk in answer]

        for _, value, target in product(names, targets, soak):
            router = routers[target]
            found.note(
                f"{target[1]} {value}",
                lambda router=router, value=value: runner.run(drained(router, value)),
                provider,
            )
    found.check(f"CostAwareRouter, {endpoint}")


CONVERSATIONS = {
    "an empty message": {"messages": [{"role": "user", "content": ""}]},
    "a blank message": {"messages": [{"role": "user", "content": " \n"}]},
    "instructions alone": {"messages": [{"role": "system", "content": "Be brief."}]},
    "functions of old": {"messages": SAY, "functions": [cases.CHAT_TOOL["function"]]},
    "an effort over a low cap": {"messages": SAY, "reasoning_effort": "high", "max_tokens": 900},
    "an effort over a middling cap": {"messages": SAY, "reasoning_effort": "high", "max_tokens": 2_500},
    "one answer at a time": {"messages": SAY, "tools": [cases.CHAT_TOOL], "parallel_tool_calls": False},
}


@pytest.mark.parametrize("what", CONVERSATIONS)
def test_what_only_one_provider_takes_of_a_conversation_stays_there(what, routers, provider):
    found = Outcomes()
    for target in [target for target in TARGETS if target[0] == "anthropic"]:
        router = routers[target]
        found.note(
            f"{target[1]}", lambda router=router: router.completion("smart", **CONVERSATIONS[what]), provider
        )  # fmt: skip
    assert not found.wrong, found.wrong
    assert sum(found.values()) > 5
    if "effort" not in what and "one answer" not in what:
        assert found["refused before sending"] == sum(found.values())
    else:
        assert found["answered"] == sum(found.values())


def test_a_forced_model_is_sent_what_it_takes_or_refused(routers, provider):
    router = routers[("openai", "gpt-4.1-2025-04-14")]
    asked = provider.request_count
    forced = {"metadata": {"llm_cost": {"force_model": "openai/o4-mini-2025-04-16"}}}
    with pytest.raises(NoEligibleModelError, match="does not take stop"):
        router.completion("smart", messages=SAY, stop=["END"], **forced)
    assert provider.request_count == asked
    router.completion("smart", messages=SAY, max_tokens=300, temperature=0, **forced)
    sent = provider.requests[-1].body
    assert (sent["model"], sent["max_completion_tokens"]) == ("o4-mini-2025-04-16", 300)
    assert not {"max_tokens", "temperature"} & sent.keys()


@pytest.mark.parametrize(
    "thinking", [{"thinking": {"type": "enabled", "budget_tokens": 10_000}}, {"reasoning_effort": "max"}]
)
def test_a_cap_that_is_lowered_lowers_the_thinking_with_it(thinking, make_harness, sim):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.10"}])
    name = "claude-sonnet-4-5-20250929"
    router = harness.router([harness.deployment(name, f"anthropic/{name}")])
    router.completion(name, messages=SAY, max_tokens=20_000, **thinking)
    sent = sim.requests[-1].body
    assert 1_024 <= sent["thinking"]["budget_tokens"] < sent["max_tokens"] - 200 < 20_000
    poor = make_harness(budgets=[{"scope": "global", "limit": "0.012"}])
    with pytest.raises(BudgetExceededError):
        poor.router([poor.deployment(name, f"anthropic/{name}")]).completion(
            name, messages=SAY, max_tokens=20_000, **thinking
        )


ROUTED = [("proxy", "smart")]
"""The one name that the proxy routes; its tiers decide where a call goes."""


def through_the_proxy(gpt, claude, endpoint, value):
    if endpoint == "chat.completions":
        return gpt.chat.completions.create(**{"model": "smart", "messages": SAY, **value})
    if endpoint == "responses":
        return gpt.responses.create(**{"model": "smart", "input": cases.SAY, **value})
    declared = {"tools", "tool_choice", "thinking", "system", "metadata", "stream", "stop_sequences", "service_tier"}
    extra = {name: value[name] for name in value if name not in {*declared, "messages", "max_tokens"}}
    own = {name: value[name] for name in value if name not in extra}
    return claude.messages.create(**{"model": "smart", "messages": SAY, "max_tokens": 500, **own}, extra_body=extra)


@pytest.mark.parametrize(
    ("endpoint", "names"),
    [("chat.completions", cases.CHAT), ("responses", cases.RESPONSES), ("messages", cases.MESSAGES)],
    ids=["chat", "responses", "messages"],
)
def test_a_call_that_the_proxy_routes_carries_only_what_its_target_takes(endpoint, names, proxy, soak):
    found = Outcomes(refusals=(openai.APIStatusError, anthropic.APIStatusError))
    with proxy.gpt() as gpt, proxy.claude() as claude:
        for _, value, _ in product(names, ROUTED, soak):
            found.note(
                f"{endpoint} {value}",
                lambda value=value: through_the_proxy(gpt, claude, endpoint, value),
                proxy.sim,
            )
    found.check(f"proxy, {endpoint}")


def test_the_proxy_refuses_a_parameter_that_nobody_knows(proxy):
    with proxy.gpt() as client, pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="smart", messages=SAY, extra_body={"some_new_parameter": 1})
    assert refused.value.status_code in (400, 422)


def test_a_group_behind_a_gateway_is_sent_what_litellm_sends_alone(make_harness, sim):
    import litellm

    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    harness = make_harness(cache={"mode": "system"})
    bodies = []
    for gateway in ("foreign", "provider"):
        config = harness.pipeline.config
        providers = {**config.providers, "openai": replace(config.providers["openai"], gateway=gateway)}
        pipeline = CostPipeline(replace(config, providers=providers))
        entry = harness.deployment("mine", "openai/gpt-4.1")
        held = litellm.Router(model_list=[entry], num_retries=0)
        long = [{"role": "system", "content": "You know everything about Prague. " * 900}, *SAY]
        for each in (held, CostAwareRouter(held, pipeline=pipeline)):
            each.completion("mine", messages=long)
            bodies.append(sim.requests[-1].body)
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[3].keys() - bodies[2].keys() >= {"max_completion_tokens"}


LONG = [{"role": "system", "content": "You know everything about Prague. " * 900}, *SAY]
WAYS = {
    "chat": ("openai/gpt-4.1", lambda router, name: router.completion(name, messages=LONG)),
    "chat stream": ("openai/gpt-4.1", lambda router, name: list(router.completion(name, messages=LONG, stream=True))),
    "async chat": ("openai/gpt-4.1", lambda router, name: asyncio.run(router.acompletion(name, messages=LONG))),
    "responses": ("openai/gpt-4.1", lambda router, name: router.responses(model=name, input="Prague?")),
    "claude": ("anthropic/claude-sonnet-4-6", lambda router, name: router.completion(name, messages=LONG)),
    "messages": (
        "anthropic/claude-sonnet-4-6",
        lambda router, name: asyncio.run(
            router.anthropic_messages(model=name, messages=SAY, system=LONG[0]["content"], max_tokens=300)
        ),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_routed_call_adds_nothing_where_its_target_is_behind_a_gateway(way, make_harness, sim):
    import litellm

    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    model, call = WAYS[way]
    provider = model.partition("/")[0]
    harness = make_harness(cache={"mode": "system"}, tiers=[{"name": "one", "models": [model]}])
    config, bodies = harness.pipeline.config, {}
    held = litellm.Router(model_list=[harness.deployment("mine", model)], num_retries=0)
    call(held, "mine")
    bodies["alone"] = sim.requests[-1].body
    for gateway in ("foreign", "provider"):
        providers = {**config.providers, provider: replace(config.providers[provider], gateway=gateway)}
        with CostPipeline(replace(config, providers=providers)) as pipeline:
            call(CostAwareRouter(held, pipeline=pipeline), "smart")
            bodies[gateway] = next(each.body for each in reversed(sim.requests) if "count_tokens" not in each.path)
            assert {record.status for record in pipeline.records()} <= {"exact", "estimated"}
    assert bodies["foreign"] == bodies["alone"]
    assert bodies["provider"] != bodies["alone"]
