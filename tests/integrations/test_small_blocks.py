"""Many small blocks: what frames them is held, too."""

from __future__ import annotations

import anthropic
import pytest

from llm_cost_middleware import CostPipeline
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.simulator import Simulator, fill

WORD = [{"type": "text", "text": "w"}]
BLOCKS = {
    "text": WORD[0],
    "document": {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "w"}},
    "document of blocks": {"type": "document", "title": "t", "source": {"type": "content", "content": WORD}},
    "search result": {"type": "search_result", "source": "s", "title": "t", "content": WORD},
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_no_bill_is_above_its_hold(kind):
    with (
        Simulator(responder=fill, worst_case_tokenizer=True) as sim,
        CostPipeline({"budgets": [{"scope": "global", "limit": "1"}]}) as pipeline,
        anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0) as client,
    ):
        asked = [{"role": "user", "content": [BLOCKS[kind]] * 20}]
        wrap_anthropic(client, pipeline).messages.create(model="claude-haiku-4-5", max_tokens=5, messages=asked)
        (record,) = pipeline.records()
        assert sim.bill.total_nanousd == record.cost_nanousd <= record.reserved_nanousd
