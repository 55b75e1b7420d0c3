"""A cache mark changes nothing but the mark, in every host: what goes out is what goes out without a plan.

Growing conversations of every kind of message are sent twice through each host, with caching and with it switched off,
to a provider that refuses what Claude and GPT refuse. The one thing that is taken as the same is what Anthropic's
reference calls a shorthand: a message or a system prompt that is a text, and the list of that one text block.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import warnings
from itertools import combinations

import pytest
from conversations import (
    CALLERS,
    CLAUDE,
    RESULTS,
    chat_body,
    langchain_call,
    marks,
    messages_body,
    prompt,
    shapes,
    spelled_out,
    words,
)
from hypothesis import HealthCheck, example, given, settings

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, SimClock, Simulator

GPT = "gpt-5.6-sol"


class Hosts:
    """The same call through each host, with caching and without."""

    def __init__(self, sim):
        providers = {
            "anthropic": {"base_url": sim.anthropic_url, "api_key_env": "MARKS_KEY"},
            "openai": {"base_url": sim.openai_url, "api_key_env": "MARKS_KEY"},
        }
        tiers = [{"name": "only", "models": [f"anthropic/{CLAUDE}"]}]
        self.sim = sim
        self.pipelines = {
            mode: CostPipeline(CostConfig(providers=providers, tiers=tiers, cache={"mode": mode}))
            for mode in ("auto", "off")
        }
        hour = CostConfig(providers=providers, tiers=tiers, cache={"mode": "auto", "ttl": "1h"})
        self.pipelines["hour"] = CostPipeline(hour)
        self._kept = {}

    def _one(self, name, mode, make):
        if (name, mode) not in self._kept:
            self._kept[name, mode] = make(self.pipelines[mode])
        return self._kept[name, mode]

    def sdk(self, body, mode):
        import anthropic

        client = self._one(
            "sdk",
            mode,
            lambda p: wrap_anthropic(
                anthropic.Anthropic(base_url=self.sim.anthropic_url, api_key="k", max_retries=0), p
            ),
        )
        client.messages.create(**body)

    def guard(self, body, mode):
        from langchain_anthropic import ChatAnthropic

        from llm_cost_middleware.integrations.langchain import guard

        model = self._one(
            "guard",
            mode,
            lambda p: guard(
                ChatAnthropic(model=CLAUDE, base_url=self.sim.anthropic_url, api_key="k", max_tokens=20, max_retries=0),
                p,
            ),
        )
        messages, tools, more = langchain_call(body)
        model.bind_tools(tools).invoke(messages, **more)

    def instrument(self, body, mode):
        from langchain_anthropic import ChatAnthropic

        from llm_cost_middleware.integrations.langchain import instrument

        messages, tools, more = langchain_call(body)
        model = ChatAnthropic(model=CLAUDE, base_url=self.sim.anthropic_url, api_key="k", max_tokens=20, max_retries=0)
        chain = instrument(model.bind_tools(tools), self.pipelines[mode])
        chain.invoke(messages, **more)

    def middleware(self, body, mode):
        from langchain.agents.middleware import ModelRequest, ModelResponse
        from langchain_anthropic import ChatAnthropic
        from langgraph.runtime import Runtime

        from llm_cost_middleware.integrations.langchain import CostMiddleware

        messages, tools, more = langchain_call(body)
        model = ChatAnthropic(model=CLAUDE, base_url=self.sim.anthropic_url, api_key="k", max_tokens=20, max_retries=0)
        system = messages.pop(0) if "system" in body else None
        asked = ModelRequest(
            model=model, messages=messages, system_message=system, tools=tools, tool_choice=None, response_format=None,
            state={}, runtime=Runtime(), model_settings=more,
        )  # fmt: skip

        def handler(request):
            bound = request.model.bind_tools(request.tools, **request.model_settings)
            head = [request.system_message] if request.system_message else []
            return ModelResponse(result=[bound.invoke([*head, *request.messages])])

        self._one("middleware", mode, CostMiddleware).wrap_model_call(asked, handler)

    def _router(self, mode):
        from llm_cost_middleware.integrations.litellm import CostAwareRouter

        deployment = {"model": f"anthropic/{CLAUDE}", "api_base": self.sim.anthropic_url, "api_key": "k"}
        models = [{"model_name": "a", "litellm_params": deployment}]
        return self._one("router", mode, lambda p: CostAwareRouter(models, pipeline=p))

    def router(self, body, mode):
        self._router(mode).completion("a", **chat_body(body))

    def router_messages(self, body, mode):
        asyncio.run(self._router(mode).aanthropic_messages(**{**body, "model": "a"}))

    def close(self):
        for (name, _), kept in self._kept.items():
            if name == "router":
                with contextlib.suppress(AttributeError):
                    kept.discard()
        for pipeline in self.pipelines.values():
            pipeline.close()


@pytest.fixture(scope="module")
def hosts(monkeypatch_module):
    clock = SimClock()
    with Simulator(responder=lambda _: Answer(text="ok", output_tokens=1), clock=clock) as sim:
        made = Hosts(sim)
        yield made
        made.close()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MARKS_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
            patch.setenv(name, "k")
        patch.delenv("ANTHROPIC_BASE_URL", raising=False)
        patch.delenv("ANTHROPIC_API_URL", raising=False)
        yield


def check(hosts, name, shape, mode="auto"):
    """Send every turn with caching in a mode and without, and compare."""
    if name == "router":
        # In this shape LiteLLM knows no server tools of Anthropic's; it puts words in place of an empty content.
        shape = {**shape, "search": False, "callers": shape["callers"] - {"top"}}
    sent, before = {mode: [], "off": []}, None
    for upto in range(len(shape["turns"])):
        for each, bodies in sent.items():
            body = messages_body(shape, upto)
            kept = copy.deepcopy(body)
            hosts.sim.reset(caches=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(hosts, name)(body, each)
            assert body == kept
            assert [exchange.status for exchange in hosts.sim.requests] == [200]
            bodies.append(hosts.sim.requests[0].body)
        planned, off = sent[mode][-1], sent["off"][-1]
        assert json.dumps(spelled_out(planned)) == json.dumps(spelled_out(off))
        assert marks(planned) <= 4
        assert marks(off) <= marks(planned)
        assert not [tool for tool in planned["tools"] if "cache_control" in tool and tool.get("defer_loading")]
        now = prompt(spelled_out(planned))
        if before is not None and before[0] == shape:
            assert now[: len(before[1])] == before[1]
        before = shape, now
    return sent


EVERY_RESULT = {
    "system": "text", "tools": 2, "deferred": 1, "search": False, "callers": set(),
    "turns": [("ask", "text"), *(("results", [kind]) for kind in RESULTS), ("ask", "blocks"), ("ask", "text")],
}  # fmt: skip
LANGCHAIN = ("guard", "instrument", "middleware")
ROUTERS = ("router", "router_messages")
slowly = settings(
    max_examples=8, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@given(shape=shapes())
@example(shape=EVERY_RESULT)
@slowly
def test_through_a_wrapped_client(hosts, shape):
    check(hosts, "sdk", shape)


@pytest.mark.parametrize("name", LANGCHAIN)
@given(shape=shapes())
@example(shape=EVERY_RESULT)
@slowly
def test_through_langchain(hosts, name, shape):
    pytest.importorskip("langchain_anthropic", reason="needs the demo extra: langchain-anthropic")
    check(hosts, name, shape)


@pytest.mark.litellm
@pytest.mark.parametrize("name", ROUTERS)
@given(shape=shapes())
@example(shape=EVERY_RESULT)
@slowly
def test_through_a_router(hosts, name, shape):
    check(hosts, name, shape)


CELLS = [
    (host, frozenset(callers), hour, mode)
    for host in ("sdk", *LANGCHAIN, *ROUTERS)
    for size in range(5)
    for callers in combinations(CALLERS, size)
    for hour in range(size + 1)
    for mode in ("auto", "hour")
]
"""Every host, up to four marks of the caller's, so many of them for an hour; our plan for any lifetime or an hour."""


