"""A governed client of an SDK that LiteLLM sends by: one of client, router and logger books."""

from __future__ import annotations

import asyncio
import itertools
import time

import litellm
import openai
import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.litellm import CostAwareRouter, CostLogger
from llm_cost_middleware.integrations.litellm.entry_points import FACADE
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Count to forty."}]
USAGE = {"stream_options": {"include_usage": True}}


def plain_router(sim, client):
    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = litellm.Router([{"model_name": "m", "litellm_params": params}], num_retries=0)
    if client is not None:  # LiteLLM copies what it is given, and a client cannot be copied
        router.model_list[0]["litellm_params"]["client"] = client
    return router


DOORS = {
    "function": lambda sim, client, pipeline: (
        lambda way, **given: getattr(litellm, way)(
            model="openai/gpt-5-mini", api_base=sim.openai_url, api_key="k", client=client, **given
        )
    ),
    "router": lambda sim, client, pipeline: (
        lambda way, **given: getattr(plain_router(sim, None), way)(model="m", client=client, **given)
    ),
    "deployment": lambda sim, client, pipeline: (
        lambda way, **given: getattr(plain_router(sim, client), way)(model="m", **given)
    ),
    "governed router": lambda sim, client, pipeline: (
        lambda way, **given: getattr(CostAwareRouter(plain_router(sim, None), pipeline=pipeline), way)(
            model="m", client=client, **given
        )
    ),
    "governed deployment": lambda sim, client, pipeline: (
        lambda way, **given: getattr(CostAwareRouter(plain_router(sim, client), pipeline=pipeline), way)(
            model="m", **given
        )
    ),
    "governed defaults": lambda sim, client, pipeline: (
        lambda way, **given: getattr(_with_default(plain_router(sim, None), client, pipeline), way)(model="m", **given)
    ),
}
if FACADE:  # from 1.110 on, LiteLLM copies a deployment, and the defaults, and a client cannot be copied
    DOORS = {name: DOORS[name] for name in ("function", "router", "governed router")}
GOVERNED = {name for name in DOORS if name.startswith("governed")}


def _with_default(router, client, pipeline):
    router.default_litellm_params = {**router.default_litellm_params, "client": client}
    return CostAwareRouter(router, pipeline=pipeline)


def wrapped(sim, pipeline, *, asynchronous, **options):
    kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
    return wrap_openai(kind(base_url=sim.openai_url, api_key="k", **options), pipeline)


def call(door, stream, **given):
    """One call of a synchronous door, and a while for LiteLLM's report of it."""
    answer = door("completion", messages=ASK, max_tokens=40, stream=stream, **(USAGE if stream else {}), **given)
    assert list(answer)
    time.sleep(0.3)


async def acall(door, stream, **given):
    answer = await door("acompletion", messages=ASK, max_tokens=40, stream=stream, **(USAGE if stream else {}), **given)
    if stream:
        assert [chunk async for chunk in answer]
    await asyncio.sleep(0.3)


def reported(harness):
    """Until LiteLLM, in a thread of its own, has reported what it reports; nothing is booked after that."""
    until = time.monotonic() + 20
    while harness.settled < harness.sim.bill.total_nanousd and time.monotonic() < until:
        time.sleep(0.02)


def run(door, stream, asynchronous, **given):
    if asynchronous:
        asyncio.run(acall(door, stream, **given))
    else:
        call(door, stream, **given)


@pytest.mark.parametrize(
    ("door", "stream", "asynchronous"), list(itertools.product(DOORS, [False, True], [False, True]))
)
@pytest.mark.parametrize("loggers", [1, *(pytest.param(number, marks=pytest.mark.soak) for number in (0, 2))])
def test_a_call_through_a_wrapped_client_is_booked_once(door, stream, asynchronous, loggers, harness, listeners):
    sim, pipeline = harness.sim, harness.pipeline
    listeners.extend(CostLogger(pipeline) for _ in range(loggers))
    client = wrapped(sim, pipeline, asynchronous=asynchronous)
    run(DOORS[door](sim, client, pipeline), stream, asynchronous)
    assert sim.request_count == 1
    used = not (door == "deployment" and not list(pipeline.records()))  # LiteLLM makes no use of a deployment's client
    if used or loggers:
        reported(harness)
        assert harness.settled == sim.bill.total_nanousd > 0


@pytest.mark.parametrize("asynchronous", [False, True])
def test_two_ledgers_book_one_call_each(asynchronous, harness, listeners):
    with CostPipeline(CostConfig()) as other:
        listeners.append(CostLogger(other))
        client = wrapped(harness.sim, harness.pipeline, asynchronous=asynchronous)
        run(DOORS["function"](harness.sim, client, harness.pipeline), True, asynchronous)
        harness.agree()
        assert other.ledger.balance("global").settled_nanousd == harness.sim.bill.total_nanousd


def test_a_call_after_one_that_is_reported_is_a_call_of_its_own(harness, listeners):
    """What LiteLLM announced last in this task is not what the caller, or a callback of his, sends next."""
    sim, pipeline = harness.sim, harness.pipeline
    listeners.append(CostLogger(pipeline))
    client = wrapped(sim, pipeline, asynchronous=False)
    sent = DOORS["function"](sim, None, pipeline)("completion", messages=ASK, max_tokens=40)
    client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=40)
    assert sent.usage.total_tokens
    reported(harness)
    assert harness.settled == sim.bill.total_nanousd > 0


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("door", sorted(GOVERNED))
def test_a_client_below_a_governed_call_sends_once(door, asynchronous, harness):
    """Its own retries, wrapped or not, would be sent under the hold of the first."""
    harness.sim.script(Fault.status(500), times=2)
    client = wrapped(harness.sim, harness.pipeline, asynchronous=asynchronous)
    run(DOORS[door](harness.sim, client, harness.pipeline), False, asynchronous, num_retries=2)
    assert harness.sim.request_count == 3
    opened = [row for row in harness.pipeline.ledger.rows() if row.kind == "reserve"]
    assert len(opened) == 3  # each attempt its own
    harness.agree()


def test_two_calls_of_one_id_are_two_bills(harness, listeners):
    """LiteLLM takes the id from its caller, and its proxy from a client's header."""
    listeners.append(CostLogger(harness.pipeline))
    door = DOORS["function"](harness.sim, None, harness.pipeline)
    for _ in range(2):
        call(door, False, litellm_call_id="the same" * 100)  # longer than the id of a row may be
    reported(harness)
    assert harness.settled == harness.sim.bill.total_nanousd > 0
    assert harness.sim.request_count == 2
