"""The providers' own fields: read as end users, and filled so that their dashboards show whose call it was."""

from __future__ import annotations

import json

import pytest
from spending_doors import DOORS, all_doors, tried

from llm_cost_middleware import ConfigurationError, CostConfig, CostPipeline, cost_context, process
from llm_cost_middleware.errors import ScopePausedError
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.lifecycle.provider_fields import end_user_in, filled
from llm_cost_middleware.simulator import fill
from llm_cost_middleware.tracker import CostTracker

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "hi"}]
READ = {"end_user_from": ["safety_identifier", "user", "metadata.user_id"]}
SEND = {"send": {"user": "team", "safety_identifier": "end_user", "metadata.user_id": "end_user"}}


@pytest.fixture
def make(sim, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    sim.responder = fill
    opened = []

    def made(attribution, **config):
        opened.append(CostPipeline(CostConfig(attribution=attribution, **config)))
        return opened[-1]

    yield made
    for pipeline in opened:
        pipeline.close()


def doors(pipeline, sim, clients):
    from langchain_anthropic import ChatAnthropic
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import guard
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    gpt, claude = wrap_openai(clients["openai"], pipeline), wrap_anthropic(clients["anthropic"], pipeline)
    model = guard(ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url), pipeline)
    other = guard(ChatAnthropic(model="claude-haiku-4-5", api_key="k", base_url=sim.anthropic_url), pipeline)
    router = CostAwareRouter(
        [
            {"model_name": "gpt", "litellm_params": {"model": "openai/gpt-5-mini", "api_base": sim.openai_url,
                                                     "api_key": "k"}},
            {"model_name": "claude", "litellm_params": {"model": "anthropic/claude-haiku-4-5",
                                                        "api_base": sim.anthropic_url, "api_key": "k"}},
        ],
        pipeline=pipeline,
    )  # fmt: skip
    chat = clients["anthropic"]
    return {
        "openai chat": lambda **more: gpt.chat.completions.create(model="gpt-5-mini", messages=ASK, **more),
        "openai responses": lambda **more: gpt.responses.create(model="gpt-5-mini", input="hi", **more),
        "anthropic": lambda **more: claude.messages.create(
            model="claude-haiku-4-5", max_tokens=9, messages=ASK, **more
        ),
        "process": lambda: process("hi", pipeline, CostTracker(1), client=chat),
        "guard": lambda **more: model.invoke("hi", **more),
        "guard anthropic": lambda **more: other.invoke("hi", **more),
        "router": lambda **more: router.completion("gpt", messages=ASK, **more),
        "router claude": lambda **more: router.completion("claude", messages=ASK, **more),
    }


READERS = [
    ("openai chat", {"user": "ann"}), ("openai chat", {"safety_identifier": "ann", "user": "bob"}),
    ("openai responses", {"user": "ann"}), ("openai chat", {"metadata": {"user_id": "ann"}}),
    ("anthropic", {"metadata": {"user_id": "ann"}}), ("guard", {"user": "ann"}), ("router", {"user": "ann"}),
]  # fmt: skip


@pytest.mark.parametrize(("door", "said"), READERS)
def test_a_field_becomes_the_end_user(door, said, make, sim, clients):
    pipeline = make(READ)
    doors(pipeline, sim, clients)[door](**said)
    assert pipeline.ledger.balance("end_user:ann").settled > 0


def test_without_configuration_and_where_one_is_named_the_fields_say_nothing(make, sim, clients):
    for attribution, said in (({}, {}), (READ, {"end_user": "cleo"})):
        pipeline = make(attribution)
        with cost_context(**said):
            doors(pipeline, sim, clients)["openai chat"](user="ann")
        assert pipeline.ledger.balance("end_user:ann").settled == 0


@pytest.mark.parametrize(
    "door",
    ["openai chat", "openai responses", "anthropic", "process", "guard", "guard anthropic", "router", "router claude"],
)
def test_the_fields_are_filled_from_our_scopes(door, make, sim, clients):
    pipeline = make(SEND)
    with cost_context(team="blue", end_user="ann"):
        doors(pipeline, sim, clients)[door]()
    (sent,) = [exchange.body for exchange in sim.requests]
    if "claude" in str(sent["model"]):
        assert sent["metadata"] == {"user_id": "ann"}
        assert "user" not in sent
    else:
        assert (sent["user"], sent["safety_identifier"]) == ("blue", "ann")
    assert len(pipeline.records()) == 1


# --- every door ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOORS)
def test_every_door_that_writes_requests_fills_the_fields(name, make, sim, clients):
    """A handler writes none; of an uploaded file only the batch itself can be told apart."""
    pipeline = make({"send": {**SEND["send"], "metadata.team": "team"}})
    door = all_doors(pipeline, sim, clients)[name]
    with cost_context(team="blue", end_user="ann"):
        assert tried(door, sim) == (None, 1)
    sent = sim.requests[-1].body
    if name == "handler":
        assert not {"user", "safety_identifier", "metadata"} & sent.keys()
    elif name == "openai batch":
        assert sent["metadata"] == {"user_id": "ann", "team": "blue"}
    elif "requests" in sent:
        assert [line["params"]["metadata"] for line in sent["requests"]] == [{"user_id": "ann"}]
    elif "claude" in str(sent["model"]):
        assert sent["metadata"] == {"user_id": "ann"}
    else:
        assert (sent["user"], sent["safety_identifier"]) == ("blue", "ann")


