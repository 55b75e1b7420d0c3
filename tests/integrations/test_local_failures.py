"""What fails on this machine before anything was sent: it costs nothing, and is tried once, at every door.

Causes of many classes, none of them made up: arguments that cannot be encoded or read, packages that are not there,
warnings that were turned into errors. The provider's own count of requests decides what left.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings

import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import fill

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "hi"}]
MCP = [{"type": "mcp", "server_label": "x", "server_url": "litellm_proxy", "require_approval": "never"}]


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = {"a": value}
    return value


class Unprintable:
    """An object that no encoder knows."""

    def __repr__(self):
        raise KeyError("no text of it")


CAUSES = {
    "TypeError: an object": {"user": object()},
    "TypeError: a set": {"metadata": {"a": {1, 2}}},
    "KeyError: an object without a text": {"user": Unprintable()},
    "TypeError: stream options as text": {"stream": True, "stream_options": "x"},
    "UnicodeEncodeError: a lone surrogate": {"messages": [{"role": "user", "content": "\ud800"}]},
    "UnicodeEncodeError: a header": {"extra_headers": {"x-a": "\u20ac"}},
    "TypeError: a header": {"extra_headers": {"x-a": object()}},
    "ValueError: no JSON number": {"temperature": float("nan")},
    "RecursionError: nested too deep": {"metadata": nested(100_000)},
    "KeyError: a message without a role": {"messages": [{"content": "hi"}]},
    "AttributeError: messages as numbers": {"messages": [1, 2]},
    "ValueError: a role that is none": {"messages": [{"role": "nobody", "content": "hi"}]},
    "TypeError: tools as text": {"tools": "x"},
    "ImportError: tools that need a package": {"tools": MCP},
    "ValueError: a parameter that is not supported": {"reasoning_effort": "endless", "logit_bias": "x"},
    "AttributeError: metadata as a list": {"metadata": ["x"]},
}


@pytest.fixture
def pipeline(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    sim.responder = fill
    with CostPipeline(CostConfig(retry={"base_s": 0.01, "throttle_base_s": 0.01})) as made:
        yield made


@contextlib.contextmanager
def without(name):
    """As on a machine without a package."""
    kept = {each: sys.modules.pop(each) for each in list(sys.modules) if each.partition(".")[0] == name}
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(kept)


def check(door, arguments, sim, pipeline):
    """One call: where nothing reached the provider nothing is booked, held or tried again."""
    sim.reset()
    before, error = len(list(pipeline.ledger.rows())), None
    try:
        door(arguments)
    except Exception as raised:  # noqa: BLE001 - whatever the host makes of it
        error = raised
    judge(error, before, sim, pipeline)


async def acheck(door, arguments, sim, pipeline):
    """The same on this event loop."""
    sim.reset()
    before, error = len(list(pipeline.ledger.rows())), None
    try:
        answer = await door(arguments)
        if arguments.get("stream"):
            assert [chunk async for chunk in answer]
    except Exception as raised:  # noqa: BLE001 - whatever the host makes of it
        error = raised
    judge(error, before, sim, pipeline)


def judge(error, before, sim, pipeline):
    rows = list(pipeline.ledger.rows())[before:]
    assert pipeline.ledger.balance("global").pending_nanousd == 0
    if sim.request_count == 0:
        assert error is not None
        assert sum(row.amount_nanousd for row in rows if row.kind != "reserve") == 0, repr(error)
        assert [row.kind for row in rows].count("reserve") <= 1, "tried again"
    else:
        assert sim.request_count == 1


# --- the doors -------------------------------------------------------------------------------------------------------


async def drained(stream):
    return [chunk async for chunk in await stream]


def body(arguments, **cap):
    return {"messages": ASK, **cap, **arguments}


def for_responses(arguments):
    given = {name: value for name, value in arguments.items() if name not in ("messages", "stream_options")}
    return {"input": arguments.get("messages", "hi"), "max_output_tokens": 20, **given}


def sdk_doors(pipeline, clients, async_clients):
    gpt, claude = wrap_openai(clients["openai"], pipeline), wrap_anthropic(clients["anthropic"], pipeline)
    agpt = wrap_openai(async_clients["openai"], pipeline)
    aclaude = wrap_anthropic(async_clients["anthropic"], pipeline)
    small, haiku = {"model": "gpt-5-mini"}, {"model": "claude-haiku-4-5"}
    return {
        "openai chat": lambda a: gpt.chat.completions.create(**small, **body(a, max_completion_tokens=20)),
        "openai chat, async": lambda a: agpt.chat.completions.create(**small, **body(a, max_completion_tokens=20)),
        "openai responses": lambda a: gpt.responses.create(**small, **for_responses(a)),
        "openai responses, async": lambda a: agpt.responses.create(**small, **for_responses(a)),
        "anthropic": lambda a: claude.messages.create(**haiku, **body(a, max_tokens=20)),
        "anthropic, async": lambda a: aclaude.messages.create(**haiku, **body(a, max_tokens=20)),
    }


def router_doors(pipeline, sim):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    def deployment(name, model):
        url = sim.anthropic_url if model.startswith("anthropic") else sim.openai_url
        return {"model_name": name, "litellm_params": {"model": model, "api_base": url, "api_key": "k"}}

    router = CostAwareRouter(
        [deployment("openai", "openai/gpt-5-mini"), deployment("anthropic", "anthropic/claude-haiku-4-5")],
        pipeline=pipeline,
    )
    doors = {}
    for model in ("openai", "anthropic"):
        doors |= {
            f"completion {model}": lambda a, m=model: router.completion(m, **body(a, max_tokens=20)),
            f"completion {model}, stream": lambda a, m=model: list(
                router.completion(m, **{**body(a, max_tokens=20), "stream": True})
            ),
            f"acompletion {model}": lambda a, m=model: asyncio.run(router.acompletion(m, **body(a, max_tokens=20))),
            f"acompletion {model}, stream": lambda a, m=model: asyncio.run(
                drained(router.acompletion(m, **{**body(a, max_tokens=20), "stream": True}))
            ),
            f"responses {model}": lambda a, m=model: router.responses(model=m, **for_responses(a)),
            f"aresponses {model}": lambda a, m=model: asyncio.run(router.aresponses(model=m, **for_responses(a))),
            f"anthropic_messages {model}": lambda a, m=model: asyncio.run(
                router.anthropic_messages(model=m, **body(a, max_tokens=20))
            ),
        }
    return doors


def langchain_doors(pipeline, sim):
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    models = {
        "openai": guard(ChatOpenAI(model="gpt-5-mini", base_url=sim.openai_url, max_tokens=20), pipeline),
        "anthropic": guard(
            ChatAnthropic(model="claude-haiku-4-5", base_url=sim.anthropic_url, max_tokens=20), pipeline
        ),
    }

    def given(arguments):
        return {
            name: value for name, value in arguments.items() if name not in ("messages", "stream", "stream_options")
        }

    def text(arguments):
        return arguments.get("messages", ASK)

    async def astream(model, arguments):
        return [chunk async for chunk in model.astream(text(arguments), **given(arguments))]

    doors = {}
    for name, model in models.items():
        doors |= {
            f"invoke {name}": lambda a, m=model: m.invoke(text(a), **given(a)),
            f"ainvoke {name}": lambda a, m=model: asyncio.run(m.ainvoke(text(a), **given(a))),
            f"stream {name}": lambda a, m=model: list(m.stream(text(a), **given(a))),
            f"astream {name}": lambda a, m=model: asyncio.run(astream(m, a)),
        }
    return doors


ROUTER = [
    f"{way} {model}{stream}"
    for model in ("openai", "anthropic")
    for way in ("completion", "acompletion", "responses", "aresponses", "anthropic_messages")
    for stream in (("", ", stream") if "completion" in way else ("",))
]
CHAINS = [f"{way} {name}" for name in ("openai", "anthropic") for way in ("invoke", "ainvoke", "stream", "astream")]


def sampled(doors, step):
    """Every cause at some doors, each of them ``step`` from the next, in turn; at the others in the long form."""
    for number, cause in enumerate(CAUSES):
        for place, door in enumerate(doors):
            yield pytest.param(cause, door, marks=() if (number + place) % step == 0 else pytest.mark.soak)


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_wrapped_client_charges_nothing(cause, sim, pipeline, clients, async_clients):
    doors = sdk_doors(pipeline, clients, async_clients)
    for name, door in doors.items():
        if name.endswith("async"):
            await acheck(door, CAUSES[cause], sim, pipeline)
        else:
            check(lambda arguments, door=door: list(door(arguments)), CAUSES[cause], sim, pipeline)


@pytest.mark.parametrize(("cause", "door"), list(sampled(ROUTER, 7)))
def test_a_router_charges_nothing(cause, door, sim, pipeline):
    doors = router_doors(pipeline, sim)
    assert doors.keys() == set(ROUTER)
    with without("mcp"):
        check(doors[door], CAUSES[cause], sim, pipeline)


@pytest.mark.parametrize("door", ROUTER)
def test_a_package_that_is_missing_is_free_at_every_door_of_a_router(door, sim, pipeline):
    with without("mcp"):
        check(router_doors(pipeline, sim)[door], {"tools": MCP}, sim, pipeline)


@pytest.mark.parametrize(("cause", "door"), list(sampled(CHAINS, 4)))
def test_a_guarded_model_charges_nothing(cause, door, sim, pipeline):
    doors = langchain_doors(pipeline, sim)
    assert doors.keys() == set(CHAINS)
    check(doors[door], CAUSES[cause], sim, pipeline)


@pytest.mark.parametrize("door", ["completion openai", "acompletion anthropic", "aresponses openai"])
def test_a_warning_that_is_an_error_charges_nothing_at_a_router(door, sim, pipeline):
    doors = router_doors(pipeline, sim)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(doors[door], {"extra_headers": {"x": "1"}}, sim, pipeline)
