"""``CostAwareRouter`` as an object that holds a router: what it lets through, what it governs, what it is taken for."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import pickle
import warnings
from unittest import mock

import pytest

from llm_cost_middleware.errors import BudgetExceededError, UnsupportedRequestError
from llm_cost_middleware.simulator import Fault

ASK = [{"role": "user", "content": "Count to forty."}]
MINI, HAIKU = "openai/gpt-5-mini", "anthropic/claude-haiku-4-5-20251001"
LISTS = ("_async_success_callback", "success_callback", "_async_failure_callback", "failure_callback")


def is_facade():
    import litellm

    return hasattr(litellm.Router, "registry")


def public_methods(router):
    """The names under which a plain router can be called, however it serves them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {*dir(router), *dir(type(router)), *vars(router)}
        return {name for name in names if not name.startswith("_") and inspect.isroutine(getattr(router, name, None))}


@pytest.fixture
def plain(harness):
    import litellm

    fallbacks = [{"mini": ["haiku"]}, {"haiku": ["mini"]}]
    deployments = [harness.deployment("mini", MINI), harness.deployment("haiku", HAIKU)]
    router = litellm.Router(model_list=deployments, num_retries=2, fallbacks=fallbacks, retry_after=0)
    yield router
    (router.retire if is_facade() else router.discard)()


# --- every method is accounted for ------------------------------------------------------------------------------------


def test_every_public_method_of_the_router_is_governed_reported_or_known_to_cost_nothing(plain):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter
    from llm_cost_middleware.integrations.litellm.surface import HARMLESS, UNGOVERNED

    names = public_methods(plain)
    governed = {name for name in names if name in dir(CostAwareRouter)}
    assert len(names) > 200
    assert names - governed - UNGOVERNED.keys() - HARMLESS == set()
    assert not UNGOVERNED.keys() & HARMLESS
    assert {"completion", "acompletion", "responses", "aresponses", "anthropic_messages", "schedule_acompletion",
            "abatch_completion", "abatch_completion_fastest_response"} <= governed  # fmt: skip


def test_a_method_that_can_spend_is_refused_where_configured(make_harness, plain):
    from llm_cost_middleware.integrations.litellm.surface import UNGOVERNED

    harness = make_harness(on_ungoverned="deny")
    router = harness.router(plain)
    asked = sorted(UNGOVERNED.keys() & public_methods(plain))
    assert len(asked) > 20
    for name in asked:
        with pytest.raises(UnsupportedRequestError, match=rf"Router\.{name}\b"):
            answer = getattr(router, name)(model="mini")
            asyncio.run(answer)
    assert harness.sim.request_count == 0


def test_every_method_that_can_spend_has_the_signature_of_the_routers_own(harness, plain):
    from llm_cost_middleware.integrations.litellm.surface import UNGOVERNED

    router = harness.router(plain)
    named = {
        name for name in public_methods(plain) & set(dir(type(router))) if name not in {"call", "retire", "discard"}
    }
    asked = named | UNGOVERNED.keys() & public_methods(plain)
    assert len(asked) > 40
    assert {name for name in asked if shape(getattr(router, name)) != shape(getattr(plain, name))} == set()


def shape(method):
    parameters = inspect.signature(method).parameters.values()
    return inspect.iscoroutinefunction(method), [(each.name, each.kind, each.default) for each in parameters]


def test_an_unknown_method_is_reported_as_one_that_can_spend(make_harness):
    import litellm

    harness = make_harness(on_ungoverned="deny")
    router = harness.router([harness.deployment("mini", MINI)])
    with (
        mock.patch.object(litellm.Router, "adream_generation", create=True, new=lambda self: self),
        pytest.raises(UnsupportedRequestError, match=r"adream_generation.*does not know"),
    ):
        router.adream_generation()


# --- attributes -------------------------------------------------------------------------------------------------------


def test_attributes_are_those_of_the_router_that_is_held(harness, plain):
    router = harness.router(plain)
    assert router.num_retries == plain.num_retries == 2
    router.num_retries = 1
    router.mine = "x"
    assert (plain.num_retries, plain.mine) == (1, "x")
    del router.mine
    assert not hasattr(plain, "mine")
    assert not hasattr(router, "mine")
    assert {"completion", "pipeline", "get_model_list", "aembedding"} <= set(dir(router))
    assert (router.pipeline, router.routed) == (harness.pipeline, "smart")