def naming_doors(pipeline, sim, clients):
    """The doors whose caller writes a body of its own, with an end user in it."""
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    from llm_cost_middleware.integrations.langchain import CostCallbackHandler, CostMiddleware, guard, instrument
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    gpt, claude = wrap_openai(clients["openai"], pipeline), wrap_anthropic(clients["anthropic"], pipeline)
    plain = {"model": "gpt-5-mini", "api_key": "k", "base_url": sim.openai_url, "model_kwargs": {"user": "ann"}}
    nested = {**plain, "model_kwargs": {}, "extra_body": {"safety_identifier": "ann"}}
    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "gpt", "litellm_params": params}], pipeline=pipeline)
    handler = {"callbacks": [CostCallbackHandler(pipeline)]}
    agent = create_agent(ChatOpenAI(**plain), [], middleware=[CostMiddleware(pipeline)])
    chain = instrument(ChatOpenAI(**plain) | (lambda message: message.text), pipeline)
    ask = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": ASK, "metadata": {"user_id": "ann"}}
    body = {"model": "gpt-5-mini", "messages": ASK, "max_completion_tokens": 9, "user": "ann"}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    uploaded = gpt.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = {"input_file_id": uploaded.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return {
        "openai stream": lambda: list(gpt.chat.completions.create(**body, stream=True)),
        "openai batch": lambda: gpt.batches.create(**batch),
        "anthropic batch": lambda: claude.messages.batches.create(requests=[{"custom_id": "a", "params": ask}]),
        "anthropic extra_body": lambda: claude.messages.create(
            model="claude-haiku-4-5", max_tokens=9, messages=ASK, extra_body={"metadata": {"user_id": "ann"}}
        ),
        "handler": lambda: ChatOpenAI(**plain).invoke("hi", config=handler),
        "handler extra_body": lambda: ChatOpenAI(**nested).invoke("hi", config=handler),
        "guard extra_body": lambda: guard(ChatOpenAI(**nested), pipeline).invoke("hi"),
        "router extra_body": lambda: router.completion("gpt", messages=ASK, extra_body={"safety_identifier": "ann"}),
        "middleware": lambda: agent.invoke({"messages": [("user", "hi")]}),
        "instrument": lambda: chain.invoke("hi"),
    }


NAMING = [
    "openai stream", "openai batch", "anthropic batch", "anthropic extra_body", "handler", "handler extra_body",
    "guard extra_body", "router extra_body", "middleware", "instrument",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMING)
def test_every_door_reads_the_fields(name, make, sim, clients):
    pipeline = make(READ)
    found = naming_doors(pipeline, sim, clients)
    assert list(found) == NAMING
    assert tried(found[name], sim) == (None, 1)
    known = pipeline.ledger.balance("end_user:ann")
    assert known.settled + known.pending > 0
    pipeline.ledger.pause("end_user:ann")
    error, sent = tried(found[name], sim)
    assert (isinstance(error, ScopePausedError), sent) == (True, 0), repr(error)


def test_a_batch_of_several_end_users_is_of_none_and_a_pause_of_one_stops_it(make, sim, clients):
    pipeline = make(READ)
    claude = wrap_anthropic(clients["anthropic"], pipeline)
    ask = {"model": "claude-haiku-4-5", "max_tokens": 9, "messages": ASK}
    lines = [{"custom_id": who, "params": {**ask, "metadata": {"user_id": who}}} for who in ("ann", "bob")]
    claude.messages.batches.create(requests=lines)
    (row,) = pipeline.ledger.rows()
    assert row.scopes == ("global", "provider:anthropic", "model:claude-haiku-4-5")
    pipeline.ledger.pause("end_user:bob")
    error, sent = tried(lambda: claude.messages.batches.create(requests=lines), sim)
    assert (isinstance(error, ScopePausedError), sent) == (True, 0)
    assert "metadata" not in ask, "what the caller owns stays"


def test_what_the_caller_wrote_stays(make, sim, clients):
    pipeline = make({"send": {"user": "team", "metadata.team": "team"}})
    with cost_context(team="blue"):
        doors(pipeline, sim, clients)["openai chat"](user="mine", metadata={"a": "b"})
    assert (sim.requests[0].body["user"], sim.requests[0].body["metadata"]) == ("mine", {"a": "b", "team": "blue"})


@pytest.mark.parametrize("how", [{"mode": "observe"}, {"providers": {"openai": {"gateway": "foreign"}}}])
def test_nothing_is_added_for_an_observer_or_a_foreign_gateway(how, make, sim, clients):
    pipeline = make(SEND, **how)
    with cost_context(team="blue", end_user="ann"):
        doors(pipeline, sim, clients)["openai chat"]()
    assert "user" not in sim.requests[0].body


@pytest.mark.parametrize("bad", [{"send": {"name": "team"}}, {"send": ["user"]}, {"send": {"user": 3}},
                                 {"end_user_from": ["metadata"]}, {"send": {"user": "Team"}}])  # fmt: skip
def test_what_is_no_field_is_refused(bad):
    with pytest.raises(ConfigurationError):
        CostConfig.from_mapping({"attribution": bad})


def test_names_that_do_not_fit_are_left_out():
    assert end_user_in({"user": "x" * 300, "metadata": {"user_id": 7}}, ["user", "metadata.user_id"]) == "end_user:7"
    assert end_user_in({"metadata": "x"}, ["metadata.user_id"]) is None
    assert filled({"safety_identifier": "team"}, ("team:" + "x" * 65,), {}, "openai") == {}
    assert filled({"metadata.team": "team"}, ("team:a",), {}, "anthropic") == {}
