"""The life of a call through wrapped synchronous clients, door by door."""

from __future__ import annotations

import asyncio
import itertools

import anthropic
import httpx
import httpx2
import openai
import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.context import cost_context
from llm_cost_middleware.errors import (
    BudgetExceededError,
    ConfigurationError,
    UnknownKeyError,
    UnsupportedRequestError,
)
from llm_cost_middleware.events import Retried
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.provider import FailureKind
from llm_cost_middleware.retry.classify import classify_error
from llm_cost_middleware.simulator import Fault

BROKEN = (httpx.HTTPError, httpx2.HTTPError, openai.APIConnectionError)
"""What a stream that breaks raises: openai dresses the transport's error since 3.0, anthropic and older ones do not."""
ASK = [{"role": "user", "content": "Count to forty."}]


def messages(clients, **kwargs):
    return clients["anthropic"].messages.create(model="claude-haiku-4-5", max_tokens=40, messages=ASK, **kwargs)


def beta(clients, **kwargs):
    return clients["anthropic"].beta.messages.create(model="claude-sonnet-4-6", max_tokens=40, messages=ASK, **kwargs)


def chat(clients, **kwargs):
    return clients["openai"].chat.completions.create(
        model="gpt-5-mini", max_completion_tokens=40, messages=ASK, **kwargs
    )


def responses(clients, **kwargs):
    return clients["openai"].responses.create(model="gpt-5.1", max_output_tokens=40, input="Count to forty.", **kwargs)


DOORS = [messages, beta, chat, responses]
every_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


def thinned(*axes):
    """Every value of every axis in the short form, the product in the long one."""
    params = []
    for at in itertools.product(*(range(len(axis)) for axis in axes)):
        values = [axis[i] for axis, i in zip(axes, at, strict=True)]
        params.append(
            pytest.param(*values, marks=() if sum(at) % 2 == 0 else pytest.mark.soak, id="-".join(map(_named, values)))
        )
    return params


def _named(value):
    return getattr(value, "__name__", None) or getattr(value, "kind", "") + str(getattr(value, "code", value))


@every_door
def test_an_answer_is_the_sdks_own_and_is_booked_at_its_price(door, harness, clients):
    plain = door(clients)
    harness.sim.reset()
    answer = door(harness.wrap(clients))
    assert type(answer) is type(plain)
    harness.agree()
    assert harness.settled > 0


@every_door
def test_a_stream_yields_what_the_sdk_yields_and_is_booked_at_its_end(door, harness, clients):
    plain = door(clients, stream=True)
    kinds = [type(chunk) for chunk in plain]
    harness.sim.reset()
    stream = door(harness.wrap(clients), stream=True)
    assert type(stream) is type(plain)
    assert [type(chunk) for chunk in stream] == kinds
    harness.agree()


@pytest.mark.parametrize(("door", "leave"), thinned(DOORS, ["break", "close", "with", "drop", "raise"]))
def test_a_stream_left_early_is_settled_however_it_is_left(door, leave, harness, clients):
    def consume():
        stream = door(harness.wrap(clients), stream=True)
        if leave == "with":
            with stream:
                next(stream)
        elif leave == "raise":
            with pytest.raises(ZeroDivisionError), stream:
                for _ in stream:
                    1 / 0  # noqa: B018 - a consumer that fails
        else:
            for _ in stream:
                break
            if leave == "close":
                stream.close()
                stream.close()

    consume()
    harness.cover()


@every_door
def test_a_stream_that_is_never_iterated_is_settled(door, harness, clients):
    door(harness.wrap(clients), stream=True)
    harness.cover()


@every_door
@pytest.mark.parametrize("clean", [True, False])
def test_a_stream_that_is_cut_is_booked_as_an_estimate(door, clean, harness, clients):
    harness.sim.script(Fault.cut(after=4, clean=clean))
    stream = door(harness.wrap(clients), stream=True)
    if clean:
        list(stream)
    else:
        with pytest.raises(BROKEN) as caught:
            list(stream)
        assert classify_error(caught.value).kind == FailureKind.INTERRUPTED_STREAM
    harness.cover()


