"""A guarded model is the user's model, and every call of it is governed."""

from __future__ import annotations

import asyncio
import copy
import pickle
from decimal import Decimal

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import ConfigurableField, RunnablePassthrough
from langchain_core.tools import tool
from pydantic import BaseModel

from llm_cost_middleware import cost_context
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.errors import (
    BudgetExceededError,
    ConfigurationError,
    NoEligibleModelError,
    PriceNotFoundError,
    UnsupportedRequestError,
)
from llm_cost_middleware.events import Refused, Reserved, Retried, Routed, Settled, Ungoverned
from llm_cost_middleware.integrations.langchain import guard, instrument, is_guarded
from llm_cost_middleware.simulator import Answer, Fault

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


# --- it is the user's model ------------------------------------------------------------------------------------------


def test_a_guarded_model_is_of_the_users_class_and_leaves_the_original_alone(house, claude):
    plain = claude(temperature=0.3, tags=["mine"])
    before = dict(plain.__dict__)
    guarded = guard(plain, house().pipeline)
    assert isinstance(guarded, type(plain))
    assert (type(guarded).__name__, type(guarded).lc_id()) == ("ChatAnthropic", type(plain).lc_id())
    assert (guarded.profile, guarded.temperature, guarded.tags) == (plain.profile, 0.3, ["mine"])
    assert is_guarded(guarded)
    assert not is_guarded(plain)
    assert plain.__dict__ == before


def test_a_subclass_of_the_user_stays_in_charge_of_its_requests(house, claude, sim):
    plain_class = type(claude())

    class Polite(plain_class):
        def _get_request_payload(self, input_, *, stop=None, **kwargs):
            payload = super()._get_request_payload(input_, stop=stop, **kwargs)
            return {**payload, "system": "Say please."}

    guarded = guard(Polite(model=HAIKU, api_key="k", base_url=sim.anthropic_url), house().pipeline)
    guarded.invoke("hi", config=force(SONNET))
    assert sim.requests[-1].body["system"] == "Say please."
    assert sim.requests[-1].body["model"] == SONNET


@pytest.mark.parametrize("home", ["claude", "gpt"])
def test_copies_and_configured_fields_stay_guarded_with_their_own_settings(home, house, claude, gpt, sim, request):
    books = house()
    guarded = guard(request.getfixturevalue(home)(**({} if home == "claude" else {"model": "gpt-4.1"})), books.pipeline)
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
    books.check()


def test_settings_changed_on_a_guarded_model_count_from_the_next_call(house, claude, sim):
    guarded = guard(claude(), house().pipeline, pinned=True)
    guarded.invoke("hi")
    guarded.temperature = 0.25
    guarded.invoke("hi")
    assert [exchange.body.get("temperature") for exchange in sim.requests] == [None, 0.25]


def test_pickling_is_refused_with_the_reason(house, claude):
    with pytest.raises(TypeError, match="guard it where it runs"):
        pickle.dumps(guard(claude(), house().pipeline))


def test_what_is_no_chat_model_is_refused(house):
    with pytest.raises(ConfigurationError, match="expected a chat model"):
        guard("gpt-5", house().pipeline)


def test_fallbacks_take_bound_tools_along(house, claude, gpt, sim):
    books = house(retry={"max_attempts": 1})
    pipeline = books.pipeline
    both = guard(claude(), pipeline, pinned=True).with_fallbacks([guard(gpt(), pipeline, pinned=True)])
    sim.script(Fault.status(500))
    answer = both.bind_tools([weather]).invoke("weather in Rome")
    assert answer.tool_calls[0]["name"] == "weather"
    assert [exchange.provider for exchange in sim.requests] == ["anthropic", "openai"]
    books.check()


# --- routing ---------------------------------------------------------------------------------------------------------


def test_short_calls_go_to_the_small_tier_and_long_ones_to_the_large(house, claude, sim):
    books = house()
    guarded = guard(claude(), books.pipeline)
    guarded.invoke("hi")
    guarded.invoke(LONG)
    assert [decision.tier_name for decision in books.pipeline.decisions()] == ["small", "large"]
    books.check()


