"""What patience saves: the bill of four kinds of work at no, 10 minutes, 1 hour and 24 hours of patience.

``python tests/benchmarks/patience.py [--out FILE] [--calls N]``. The requests are the recorded conversations of an
agent, and three kinds of offline work over the same texts: classification of each message at night, evaluation of each
conversation under one long rubric, and re-indexing of what the tools returned. At 24 hours the offline work goes
through ``pipeline.batch``; everything else is sent by the ``openai`` SDK, wrapped, to a provider on loopback whose
tiers are as the guides describe them (``simulator.tiers``), once on a quiet day and once on a busy one. Time is
simulated: each answer says how long it took (``openai-processing-ms``), and the clocks are set on by that much, or by
the timeout of the try where it would have taken longer.

A miss is a call that was answered later than it could wait, or not at all. A line is marked ``!`` where the ledger says
less than the bill, or anything else although every outcome is known.
"""

# ruff: noqa: E402 - run by its path: where it imports from is said first

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import sys
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
sys.path[:0] = [folder for folder in (str(HERE.parents[1]),) if folder not in sys.path]

import httpx
import openai

from llm_cost_middleware import CostConfig, CostPipeline, cost_context
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, BatchPace, Simulator, TierMarket
from llm_cost_middleware.testing import FakeClock

PATIENCE = {"none": None, "10 min": "10m", "1 h": "1h", "24 h": "24h"}
SECONDS = {"none": float("inf"), "10 min": 600.0, "1 h": 3_600.0, "24 h": 86_400.0}
DAYS = {
    "quiet": TierMarket(
        flex_unavailable=0.05, flex_timeouts=0.005, flex_delay_s=15, standard_delay_s=4, pace=0, seed=1
    ),
    "busy": TierMarket(
        flex_unavailable=0.5, flex_timeouts=0.03, flex_delay_s=60, flex_spread=1.2, standard_delay_s=8, pace=0, seed=1
    ),
}
HEAD = (
    "day    work            patience  calls  requests  flex batch  lost  misses"
    "   mean s    bill $  of today's  ledger $"
)
RUBRIC = "You judge how an agent served a customer. " + "Weigh politeness, truth and whether the rules were kept. " * 60


class TellingTime(httpx.HTTPTransport):
    """Lets the time pass that an answer says it took."""

    def __init__(self, clock, sim):
        super().__init__()
        self._clock, self._sim = clock, sim

    def handle_request(self, request):
        self._sim.clock.set(self._clock.now())  # prompt caches lapse, and batches come to their end
        response = super().handle_request(request)
        took, limit = int(response.headers["openai-processing-ms"]) / 1_000, request.extensions["timeout"]["read"]
        if limit is not None and took > limit:
            response.read()
            response.close()
            self._clock.advance(limit)
            raise httpx.ReadTimeout("the answer takes longer", request=request)
        self._clock.advance(took)
        return response