@every_door
def test_an_error_event_in_a_stream_reaches_the_caller_and_is_booked(door, harness, clients):
    harness.sim.script(Fault.error_event(after=4))
    stream = door(harness.wrap(clients), stream=True)
    if door is responses:  # this SDK yields it as an event
        assert list(stream)[-1].type in ("error", "response.failed")
    else:
        with pytest.raises((anthropic.APIError, openai.APIError)):
            list(stream)
    harness.cover()


@pytest.mark.parametrize(
    ("door", "fault", "stream"),
    thinned(
        DOORS, [Fault.status(500), Fault.status(429, retry_after=0), Fault.overloaded(), Fault.reset()], [False, True]
    ),
)
def test_a_passing_fault_is_retried_here_and_never_by_the_sdk(door, stream, fault, harness, clients):
    harness.sim.script(fault)
    answer = door(harness.wrap(clients), stream=stream)
    assert list(answer)
    assert harness.sim.request_count == 2
    assert harness.settled >= harness.sim.bill.total_nanousd


@pytest.mark.parametrize(
    ("door", "fault"), thinned(DOORS, [Fault.status(400), Fault.status(401), Fault.insufficient_quota()])
)
def test_a_permanent_fault_is_sent_once_and_costs_nothing(door, fault, harness, clients):
    harness.sim.script(fault, times=5)
    with pytest.raises((anthropic.APIStatusError, openai.APIStatusError)):
        door(harness.wrap(clients))
    assert harness.sim.request_count == 1
    assert harness.settled == 0


@every_door
def test_a_timeout_is_booked_because_the_provider_may_have_billed_it(door, make_harness, clients):
    harness = make_harness(retry={"max_attempts": 1})
    harness.sim.script(Fault.hang(billed=True))
    with pytest.raises((anthropic.APITimeoutError, openai.APITimeoutError)):
        door(harness.wrap(clients), timeout=0.3)
    asyncio.run(harness.reached())
    assert harness.statuses == ["unconfirmed"]
    assert harness.settled >= harness.sim.bill.total_nanousd > 0


@every_door
def test_an_answer_without_usage_is_booked_at_its_reservation(door, harness, clients):
    harness.sim.script(Fault.no_usage())
    door(harness.wrap(clients))
    harness.cover()


@every_door
@pytest.mark.parametrize("stream", [False, True])
def test_raw_responses_are_governed_and_parse_to_the_same(door, stream, harness, clients):
    wrapped = harness.wrap(clients)
    raw = {
        messages: lambda: wrapped["anthropic"].messages.with_raw_response,
        beta: lambda: wrapped["anthropic"].beta.messages.with_raw_response,
        chat: lambda: wrapped["openai"].chat.completions.with_raw_response,
        responses: lambda: wrapped["openai"].responses.with_raw_response,
    }[door]()
    plain = door(clients, stream=stream)
    chunks = [type(chunk) for chunk in plain] if stream else None
    harness.sim.reset()
    bodies = {"max_tokens": 40, "messages": ASK}
    if door is chat:
        bodies = {"max_completion_tokens": 40, "messages": ASK}
    if door is responses:
        bodies = {"max_output_tokens": 40, "input": "Count to forty."}
    answer = raw.create(
        model="gpt-5-mini" if door in (chat, responses) else "claude-haiku-4-5", stream=stream, **bodies
    )
    assert answer.headers["content-type"]
    if stream:
        assert [type(chunk) for chunk in answer.parse()] == chunks
    else:
        assert type(answer.parse()) is type(plain)
    harness.agree()