@pytest.mark.parametrize("stream", [False, True])
def test_traces_show_who_answers_once_a_call(stream, house, claude, sim):
    starts, guarded = Starts(), guard(claude(), house().pipeline)
    config = {"callbacks": [starts], **force(MINI)}
    list(guarded.stream("hi", config)) if stream else guarded.invoke("hi", config)
    assert starts.runs == 1
    assert (starts.metadata[0]["ls_provider"], starts.metadata[0]["ls_model_name"]) == ("openai", MINI)
    assert starts.parameters[0]["llm_cost_route"] == f"openai/{MINI}"


def test_a_usage_handler_counts_a_call_once(house, claude, sim):
    usage = UsageMetadataCallbackHandler()
    guard(claude(), house().pipeline).invoke("hi", {"callbacks": [usage], **force(SONNET)})
    (counted,) = usage.usage_metadata.values()
    assert counted["input_tokens"] == sim.bill.lines[0].tokens.prompt


def test_a_model_named_in_the_call_pins_it(house, claude, sim):
    books = house()
    guarded = guard(claude(), books.pipeline)
    answer = guarded.invoke("hi", model=SONNET)
    bound = guarded.bind(model=SONNET).invoke("hi")
    assert [exchange.body["model"] for exchange in sim.requests] == [SONNET, SONNET]
    assert answer.response_metadata["model_name"] == bound.response_metadata["model_name"] == SONNET
    assert {event.policy for event in books.books.of(Routed)} == {"pinned"}


def test_a_pinned_guard_governs_and_never_routes(house, gpt, sim):
    books = house()
    guard(gpt(GPT), books.pipeline, pinned=True).invoke("hi")
    assert sim.requests[0].body["model"] == GPT
    books.check()


@pytest.mark.parametrize("target", [HAIKU, SONNET, MINI, GPT])
@pytest.mark.parametrize("home", ["claude", "gpt", "responses"])
def test_settings_tools_and_structured_output_mean_the_same_at_every_target(home, target, house, claude, gpt, sim):
    books = house()
    plain = claude(top_p=0.9) if home == "claude" else gpt("gpt-4.1", use_responses_api=home == "responses", top_p=0.9)
    guarded, config = guard(plain, books.pipeline), force(target)
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
    books.check()


def test_stop_sequences_are_kept_where_they_are_understood(house, claude, gpt, sim):
    books = house()
    for plain in (claude(stop=["END"]), gpt("gpt-4.1", stop=["END"])):
        guard(plain, books.pipeline).invoke(f"hi, {type(plain).__name__}")
        guard(plain, books.pipeline).invoke("ho", stop=["HALT"], config=force(SONNET))
    guard(claude(), books.pipeline).invoke("hey", stop=["HALT"])
    said = [
        (exchange.body["model"], exchange.body.get("stop_sequences", exchange.body.get("stop")))
        for exchange in sim.requests
    ]
    assert said == [(HAIKU, ["END"]), (SONNET, ["HALT"]), (MINI, None), (SONNET, ["HALT"]), (HAIKU, ["HALT"])]
    books.check()


def test_what_only_one_provider_understands_stays_there(house, gpt, sim):
    books = house(tiers=[{"name": "one", "models": [f"anthropic/{HAIKU}", f"openai/{MINI}"]}])
    guarded = guard(gpt(), books.pipeline)
    guarded.invoke("Say JSON with `a`.", response_format={"type": "json_object"})
    guarded.invoke("hi", logprobs=False, seed=3)
    assert {exchange.provider for exchange in sim.requests} == {"openai"}
    assert all("cannot be reached" in str(decision.candidates) for decision in books.pipeline.decisions())


def test_without_a_key_the_other_provider_is_no_candidate(house, claude, monkeypatch, sim):
    monkeypatch.delenv("OPENAI_API_KEY")
    guard(claude(), house().pipeline).invoke("hi")
    assert sim.requests[0].provider == "anthropic"


def test_a_history_from_one_provider_is_understood_by_the_other(house, claude, gpt, sim):
    books = house()
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
        guarded = guard(plain, books.pipeline)
        guarded.invoke(history, force(other))
    assert history == before
    to_openai, to_claude = (exchange.body["messages"] for exchange in sim.requests)
    assert "thinking" not in str(to_openai)
    assert to_openai[2]["content"] == "Let me look."
    assert to_claude[3]["content"] == "It is sunny."
    assert "reasoning" not in str(to_claude)
    books.check()