def conversations(data):
    with gzip.open(data / "agent_traces" / "airline_conversations.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["messages"] for line in lines]


def work(data, calls):
    """Bodies of requests by kind of work, at most so many of each."""
    told = conversations(data)
    tools = json.loads((data / "agent_traces" / "airline_tools.json").read_text(encoding="utf-8"))
    turns = [
        {"model": "gpt-5.1", "messages": messages[:index], "tools": tools, "max_completion_tokens": 400}
        for messages in told for index, message in enumerate(messages) if message["role"] == "assistant" and index
    ]  # fmt: skip
    texts = [message["content"] for messages in told for message in messages if message["role"] == "user"]
    classes = [
        {
            "model": "gpt-5-nano", "max_completion_tokens": 100,
            "messages": [{"role": "system", "content": "Name the wish of the customer in one word."},
                         {"role": "user", "content": text}],
        }
        for text in texts
    ]  # fmt: skip
    judged = [
        {
            "model": "gpt-5.1", "max_completion_tokens": 400,
            "messages": [{"role": "system", "content": RUBRIC},
                         {"role": "user", "content": json.dumps(messages[1:])[:20_000]}],
        }
        for messages in told
    ]  # fmt: skip
    found = [message["content"] for messages in told for message in messages if message["role"] == "tool"]
    indexed = [
        {
            "model": "gpt-5-mini", "max_completion_tokens": 300,
            "messages": [{"role": "user", "content": f"Summarise for a search index:\n{text}"}],
        }
        for text in found
    ]  # fmt: skip
    kinds = {"agent": turns, "classification": classes, "evaluation": judged, "re-indexing": indexed}
    return {name: bodies[:calls] for name, bodies in kinds.items()}


def answer(request):
    return Answer(text="An answer of usual length. " * 6, output_tokens=min(request.max_tokens or 200, 200))


def run(sim, bodies, patience, market, *, batched):
    """Send them one after another, or as a batch; the bill, what the ledger says, misses and requests."""
    sim.reset()
    sim.tiers, sim.batch_pace, clock = market, BatchPace(delay_s=20 * 3_600), FakeClock()
    sim.clock.set(clock.now())
    with (
        CostPipeline(
            CostConfig(budgets=[{"scope": "global", "limit": "1000"}]), clock=clock, rng=Random(5)
        ) as pipeline,
        openai.OpenAI(
            base_url=sim.openai_url, api_key="k", http_client=httpx.Client(transport=TellingTime(clock, sim))
        ) as client,
    ):
        wrapped, misses = wrap_openai(client, pipeline), 0
        for body in bodies if not batched else ():
            began = clock.monotonic()
            try:
                with cost_context(patience=PATIENCE[patience]):
                    wrapped.chat.completions.create(**body)
                misses += clock.monotonic() - began > SECONDS[patience]
            except openai.APIError:
                misses += 1
        if batched:
            answers = pipeline.batch(bodies, client=client, patience=PATIENCE[patience])
            late = clock.monotonic() > SECONDS[patience]
            misses = len(bodies) if late else sum(isinstance(each, Exception) for each in answers)
        balance = pipeline.ledger.balance("global")
        lost = sum(record.status == "unconfirmed" for record in pipeline.records())
        booked, billed = int(balance.settled_nanousd), sim.bill.total_nanousd
        wrong = booked < billed or balance.pending_nanousd or (not lost and booked != billed)
        at_flex, in_batch = (sum(line.tier == tier for line in sim.bill.lines) for tier in ("flex", "batch"))
        mean = clock.monotonic() / len(bodies)
        return booked, billed, misses, sim.request_count, at_flex, in_batch, lost, mean, "!" if wrong else ""


def table(data, calls):
    yield HEAD
    with Simulator(responder=answer, keep_bodies=False) as sim:
        for day, market in DAYS.items():
            for kind, bodies in work(data, calls).items():
                today = 0
                for patience in PATIENCE:
                    booked, billed, misses, requests, flex, batch, lost, mean, mark = run(
                        sim, bodies, patience, market, batched=patience == "24 h" and kind != "agent"
                    )
                    today = today or billed
                    yield (
                        f"{day:6} {kind:15} {patience:8} {len(bodies):6} {requests:9} {flex:5} {batch:5}"
                        f" {lost:5} {misses:7} {mean:8.1f} {billed / 1e9:9.5f} {100 * billed / today:9.1f} %"
                        f" {booked / 1e9:9.5f} {mark}"
                    ).rstrip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--calls", type=int, default=150, help="of each kind")
    chosen = parser.parse_args()
    logging.getLogger("llm_cost_middleware").setLevel(logging.ERROR)
    data = Path(os.environ.get("LLM_COST_DATA", HERE.parents[1].parent / "shared" / "data"))
    lines = []
    for line in table(data, chosen.calls):
        print(line, flush=True)
        lines.append(line)
    if chosen.out is not None:
        chosen.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return any(line.endswith("!") for line in lines)


if __name__ == "__main__":
    sys.exit(main())
