"""What governing a call costs, beside what the hosts cost by themselves. CPU time, best of rounds, one run."""

import time

import pytest

from llm_cost_middleware import CostConfig, CostPipeline, CostRecord, CostTracker
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

BOTH = frozenset({"anthropic", "openai"})
SHORT = {"model": "smart", "messages": [{"role": "user", "content": "x" * 500}]}
LONG = {
    "model": "smart",
    "messages": [
        {"role": ("user", "assistant")[turn % 2], "content": f"words and more words, turn {turn}. " * 25}
        for turn in range(40)
    ],
}
READING = UsageReport(
    items=(BilledItem(TokenUsage(uncached_input=120, output=50)),), model="gpt-5-mini-2025-08-07",
    complete=True, response_id="chatcmpl-1", finish_reason="stop", service_tier="default",
)  # fmt: skip
RESULT = CallResult(object(), READING)


def _best(function, count, rounds=7):
    """CPU microseconds a call."""
    for _ in range(max(count // 10, 5)):
        function()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(count):
            function()
        best = min(best, (time.process_time() - start) / count)
    return best * 1e6


def _governed(pipeline, body):
    """A governed call whose sending costs nothing: route, plan, bound, reserve, settle, record."""
    read_request = get_provider("openai").read_request
    pipeline.run(read_request(body, "chat.completions"), lambda _: RESULT, providers=BOTH)


@pytest.mark.litellm
def test_a_governed_call_beside_the_hosts(capsys):
    import litellm
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    pipeline = CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "9000"}]))
    router = litellm.Router(
        model_list=[{"model_name": "m", "litellm_params": {"model": "openai/gpt-5-mini", "api_key": "k"}}],
        num_retries=0,
    )
    fake = FakeListChatModel(responses=["hello"])
    figures = {
        "governed call, one user turn of 500 characters (goal 80)": _best(lambda: _governed(pipeline, SHORT), 300),
        "governed call, 40 messages (goal 400)": _best(lambda: _governed(pipeline, LONG), 100),
        "LangChain invoke on a fake model": _best(lambda: fake.invoke("x" * 500), 200),
        "litellm.Router.completion(mock_response=…)": _best(
            lambda: router.completion("m", SHORT["messages"], mock_response="hello"), 20, rounds=3
        ),
    }
    host = figures["litellm.Router.completion(mock_response=…)"]
    with capsys.disabled():
        print("\nCPU µs a call, best of rounds")
        for name, cost in figures.items():
            print(f"  {name:58} {cost:9.1f}   {cost / host:7.2%} of LiteLLM's router")
    assert pipeline.ledger.balance("global").pending == 0
    assert len(pipeline.tracker) > 0
    router.discard()


def test_the_tracker_costs_the_same_at_any_size(capsys):
    record = CostRecord("m", 1, 1, "0.000001")
    figures = {}
    for size in (100, 100_000):
        tracker = CostTracker("1000", [record] * size)
        state = {"tracker": tracker}

        def add(state=state):
            state["tracker"] = state["tracker"].add(record)

        figures[size] = (_best(add, 2_000), _best(lambda tracker=tracker: tracker.total_cost, 20_000))
    with capsys.disabled():
        print("\nCPU µs, CostTracker with      add   total_cost")
        for size, (add_us, total_us) in figures.items():
            print(f"  {size:>8,} records       {add_us:8.2f} {total_us:12.3f}")
    assert len(figures) == 2
