"""Learned output caps over recorded conversations of agents: how many answers are cut, and how much less is held.

    python tests/benchmarks/bench_learned_caps.py [--write]

The 1,698 answers of 120 conversations (tau-bench, airline; ``LLM_COST_DATA``), each as a call of one of two sites (an
answer that calls a tool, one in words) or of one site for all. The conversations come in the recorded order, or in 200
shuffled ones; turns stay in their order. A length is a quarter of the answer's bytes.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from random import Random

from llm_cost_middleware.limits import find_limits
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.output_caps import LearnedCaps

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LLM_COST_DATA") or ROOT.parent / "shared" / "data")
RESULTS = Path(__file__).parent / "results" / "learned_caps.json"
MODEL = ModelRef("openai", "gpt-4o")


def conversations():
    with gzip.open(DATA / "agent_traces" / "airline_conversations.jsonl.gz", "rt") as lines:
        for line in lines:
            turns = [message for message in json.loads(line)["messages"] if message["role"] == "assistant"]
            yield [_answer(turn) for turn in turns]


def _answer(turn):
    calls = turn.get("tool_calls")
    text = json.dumps(calls) if calls else turn["content"] or ""
    return "tool" if calls else "words", max(1, -(-len(text) // 4))


def run(order, risk, site_of):
    caps, cut, capped, held = LearnedCaps(risk), 0, 0, 0
    usual = find_limits(*MODEL).default_output
    for conversation in order:
        for kind, length in conversation:
            site = site_of(kind)
            cap = caps.cap(site, MODEL)
            held += usual if cap is None else min(cap, usual)
            if cap is not None:
                capped += 1
                if length >= cap:
                    cut, held = cut + 1, held + usual
                    caps.note_cut(site, MODEL)
            caps.observe(site, MODEL, length)
    return cut, capped, held / usual


def main():
    every = list(conversations())
    calls = sum(map(len, every))
    rows = []
    for sites, site_of in (("one", lambda _: "s"), ("two", lambda kind: kind)):
        for risk in (0.01, 0.02, 0.05, 0.1):
            shuffled = []
            for seed in range(200):
                order = every[:]
                Random(seed).shuffle(order)
                shuffled.append(run(order, risk, site_of))
            recorded = run(every, risk, site_of)
            shares = sorted(cut / capped for cut, capped, _ in shuffled if capped)
            rows.append({
                "sites": sites, "risk": risk, "calls": calls,
                "recorded": {"capped": recorded[1], "cut": recorded[0], "share": round(recorded[0] / recorded[1], 4),
                             "held_of_usual": round(recorded[2] / calls, 4)},
                "shuffled": {"mean_share": round(sum(shares) / len(shares), 4), "p95_share": round(shares[189], 4),
                             "held_of_usual": round(sum(one[2] for one in shuffled) / 200 / calls, 4)},
            })  # fmt: skip
            print(json.dumps(rows[-1]))
    if "--write" in sys.argv:
        RESULTS.write_text(json.dumps({"what": __doc__.splitlines()[0], "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
