"""A guarded model is the user's model, and goes where it should."""

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from pydantic import BaseModel

from llm_cost_middleware.errors import (
    ConfigurationError,
)
from llm_cost_middleware.events import Routed
from llm_cost_middleware.integrations.langchain import guard, is_guarded
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.simulator import Fault

HAIKU, SONNET, MINI, GPT = "claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5-mini", "gpt-5.1"
LONG = "Prague is a city of a hundred spires. " * 400  # beyond 10,000 characters: the large tier


class City(BaseModel):
    """A city."""

    name: str
    country: str


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


class Starts(BaseCallbackHandler):
    """Keeps what a run says of itself."""

    def __init__(self):
        self.metadata, self.parameters, self.runs = [], [], 0

    def on_chat_model_start(self, serialized, messages, *, metadata=None, invocation_params=None, **kwargs):
        self.runs += 1
        self.metadata.append(metadata)
        self.parameters.append(invocation_params)


def force(model, **more):
    return {"metadata": {"llm_cost": {"force_model": model, **more}}}


def test_a_guarded_model_is_of_the_users_class_and_leaves_the_original_alone(make_harness, claude):
    plain = claude(temperature=0.3, tags=["mine"])
    before = dict(plain.__dict__)
    guarded = guard(plain, make_harness().pipeline)
    assert isinstance(guarded, type(plain))
    assert (type(guarded).__name__, type(guarded).lc_id()) == ("ChatAnthropic", type(plain).lc_id())
    assert (guarded.profile, guarded.temperature, guarded.tags) == (plain.profile, 0.3, ["mine"])
    assert is_guarded(guarded)
    assert not is_guarded(plain)
    assert plain.__dict__ == before


def test_a_subclass_of_the_user_stays_in_charge_of_its_requests(make_harness, claude, sim):
    plain_class = type(claude())

    class Polite(plain_class):
        def _get_request_payload(self, input_, *, stop=None, **kwargs):
            payload = super()._get_request_payload(input_, stop=stop, **kwargs)
            return {**payload, "system": "Say please."}

    guarded = guard(Polite(model=HAIKU, api_key="k", base_url=sim.anthropic_url), make_harness().pipeline)
    guarded.invoke("hi", config=force(SONNET))
    assert sim.requests[-1].body["system"] == "Say please."
    assert sim.requests[-1].body["model"] == SONNET


@pytest.mark.parametrize("home", ["claude", "gpt"])
def test_copies_and_configured_fields_stay_guarded_with_their_own_settings(
    home, make_harness, claude, gpt, sim, request
):
    harness = make_harness()
    guarded = guard(
        request.getfixturevalue(home)(**({} if home == "claude" else {"model": "gpt-4.1"})), harness.pipeline
    )
    own = HAIKU if home == "claude" else "gpt-4.1"
    configurable = guarded.configurable_fields(temperature=ConfigurableField(id="warmth"))
    for model, config in (
        (copy.copy(guarded), {}),
        (copy.deepcopy(guarded), {}),
        (guarded.model_copy(update={"temperature": 0.7}), {}),
        (configurable, {"configurable": {"warmth": 0.7}}),
        (guarded.with_config(tags=["x"]), {}),
        (guarded.with_retry(), {}),
    ):
        model.invoke("hi", config={**config, **force(own)})
    warm = [exchange.body.get("temperature") for exchange in sim.requests]
    assert warm == [None, None, 0.7, 0.7, None, None]
    harness.check()


def test_settings_changed_on_a_guarded_model_count_from_the_next_call(make_harness, claude, sim):
    guarded = guard(claude(), make_harness().pipeline, pinned=True)
    guarded.invoke("hi")
    guarded.temperature = 0.25
    guarded.invoke("hi")
    assert [exchange.body.get("temperature") for exchange in sim.requests] == [None, 0.25]


def test_pickling_is_refused_with_the_reason(make_harness, claude):
    with pytest.raises(TypeError, match="guard it where it runs"):
        pickle.dumps(guard(claude(), make_harness().pipeline))


def test_what_is_no_chat_model_is_refused(make_harness):
    with pytest.raises(ConfigurationError, match="expected a chat model"):
        guard("gpt-5", make_harness().pipeline)


