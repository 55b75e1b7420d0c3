"""Arguments that no request can be made of: nothing is sent, nothing is booked, and the caller gets the error."""

from __future__ import annotations

import asyncio

import pytest

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

pytestmark = pytest.mark.litellm
ASK = [{"role": "user", "content": "hi"}]
STREAM_OPTIONS = {"stream": True, "stream_options": "x"}
UNENCODABLE = {"user": object()}


@pytest.fixture
def pipeline(sim):
    with CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": "5"}])) as made:
        yield made
        balance = made.ledger.balance("global")
        assert (sim.request_count, balance.settled_nanousd, balance.pending_nanousd) == (0, 0, 0)


@pytest.mark.parametrize("arguments", [STREAM_OPTIONS, UNENCODABLE], ids=["unreadable", "unencodable"])
async def test_a_wrapped_client_gives_the_reservation_back(arguments, pipeline, clients, async_clients):
    with pytest.raises((TypeError, ValueError)):
        wrap_openai(clients["openai"], pipeline).chat.completions.create(
            model="gpt-5-mini", messages=ASK, max_completion_tokens=9, **arguments
        )
    with pytest.raises((TypeError, ValueError)):
        await wrap_openai(async_clients["openai"], pipeline).chat.completions.create(
            model="gpt-5-mini", messages=ASK, max_completion_tokens=9, **arguments
        )


@pytest.mark.parametrize("arguments", [STREAM_OPTIONS, UNENCODABLE], ids=["unreadable", "unencodable"])
def test_a_router_gives_the_reservation_back(arguments, pipeline, sim):
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    params = {"model": "openai/gpt-5-mini", "api_base": sim.openai_url, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "mini", "litellm_params": params}], pipeline=pipeline)
    with pytest.raises(Exception, match=r"."):  # LiteLLM's own class for it
        router.completion("mini", ASK, max_tokens=9, **arguments)
    with pytest.raises(Exception, match=r"."):
        asyncio.run(router.acompletion("mini", ASK, max_tokens=9, **arguments))
