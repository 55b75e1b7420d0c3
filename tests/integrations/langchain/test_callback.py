"""The handler: vetoes and books what nobody wrapped, and leaves alone what is."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import httpx2
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tracers.context import _configure_hooks

from llm_cost_middleware.config.platforms import default_platforms
from llm_cost_middleware.errors import BudgetExceededError, NoModelFoundError, UnsupportedRequestError
from llm_cost_middleware.events import Reserved, Ungoverned
from llm_cost_middleware.integrations.langchain import CostCallbackHandler, cost_tracking, guard, instrument
from llm_cost_middleware.integrations.langchain.names import model_of
from llm_cost_middleware.simulator import Fault

HAIKU, SONNET, MINI = "claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5-mini"
WAYS = ("invoke", "stream", "batch", "ainvoke", "astream", "abatch", "astream_events")


def call(way, model, config=None):
    if way in ("invoke", "batch"):
        return getattr(model, way)(["hi"] if way == "batch" else "hi", config)
    if way == "stream":
        return list(model.stream("hi", config))

    async def run():
        if way == "ainvoke":
            return await model.ainvoke("hi", config)
        if way == "abatch":
            return await model.abatch(["hi"], config)
        chunks = model.astream("hi", config) if way == "astream" else model.astream_events("hi", config, version="v2")
        return [chunk async for chunk in chunks]

    return asyncio.run(run())


pytestmark = pytest.mark.usefixtures("forget_connections")  # unguarded models run on loops that are gone


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("home", ["claude", "gpt"])
def test_a_call_of_a_plain_model_is_booked_to_the_nano_dollar(home, way, make_harness, sim, request):
    harness = make_harness()
    settings = {} if home == "claude" else {"stream_usage": True}
    call(way, request.getfixturevalue(home)(**settings), {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    harness.check()


HOUR = [{"type": "text", "text": "rule " * 6_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
US = {"inference_geo": "us"}
SURCHARGES = {"an hour": ({}, HOUR), "a place": (US, "short"), "both": (US, HOUR)}


@pytest.mark.parametrize("way", ["invoke", "stream", "astream"])
@pytest.mark.parametrize("surcharge", SURCHARGES)
def test_a_surcharge_that_was_asked_for_is_in_the_price_also_where_langchain_loses_it(
    way, surcharge, make_harness, claude
):
    harness = make_harness()
    more, system = SURCHARGES[surcharge]
    model = claude(model=SONNET, **more)
    ask, config = [SystemMessage(system), HumanMessage("hi")], {"callbacks": [CostCallbackHandler(harness.pipeline)]}
    if way == "invoke":
        model.invoke(ask, config)
    elif way == "stream":
        list(model.stream(ask, config))
    else:

        async def run():
            return [chunk async for chunk in model.astream(ask, config)]

        asyncio.run(run())
    (record,) = harness.pipeline.records()
    billed = harness.sim.bill.total_nanousd
    assert harness.pipeline.ledger.balance("global").settled_nanousd == billed > 0
    assert record.status == ("exact" if way == "invoke" else "estimated")


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_does_not_fit_is_never_sent(way, make_harness, claude, sim):
    harness = make_harness(limit="0.01")
    with pytest.raises(BudgetExceededError) as caught:
        call(way, claude(), {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    assert caught.value.is_retryable is False
    assert sim.request_count == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_guarded_model_passes_untouched(way, make_harness, claude, sim):
    harness = make_harness()
    call(way, guard(claude(), harness.pipeline), {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    assert len(harness.pipeline.records()) == sim.request_count == 1
    harness.check()


def test_two_handlers_of_one_pipeline_book_a_run_once(make_harness, claude, sim):
    harness = make_harness()
    first, second = CostCallbackHandler(harness.pipeline), CostCallbackHandler(harness.pipeline)
    claude(callbacks=[first]).invoke("hi", {"callbacks": [second]})
    harness.check()


def test_marks_that_are_not_sent_are_not_counted(make_harness, claude, sim):
    harness = make_harness()
    config = {"callbacks": [CostCallbackHandler(harness.pipeline)]}
    for question in ("One?", "Two?", "Three?"):
        claude(SONNET).invoke([SystemMessage("Mind the rules. " * 2_000), HumanMessage(question)], config)
    assert [record.expected_cache_saving_nanousd for record in harness.pipeline.records()] == [0, 0, 0]
    assert not any("cache_control" in json.dumps(request.body) for request in sim.requests)


def test_a_setting_that_was_changed_in_place_counts_from_the_next_call(make_harness, claude):
    harness = make_harness()
    tool = {"name": "look", "input_schema": {"type": "object", "properties": {}}}
    bound = claude().bind(tools=[tool])
    config = {"callbacks": [CostCallbackHandler(harness.pipeline)]}
    for description in ("Look.", "Look.", "Look closely. " * 500):
        tool["description"] = description
        bound.invoke("hi", config)
    first, same, dearer = (event.amount_nanousd for event in harness.observer.of(Reserved))
    assert first == same < dearer
    harness.check()


def test_a_refused_request_gives_its_money_back(make_harness, claude, gpt, sim):
    harness = make_harness()
    for plain in (claude(), gpt()):
        sim.script(Fault.status(400))
        with pytest.raises(Exception, match="400"):
            plain.invoke("hi", {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    assert harness.pipeline.ledger.balance("global").settled == 0
    harness.check()


def test_a_broken_stream_is_booked_at_what_was_set_aside(make_harness, claude, sim):
    harness = make_harness()
    sim.script(Fault.cut(after=3))
    with pytest.raises(httpx2.TransportError):
        list(claude(max_tokens=200).stream("hi", {"callbacks": [CostCallbackHandler(harness.pipeline)]}))
    harness.check(exact=False)


def test_an_abandoned_stream_is_booked_when_it_is_closed(make_harness, claude, sim):
    harness = make_harness()
    chunks = claude().stream("hi", {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    next(chunks)
    chunks.close()
    harness.check(exact=False)


def test_an_answer_out_of_langchains_cache_is_booked_at_nothing(make_harness, claude, sim):
    harness = make_harness()
    model = claude(cache=InMemoryCache())
    for _ in range(3):
        model.invoke("hi", {"callbacks": [CostCallbackHandler(harness.pipeline)]})
    assert sim.request_count == 1
    assert [record.cost_usd > 0 for record in harness.pipeline.records()] == [True, False, False]
    assert int(harness.pipeline.ledger.balance("global").settled.scaleb(9)) == sim.bill.total_nanousd


def test_a_start_whose_end_never_comes_is_ended_by_its_lease(make_harness, claude, sim):
    from llm_cost_middleware.config import CostConfig
    from llm_cost_middleware.pipeline import CostPipeline
    from llm_cost_middleware.testing.clock import FakeClock

    clock = FakeClock()
    config = CostConfig(budgets=[{"scope": "global", "limit": "5"}], ledger={"hold_ttl_s": 60})
    with CostPipeline(config, clock=clock) as pipeline:
        sim.latency_s = 60

        async def cancelled():
            task = asyncio.create_task(claude().ainvoke("hi", {"callbacks": [CostCallbackHandler(pipeline)]}))
            while not sim.request_count:  # noqa: ASYNC110 - the simulator has another loop
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(cancelled())
        held = pipeline.ledger.balance("global").pending
        assert held > 0  # LangChain tells nobody that the call was cancelled
        clock.advance(61)
        pipeline.ledger.sweep()
        balance = pipeline.ledger.balance("global")
        assert (balance.pending, balance.settled) == (0, held)


def test_scopes_of_the_run_are_booked(make_harness, claude):
    harness = make_harness(budgets=[{"scope": "user:42", "limit": "1"}])
    config = {"callbacks": [CostCallbackHandler(harness.pipeline)], "metadata": {"llm_cost": {"user": "42"}}}
    claude().invoke("hi", config)
    assert harness.pipeline.ledger.balance("user:42").settled == harness.pipeline.tracker.total_cost > 0


def test_old_completions_and_unknown_models_are_treated_as_configured(make_harness, claude):
    hi = [[HumanMessage("hi")]]
    for policy, refused in (("deny", True), ("allow", False)):
        harness = make_harness(on_ungoverned=policy)
        handler = CostCallbackHandler(harness.pipeline)
        manager = CallbackManager.configure([handler])
        for start in (
            lambda m=manager: m.on_llm_start({"name": "OpenAI"}, ["hi"]),
            lambda m=manager: m.on_chat_model_start({}, hi, invocation_params={"model": "llama-9"}),
            lambda m=manager: m.on_chat_model_start({}, hi, invocation_params={"model": "gpt-zero"}),
        ):
            if refused:
                with pytest.raises(UnsupportedRequestError):
                    start()
            else:
                start()
        assert len(harness.observer.of(Ungoverned)) == (0 if refused else 3)
        handler.on_llm_error(ValueError(), run_id=uuid4())  # an end without a start is nobody's business


@pytest.fixture
def decision_model():
    decisions = pytest.importorskip("langchain_core.decisions", reason="this LangChain has no decision models")

    class Decide(decisions.BaseDecisionModel):
        model: str = "decide-1"

        @property
        def _provider(self):
            return "somebody"

        def _classify(self, state, questions):
            return decisions.ClassifierResponse(model=self.model, answers={})

    return Decide()


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_decision_model_is_no_chat_model_and_yet_reported(way, make_harness, decision_model):
    request = {"state": "x", "questions": {}}

    def ask(handler):
        config = {"callbacks": [handler]}
        if way == "invoke":
            return decision_model.invoke(request, config)
        return asyncio.run(decision_model.ainvoke(request, config))

    harness = make_harness()
    ask(CostCallbackHandler(harness.pipeline))
    assert [event.what for event in harness.observer.of(Ungoverned)] == ["somebody/decide-1"]
    with pytest.raises(UnsupportedRequestError, match="somebody/decide-1"):
        ask(CostCallbackHandler(make_harness(on_ungoverned="deny").pipeline))


def test_a_decision_model_in_a_chain_is_found_and_not_guarded(make_harness, decision_model, claude):
    _, found = instrument(decision_model | (lambda _: "hi") | claude(), make_harness().pipeline, explain=True)
    assert [(one.what.rpartition(".")[2], one.guarded) for one in found] == [
        ("Decide", False),
        (f"ChatAnthropic({HAIKU})", True),
    ]
    with pytest.raises(NoModelFoundError, match="decision models are not governed"):
        instrument(decision_model | (lambda _: "hi"), make_harness().pipeline)


@pytest.mark.parametrize(
    ("named", "provider", "model"),
    [
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("us.anthropic.claude-sonnet-4-6", "bedrock", "us.anthropic.claude-sonnet-4-6"),
        ("claude-haiku-4-5@20251001", "anthropic", HAIKU),
        ("openai/gpt-5-mini", "openai", MINI),
        ("gpt-5-mini", "openai", MINI),
        ("mistral-large", None, None),
        (None, None, None),
    ],
)
def test_a_model_is_known_by_its_makers_name_wherever_it_is_hosted(named, provider, model):
    found = model_of({"ls_model_name": named}, {}, None, default_platforms())
    assert (found and (found.provider, found.name)) == (provider and (provider, model))


def test_a_block_reports_its_spending_and_leaves_no_hook_behind(make_harness, claude, gpt, sim):
    harness = make_harness()
    claude().invoke("before")
    hooks = len(_configure_hooks)
    with cost_tracking(harness.pipeline) as outer:
        claude().invoke("plain")
        guard(claude(), harness.pipeline).invoke("guarded")
        with cost_tracking(harness.pipeline) as inner:
            gpt().invoke("inner")
        asyncio.run(gpt().ainvoke("task"))
    claude().invoke("after")
    assert len(_configure_hooks) == hooks
    assert (len(outer.records), len(inner.records), sim.request_count) == (4, 1, 6)
    assert outer.total_cost == harness.pipeline.tracker.total_cost > inner.total_cost > 0
    assert set(outer.tracker.by_model()) == {HAIKU, MINI}


def test_a_block_vetoes(make_harness, claude, sim):
    harness = make_harness(limit="0.01")
    with cost_tracking(harness.pipeline) as spent, pytest.raises(BudgetExceededError):
        claude().invoke("hi")
    assert (spent.total_cost, sim.request_count) == (0, 0)