def sampled(cells, every=23):
    """One in so many, the rest with ``--soak``."""
    return [cell if at % every == 0 else pytest.param(*cell, marks=pytest.mark.soak) for at, cell in enumerate(cells)]


@pytest.mark.litellm
@pytest.mark.parametrize(("name", "callers", "hour", "mode"), sampled(CELLS))
def test_with_every_choice_of_the_callers_marks(hosts, name, callers, hour, mode):
    """The provider refuses a fifth mark, one on a deferred tool, and one for an hour behind one for five minutes."""
    pytest.importorskip("langchain_anthropic", reason="needs the demo extra: langchain-anthropic")
    turns = [("ask", "blocks"), ("results", ["one block", "text"]), ("ask", "text")]
    shape = {"system": "blocks", "tools": 2, "deferred": 1, "search": True, "turns": turns, "callers": callers}
    check(hosts, name, {**shape, "hour": hour}, mode)


def test_marks_do_go_out_and_stand_on_the_tool_result_itself(hosts):
    """What is compared above must not be two bodies without marks."""
    sent = check(hosts, "sdk", EVERY_RESULT)["auto"]
    found = [
        block
        for body in sent
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if "cache_control" in block
    ]
    assert {block["type"] for block in found} >= {"tool_result"}
    assert all(marks(block.get("content")) == 0 for block in found)


def openai_bodies():
    """A growing chat, and the same as items of the Responses API."""
    messages = [{"role": "system", "content": words("system")}]
    items = [{"role": "developer", "content": words("system")}]
    for turn in range(5):
        messages.append({"role": "user", "content": words(f"q{turn}")})
        items.append({"role": "user", "content": words(f"q{turn}")})
        yield copy.deepcopy(messages), copy.deepcopy(items)
        messages.append({"role": "assistant", "content": f"a{turn}"})
        items.append({"role": "assistant", "content": f"a{turn}"})


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_through_a_wrapped_openai_client(hosts, endpoint):
    import openai

    with openai.OpenAI(base_url=hosts.sim.openai_url, api_key="k", max_retries=0) as client:
        wrapped = {mode: wrap_openai(client, pipeline) for mode, pipeline in hosts.pipelines.items()}
        before = []
        for messages, items in openai_bodies():
            sent = {}
            for mode, one in wrapped.items():
                hosts.sim.reset(caches=False)
                if endpoint == "chat":
                    one.chat.completions.create(model=GPT, messages=messages)
                else:
                    one.responses.create(model=GPT, input=items)
                sent[mode] = copy.deepcopy(hosts.sim.requests[0].body)
                if endpoint == "responses":  # one comparison for both shapes
                    sent[mode]["messages"] = [
                        {**each, "content": _as_text(each["content"])} for each in sent[mode].pop("input")
                    ]
            assert json.dumps(spelled_out(sent["auto"])) == json.dumps(spelled_out(sent["off"]))
            now = prompt(spelled_out(sent["auto"]))
            assert now[: len(before)] == before
            before = now


def _as_text(content):
    if isinstance(content, list):
        return [{**block, "type": "text"} if block["type"] == "input_text" else block for block in content]
    return content
