"""Settings of a client, a call or a deployment that no request can be sent with: nothing is charged, once is enough.

The values are of a wrong type, of a wrong length, out of range, or broken; at every door that takes them. The
simulator's own count of requests decides what left.
"""

from __future__ import annotations

import asyncio

import anthropic
import httpx
import openai
import pytest

from llm_cost_middleware import CostTracker, aprocess, process
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import fill

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "hi"}]
SDK = {"openai": openai, "anthropic": anthropic}
WRAP = {"openai": wrap_openai, "anthropic": wrap_anthropic}
TIMEOUTS = ["30", "abc", -1, 0, (5,), (1, 2, 3, 4, 5), (5, "x", 5, 5), float("nan"), [5], {"a": 1}, b"5"]
AT_CALL = {
    **{f"timeout {timeout!r}": {"timeout": timeout} for timeout in TIMEOUTS},
    "headers as a list": {"extra_headers": ["x"]},
    "a header of two lines": {"extra_headers": {"x": "a\nb"}},
    "a body as a list": {"extra_body": [1]},
}
AT_CLIENT = {
    **{f"timeout {timeout!r}": {"timeout": timeout} for timeout in TIMEOUTS},
    "an address without a scheme": {"base_url": "127.0.0.1/v1"},
    "another scheme": {"base_url": "ftp://127.0.0.1/v1"},
    "a key of two lines": {"api_key": "k\n"},
    "a header of two lines": {"default_headers": {"x": "a\nb"}},
    "a header as a number": {"default_headers": {"x": 5}},
    "a client that is closed": {"http_client": "closed"},
}


@pytest.fixture
def pipeline(sim):
    sim.responder = fill
    with CostPipeline(CostConfig(retry={"base_s": 0.001, "throttle_base_s": 0.001})) as made:
        yield made


def made_client(provider, kind, sim, given):
    """A client of an SDK with such a setting; ``None`` where the SDK itself refuses it."""
    sdk = SDK[provider]
    if given.get("http_client") == "closed":
        inner = sdk.DefaultAsyncHttpxClient() if kind == "async" else sdk.DefaultHttpxClient()
        asyncio.run(inner.aclose()) if kind == "async" else inner.close()
        given = {"http_client": inner}
    url = sim.openai_url if provider == "openai" else sim.anthropic_url
    name = {"openai": "OpenAI", "anthropic": "Anthropic"}[provider]
    try:
        return getattr(sdk, f"Async{name}" if kind == "async" else name)(**{"base_url": url, "api_key": "k", **given})
    except (TypeError, ValueError, IndexError):
        return None


def ask(provider, client, **given):
    if provider == "openai":
        return client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=20, **given)
    return client.messages.create(model="claude-haiku-4-5", messages=ASK, max_tokens=20, **given)


def judge(call, sim, pipeline):
    """One call that cannot be made: its error, no request, nothing booked or pending, and nothing tried again."""
    before = len(list(pipeline.ledger.rows()))
    with pytest.raises(Exception, match=r""):  # whatever the host makes of it
        call()
    rows = [row.kind for row in list(pipeline.ledger.rows())[before:]]
    assert sim.request_count == 0
    assert rows in ([], ["reserve", "void"])
    assert pipeline.ledger.balance("global").pending_nanousd == 0


def sampled(causes, doors, step):
    """Every cause at some of the doors, in turn; at the others in the long form."""
    for number, cause in enumerate(causes):
        for place, door in enumerate(doors):
            yield pytest.param(cause, door, marks=() if (number + place) % step == 0 else pytest.mark.soak)


CLIENTS = [(provider, kind, way) for provider in SDK for kind in ("sync", "async") for way in ("wrapped", "process")]


@pytest.mark.parametrize(("cause", "door"), list(sampled(AT_CLIENT, CLIENTS, 3)))
def test_a_client_that_can_send_nothing_costs_nothing(cause, door, sim, pipeline):
    provider, kind, way = door
    if (client := made_client(provider, kind, sim, AT_CLIENT[cause])) is None:
        return
    if way == "process":
        run = aprocess if kind == "async" else process
        call = lambda: run("hi", pipeline, CostTracker(None), client=client)
    else:
        call = lambda: ask(provider, WRAP[provider](client, pipeline))
    judge((lambda: asyncio.run(call())) if kind == "async" else call, sim, pipeline)


CALLS = [(provider, kind) for provider in SDK for kind in ("sync", "async")]


@pytest.mark.parametrize(("cause", "door"), list(sampled(AT_CALL, CALLS, 2)))
def test_a_call_that_cannot_be_sent_costs_nothing(cause, door, sim, pipeline):
    provider, kind = door
    client = WRAP[provider](made_client(provider, kind, sim, {}), pipeline)
    given = AT_CALL[cause]
    if kind == "sync":
        judge(lambda: ask(provider, client, **given), sim, pipeline)
    else:
        judge(lambda: asyncio.run(_awaited(ask, provider, client, **given)), sim, pipeline)


