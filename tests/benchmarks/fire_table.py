"""The fire table: fifty calls at once (or one after another) against money for 5.2 of them, through every door.

``python tests/benchmarks/fire_table.py [--doors wrap_openai …] [--peers PYTHON] [--out FILE]``. The provider is on
loopback, bills OpenAI's text by its published vocabulary and counts Claude's for nothing; every prompt is new, of 4,500
bytes. *Declared*: the callers name a cap of 400 tokens and the answers use it. *Undeclared*: they name none, and the
answers have 400 tokens all the same. ``wait``: ``max_wait_for_budget_s`` is 60, otherwise 0. A line is marked ``!``
where the bill is above the budget, ledger and bill differ, or a paid answer did not reach its caller.

``--peers`` names a Python with ``tokencap`` and ``shekel`` installed; LiteLLM's own budgets are run beside.
"""

# ruff: noqa: E402 - run by its path: where it imports from is said first

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACES = (str(HERE), str(HERE.parents[1]), str(HERE.parent / "support"))
sys.path[:0] = [folder for folder in PLACES if folder not in sys.path]

from fire_common import CALLERS, CAP, CLAUDE, GPT, PROCESSES, WORTH, ask, prompt, quiet, row

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline
from llm_cost_middleware.pricing.vocabulary import tiktoken_encoding
from llm_cost_middleware.simulator import Answer, Simulator, fill

DOORS = ("wrap_openai", "wrap_anthropic", "guard(ChatOpenAI)", "guard(ChatAnthropic)", "router, GPT", "router, Claude")
PROXIES = {
    "proxy": "proxy",
    "proxy, processes": "proxy_in_processes",
    "litellm proxy": "litellm_reserving",
}
WAYS = ("sequence", "threads", "tasks", "processes")


def caller(door, url, pipeline, cap, *, asynchronous, salt=""):
    """A function that makes one call through a door."""
    import anthropic
    import openai

    from llm_cost_middleware.integrations.anthropic import wrap_anthropic
    from llm_cost_middleware.integrations.openai import wrap_openai

    capped = {} if cap is None else {"max_tokens": cap}
    if door == "wrap_openai":
        kind = openai.AsyncOpenAI if asynchronous else openai.OpenAI
        client = wrap_openai(kind(base_url=f"{url}/v1"), pipeline)
        return lambda: client.chat.completions.create(model=GPT, messages=ask(salt), **capped)
    if door == "wrap_anthropic":
        kind = anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
        client = wrap_anthropic(kind(base_url=url), pipeline)
        # the SDK demands a cap; the package takes one of 64,000 for none only where a host filled it in
        return lambda: client.messages.create(model=CLAUDE, messages=ask(salt), max_tokens=cap or CAP)
    if door.startswith("guard"):
        from llm_cost_middleware.integrations.langchain import guard

        if door == "guard(ChatOpenAI)":
            from langchain_openai import ChatOpenAI

            model = ChatOpenAI(model=GPT, base_url=f"{url}/v1", **capped)
        else:
            from langchain_anthropic import ChatAnthropic

            model = ChatAnthropic(model=CLAUDE, base_url=url, **capped)
        governed = guard(model, pipeline, pinned=True)
        return lambda: (governed.ainvoke if asynchronous else governed.invoke)(prompt(salt))
    from llm_cost_middleware.integrations.litellm import CostAwareRouter

    provider, name, base = ("openai", GPT, f"{url}/v1") if door == "router, GPT" else ("anthropic", CLAUDE, url)
    params = {"model": f"{provider}/{name}", "api_base": base, "api_key": "k"}
    router = CostAwareRouter([{"model_name": "m", "litellm_params": params}], pipeline=pipeline)
    return lambda: (router.acompletion if asynchronous else router.completion)("m", ask(salt), **capped)