def test_instructions_in_the_middle_move_to_the_head_for_claude(house, gpt, sim):
    guarded = guard(gpt(), house().pipeline)
    guarded.invoke([SystemMessage("A"), HumanMessage("hi"), SystemMessage("B"), HumanMessage("ho")], force(HAIKU))
    assert [message["role"] for message in sim.requests[0].body["messages"]] == ["user"]
    assert "B" in str(sim.requests[0].body["system"])


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_a_cap_that_a_profile_filled_in_is_not_the_callers(house, claude, gpt, sim):
    books = house()
    guard(claude(), books.pipeline, pinned=True).invoke("hi")
    guard(claude(max_tokens=500), books.pipeline, pinned=True).invoke("hi")
    guard(gpt(), books.pipeline, pinned=True).invoke("hi", max_tokens=300)
    reserved = books.books.of(Reserved)
    assert [event.max_tokens_injected for event in reserved] == [True, False, False]
    sent = [exchange.body.get("max_tokens") or exchange.body.get("max_completion_tokens") for exchange in sim.requests]
    assert sent == [event.max_tokens for event in reserved]
    assert sent[0] < 64_000
    assert sent[1:] == [500, 300]


def test_thinking_comes_on_top_of_the_usual_cap_and_shrinks_with_it(house, claude, sim):
    thinker = claude(SONNET, thinking={"type": "enabled", "budget_tokens": 40_000})
    for limit in ("50", "0.2", "0.013"):
        books = house(limit=limit)
        guard(thinker, books.pipeline, pinned=True).invoke("hi")
        books.pipeline.close()
    sent = [(exchange.body["max_tokens"], exchange.body.get("thinking")) for exchange in sim.requests]
    assert sent[0][0] > 40_000
    assert sent[0][1]["budget_tokens"] == 40_000
    assert 1_024 <= sent[1][1]["budget_tokens"] < sent[1][0] < 40_000
    assert sent[2][0] < 1_024
    assert sent[2][1] is None


def test_retries_are_ours_alone(house, claude, gpt, sim):
    books = house(retry={"max_attempts": 3, "fallback": False})
    for plain in (claude(max_retries=5), gpt(max_retries=5)):
        guarded = guard(plain, books.pipeline, pinned=True)
        sim.script(Fault.status(500), times=2)
        guarded.invoke("hi")
        sim.script(Fault.status(529 if plain._llm_type.startswith("anthropic") else 503))
        assert list(guarded.stream("hi"))
        sim.script(Fault.status(400))
        with pytest.raises(Exception, match="400"):
            guarded.invoke("hi")
    assert sim.request_count == 2 * (3 + 2 + 1)
    assert len(books.books.of(Retried)) == 2 * 3
    books.check()


def test_a_failing_provider_is_left_for_the_other(house, claude, sim):
    books = house(retry={"max_attempts": 2})
    sim.script(Fault.overloaded())
    answer = guard(claude(), books.pipeline).invoke("hi")
    assert {exchange.provider for exchange in sim.requests} == {"anthropic", "openai"}
    assert answer.response_metadata["llm_cost"]["attempt"] == 2
    books.check()


def test_ten_event_loops_make_ten_requests(house, claude, gpt, sim):
    books = house()
    for plain in (claude(), gpt(), gpt(use_responses_api=True)):
        before = sim.request_count
        guarded = guard(plain, books.pipeline, pinned=True)
        for _ in range(10):
            asyncio.run(guarded.ainvoke("hi"))
        assert sim.request_count - before == 10
    books.check()


def test_a_model_without_a_timeout_of_its_own_gets_the_configured_one(house, claude, sim):
    books = house(timeout_s=0.3, retry={"max_attempts": 1})
    sim.script(Fault.hang())
    with pytest.raises(Exception, match=r"(?i)timed out"):
        guard(claude(), books.pipeline, pinned=True).invoke("hi")
    books.check(exact=False)