def test_fallbacks_take_bound_tools_along(make_harness, claude, gpt, sim):
    harness = make_harness(retry={"max_attempts": 1})
    pipeline = harness.pipeline
    both = guard(claude(), pipeline, pinned=True).with_fallbacks([guard(gpt(), pipeline, pinned=True)])
    sim.script(Fault.status(500))
    answer = both.bind_tools([weather]).invoke("weather in Rome")
    assert answer.tool_calls[0]["name"] == "weather"
    assert [exchange.provider for exchange in sim.requests] == ["anthropic", "openai"]
    harness.check()


def test_short_calls_go_to_the_small_tier_and_long_ones_to_the_large(make_harness, claude, sim):
    harness = make_harness()
    guarded = guard(claude(), harness.pipeline)
    guarded.invoke("hi")
    guarded.invoke(LONG)
    assert [decision.tier_name for decision in harness.pipeline.decisions()] == ["small", "large"]
    harness.check()


@pytest.mark.parametrize("stream", [False, True])
def test_traces_show_who_answers_once_a_call(stream, make_harness, claude, sim):
    starts, guarded = Starts(), guard(claude(), make_harness().pipeline)
    config = {"callbacks": [starts], **force(MINI)}
    list(guarded.stream("hi", config)) if stream else guarded.invoke("hi", config)
    assert starts.runs == 1
    assert (starts.metadata[0]["ls_provider"], starts.metadata[0]["ls_model_name"]) == ("openai", MINI)
    assert starts.parameters[0]["llm_cost_route"] == f"openai/{MINI}"


RULES = {"policy": "rules", "rules": [{"tier": "small", "when": {"budget_left": "< 0.5"}}, {"tier": "large"}]}


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
@pytest.mark.parametrize("spent", [False, True])
def test_a_route_that_hangs_on_the_budget_is_traced_as_well(storage, spent, make_harness, claude, sim, tmp_path):
    url = "memory://" if storage == "memory" else f"sqlite:///{tmp_path}/ledger.db"
    harness = make_harness(routing=RULES, ledger={"url": url}, limit="1")
    if spent:
        harness.pipeline.ledger.book(NanoUSD(600_000_000), id="elsewhere")
    starts, guarded = Starts(), guard(claude(), harness.pipeline)
    guarded.invoke("hi", {"callbacks": [starts]})
    list(guarded.stream("hi", {"callbacks": [starts]}))
    if storage == "memory":  # an event loop must not wait for a file: there the call finds its route inside its run
        asyncio.run(guarded.ainvoke("hi", {"callbacks": [starts]}))
    answered = {request.body["model"] for request in sim.requests}
    assert len(answered) == 1
    assert {metadata["ls_model_name"] for metadata in starts.metadata} == answered
    assert {record.tier for record in harness.pipeline.records()} == {"small" if spent else "large"}


def test_a_usage_handler_counts_a_call_once(make_harness, claude, sim):
    usage = UsageMetadataCallbackHandler()
    guard(claude(), make_harness().pipeline).invoke("hi", {"callbacks": [usage], **force(SONNET)})
    (counted,) = usage.usage_metadata.values()
    assert counted["input_tokens"] == sim.bill.lines[0].tokens.prompt


def test_a_model_named_in_the_call_pins_it(make_harness, claude, sim):
    harness = make_harness()
    guarded = guard(claude(), harness.pipeline)
    answer = guarded.invoke("hi", model=SONNET)
    bound = guarded.bind(model=SONNET).invoke("hi")
    assert [exchange.body["model"] for exchange in sim.requests] == [SONNET, SONNET]
    assert answer.response_metadata["model_name"] == bound.response_metadata["model_name"] == SONNET
    assert {event.policy for event in harness.observer.of(Routed)} == {"pinned"}


def test_a_pinned_guard_governs_and_never_routes(make_harness, gpt, sim):
    harness = make_harness()
    guard(gpt(GPT), harness.pipeline, pinned=True).invoke("hi")
    assert sim.requests[0].body["model"] == GPT
    harness.check()


@pytest.mark.parametrize("target", [HAIKU, SONNET, MINI, GPT])
@pytest.mark.parametrize("home", ["claude", "gpt", "responses"])
def test_settings_tools_and_structured_output_mean_the_same_at_every_target(
    home, target, make_harness, claude, gpt, sim
):
    harness = make_harness()
    plain = claude(top_p=0.9) if home == "claude" else gpt("gpt-4.1", use_responses_api=home == "responses", top_p=0.9)
    guarded, config = guard(plain, harness.pipeline), force(target)
    called = guarded.bind_tools([weather], tool_choice="any").invoke("weather in Rome", config)
    assert called.tool_calls[0]["args"].keys() == {"city"}
    for method in ("function_calling", "json_schema"):
        for city in (
            guarded.with_structured_output(City, method=method).invoke("Where?", config),
            guarded.with_structured_output(City, method=method, include_raw=True).invoke("Where?", config)["parsed"],
        ):
            assert isinstance(city, City)
    assert {exchange.body["model"] for exchange in sim.requests} == {target}
    assert (sim.requests[0].body.get("top_p") == 0.9) == (target != MINI)  # which takes no sampling parameters
    harness.check()


