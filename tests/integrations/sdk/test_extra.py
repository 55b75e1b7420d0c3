"""``extra={"llm_cost": {...}}``: heard by every governed method, and by nobody behind it."""

from __future__ import annotations

import inspect
import json
from operator import attrgetter

import anthropic
import openai
import pytest

from llm_cost_middleware.errors import ConfigurationError, UnknownKeyError
from llm_cost_middleware.integrations.anthropic.convert import API as CLAUDE
from llm_cost_middleware.integrations.openai.convert import API as GPT
from llm_cost_middleware.simulator import echo

ASK = [{"role": "user", "content": "Count to forty."}]
SAID = {"llm_cost": {"user": "42"}}
BODIES = {
    "anthropic": {"model": "claude-haiku-4-5", "max_tokens": 40, "messages": ASK},
    "chat": {"model": "gpt-5-mini", "max_completion_tokens": 40, "messages": ASK},
    "responses": {"model": "gpt-5.1", "max_output_tokens": 40, "input": "Count to forty."},
}
DOORS = [
    ("anthropic", "messages", "anthropic"),
    ("anthropic", "beta.messages", "anthropic"),
    ("openai", "chat.completions", "chat"),
    ("openai", "beta.chat.completions", "chat"),
    ("openai", "responses", "responses"),
]
every_door = pytest.mark.parametrize(("sdk", "path", "body"), DOORS, ids=[door[1] for door in DOORS])


def heard(harness, calls):
    """The calls were booked under what they said, and nothing of that was sent."""
    assert harness.pipeline.ledger.balance("user:42").settled_nanousd == harness.sim.bill.total_nanousd > 0
    assert harness.sim.request_count == calls
    assert all("llm_cost" not in repr((request.body, request.headers)) for request in harness.sim.requests)
    assert all("extra" not in request.body for request in harness.sim.requests)
    harness.agree()


@pytest.fixture
def harness(harness, sim):
    sim.responder = echo  # an answer cut at its cap is an error to the helpers that parse
    return harness


@every_door
def test_every_method_hears_it_and_sends_nothing_of_it(sdk, path, body, harness, clients):
    resource = attrgetter(path)(harness.wrap(clients)[sdk])
    kwargs = BODIES[body]
    resource.create(**kwargs, extra=SAID)
    list(resource.create(**kwargs, stream=True, extra=SAID))
    with resource.stream(**kwargs, extra=SAID) as stream:
        for _ in stream:
            pass
    resource.parse(**kwargs, extra=SAID)
    resource.with_raw_response.create(**kwargs, extra=SAID)
    heard(harness, 5)


@every_door
async def test_asynchronous_methods_hear_it_too(sdk, path, body, harness, async_clients):
    resource = attrgetter(path)(harness.wrap(async_clients)[sdk].with_options(timeout=30))
    kwargs = BODIES[body]
    await resource.create(**kwargs, extra=SAID)
    async for _ in await resource.create(**kwargs, stream=True, extra=SAID):
        pass
    async with resource.stream(**kwargs, extra=SAID) as stream:
        async for _ in stream:
            pass
    await resource.parse(**kwargs, extra=SAID)
    await resource.with_raw_response.create(**kwargs, extra=SAID)
    heard(harness, 5)


def test_tool_runners_send_the_attributes_with_every_turn(harness, clients):
    runner = harness.wrap(clients)["anthropic"].beta.messages.tool_runner(
        **BODIES["anthropic"], tools=[], thread=False, extra=SAID
    )
    assert runner.until_done().content
    heard(harness, 1)


def test_batches_hear_it(harness, clients):
    wrapped = harness.wrap(clients)
    body = BODIES["anthropic"]
    for claude in (wrapped["anthropic"].messages.batches, wrapped["anthropic"].beta.messages.batches):
        batch = claude.create(requests=[{"custom_id": "1", "params": body}], extra=SAID)
        list(claude.results(batch.id))
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": BODIES["chat"]}
    gpt = wrapped["openai"]
    uploaded = gpt.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = gpt.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h", extra=SAID
    )
    gpt.files.content(gpt.batches.retrieve(batch.id).output_file_id)
    balance = harness.pipeline.ledger.balance("user:42")
    assert (balance.pending_nanousd, balance.settled_nanousd) == (0, harness.sim.bill.total_nanousd)
    assert all("llm_cost" not in repr(request.body) for request in harness.sim.requests)


def test_attributes_given_twice_are_taken_from_extra_and_the_rest_is_sent(harness, clients):
    given = {"inference_geo": "us", "llm_cost": {"user": "1"}}
    harness.wrap(clients)["anthropic"].messages.create(
        **BODIES["anthropic"] | {"model": "claude-sonnet-4-6"}, extra_body=given, extra=SAID
    )
    assert given == {"inference_geo": "us", "llm_cost": {"user": "1"}}
    assert harness.sim.requests[0].body["inference_geo"] == "us"
    heard(harness, 1)


@pytest.mark.parametrize(
    ("extra", "error", "match"),
    [
        ({"llm_cost": {"usr": "42"}}, UnknownKeyError, r"llm_cost\.usr.*user"),
        ({"llm_costs": {"user": "42"}}, UnknownKeyError, r"extra\.llm_costs.*llm_cost"),
        ({"llm_cost": "42"}, ConfigurationError, "llm_cost"),
        ("42", ConfigurationError, "extra"),
    ],
)
async def test_what_cannot_be_understood_is_an_error_before_the_call(
    extra, error, match, harness, clients, async_clients
):
    wrapped, awaited = harness.wrap(clients), harness.wrap(async_clients)
    with pytest.raises(error, match=match):
        wrapped["anthropic"].messages.create(**BODIES["anthropic"], extra=extra)
    with pytest.raises(error, match=match):
        wrapped["openai"].responses.parse(**BODIES["responses"], extra=extra)
    with pytest.raises(error, match=match):
        await awaited["openai"].chat.completions.create(**BODIES["chat"], extra=extra)
    with pytest.raises(error, match=match):
        wrapped["anthropic"].messages.batches.create(requests=[], extra=extra)
    assert harness.sim.request_count == 0


def test_it_does_not_reach_the_provider_past_the_middleware_either(harness, clients):
    wrapped = harness.wrap(clients)
    claude, body = wrapped["anthropic"], BODIES["anthropic"]
    with claude.messages.with_streaming_response.create(**body, extra=SAID) as answer:
        answer.parse()
    claude.messages.count_tokens(model=body["model"], messages=ASK, extra_body=SAID)
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(**body | {"max_tokens": -1}, extra=SAID)
    assert all("llm_cost" not in repr(request.body) for request in harness.sim.requests)
    assert harness.sim.request_count == 3


def test_the_original_client_does_not_take_it(harness, clients):
    harness.wrap(clients)
    with pytest.raises(TypeError, match="extra"):
        clients["anthropic"].messages.create(**BODIES["anthropic"], extra=SAID)


@pytest.mark.parametrize("api", [CLAUDE, GPT], ids=lambda api: api.provider)
def test_every_governed_method_exists_and_keeps_its_signature(api, harness, clients, async_clients):
    for bare in (clients[api.provider], async_clients[api.provider]):
        wrapped = harness.wrap({api.provider: bare})[api.provider]
        for path, names in api.methods.items():
            for name in names:
                method, own = (getattr(attrgetter(path)(client), name) for client in (wrapped, bare))
                assert inspect.signature(method) == inspect.signature(own)
                assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(own)
                assert method.__doc__ == own.__doc__
    assert isinstance(clients["openai"], openai.OpenAI)