def test_the_message_stream_helper_is_governed(harness, clients):
    client = harness.wrap(clients)["anthropic"]
    with client.messages.stream(model="smart", max_tokens=40, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text
    harness.agree()


def test_the_message_stream_helper_left_early_is_settled(harness, clients):
    client = harness.wrap(clients)["anthropic"]
    with client.messages.stream(model="smart", max_tokens=40, messages=ASK) as stream:
        next(iter(stream))
    harness.cover()


def test_the_chat_and_response_stream_helpers_are_governed(harness, clients):
    client = harness.wrap(clients)["openai"]
    with client.chat.completions.stream(model="smart", messages=ASK, max_completion_tokens=40) as stream:
        assert stream.until_done()
    with client.responses.stream(model="smart", input="hi", max_output_tokens=40) as stream:
        assert stream.until_done()
    harness.agree()


def test_a_parse_that_fails_is_booked_at_what_the_answer_cost(harness, clients):
    import pydantic

    class Answer(pydantic.BaseModel):
        number: int

    client = harness.wrap(clients)["openai"]
    with pytest.raises((openai.LengthFinishReasonError, pydantic.ValidationError)):
        client.chat.completions.parse(model="smart", messages=ASK, max_completion_tokens=16, response_format=Answer)
    harness.agree()


def test_the_routed_name_goes_to_a_model_of_the_clients_provider(harness, clients):
    wrapped = harness.wrap(clients)
    assert messages(wrapped).model.startswith("claude-haiku-4-5")
    answer = wrapped["anthropic"].messages.create(model="smart", max_tokens=40, messages=ASK)
    assert answer.model == "claude-haiku-4-5-20251001"
    answer = wrapped["openai"].chat.completions.create(model="smart", max_completion_tokens=40, messages=ASK)
    assert answer.model.startswith("gpt-5-mini")
    long = [{"role": "user", "content": "word " * 2_500}]
    assert wrapped["anthropic"].messages.create(model="smart", max_tokens=9, messages=long).model == "claude-sonnet-4-6"
    harness.agree()


def test_the_routed_name_can_be_another(harness, clients):
    client = harness.wrap(clients, routed="cheap")["anthropic"]
    assert client.messages.create(model="cheap", max_tokens=4, messages=ASK).model == "claude-haiku-4-5-20251001"


def test_what_does_not_fit_is_refused_before_it_is_sent(make_harness, clients):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.000001"}])
    for door in DOORS:
        with pytest.raises(BudgetExceededError):
            door(harness.wrap(clients))
    assert harness.sim.request_count == 0


@every_door
def test_a_call_names_its_scopes_and_nothing_of_it_reaches_the_provider(door, harness, clients):
    wrapped = harness.wrap(clients)
    door(wrapped, extra_body={"llm_cost": {"user": "42", "tags": ["a b"]}})
    with cost_context(team="blue"):
        door(wrapped)
    spent = {standing.scope for standing in harness.pipeline.ledger.balances()}
    assert {"user:42", "tag:a%20b", "team:blue"} <= spent
    assert all("llm_cost" not in request.body for request in harness.sim.requests)


def test_other_extra_fields_are_sent_on(harness, clients):
    beta(harness.wrap(clients), extra_body={"inference_geo": "us", "llm_cost": {"user": "1"}})
    assert harness.sim.requests[0].body["inference_geo"] == "us"
    harness.agree()


def test_a_misspelt_key_is_an_error_before_the_call(harness, clients):
    with pytest.raises(UnknownKeyError, match="user"):
        messages(harness.wrap(clients), extra_body={"llm_cost": {"usr": "42"}})
    assert harness.sim.request_count == 0


def test_a_copy_made_by_with_options_is_governed_too_and_keeps_its_retries_off(harness, clients):
    client = harness.wrap(clients)["anthropic"].with_options(max_retries=7)
    harness.sim.script(Fault.status(400))
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model="smart", max_tokens=4, messages=ASK)
    client.with_options(timeout=5).messages.create(model="smart", max_tokens=4, messages=ASK)
    assert harness.sim.request_count == 2
    harness.agree()


def test_the_original_client_is_untouched(harness, clients):
    resource = clients["anthropic"].messages
    before = dict(vars(clients["anthropic"]))
    wrapped = harness.wrap(clients)["anthropic"]
    wrapped.messages.create(model="smart", max_tokens=4, messages=ASK)
    assert vars(clients["anthropic"]) == before
    assert clients["anthropic"].messages is resource
    assert type(wrapped) is anthropic.Anthropic


def test_nothing_of_the_callers_is_changed(harness, clients):
    system = [{"type": "text", "text": "A long manual. " * 800}]
    tools = [{"name": "look", "description": "Look.", "input_schema": {"type": "object", "properties": {}}}]
    asked = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    kept = repr((system, tools, asked))
    client = harness.wrap(clients)["anthropic"]
    for _ in range(2):
        client.messages.create(model="smart", max_tokens=4, messages=asked, system=system, tools=tools)
    assert repr((system, tools, asked)) == kept
    assert "cache_control" in repr(harness.sim.requests[-1].body)
    harness.agree()


