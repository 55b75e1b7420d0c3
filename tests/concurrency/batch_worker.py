"""A process that sends or collects batches, to be killed."""

from __future__ import annotations

import sys

import anthropic
import openai

from llm_cost_middleware.pipeline import CostPipeline

if __name__ == "__main__":
    what, url, claude_url, gpt_url = sys.argv[1:5]
    clients = [
        anthropic.Anthropic(base_url=claude_url, api_key="key", max_retries=0),
        openai.OpenAI(base_url=gpt_url, api_key="key", max_retries=0),
    ]
    pipeline = CostPipeline({"ledger": {"url": url}, "budgets": [{"scope": "global", "limit": "5"}]})
    if what == "send":
        from batch_bodies import chat_bodies, claude_bodies

        pipeline.batch([*claude_bodies(12), *chat_bodies(12)], client=clients)
    else:
        pipeline.collect_batch(pipeline.batches()[0].batch_id, client=clients)