@pytest.mark.parametrize("home", ["claude", "gpt"])
def test_a_shorter_timeout_of_the_user_stays_in_force(home, house, sim, request):
    books = house(timeout_s=20, retry={"max_attempts": 1})
    guarded = guard(request.getfixturevalue(home)(timeout=0.3), books.pipeline)
    for target in (SONNET, GPT):
        sim.script(Fault.hang())
        with pytest.raises(Exception, match=r"(?i)timed out"):
            guarded.invoke("hi", force(target))
    sim.script(Fault.hang())
    with pytest.raises(Exception, match=r"(?i)timed out"):
        guarded.invoke("hi", force(SONNET), timeout=0.2)
    books.check(exact=False)


def test_openai_streams_tell_their_usage_though_langchain_would_not_ask(house, gpt, sim):
    books = house()
    assert gpt().stream_usage is None
    list(guard(gpt(), books.pipeline, pinned=True).stream("hi"))
    books.check()


def test_the_lifetime_of_cache_writes_survives_a_stream(house, claude, sim):
    books = house(cache={"mode": "system", "ttl": "1h"})
    system = SystemMessage("You know everything about the old town of Prague. " * 800)
    guarded = guard(claude(), books.pipeline, pinned=True)
    list(guarded.stream([system, HumanMessage("hi")]))
    (settled,) = books.books.of(Settled)
    assert settled.usage.cache_write_1h > 4_000
    assert type(system.content) is str
    books.check()


