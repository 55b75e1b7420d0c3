"""What every row of the fire table shares: its prompts, its sums and how it is printed."""

from __future__ import annotations

import itertools
import logging
import os
import time
import warnings

CALLERS, CAP, WORTH, PROCESSES = 50, 400, 5.2, 5
SENTENCE = "The shipment left the harbour on Tuesday and nobody has heard of it since. "
GPT, CLAUDE = "gpt-4o-mini", "claude-sonnet-4-6"
_numbers = itertools.count()


def prompt(salt=""):
    """4,500 bytes, no two alike: nothing is read from a prompt cache, and no count is known."""
    return (f"Note {salt}{next(_numbers):06}. " + SENTENCE * 70)[:4500]


def ask(salt=""):
    return [{"role": "user", "content": prompt(salt)}]


def row(table, door, way, caps, wait, served, sim, limit, settled, began):
    bill = sim.bill.total_nanousd
    sent = len(sim.bill.lines)
    wrong = bill > limit * 1e9 or served != sent or (settled is not None and settled != bill)
    counts = sum(request.path.endswith("count_tokens") for request in sim.requests)
    line = (
        f"{door:22} {way:10} {caps:11} {'wait' if wait else '-':5} served {served:2}  bill/budget"
        f" {bill / (limit * 1e9):5.2f}  counts {counts:2}  {time.monotonic() - began:5.1f} s {'!' if wrong else ''}"
    )
    print(line, flush=True)
    table.append(line)


def quiet():
    os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", OPENAI_API_KEY="k", ANTHROPIC_API_KEY="k")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