def fire(door, way, url, pipeline, cap, *, count=CALLERS, salt=""):
    """Make the calls. Returns how many were answered; anything but a refusal is raised."""
    served = []
    asynchronous = way == "tasks"
    call = caller(door, url, pipeline, cap, asynchronous=asynchronous, salt=salt)

    def one():
        try:
            call()
        except BudgetExceededError:
            return
        served.append(1)

    async def aone():
        try:
            await call()
        except BudgetExceededError:
            return
        served.append(1)

    async def all_tasks():
        await asyncio.gather(*(aone() for _ in range(count)))

    if way == "sequence":
        for _ in range(8):
            one()
    elif way == "threads":
        threads = [threading.Thread(target=one) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        asyncio.run(all_tasks())
    return len(served)


def pipeline_for(limit, wait, url="memory://"):
    return CostPipeline(
        CostConfig(
            budgets=[{"scope": "global", "limit": f"{limit:.9f}"}], output={"max_wait_for_budget_s": wait},
            ledger={"url": url},
        )
    )  # fmt: skip


def in_processes(door, url, limit, wait, cap, folder):
    """Five processes of ten tasks each over one SQLite file."""
    ledger = f"sqlite:///{folder}/ledger.db"
    pipeline_for(limit, wait, ledger).close()
    job = {"door": door, "url": url, "limit": limit, "wait": wait, "cap": cap, "ledger": ledger}
    start = time.time() + (12 if "router" in door else 6)
    command = [sys.executable, str(HERE / "fire_table.py"), "--worker"]
    jobs = [json.dumps({**job, "salt": f"{n}.", "at": start}) for n in range(PROCESSES)]
    workers = [subprocess.Popen([*command, one], stdout=subprocess.PIPE, text=True) for one in jobs]
    served = sum(int(worker.communicate(timeout=300)[0].strip().splitlines()[-1]) for worker in workers)
    return served, pipeline_for(limit, wait, ledger)


def work(job):
    """One of those processes."""
    quiet()
    pipeline = pipeline_for(job["limit"], job["wait"], job["ledger"])
    caller(job["door"], job["url"], pipeline, job["cap"], asynchronous=True)  # imports take seconds: before the start
    time.sleep(max(job["at"] - time.time(), 0))
    count = CALLERS // PROCESSES
    print(fire(job["door"], "tasks", job["url"], pipeline, job["cap"], count=count, salt=job["salt"]))
    pipeline.close()


def true_price(sim, door, cap):
    """What one such call costs."""
    sim.reset()
    with pipeline_for(100, 0) as pipeline:
        fire(door, "tasks", sim.url, pipeline, cap, count=1)
    return sim.bill.total_nanousd


def own(table, sim, doors, ways):
    for door in doors:
        for caps, wait in (("declared", 0), ("undeclared", 0), ("undeclared", 60)):
            if door == "wrap_anthropic" and caps == "undeclared":
                continue  # its SDK demands a cap
            cap = CAP if caps == "declared" else None
            sim.responder = fill if cap else (lambda _: Answer("so it went", output_tokens=CAP))
            price = true_price(sim, door, cap)
            limit = WORTH * price / 1e9
            for way in ways:
                if wait and way == "sequence":
                    continue
                sim.reset()
                began = time.monotonic()
                with tempfile.TemporaryDirectory() as folder:
                    if way == "processes":
                        served, pipeline = in_processes(door, sim.url, limit, wait, cap, folder)
                    else:
                        pipeline = pipeline_for(limit, wait)
                        served = fire(door, way, sim.url, pipeline, cap)
                    settled = pipeline.ledger.balance("global").settled_nanousd
                    pipeline.close()
                row(table, door, way, caps, wait, served, sim, limit, settled, began)


def litellm_own(table, sim):
    """LiteLLM's router with its own budgets."""
    import litellm

    litellm.suppress_debug_info = True
    sim.responder = fill
    price = true_price(sim, "wrap_openai", CAP)
    limit = WORTH * price / 1e9
    kinds = {
        "provider_budget_config": {"provider_budget_config": {"openai": {"budget_limit": limit, "time_period": "1d"}}},
        "deployment max_budget": {},
    }
    for kind, options in kinds.items():
        params = {"model": f"openai/{GPT}", "api_base": sim.openai_url, "api_key": "k"}
        if not options:
            params |= {"max_budget": limit, "budget_duration": "1d"}
        sim.reset()
        began = time.monotonic()

        async def fifty(params=params, options=options):
            router = litellm.Router([{"model_name": "m", "litellm_params": params}], num_retries=0, **options)
            answers = await asyncio.gather(
                *(router.acompletion("m", ask(), max_tokens=CAP) for _ in range(CALLERS)), return_exceptions=True
            )
            return sum(not isinstance(answer, BaseException) for answer in answers)

        served = asyncio.run(fifty())
        row(table, f"LiteLLM {kind}"[:22], "tasks", "declared", 0, served, sim, limit, None, began)


PEER = """
import sys, threading, itertools
name, url, tokens, usd = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
import openai
SENTENCE = "The shipment left the harbour on Tuesday and nobody has heard of it since. "
numbers = itertools.count()
served = []
def one(client):
    asked = [{"role": "user", "content": (f"Note p{next(numbers):06}. " + SENTENCE * 70)[:4500]}]
    try:
        client.chat.completions.create(model="gpt-4o-mini", messages=asked, max_tokens=400)
    except Exception:
        return
    served.append(1)
def fire(client):
    threads = [threading.Thread(target=one, args=(client,)) for _ in range(50)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
plain = openai.OpenAI(base_url=url, api_key="k", max_retries=0)
if name == "tokencap":
    import tokencap
    fire(tokencap.wrap(plain, limit=tokens, quiet=True))
else:
    from shekel import budget
    import contextvars
    with budget(max_usd=usd):
        context = contextvars.copy_context()
        threads = [threading.Thread(target=contextvars.copy_context().run, args=(one, plain)) for _ in range(50)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
print(len(served))
"""


def peers(table, sim, python):
    """Two other libraries, in an environment of their own, with threads."""
    sim.responder = fill
    price = true_price(sim, "wrap_openai", CAP)
    tokens = sim.bill.lines[0].tokens
    whole = int(WORTH * (tokens.prompt + tokens.output))
    for name in ("tokencap", "shekel"):
        sim.reset()
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [python, "-c", PEER, name, sim.openai_url, str(whole), str(WORTH * price / 1e9)],
                capture_output=True, text=True, cwd=folder, timeout=600, check=False,
            )  # fmt: skip
        if done.returncode:
            print(name, done.stderr[-300:])
            continue
        served = int(done.stdout.split()[-1])
        row(table, name, "threads", "declared", 0, served, sim, WORTH * price / 1e9, None, began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--doors", nargs="*", default=[*DOORS, *PROXIES, "litellm"])
    parser.add_argument("--ways", nargs="*", default=WAYS)
    parser.add_argument("--peers")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker")
    chosen = parser.parse_args()
    if chosen.worker:
        work(json.loads(chosen.worker))
        return 0
    quiet()
    table = []
    with Simulator(latency_s=0.2, openai_vocabulary=tiktoken_encoding("o200k_base").encode_ordinary) as sim:
        own(table, sim, [door for door in DOORS if door in chosen.doors], chosen.ways)
        if set(PROXIES) & set(chosen.doors):
            import fire_proxy

            for door, name in PROXIES.items():
                if door in chosen.doors:
                    getattr(fire_proxy, name)(table, sim, true_price)
        if "litellm" in chosen.doors:
            litellm_own(table, sim)
        if chosen.peers:
            peers(table, sim, chosen.peers)
    if chosen.out:
        chosen.out.write_text("\n".join(table) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
