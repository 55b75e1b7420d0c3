"""The same race through LiteLLM's own budgets: fifty at once, money for five. A figure for the README, no promise."""

import asyncio

import pytest

from llm_cost_middleware.simulator import Simulator, fill

pytestmark = [
    pytest.mark.litellm,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
CALLERS = 50


async def _race(sim, **budget):
    import litellm

    litellm.suppress_debug_info = True
    deployment = {
        "model_name": "m",
        "litellm_params": {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k", "max_tokens": 200},
    }
    deployment["litellm_params"] |= budget.pop("deployment", {})
    router = litellm.Router(model_list=[deployment], num_retries=0, **budget)
    messages = [{"role": "user", "content": "go"}]
    results = await asyncio.gather(*(router.acompletion("m", messages) for _ in range(CALLERS)), return_exceptions=True)
    router.discard()
    return sum(not isinstance(result, BaseException) for result in results)


@pytest.mark.parametrize("kind", ["provider_budget_config", "max_budget of a deployment"])
async def test_fifty_at_once_against_money_for_five(kind, capsys):
    with Simulator(responder=fill, keep_bodies=False) as sim:
        assert await _race(sim) == CALLERS
        one = sim.bill.total_nanousd / CALLERS / 1e9
        sim.reset()
        limit = 5 * one
        if kind == "provider_budget_config":
            budget = {"provider_budget_config": {"openai": {"budget_limit": limit, "time_period": "1d"}}}
        else:
            budget = {"deployment": {"max_budget": limit, "budget_duration": "1d"}}
        sent = await _race(sim, **budget)
        ratio = sim.bill.total_nanousd / 1e9 / limit
    with capsys.disabled():
        print(f"\n(b)  tasks      LiteLLM's own, {kind:28} sent {sent:3}  bill/budget {ratio:.3f}", end="")
    assert sent == sim.request_count
