"""What a router may be made of, whose prices it keeps, and who else may use it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.errors import NoEligibleModelError, UnsupportedRequestError
from llm_cost_middleware.integrations.litellm import proxy_config, router_config
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import Fault
from llm_cost_middleware.testing import FakeClock

ASK = [{"role": "user", "content": "Count to forty."}]
HAIKU, MINI = "anthropic/claude-haiku-4-5-20251001", "openai/gpt-5-mini"


def test_a_router_of_a_configuration_alone_serves_its_tiers(harness):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    router = CostAwareRouter(harness.pipeline)
    assert router.completion("smart", ASK, max_tokens=9).usage.completion_tokens == 9
    assert {entry["model_name"] for entry in router.model_list} == {
        "claude-haiku-4-5-20251001", "gpt-5-mini", "claude-sonnet-4-6", "gpt-5.1",
    }  # fmt: skip
    harness.agree()


def test_a_router_of_a_model_list_routes_among_the_tiers_models_it_has(harness):
    router = harness.router([harness.deployment("my-haiku", HAIKU)])
    assert router.completion("smart", ASK, max_tokens=9).model == "claude-haiku-4-5-20251001"
    assert router.completion("my-haiku", ASK, max_tokens=9).model == "claude-haiku-4-5-20251001"
    harness.agree()
    lonely = harness.router([harness.deployment("other", "openai/gpt-4o-mini")])
    with pytest.raises(NoEligibleModelError):
        lonely.completion("smart", ASK, max_tokens=9)
    lonely.completion("other", ASK, max_tokens=9)
    harness.agree()


def test_a_router_around_a_router_shares_its_deployments_and_leaves_it_alone(harness):
    import litellm

    plain = litellm.Router(model_list=[harness.deployment("mini", MINI)], num_retries=2)
    before = set(vars(plain))
    router = harness.router(plain)
    router.completion("mini", ASK, max_tokens=9)
    harness.sim.script(Fault.status(500))
    asyncio.run(router.acompletion("mini", ASK, max_tokens=9))
    harness.agree()
    assert router.model_list is plain.model_list
    assert set(vars(plain)) == before
    assert plain.num_retries == 2
    plain.discard()


def test_a_routed_name_can_be_another(harness):
    router = harness.router([harness.deployment("mini", MINI)], routed="cheap")
    assert router.completion("cheap", ASK, max_tokens=9).model.startswith("gpt-5-mini")


def test_prices_of_a_deployments_own_are_the_ones_that_are_booked(harness):
    own = harness.deployment("bought", MINI, input_cost_per_token=1e-6, output_cost_per_token=3e-6)
    router = harness.router([own, harness.deployment("listed", MINI)])
    answer = router.completion("bought", ASK, max_tokens=40)
    usage = answer.usage
    expected = usage.prompt_tokens * 1_000 + usage.completion_tokens * 3_000
    assert harness.settled == expected
    list(router.completion("bought", ASK, max_tokens=40, stream=True))
    assert harness.settled == 2 * expected
    harness.sim.reset()
    router.completion("listed", ASK, max_tokens=40)
    assert harness.settled == 2 * expected + harness.sim.bill.total_nanousd


def test_where_all_deployments_of_a_model_have_one_price_of_their_own_routing_knows_it(harness):
    own = harness.deployment("bought", MINI, input_cost_per_token=1e-6, output_cost_per_token=3e-6)
    router = harness.router([own])
    usage = router.completion("smart", ASK, max_tokens=40).usage
    assert harness.settled == usage.prompt_tokens * 1_000 + usage.completion_tokens * 3_000


def test_a_group_is_bounded_by_the_most_expensive_of_its_deployments(harness):
    mixed = [harness.deployment("chat", "openai/gpt-5-nano"), harness.deployment("chat", "openai/gpt-5.1")]
    router = harness.router(mixed)
    served = set()
    for _ in range(60):  # LiteLLM draws by lot
        router.completion("chat", ASK, max_tokens=9)
        served = {request.body["model"] for request in harness.sim.requests}
        if len(served) == len(mixed):
            break
    harness.agree()
    assert served == {"gpt-5-nano", "gpt-5.1"}


def test_a_group_that_cannot_be_bounded_is_refused_with_advice(harness):
    router = harness.router([harness.deployment("chat", MINI), harness.deployment("chat", MINI, max_tokens=9)])
    with pytest.raises(UnsupportedRequestError, match="max_tokens"):
        router.completion("chat", ASK)
    assert harness.sim.request_count == 0


def test_a_deployments_own_cap_is_the_one_that_is_lowered(harness):
    """OpenAI refuses a chat that names both of its caps."""
    router = harness.router([harness.deployment("old", "openai/gpt-4o-mini", max_tokens=40)])
    router.completion("old", ASK)
    router.completion("old", ASK, max_tokens=9)
    caps = [{name: cap for name, cap in exchange.body.items() if "max" in name} for exchange in harness.sim.requests]
    assert caps == [{"max_tokens": 40}, {"max_tokens": 9}]
    harness.agree()


def test_what_a_deployment_adds_to_its_calls_is_counted(harness):
    router = harness.router([harness.deployment("three", MINI, n=3)])
    router.completion("three", ASK, max_tokens=9)
    harness.agree()


def test_an_answer_from_litellms_cache_costs_nothing(harness):
    import litellm

    pytest.importorskip("fastapi", reason="needs the proxy extra, which has no LiteLLM >= 1.110 here")
    router = harness.router([harness.deployment("mini", MINI)], cache_responses=True)
    try:
        for _ in range(3):
            router.completion("mini", ASK, max_tokens=9)
            asyncio.run(router.acompletion("mini", ASK, max_tokens=9))
        assert harness.sim.request_count < 6
        harness.agree()
    finally:
        litellm.cache = None


def test_balancing_and_cooldowns_remain_litellms(harness):
    router = harness.router([harness.deployment("mini", MINI), harness.deployment("mini", MINI, organization="two")])
    harness.sim.script(Fault.status(429, retry_after=0))
    router.completion("mini", ASK, max_tokens=9)
    assert harness.sim.request_count == 2
    harness.agree()


def test_other_platforms_and_other_methods_are_refused_where_configured(make_harness):
    harness = make_harness(on_ungoverned="deny")
    away = {
        "model_name": "away",
        "litellm_params": {"model": "mistral/x", "api_base": "http://127.0.0.1:1", "api_key": "k"},
    }
    router = harness.router([harness.deployment("mini", MINI), away])
    with pytest.raises(UnsupportedRequestError, match="'away'"):
        router.completion("away", ASK)
    with pytest.raises(UnsupportedRequestError, match=r"Router\.text_completion"):
        router.text_completion(model="mini", prompt="x")
    with pytest.raises(UnsupportedRequestError, match=r"Router\.aimage_generation"):
        asyncio.run(router.aimage_generation(model="mini", prompt="x"))
    assert harness.sim.request_count == 0


def test_what_is_not_governed_is_recorded_at_the_price_that_litellm_names(make_harness):
    harness = make_harness(on_ungoverned="allow")
    router = harness.router([harness.deployment("emb", "cohere/embed-english-v3.0")])
    said = {"llm_cost": {"user": "9"}}
    answer = router.embedding(model="emb", input=["some words"], mock_response=[0.1], metadata=said)
    (record,) = harness.pipeline.records()
    assert record.cost_usd == Decimal(repr(answer._hidden_params["response_cost"])) > 0
    assert (record.model, record.status, record.scopes) == ("emb", "estimated", ("user:9",))
    assert harness.pipeline.ledger.balance("user:9").settled_nanousd == record.cost_nanousd


def test_a_name_that_litellm_does_not_know_gets_its_own_error(harness, router):
    import litellm

    with pytest.raises(litellm.BadRequestError):
        router.completion("no-such-model", ASK)


def test_code_that_expects_a_router_is_content(harness):
    import litellm

    hosts = pytest.importorskip("langchain_litellm")

    router = harness.router()
    assert isinstance(router, litellm.Router)
    chat = hosts.ChatLiteLLMRouter(router=router, model_name="smart", max_tokens=9)
    assert chat.invoke("Count.").content
    assert "".join(chunk.content for chunk in chat.stream("Count."))
    assert asyncio.run(chat.ainvoke("Count.")).content
    harness.agree()


def test_routers_that_are_dropped_leave_nothing_behind(harness, soak):
    import litellm

    lists = ("_async_success_callback", "success_callback", "_async_failure_callback", "failure_callback", "callbacks")
    gc.collect()
    before = {name: len(getattr(litellm, name)) for name in lists}
    last = None
    for _ in range(500 if soak else 40):
        router = harness.router([harness.deployment("mini", MINI)])
        last = weakref.ref(router)
        del router
    gc.collect()
    assert last() is None
    assert all(len(getattr(litellm, name)) <= before[name] for name in lists)


def test_calls_leave_nothing_behind(harness, soak):
    import tracemalloc

    import litellm

    router = harness.router([harness.deployment("mini", MINI)])
    lists = ("_async_success_callback", "success_callback", "_async_failure_callback", "failure_callback", "callbacks")

    def run(times):
        for _ in range(times):
            router.completion("mini", ASK, max_tokens=1, mock_response="ok")

    run(60)
    before = {name: len(getattr(litellm, name)) for name in lists}
    tracemalloc.start()
    try:
        run(10_000 if soak else 100)
        gc.collect()
        ours = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, "*llm_cost_middleware/integrations/*")]
        )
    finally:
        tracemalloc.stop()
    assert {name: len(getattr(litellm, name)) for name in lists} == before
    assert sum(trace.size for trace in ours.statistics("filename")) < 100_000


def test_a_logger_books_what_is_not_governed_and_nothing_twice(make_harness, listeners):
    from llm_cost_middleware.integrations.litellm import CostLogger

    harness = make_harness()
    listeners.append(CostLogger(harness.pipeline))
    asyncio.run(_logged_calls(harness))
    assert harness.pipeline.ledger.balance("user:9").settled_nanousd > 0
    assert harness.settled == harness.sim.bill.total_nanousd
    logged, governed = sorted(harness.pipeline.records(), key=lambda record: "user:9" not in record.scopes)
    assert logged.call_id.startswith("logged.")
    assert not governed.call_id.startswith("logged.")
    assert logged.usage is not None
    assert harness.pipeline.tracker.total_cost == logged.cost_usd + governed.cost_usd
    assert logged.cost_nanousd + governed.cost_nanousd == harness.sim.bill.total_nanousd


def test_a_call_that_is_reported_twice_is_recorded_once():
    from llm_cost_middleware.integrations.litellm import CostLogger

    clock = FakeClock()
    pipeline = CostPipeline(CostConfig(), clock=clock)
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    answer = {"id": "r", "object": "chat.completion", "model": "gpt-5-mini", "choices": [], "usage": usage}
    told = {"custom_llm_provider": "openai", "model": "gpt-5-mini", "litellm_params": {}, "litellm_call_id": "one"}
    one, other = CostLogger(pipeline), CostLogger(pipeline)
    one.log_success_event(told, answer, None, None)
    asyncio.run(other.async_log_success_event(told, answer, None, None))
    (record,) = pipeline.records()
    assert (record.input_tokens, record.output_tokens, record.response_id) == (9, 3, "r")
    for number in range(1_500):
        one.log_success_event(told | {"litellm_call_id": str(number)}, answer, None, None)
    clock.advance(2)
    other.log_success_event(told, answer, None, None)
    assert len(pipeline.records()) == 1_501
    assert pipeline.ledger.balance("global").settled_nanousd == 1_501 * record.cost_nanousd
    assert pipeline.tracker.total_cost == 1_501 * record.cost_usd


async def _logged_calls(harness):
    import litellm

    await litellm.acompletion(
        MINI, ASK, max_tokens=9, api_base=harness.sim.openai_url, api_key="k", metadata={"llm_cost": {"user": "9"}}
    )
    await harness.router().acompletion("smart", ASK, max_tokens=9)
    for _ in range(1_000):
        await asyncio.sleep(0.02)
        if harness.settled == harness.sim.bill.total_nanousd:
            break
    await asyncio.sleep(0.2)


def test_a_configuration_becomes_a_plain_router(monkeypatch):
    import litellm

    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    options = router_config(CostConfig())
    router = litellm.Router(**options)
    assert options["retry_policy"]["DefaultRetries"] == 0
    assert {"gpt-5-mini": ["claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5.1"]} in options["fallbacks"]
    assert router.get_model_names()
    router.discard()


def test_a_configuration_becomes_the_file_of_a_proxy():
    import yaml

    config = yaml.safe_load(proxy_config(CostConfig(), routed="auto"))
    names = [entry["model_name"] for entry in config["model_list"]]
    assert names == ["claude-haiku-4-5-20251001", "gpt-5-mini", "claude-sonnet-4-6", "gpt-5.1", "auto"]
    routed = config["model_list"][-1]["litellm_params"]["complexity_router_config"]
    assert routed["max_tokens_from_tier_model"] is False  # a cap is its client's
    assert config["router_settings"]["num_retries"] == 0
    assert config["litellm_settings"]["callbacks"] == ["llm_cost_middleware.integrations.litellm.proxy.governor"]


def test_the_command_writes_the_file_of_a_proxy(tmp_path):
    import typer
    import yaml
    from typer.testing import CliRunner

    from llm_cost_middleware.cli.litellm_config import litellm_config

    app = typer.Typer()
    app.command()(litellm_config)
    (tmp_path / "cost.toml").write_text('[[tiers]]\nname = "one"\nmodels = ["openai/gpt-5-mini", "openai/gpt-5.1"]\n')
    written = CliRunner().invoke(app, [str(tmp_path / "cost.toml"), "--routed", "auto"])
    assert written.exit_code == 0, written.output
    assert yaml.safe_load(written.stdout)["model_list"][-1]["model_name"] == "auto"


def test_concurrent_threads_all_see_the_whole_list(harness):
    from llm_cost_middleware.integrations.litellm.groups import Groups

    router = harness.router()
    threads = 8
    start = threading.Barrier(threads)

    def ask(groups):
        start.wait()
        served = groups.refresh()
        return len(served.groups), len(served.reach), groups.find("gpt-5-mini", {}) is not None

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(30):
                fresh = Groups(router, harness.pipeline.catalogue)
                assert set(pool.map(ask, [fresh] * threads)) == {(4, 4, True)}
    finally:
        sys.setswitchinterval(interval)