def test_messages_may_be_the_sdks_own_objects_and_one_shot_iterables(harness, clients):
    client = harness.wrap(clients)["anthropic"]
    answer = client.messages.create(model="smart", max_tokens=8, messages=ASK)
    turns = (turn for turn in [*ASK, {"role": "assistant", "content": answer.content}, *ASK])
    harness.sim.script(Fault.status(500))
    client.messages.create(model="smart", max_tokens=8, messages=turns)
    assert len(harness.sim.requests[-1].body["messages"]) == 3
    harness.agree()


def test_a_caller_who_asked_for_usage_gets_the_chunk_and_others_do_not(harness, clients):
    wrapped = harness.wrap(clients)
    assert all(chunk.choices for chunk in chat(wrapped, stream=True))
    chunks = list(chat(wrapped, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage is not None
    harness.agree()


def test_other_methods_pass_through(harness, clients):
    wrapped = harness.wrap(clients)
    count = wrapped["anthropic"].messages.count_tokens(model="claude-haiku-4-5", messages=ASK)
    assert count.input_tokens > 0
    assert harness.settled == 0


def test_what_is_not_governed_is_refused_where_configured(make_harness, clients):
    harness = make_harness(on_ungoverned="deny")
    wrapped = harness.wrap(clients)
    with pytest.raises(UnsupportedRequestError, match="completions"):
        wrapped["openai"].completions.create(model="gpt-3.5-turbo-instruct", prompt="x")
    assert harness.sim.request_count == 0


def test_clients_of_other_platforms_are_refused_or_returned_as_they_are(make_harness, caplog):
    client = openai.BedrockOpenAI(api_key="k", base_url="http://127.0.0.1:1")
    with pytest.raises(UnsupportedRequestError, match="BedrockOpenAI"):
        wrap_openai(client, make_harness(on_ungoverned="deny").pipeline)
    assert wrap_openai(client, make_harness().pipeline) is client
    assert "BedrockOpenAI" in caplog.text
    client.close()


@pytest.mark.parametrize("thing", [None, object(), "client"])
def test_what_is_no_client_is_a_clear_error(thing, harness):
    for wrap in (wrap_anthropic, wrap_openai):
        with pytest.raises(ConfigurationError, match="expected a client"):
            wrap(thing, harness.pipeline)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
@pytest.mark.parametrize("what", ["a message is added", "a text is changed", "a tool is changed"])
def test_what_money_is_held_for_is_sent_whatever_the_caller_changes_meanwhile(sim, clients, provider, what):
    """While a retry waits, say."""
    block = {"type": "text", "text": "Hello."}
    asked, shape = [{"role": "user", "content": [block]}], {"type": "object", "properties": {}}
    tools = [{"name": "f", "input_schema": shape}]
    if provider == "openai":
        tools = [{"type": "function", "function": {"name": "f", "parameters": shape}}]

    def change(event):
        if not isinstance(event, Retried):
            return
        if what == "a message is added":
            asked.append({"role": "user", "content": "word " * 3_000})
        elif what == "a text is changed":
            block["text"] = "word " * 3_000
        else:
            shape["properties"]["x"] = {"type": "string", "description": "word " * 3_000}

    budgets = [{"scope": "global", "limit": "1"}]
    pipeline = CostPipeline(CostConfig(budgets=budgets, retry={"throttle_base_s": 0.01}), observers=[change])
    sim.script(Fault.status(429))
    if provider == "anthropic":
        client = wrap_anthropic(clients[provider], pipeline)
        client.messages.create(model="claude-haiku-4-5", max_tokens=40, messages=asked, tools=tools)
    else:
        client = wrap_openai(clients[provider], pipeline)
        client.chat.completions.create(model="gpt-5-mini", max_completion_tokens=40, messages=asked, tools=tools)
    first, second = [request.body for request in sim.requests]
    assert first == second
    assert "word word" not in str(second)
    assert pipeline.ledger.balance("global").settled_nanousd == sim.bill.total_nanousd
