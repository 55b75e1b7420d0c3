"""``[routing] regions`` in a guarded model: a count of tokens by the provider leaves them no more than a call."""

from __future__ import annotations

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from llm_cost_middleware.errors import NoEligibleModelError
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.pipeline import CostPipeline

ASK = [HumanMessage("Hello there.")]


@pytest.mark.parametrize("regions", [["eu"], ["global"]])
def test_a_count_that_the_provider_makes_stays_inside(sim, regions):
    model = ChatAnthropic(model="claude-haiku-4-5", api_key="k", base_url=sim.anthropic_url, max_tokens=20)
    with CostPipeline({"routing": {"regions": regions}}) as pipeline:
        guarded = guard(model, pipeline)
        if regions == ["global"]:
            assert guarded.get_num_tokens_from_messages(ASK) > 0
        else:
            for ask in (guarded.get_num_tokens_from_messages, guarded.invoke):
                with pytest.raises(NoEligibleModelError, match="eu"):
                    ask(ASK)
    assert sim.request_count == (regions == ["global"])


def test_what_is_counted_on_this_machine_leaves_nothing(sim):
    model = ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url)
    with CostPipeline({"routing": {"regions": ["eu"]}}) as pipeline:
        guarded = guard(model, pipeline)
        with pytest.raises(NoEligibleModelError, match="eu"):
            guarded.invoke(ASK)
    assert sim.request_count == 0