def test_stop_sequences_are_kept_where_they_are_understood(make_harness, claude, gpt, sim):
    harness = make_harness()
    for plain in (claude(stop=["END"]), gpt("gpt-4.1", stop=["END"])):
        guard(plain, harness.pipeline).invoke(f"hi, {type(plain).__name__}")
        guard(plain, harness.pipeline).invoke("ho", stop=["HALT"], config=force(SONNET))
    guard(claude(), harness.pipeline).invoke("hey", stop=["HALT"])
    said = [
        (exchange.body["model"], exchange.body.get("stop_sequences", exchange.body.get("stop")))
        for exchange in sim.requests
    ]
    # the cheaper model takes none, so the next one is asked
    assert said == [(HAIKU, ["END"]), (SONNET, ["HALT"]), (HAIKU, ["END"]), (SONNET, ["HALT"]), (HAIKU, ["HALT"])]
    harness.check()


def test_what_only_one_provider_understands_stays_there(make_harness, gpt, sim):
    harness = make_harness(tiers=[{"name": "one", "models": [f"anthropic/{HAIKU}", f"openai/{MINI}"]}])
    guarded = guard(gpt(), harness.pipeline)
    guarded.invoke("Say JSON with `a`.", response_format={"type": "json_object"})
    guarded.invoke("hi", logprobs=False, seed=3)
    assert {exchange.provider for exchange in sim.requests} == {"openai"}
    assert all("cannot be reached" in str(decision.candidates) for decision in harness.pipeline.decisions())


def test_without_a_key_the_other_provider_is_no_candidate(make_harness, claude, monkeypatch, sim):
    monkeypatch.delenv("OPENAI_API_KEY")
    guard(claude(), make_harness().pipeline).invoke("hi")
    assert sim.requests[0].provider == "anthropic"


def test_a_history_from_one_provider_is_understood_by_the_other(make_harness, claude, gpt, sim):
    harness = make_harness()
    signed = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmF0dXJl"}
    call = {"name": "weather", "args": {"city": "Rome"}, "id": "toolu_1"}
    asked = {"type": "tool_use", "input": {}, "name": "weather", "id": "toolu_1"}
    from_claude = AIMessage(
        [signed, {"type": "text", "text": "Let me look."}, asked],
        tool_calls=[call],
        response_metadata={"model_provider": "anthropic"},
    )
    sunny = {"type": "text", "text": "It is sunny.", "id": "msg_1", "annotations": []}
    from_openai = AIMessage(
        [{"type": "reasoning", "id": "rs_1", "summary": []}, sunny],
        response_metadata={"model_provider": "openai", "id": "resp_1"},
    )
    history = [
        SystemMessage("Be kind."), HumanMessage("Weather in Rome?"), from_claude,
        ToolMessage("sunny", tool_call_id="toolu_1"), from_openai, HumanMessage("And tomorrow?"),
    ]  # fmt: skip
    before = copy.deepcopy(history)
    for plain, other in ((claude(), MINI), (gpt(), HAIKU)):
        guarded = guard(plain, harness.pipeline)
        guarded.invoke(history, force(other))
    assert history == before
    to_openai, to_claude = (exchange.body["messages"] for exchange in sim.requests)
    assert "thinking" not in str(to_openai)
    assert to_openai[2]["content"] == "Let me look."
    assert to_claude[3]["content"] == "It is sunny."
    assert "reasoning" not in str(to_claude)
    harness.check()


def test_instructions_in_the_middle_move_to_the_head_for_claude(make_harness, gpt, sim):
    guarded = guard(gpt(), make_harness().pipeline)
    guarded.invoke([SystemMessage("A"), HumanMessage("hi"), SystemMessage("B"), HumanMessage("ho")], force(HAIKU))
    assert [message["role"] for message in sim.requests[0].body["messages"]] == ["user"]
    assert "B" in str(sim.requests[0].body["system"])