@pytest.mark.parametrize("name", ["completion", "chat", "aresponses", "aembedding"])
def test_what_a_test_replaces_is_restored_afterwards(name, harness):
    router = harness.router([harness.deployment("mini", MINI)])
    with mock.patch.object(router, name, new="replaced"):
        assert getattr(router, name) == "replaced"
    assert getattr(router, name) != "replaced"
    assert router.chat.completions.create(messages=ASK, model="mini", max_tokens=9).usage.completion_tokens == 9
    harness.agree()


def test_it_is_taken_for_a_router_and_is_no_subclass(harness, router):
    import litellm

    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    assert isinstance(router, litellm.Router)
    assert isinstance(router, CostAwareRouter)
    assert type(router) is CostAwareRouter
    assert not issubclass(CostAwareRouter, litellm.Router)
    assert isinstance(mock.create_autospec(router, instance=True), CostAwareRouter)
    with pytest.raises((TypeError, pickle.PicklingError)):
        pickle.dumps(router)


def test_a_copy_is_governed_and_outlives_what_it_was_copied_from(harness):
    router = harness.router([harness.deployment("mini", MINI)])
    assert router.chat is router.chat
    twin = copy.copy(router)
    assert twin is not router
    assert (twin.pipeline, twin.routed) == (router.pipeline, router.routed)
    assert twin.chat is not router.chat
    del router
    gc.collect()
    twin.completion("mini", ASK, max_tokens=9)
    twin.chat.completions.create(messages=ASK, model="smart", max_tokens=9)
    harness.agree()
    assert len(harness.statuses) == 2


def test_a_router_around_one_of_our_own_books_each_call_once(harness):
    inner = harness.router([harness.deployment("mini", MINI)])
    outer = harness.router(inner)
    outer.completion("mini", ASK, max_tokens=9)
    inner.completion("mini", ASK, max_tokens=9)
    harness.agree()
    assert len(harness.statuses) == 2


@pytest.mark.parametrize("leave", ["retire", "discard"])
def test_a_router_that_is_retired_leaves_the_global_lists_and_keeps_serving(leave, harness):
    import litellm

    gc.collect()
    before = {name: list(getattr(litellm, name)) for name in LISTS}
    router = harness.router([harness.deployment("mini", MINI)])
    getattr(router, leave)()
    assert {name: list(getattr(litellm, name)) for name in LISTS} == before
    router.completion("mini", ASK, max_tokens=9)
    harness.agree()


def test_positional_arguments_are_those_of_a_router(harness):
    import litellm

    names = list(inspect.signature(litellm.Router).parameters)
    tools = [{"search_tool_name": "s", "litellm_params": {"search_provider": "perplexity", "api_key": "k"}}]
    assert names[:3] == ["model_list", "assistants_config", "search_tools"]
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    router = CostAwareRouter([harness.deployment("mini", MINI)], None, tools, pipeline=harness.pipeline)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [tool["search_tool_name"] for tool in router.search_tools] == ["s"]
    with pytest.raises(TypeError, match="search_tools"):
        CostAwareRouter([], None, tools, search_tools=tools, pipeline=harness.pipeline)


def test_what_was_deprecated_is_used_only_where_nothing_else_is_there(harness):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=DeprecationWarning, module=r"llm_cost_middleware.*")
        warnings.filterwarnings("error", message=r"Router\.\w+ is deprecated", category=DeprecationWarning)
        router = harness.router(cooldown_time=0.01)
        router.completion("smart", ASK, max_tokens=9)
        list(router.completion("smart", ASK, max_tokens=9, stream=True))
        router.chat.completions.create(messages=ASK, model="smart", max_tokens=9)
        asyncio.run(router.aresponses(model="smart", input="Count.", max_output_tokens=9))
        copy.copy(router).completion("smart", ASK, max_tokens=9)
        router.discard()
    harness.agree()


# --- nothing slips past -----------------------------------------------------------------------------------------------


