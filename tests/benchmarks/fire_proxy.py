"""The fire table's rows of LiteLLM proxy processes: with the package, in one worker and in five, and LiteLLM's alone.

LiteLLM's proxy reserves by itself before it sends (``litellm/proxy/spend_tracking/budget_reservation.py``) for the
budgets of keys, teams, users and end users. Their records are in its PostgreSQL, through a client that downloads its
engine when it is first used: that is not run here. Without a database its custom authentication states the budget on
the object that it returns (``max_budget``, ``end_user_max_budget``), ``custom_auth_run_common_checks`` has it reserved,
in memory, and LiteLLM's own ``ProxyDBLogger``, which it adds only beside a database, is named as a callback: it puts
the true cost in the reservation's place. Of a key's and an end user's budget only the latter is documented so.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from pathlib import Path

from fire_common import CALLERS, CAP, CLAUDE, GPT, PROCESSES, WORTH, ask, row
from proxy_process import Proxy

from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.simulator import Answer, fill

TIERS = '[[tiers]]\nname = "one"\nmodels = ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-6"]\n'
# a key is sk-KIND-NANODOLLARS-NAME; each call leaves the id of the worker that took it
AUTH = """
import os
from pathlib import Path

from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.hooks.proxy_track_cost_callback import ProxyDBLogger

settling = ProxyDBLogger()

async def auth(request, api_key):
    with Path(__file__).with_name("workers.txt").open("a") as told:
        told.write(f"{os.getpid()}\\n")
    _, kind, nanodollars, name = api_key.split("-")
    limit = int(nanodollars) / 1e9
    if kind == "user":
        return UserAPIKeyAuth(api_key=api_key, user_id=name)
    if kind == "key":
        return UserAPIKeyAuth(api_key=api_key, max_budget=limit)
    return UserAPIKeyAuth(api_key=api_key, end_user_id=name, end_user_max_budget=limit)
"""


async def _fire(url, key, model, cap, way, *, pause_s=0):
    import openai

    capped = {} if cap is None else {"max_tokens": cap}
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=f"sk-{key}", max_retries=0, timeout=120)

    async def one():
        try:
            await asyncio.sleep(pause_s)
            await client.chat.completions.create(model=model, messages=ask(), **capped)
        except openai.APIStatusError as refused:
            if (
                isinstance(refused, openai.RateLimitError) or "udget" in refused.message
            ):  # LiteLLM's own are 422 and 503
                return 0
            raise
        return 1

    if way == "sequence":
        return sum([await one() for _ in range(8)])
    return sum(await asyncio.gather(*(one() for _ in range(CALLERS))))


@contextlib.contextmanager
def _running(sim, *, workers=1, wait=0, general=None, **more):
    """A proxy process: with the package, or without where there are ``general`` settings of LiteLLM's."""

    def adjust(written):
        written["general_settings"] |= {"custom_auth": "fire_auth.auth", **(general or {})}
        written["litellm_settings"] |= more
        if general is not None:
            written["litellm_settings"]["callbacks"] = ["fire_auth.settling"]
            written["model_list"] = [
                entry for entry in written["model_list"] if "auto_router" not in entry["litellm_params"]["model"]
            ]

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "fire_auth.py").write_text(AUTH)
        cost = f"[output]\nmax_wait_for_budget_s = {wait}\n{TIERS}"
        proxy = Proxy(Path(folder), sim, cost=cost, adjust=adjust)
        try:
            yield proxy.start(workers=workers)
        finally:
            proxy.stop()


def _caps(sim, model, caps, true_price):
    """The cap, and the budget that is worth 5.2 such calls."""
    cap = CAP if caps == "declared" else None
    sim.responder = fill if cap else (lambda _: Answer("so it went", output_tokens=CAP))
    return cap, WORTH * true_price(sim, "router, GPT" if model == GPT else "router, Claude", cap) / 1e9


def _governed(table, sim, running, door, model, way, caps, wait, true_price):
    name = f"{model[:3]}{caps}{way}{wait}"
    cap, limit = _caps(sim, model, caps, true_price)
    running.ledger.set_budget(Budget(f"user:{name}", f"{limit:.9f}"))
    told = running.folder / "workers.txt"
    told.unlink(missing_ok=True)
    sim.reset()
    began = time.monotonic()
    served = asyncio.run(_fire(running.url, f"user-0-{name}", model, cap, way))
    settled = running.ledger.balance(f"user:{name}").settled_nanousd
    if way == "processes":
        door = f"{door}, {len(set(told.read_text().split()))} workers"
    row(table, door, way, caps, wait, served, sim, limit, settled, began)


def proxy(table, sim, true_price):
    """With the package's callback; each run is a user with a budget of its own."""
    for wait in (0, 60):
        with _running(sim, wait=wait) as running:
            for model in (GPT, CLAUDE):
                for caps in ("declared", "undeclared"):
                    for way in ("sequence", "tasks"):
                        if not (wait and (way == "sequence" or caps == "declared")):
                            door = f"proxy, {model[:3]}"
                            _governed(table, sim, running, door, model, way, caps, wait, true_price)


def proxy_in_processes(table, sim, true_price):
    """Five workers over one SQLite file; the row says how many of them were given calls."""
    for wait in (0, 60):
        with _running(sim, workers=PROCESSES, wait=wait) as running:
            for model in (GPT, CLAUDE):
                for caps in ("undeclared",) if wait else ("declared", "undeclared"):
                    door = f"proxy, {model[:3]}"
                    _governed(table, sim, running, door, model, "processes", caps, wait, true_price)


def litellm_reserving(table, sim, true_price):
    """LiteLLM's proxy with its own reservation, as it comes and with ``fail_closed_budget_enforcement``.

    It settles after it has answered: a moment passes before each call of a sequence.
    """
    for strict in (False, True):
        general = {"custom_auth_run_common_checks": True, "fail_closed_budget_enforcement": strict}
        with _running(sim, general=general) as running:
            for kind in ("key", "enduser"):
                for caps in ("declared", "undeclared"):
                    for way in ("sequence", "tasks"):
                        cap, limit = _caps(sim, GPT, caps, true_price)
                        sim.reset()
                        began = time.monotonic()
                        key = f"{kind}-{round(limit * 1e9)}-{caps}{way}"
                        served = asyncio.run(_fire(running.url, key, GPT, cap, way, pause_s=0.3))
                        door = f"LiteLLM {'strict' if strict else 'proxy'} {kind}"
                        row(table, door, way, caps, 0, served, sim, limit, None, began)