async def _awaited(ask, *args, **given):
    return await ask(*args, **given)


def refuse(request):
    raise TypeError("no credentials")


@pytest.mark.parametrize("provider", SDK)
@pytest.mark.parametrize("kind", ["event_hooks", "auth"])
def test_what_fails_before_the_request_leaves_costs_nothing(provider, kind, sim, pipeline):
    given = {"event_hooks": {"request": [refuse]}, "auth": refuse}[kind]  # a function is httpx's plainest Auth
    http = SDK[provider].DefaultHttpxClient(**{kind: given})
    client = made_client(provider, "sync", sim, {"http_client": http})
    judge(lambda: ask(provider, WRAP[provider](client, pipeline)), sim, pipeline)


@pytest.mark.parametrize("provider", SDK)
def test_a_hook_that_fails_after_the_request_left_is_booked_once(provider, sim, pipeline):
    http = SDK[provider].DefaultHttpxClient(event_hooks={"response": [refuse]})
    with pytest.raises(Exception, match=r""):
        ask(provider, WRAP[provider](made_client(provider, "sync", sim, {"http_client": http}), pipeline))
    assert pipeline.ledger.balance("global").settled_nanousd >= sim.bill.total_nanousd > 0


@pytest.mark.parametrize("timeout", ["30", -1, (5,)])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_batch_that_cannot_be_created_costs_nothing(timeout, kind, sim, pipeline):
    client = wrap_anthropic(made_client("anthropic", kind, sim, {}), pipeline)
    params = {"model": "claude-haiku-4-5", "messages": ASK, "max_tokens": 20}
    create = lambda: client.messages.batches.create(requests=[{"custom_id": "a", "params": params}], timeout=timeout)
    judge(create if kind == "sync" else lambda: asyncio.run(_awaited(create)), sim, pipeline)


@pytest.mark.parametrize("provider", SDK)
@pytest.mark.parametrize("timeout", [-1, 0, (5, 0, 5, 5)])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_guarded_model_with_such_a_timeout_costs_nothing(provider, timeout, way, sim, pipeline):
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard

    if provider == "openai":
        model = ChatOpenAI(model="gpt-5-mini", base_url=sim.openai_url, api_key="k", max_tokens=20)
    else:
        model = ChatAnthropic(model="claude-haiku-4-5", base_url=sim.anthropic_url, api_key="k", max_tokens=20)
    guarded = guard(model, pipeline)
    call = lambda: guarded.invoke("hi", timeout=timeout)
    judge(call if way == "invoke" else lambda: asyncio.run(guarded.ainvoke("hi", timeout=timeout)), sim, pipeline)


@pytest.mark.parametrize("timeout", [(5, 5), (5, 6, 7, 8), (None, 5), 5, 5.5, None, "httpx"])
def test_what_the_sdk_takes_as_a_timeout_is_served(timeout, sim, pipeline):
    if timeout == "httpx":
        timeout = openai.Timeout(5)
    client = wrap_openai(made_client("openai", "sync", sim, {}), pipeline)
    assert ask("openai", client, timeout=timeout).usage.total_tokens
    assert ask("openai", wrap_openai(made_client("openai", "sync", sim, {"timeout": timeout}), pipeline)).usage


def test_a_loop_that_ended_does_not_end_its_client(sim, pipeline):
    """Connections of the loop before are met and dropped: nothing was sent over them."""
    client = wrap_anthropic(made_client("anthropic", "async", sim, {}), pipeline)
    for _ in range(3):
        assert asyncio.run(_awaited(ask, "anthropic", client)).usage.output_tokens
    assert pipeline.ledger.balance("global").settled_nanousd >= sim.bill.total_nanousd


# --- LiteLLM's router ------------------------------------------------------------------------------------------------


async def drained(stream):
    return [chunk async for chunk in await stream]


def chat(given):
    return {"messages": ASK, "max_tokens": 20, **given}


def responses(given):
    return {"input": "hi", "max_output_tokens": 20, **given}


ROUTER = {
    "completion": lambda router, model, a: router.completion(model, **chat(a)),
    "stream": lambda router, model, a: list(router.completion(model, **chat(a), stream=True)),
    "acompletion": lambda router, model, a: asyncio.run(router.acompletion(model, **chat(a))),
    "astream": lambda router, model, a: asyncio.run(drained(router.acompletion(model, **chat(a), stream=True))),
    "responses": lambda router, model, a: router.responses(model=model, **responses(a)),
    "aresponses": lambda router, model, a: asyncio.run(router.aresponses(model=model, **responses(a))),
    "messages": lambda router, model, a: asyncio.run(router.anthropic_messages(model=model, **chat(a))),
}
UNFIT = {
    **{f"timeout {timeout!r}": {"timeout": timeout} for timeout in ("abc", -1, 0, float("nan"), "-1")},
    "request_timeout": {"request_timeout": -1},
    "stream_timeout": {"stream_timeout": "abc"},
    "a key of two lines": {"api_key": "k\nk"},
    "a header of two lines": {"extra_headers": {"x": "a\nb"}},
    "an address without a scheme": {"api_base": "127.0.0.1/v1"},
    "another scheme": {"api_base": "ftp://127.0.0.1/v1"},
    "half an address": {"api_base": "http://[::1/v1"},
}
PLACES = [(where, way, model) for where in ("call", "deployment") for way in ROUTER for model in SDK]


