"""Answers in the background that a really other process retrieves: settled once, whoever reads them how often."""

from __future__ import annotations

import subprocess
import sys

import openai

from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

ELSEWHERE = """
import sys

import openai

from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.pipeline import CostPipeline

ledger, address, *names = sys.argv[1:]
config = {"ledger": {"url": ledger}, "budgets": [{"scope": "global", "limit": "100"}]}
with CostPipeline(config) as pipeline, openai.OpenAI(base_url=address, api_key="k") as client:
    wrapped = wrap_openai(client, pipeline)
    for name in names:
        with wrapped.responses.with_streaming_response.retrieve(name) as response:
            assert response.parse().usage is not None
        wrapped.responses.retrieve(name)
    print(len(pipeline.records()))
"""


def test_another_process_settles_it_once(shared_url, sim):
    config = {"ledger": {"url": shared_url}, "budgets": [{"scope": "global", "limit": "100"}]}
    with CostPipeline(config) as here, openai.OpenAI(base_url=sim.openai_url, api_key="k") as client:
        wrapped = wrap_openai(client, here)
        ask = {"model": "gpt-5-mini", "input": "Count.", "max_output_tokens": 40, "background": True}
        names = [wrapped.responses.create(**ask).id for _ in range(3)]
        for name in names:
            client.responses.retrieve(name)  # nobody has read it, and it is finished
        assert here.ledger.balance("global").settled_nanousd == 0
        command = [sys.executable, "-c", ELSEWHERE, shared_url, sim.openai_url]
        there = [
            subprocess.Popen([*command, *some], stdout=subprocess.PIPE, text=True)
            for some in (names[:2], names[1:])  # both read the one in the middle
        ]
        said = [process.communicate(timeout=120)[0] for process in there]
        assert [process.returncode for process in there] == [0, 0]
        assert sum(map(int, said)) == len(names), "each is recorded by one of them"
        for name in names:
            wrapped.responses.retrieve(name)
        balance = here.ledger.balance("global")
        assert (balance.pending_nanousd, balance.settled_nanousd) == (0, sim.bill.total_nanousd)
        assert here.records() == ()