def test_marks_are_placed_on_copies_and_foreign_ones_never_leave(house, claude, gpt, sim):
    books = house(cache={"mode": "system"})
    text = "You know everything about the old town of Prague. " * 800
    marked = SystemMessage([{"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}])
    question = [marked, HumanMessage("hi")]
    before = copy.deepcopy(question)
    guarded = guard(claude(), books.pipeline)
    guarded.bind_tools([weather]).invoke(question, force(SONNET), cache_control={"type": "ephemeral"})
    guarded.bind_tools([weather]).invoke(question, force(MINI), cache_control={"type": "ephemeral"})
    guard(gpt(), books.pipeline).invoke([SystemMessage(text), HumanMessage("hi")], force(SONNET), prompt_cache_key="x")
    guard(gpt(), books.pipeline).invoke([SystemMessage(text), HumanMessage("hi")], force(MINI), prompt_cache_key="x")
    assert question == before
    sent = [exchange.body for exchange in sim.requests]
    assert ["cache_control" in str(body) for body in sent] == [True, False, True, False]
    assert [body.get("prompt_cache_key") for body in sent][2:] == [None, "x"]
    books.check()


# --- money -----------------------------------------------------------------------------------------------------------


def test_a_refused_call_sends_nothing_and_is_a_model_error_that_no_retry_can_help(house, claude, sim):
    from langchain_core.exceptions import ModelError

    books = house(limit="0.000001")
    guarded = guard(claude(), books.pipeline)

    async def drain():
        return [chunk async for chunk in guarded.astream("hi")]

    for call in (
        lambda: guarded.invoke("hi"),
        lambda: list(guarded.stream("hi")),
        lambda: asyncio.run(guarded.ainvoke("hi")),
        lambda: asyncio.run(drain()),
        lambda: guarded.batch(["hi"]),
    ):
        with pytest.raises(BudgetExceededError) as caught:
            call()
        assert isinstance(caught.value, ModelError)
        assert caught.value.is_retryable is False
        assert caught.value.scope in ("global", "batch")
        assert caught.value.budget_limit == Decimal("0.000001")
    assert sim.request_count == 0


@pytest.mark.parametrize("wrap", ["model", "binding", "chain"])
def test_waiting_makes_no_money_so_a_refusal_is_not_retried(wrap, house, claude, sim):
    books = house(limit="0.000001", retry={"max_attempts": 1})
    if wrap == "chain":
        chain = instrument((RunnablePassthrough() | claude()).with_retry(), books.pipeline)
    else:
        guarded = guard(claude(), books.pipeline)
        chain = (guarded.bind_tools([weather]) if wrap == "binding" else guarded).with_retry()
    with pytest.raises(BudgetExceededError):
        chain.invoke("hi")
    assert len(books.books.of(Refused)) == 1
    books.pipeline.ledger.set_budget(Budget("global", "1"))
    sim.script(Fault.status(500))
    assert chain.invoke("hi").text or wrap == "binding"  # what a retry can help is still retried
    assert sim.request_count == 2


def test_what_stands_against_a_call_is_shown_in_its_run(house, claude):
    class Errors(BaseCallbackHandler):
        seen = ()

        def on_llm_error(self, error, **kwargs):
            Errors.seen += (type(error).__name__,)

    books = house(tiers=[{"name": "one", "models": [f"anthropic/{HAIKU}"]}])
    guarded = guard(claude(), books.pipeline)
    with pytest.raises(PriceNotFoundError):
        guarded.invoke("hi", {"callbacks": [Errors()], **force("claude-nobody-knows")})
    with pytest.raises(NoEligibleModelError):
        guarded.invoke("x " * 1_200_000, {"callbacks": [Errors()]})
    assert Errors.seen == ("PriceNotFoundError", "NoEligibleModelError")


def test_scopes_come_from_the_run_and_from_the_block(house, claude):
    books = house(
        budgets=[{"scope": scope, "limit": "1"} for scope in ("global", "user:42", "team:blue", "tag:search")]
    )
    guarded = guard(claude(), books.pipeline)
    with cost_context(team="blue"):
        guarded.invoke("hi", {"metadata": {"llm_cost": {"user": "42", "tags": ["search"]}}})
        list((guarded | (lambda message: message)).stream("hi", {"metadata": {"llm_cost": {"user": "42"}}}))
    guarded.with_config(metadata={"llm_cost": {"tags": ["search"]}}).invoke("hi")
    spent = {scope: books.pipeline.ledger.balance(scope).settled for scope in ("user:42", "team:blue", "tag:search")}
    costs = [record.cost_usd for record in books.pipeline.records()]
    assert spent == {"user:42": sum(costs[:2]), "team:blue": sum(costs[:2]), "tag:search": costs[0] + costs[2]}


def test_an_answer_out_of_langchains_cache_costs_nothing_and_the_key_holds_the_route(house, claude, sim):
    books = house()
    guarded = guard(claude(cache=InMemoryCache()), books.pipeline)
    for _ in range(2):
        guarded.invoke("hi", force(HAIKU))
        guarded.invoke("hi", force(SONNET))
    assert [exchange.body["model"] for exchange in sim.requests] == [HAIKU, SONNET]
    books.check()


def test_an_answer_that_does_not_parse_is_booked_at_what_it_cost(house, gpt, sim):
    books = house()
    sim.responder = lambda request: Answer(text='{"name": "Rome"}')  # no country
    for stream in (False, True):
        chain = guard(gpt(), books.pipeline, pinned=True).with_structured_output(City)
        with pytest.raises(ValueError, match="country"):
            list(chain.stream("Where?")) if stream else chain.invoke("Where?")
        chain = guard(gpt(), books.pipeline).with_structured_output(City)
        with pytest.raises(ValueError, match="parsed"):
            chain.invoke("Where?", force(HAIKU))
    assert [record.status for record in books.pipeline.records() if record.provider == "anthropic"] == ["exact"] * 2
    books.check(exact=False)


# --- what is not governed --------------------------------------------------------------------------------------------


def test_other_transports_are_metered_or_refused_as_configured(house, sim):
    from langchain_openai import AzureChatOpenAI

    azure = AzureChatOpenAI(
        api_key="k", azure_endpoint=sim.url, api_version="2025-01-01", azure_deployment="d", model=MINI
    )  # fmt: skip
    with pytest.raises(UnsupportedRequestError, match="a ChatOpenAI with base_url"):
        guard(azure, house(on_ungoverned="deny").pipeline)
    books = house(on_ungoverned="allow", limit="0.000001")
    metered = guard(azure, books.pipeline)
    assert type(metered) is AzureChatOpenAI
    assert "AzureChatOpenAI" in books.books.of(Ungoverned)[0].what
    with pytest.raises(BudgetExceededError):
        metered.invoke("hi")
    assert sim.request_count == 0


def test_a_fake_model_is_metered_only(house):
    books = house()
    assert guard(FakeListChatModel(responses=["a"]), books.pipeline).invoke("hi").content == "a"
    assert len(books.books.of(Ungoverned)) == 2  # when it was guarded, and when it was called without a known price