def router_of(sim, pipeline, **params):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    models = {"openai": ("openai/gpt-5-mini", sim.openai_url),
              "anthropic": ("anthropic/claude-haiku-4-5", sim.anthropic_url)}  # fmt: skip
    return CostAwareRouter(
        [
            {"model_name": name, "litellm_params": {"model": model, "api_base": url, "api_key": "k", **params}}
            for name, (model, url) in models.items()
        ],
        pipeline=pipeline,
    )


@pytest.mark.parametrize(("cause", "place"), list(sampled(UNFIT, PLACES, 7)))
def test_a_router_that_can_send_nothing_costs_nothing(cause, place, sim, pipeline):
    where, way, model = place
    router = router_of(sim, pipeline, **(UNFIT[cause] if where == "deployment" else {}))
    judge(lambda: ROUTER[way](router, model, UNFIT[cause] if where == "call" else {}), sim, pipeline)


@pytest.mark.parametrize("way", [name for name in ROUTER if name.startswith("a") or name == "messages"])
@pytest.mark.parametrize("model", SDK)
def test_a_port_that_is_none_costs_nothing_and_is_tried_once(way, model, sim, pipeline):
    router = router_of(sim, pipeline, api_base="http://127.0.0.1:99999/v1")
    judge(lambda: ROUTER[way](router, model, {}), sim, pipeline)


@pytest.mark.parametrize("timeout", [-1, 0, "abc"])
@pytest.mark.parametrize("name", ["timeout", "stream_timeout"])
def test_a_routers_own_timeout_is_looked_at(name, timeout, sim, pipeline):
    router = router_of(sim, pipeline)
    setattr(router, name, timeout)
    judge(lambda: ROUTER["astream"](router, "anthropic", {}), sim, pipeline)


@pytest.mark.parametrize("timeout", ["30", 30, httpx.Timeout(30), None])
@pytest.mark.parametrize("way", ROUTER)
def test_what_litellm_takes_as_a_timeout_is_served(timeout, way, sim, pipeline):
    assert ROUTER[way](router_of(sim, pipeline), "openai", {"timeout": timeout})
    assert sim.request_count == 1


CLIENTS_OF = {
    "AsyncAnthropic": (None, lambda sim: anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="k")),
    "OpenAI": (False, lambda sim: openai.OpenAI(base_url=sim.openai_url, api_key="k")),
    "AsyncOpenAI": (True, lambda sim: openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k")),
}


@pytest.mark.parametrize("way", ROUTER)
@pytest.mark.parametrize("model", SDK)
@pytest.mark.parametrize("kind", CLIENTS_OF)
def test_a_client_of_the_wrong_kind_is_refused_or_not_needed(way, model, kind, sim, pipeline):
    """LiteLLM would send by it, and raise once the answer is there."""
    asynchronous, make = CLIENTS_OF[kind]
    used = asynchronous is not None and model == "openai" and way in ("completion", "stream", "acompletion", "astream")
    router, client = router_of(sim, pipeline), make(sim)
    if used and asynchronous is not way.startswith("a"):
        judge(lambda: ROUTER[way](router, model, {"client": client}), sim, pipeline)
    else:
        assert ROUTER[way](router, model, {"client": client})
        assert sim.request_count == 1
    assert (
        client.max_retries == openai.DEFAULT_MAX_RETRIES == anthropic.DEFAULT_MAX_RETRIES
    )  # LiteLLM writes into the one that it is given


@pytest.mark.parametrize(("way", "kind"), [("acompletion", "HTTPHandler"), ("completion", "AsyncHTTPHandler")])
@pytest.mark.parametrize("model", SDK)
def test_a_transport_of_the_wrong_kind_is_refused(way, kind, model, sim, pipeline):
    from litellm.llms.custom_httpx import http_handler

    client = getattr(http_handler, kind)()
    judge(lambda: ROUTER[way](router_of(sim, pipeline), model, {"client": client}), sim, pipeline)


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("model", SDK)
def test_what_fails_here_after_it_was_sent_is_booked_once_and_not_sent_again(way, model, sim, pipeline):
    """An argument that LiteLLM reads only when the answer is there: it loses the answer of each attempt."""
    with pytest.raises(Exception, match="api_version"):
        ROUTER[way](router_of(sim, pipeline), model, {"api_version": object()})
    assert sim.request_count == 1
    (record,) = pipeline.records()
    assert (record.status, pipeline.ledger.balance("global").pending_nanousd) == ("unconfirmed", 0)
    assert record.cost_nanousd >= sim.bill.total_nanousd > 0
