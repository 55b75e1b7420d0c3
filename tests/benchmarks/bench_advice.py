"""What advice costs on a large log, and how near its savings come to the provider's bill.

    python tests/benchmarks/bench_advice.py [--calls 1000000] [--ledger FILE] [--write]

``planted``: eight wastes through real clients and the simulator, each advice followed by running the same calls again
(``tests/support/planted_waste.py``). ``large``: so many bookings of 40 sites at six models, with caps and tools, or a
ledger's own. Processor seconds of this process, and its peak of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from planted_waste import GPT, HAIKU, SITES, WASTES, house, lines_of

from llm_cost_middleware.advice import Evidence, advise
from llm_cost_middleware.advice.calls import CallLog
from llm_cost_middleware.advice.gathering import gather
from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.rules.bookings import Booking
from llm_cost_middleware.capabilities.arms import Arm
from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.policy import Tier

RESULTS = Path(__file__).parent / "results" / "advice.json"
MODELS = ("claude-haiku-4-5", "claude-sonnet-4-6", "claude-haiku-5-5", "gpt-5.1", "gpt-5-mini", "gpt-5.4")
TIERS = (
    Tier("small", (ModelRef("anthropic", HAIKU),)),
    Tier("large", (Arm("openai", GPT, {"reasoning_effort": "high"}),)),
)


def bookings(count):
    """Calls of a month, as a pipeline books them."""
    rng, catalogue, start = Random(3), Catalogue(), 1_793_000_000_000
    tools = "[" + ",".join(f'["{number:08x}",{900 + number}]' for number in range(8)) + "]"
    rates = {}
    for number in range(count):
        site, model = number % 40, MODELS[number % 6]
        provider = "anthropic" if model.startswith("claude") else "openai"
        fresh, read, output = rng.randint(200, 6_000), rng.randint(0, 8_000), rng.randint(20, 900)
        level = rates.get(model) or rates.setdefault(model, catalogue.rates(provider, model).levels[0])
        amount = -(-(fresh * level.uncached_input + read * level.cache_read + output * level.output) // 1_000)
        usage = f'{{"uncached_input":{fresh},"cache_read":{read},"output":{output},"reasoning":{output // 3}}}'
        facts = f'["site-{site}",4096,{8 if site % 2 else 0},{4 * (fresh + read)},{tools if site % 2 else "[]"},[]]'
        memo = (
            f'{{"v":1,"call":"call{number:012x}","n":1,"at":["{provider}","{model}"],"st":"exact","pv":"x",'
            f'"items":[["{model}","message",{usage}]],"f":{facts}}}'
        )
        yield Booking(start + number * 2_500, "global", "exact", amount, 1, memo.encode(), (), 9 * amount)


def large(count, file):
    if file:
        began = time.process_time()
        with Ledger.open(f"sqlite:///{file}") as ledger:
            evidence = gather(ledger, Catalogue())
            report = advise(evidence)
        making = 0.0
    else:
        began = time.process_time()
        for _ in bookings(count):
            pass
        making = time.process_time() - began
        began = time.process_time()
        log = CallLog()
        for booking in bookings(count):
            log.add(booking)
        report = advise(Evidence(log, Catalogue()))
    spent = time.process_time() - began - making
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "of": "a ledger's rows" if file else "bookings made in memory, without a storage", "calls": report.calls,
        "advice": len(report.advice), "cpu_s": round(spent, 2), "peak_mb": round(peak),
    }  # fmt: skip


def planted():
    rows = []
    with TemporaryDirectory() as folder:
        url, bills = f"sqlite:///{folder}/planted.db", {}
        with house(url) as found:
            for name, waste in WASTES.items():
                before = found.sim.bill.total_nanousd
                waste(found)
                bills[name] = found.sim.bill.total_nanousd - before
            refused = found.refused
        with Ledger.open(url) as ledger:
            report = advise(gather(ledger, Catalogue(), tiers=TIERS))
    told = {(one.kind, one.site): one for one in report.advice}
    for name, site in SITES.items():
        one = told[name, site]
        before = bills[name]
        if name == "effort":  # calls at the lower arm are not made again
            with house() as again:
                WASTES[name](again, advised=True)
                before = again.sim.bill.total_nanousd
        with house(**lines_of(list(one.lines))) as again:
            WASTES[name](again, advised=True)
            after, still = again.sim.bill.total_nanousd, again.refused
        row = {"waste": name, "said_nanousd": int(one.saved_nanousd), "billed_before": before, "billed_after": after}
        saved = before - after
        if name == "holds":
            row |= {"refused_before": refused, "refused_after": still}
        else:
            row |= {"saved_nanousd": saved, "said_by_saved": round(int(one.saved_nanousd) / saved, 4)}
        rows.append(row)
        print(json.dumps(row))
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--ledger", default="")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        os.environ.setdefault(name, "k")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if given.ledger:
        found["ledger"] = large(0, given.ledger)
    else:
        found["large"] = large(given.calls, "")
        found["planted"] = planted()
    print(json.dumps(found.get("ledger") or found["large"]))
    if given.write:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
