"""A model whose client is governed on another ledger is refused: guarded, it would send past that ledger's budgets."""

import openai
import pytest
from langchain_openai import ChatOpenAI

from llm_cost_middleware import ConfigurationError, CostConfig, CostPipeline
from llm_cost_middleware.integrations.langchain import guard
from llm_cost_middleware.integrations.openai import wrap_openai


@pytest.mark.parametrize("field", ["root_client", "client"])
def test_a_client_of_another_ledger_is_refused_and_one_of_the_same_is_not(sim, field):
    def model(pipeline):
        root = wrap_openai(openai.OpenAI(base_url=sim.openai_url, api_key="k"), pipeline)
        held = root if field == "root_client" else root.chat.completions
        made = ChatOpenAI(model="gpt-5-mini", api_key="k", base_url=sim.openai_url, max_tokens=20)
        setattr(made, field, held)
        return made

    with CostPipeline(CostConfig()) as one, CostPipeline(CostConfig()) as other:
        with pytest.raises(ConfigurationError, match="another ledger"):
            guard(model(other), one)
        assert not sim.requests
        guard(model(one), one).invoke("hi")
        assert [int(record.cost_nanousd) for record in one.records()] == [sim.bill.total_nanousd]