def test_a_given_routers_fallbacks_are_made_here_each_with_a_reservation(make_harness, plain):
    harness = make_harness()
    router = harness.router(plain)
    doors = {
        "completion": lambda: router.completion("mini", ASK, max_tokens=9),
        "stream": lambda: list(router.completion("mini", ASK, max_tokens=9, stream=True)),
        "acompletion": lambda: asyncio.run(router.acompletion("mini", ASK, max_tokens=9)),
        "responses": lambda: router.responses(model="mini", input="x", max_output_tokens=9),
        "aresponses": lambda: asyncio.run(router.aresponses(model="mini", input="x", max_output_tokens=9)),
        "messages": lambda: asyncio.run(router.anthropic_messages(model="haiku", messages=ASK, max_tokens=9)),
        "batch": lambda: _raise(asyncio.run(router.abatch_completion(["mini"], ASK, max_tokens=9))[0]),
    }
    sent = {}
    for name, door in doors.items():
        harness.sim.reset()
        harness.sim.script(Fault.status(400), times=9)
        with pytest.raises(Exception, match=r"."):
            door()
        sent[name] = harness.sim.request_count
    assert sent == dict.fromkeys(doors, 2)
    assert harness.settled == 0
    held = {row.id for row in harness.pipeline.ledger.rows()}
    assert len(held) == sum(sent.values())


def _raise(error):
    raise error


def test_the_batch_methods_are_governed(make_harness):
    harness = make_harness()
    router = harness.router()
    models = ["gpt-5-mini", "claude-haiku-4-5-20251001"]

    async def ask():
        await router.schedule_acompletion(model="gpt-5-mini", messages=ASK, priority=1, max_tokens=9)
        one = await router.abatch_completion(models, ASK, max_tokens=9)
        many = await router.abatch_completion(models, [ASK, ASK, ASK], max_tokens=9)
        each = await router.abatch_completion_one_model_multiple_requests(models[0], [ASK, ASK], max_tokens=9)
        return one, many, each

    one, many, each = asyncio.run(ask())
    assert [answer.model.startswith(name[:6]) for answer, name in zip(one, models, strict=True)] == [True, True]
    assert [len(answers) for answers in many] == [2, 2, 2]
    assert len(each) == 2
    assert harness.sim.request_count == len(harness.statuses) == 1 + 2 + 6 + 2
    harness.agree()


def test_a_batch_stops_at_the_budget_and_its_answers_show_the_refusals(make_harness):
    harness = make_harness(budgets=[{"scope": "global", "limit": "0.000001"}])
    answers = asyncio.run(harness.router().abatch_completion(["gpt-5-mini"], [ASK, ASK], max_tokens=9))
    assert all(isinstance(answer, BudgetExceededError) for (answer,) in answers)
    assert harness.sim.request_count == 0


def test_where_none_is_the_fastest_the_error_is_that_of_a_plain_router_with_the_reasons_behind_it(make_harness):
    import litellm

    harness = make_harness(budgets=[{"scope": "global", "limit": "0.000001"}])
    plain = litellm.Router([harness.deployment(name, f"openai/{name}") for name in ("a", "b")], num_retries=0)
    harness.sim.script(Fault.status(401), times=2)
    raised = []
    for router, models in ((plain, "a, b"), (harness.router(), "gpt-5-mini, smart")):
        with pytest.raises(Exception, match=r".") as caught:
            asyncio.run(router.abatch_completion_fastest_response(models, ASK, max_tokens=9))
        raised.append(caught.value)
    theirs, ours = raised
    assert (type(ours), str(ours)) == (type(theirs), str(theirs))
    assert [isinstance(error, BudgetExceededError) for error in ours.__cause__.exceptions] == [True, True]
    assert harness.sim.request_count == 2  # the plain router's


async def test_of_the_fastest_only_the_first_is_exact_and_the_late_are_covered(harness):
    router = harness.router()
    harness.sim.script(Fault.hang(billed=True))
    answer = await router.abatch_completion_fastest_response("gpt-5-mini, gpt-5.1", ASK, max_tokens=9)
    assert answer._hidden_params["fastest_response_batch_completion"] is True
    await harness.reached(2)
    assert sorted(harness.statuses) == ["exact", "unconfirmed"]
    assert harness.settled >= harness.sim.bill.total_nanousd > 0
