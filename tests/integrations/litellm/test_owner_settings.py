"""One owner, their intent: what LiteLLM is told of retries, fallbacks, cooldowns and timeouts is what happens here.

Both routers get the same deployments over HTTP and the same faults. What is compared: which deployment got a request,
in what order, after a wait or at once, with which timeout, and how the call ended.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import suppress

import pytest

from llm_cost_middleware.system_clock import SystemClock
from tests.integrations.litellm.owner_table import DIFFERENCES, FAULTS, SETTINGS, product, sample

ASK = [{"role": "user", "content": "Count to forty."}]
MODELS = {"messages": "anthropic/claude-haiku-4-5-20251001"}
# A backoff is drawn by chance, here below the waits that are asked for (3 s and more), as LiteLLM's first three are.
BACKOFF = {"base_s": 0.5, "throttle_base_s": 1.0, "max_delay_s": 2.75}


def key_of(request):
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers.get("x-api-key") or headers["authorization"].removeprefix("Bearer ")


def timeout_of(request):
    """Seconds that the client of OpenAI's SDK waits for an answer; others do not say it."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers.get("x-stainless-read-timeout")


@pytest.fixture
def slept(monkeypatch, sim):
    """The waits of the code under test, made short, each with the number of requests before it; not other threads'."""
    waits, real, areal = [], time.sleep, asyncio.sleep

    def shortened(seconds):
        thread = threading.current_thread()  # calls are made in this one, or by ``asyncio.to_thread``
        if seconds <= 0 or not (thread is threading.main_thread() or thread.name.startswith("asyncio_")):
            return seconds
        waits.append((sim.request_count, seconds))
        return 0

    async def asleep(seconds, result=None):
        return await areal(shortened(seconds), result)

    def sleep(seconds):
        real(shortened(seconds))

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(asyncio, "sleep", asleep)
    monkeypatch.setattr(SystemClock, "sleep", staticmethod(sleep))
    monkeypatch.setattr(SystemClock, "asleep", staticmethod(asleep))
    return waits


class Situation:
    """A cell, made real."""

    def __init__(self, sim, cell):
        self.sim, self.cell = sim, cell
        self.door, _, stream = cell.door.partition(" ")
        self.stream = bool(stream)

    def deployments(self):
        model = MODELS.get(self.door, "openai/gpt-5-mini")
        url = self.sim.anthropic_url if model.startswith("anthropic/") else self.sim.openai_url
        names = ["a", "b", "c"] if self.cell.setting.deployments == 1 else ["a", "a", "b", "c"]
        listed = []
        for number, name in enumerate(names):
            params = {"model": model, "api_base": url, "api_key": f"{name}{number}"}
            if self.cell.setting.deployments == 2 and name == "a":
                params["weight"] = 1.0 if number == 0 else 1e-9
            if name == "a" and self.cell.place == "deployment":
                params[self.cell.setting.name] = self.cell.value
            listed.append({"model_name": name, "litellm_params": params, "model_info": {"id": f"id-{name}{number}"}})
        return listed

    def router(self, make):
        setting, place, value = self.cell[:3]
        told = dict(setting.beside)
        if place == "constructor" and setting.name != "nothing":
            told[setting.name] = value
        router = make(model_list=self.deployments(), **told)
        if place == "update_settings":
            router.update_settings(**{setting.name: value})
        elif place == "assigned":
            setattr(router, setting.name, value)
        return router

    def script(self):
        self.sim.reset()
        provider = "anthropic" if self.door in MODELS else "openai"
        for keys, fault, times in FAULTS[self.cell.fault]:
            self.sim.script(fault(provider), times=times, match=lambda request, keys=keys: key_of(request)[0] in keys)

    async def call(self, router):
        said = {self.cell.setting.name: self.cell.value} if self.cell.place == "request" else {}
        said |= {"stream": True} if self.stream else {}
        said |= {"max_output_tokens": 20} if "responses" in self.door else {"max_tokens": 9}
        asked = {"input": "Count to forty."} if "responses" in self.door else {"messages": ASK}
        method = getattr(router, "anthropic_messages" if self.door == "messages" else self.door)
        if self.door in {"completion", "responses"}:
            return await asyncio.to_thread(lambda: _whole(method(model="a", **asked, **said)))
        answer = await method(model="a", **asked, **said)
        return [chunk async for chunk in answer] if self.stream else answer

    async def observed(self, make, slept):
        """What was sent and waited, call by call, and how each ended."""
        self.script()
        router = self.router(make)
        ends = []
        for _ in range(self.cell.setting.calls):
            slept.clear()
            first = self.sim.request_count
            try:
                await self.call(router)
                end = "answer"
            except Exception as error:  # noqa: BLE001 - how it ends is what is compared
                end = f"{type(error).__name__} {getattr(error, 'status_code', None)}"
            ends.append((_sequence(self.sim.requests[first:], list(slept), first), end))
        with suppress(Exception):
            (getattr(router, "retire", None) or router.discard)()
        return ends


def _whole(answer):
    return list(answer) if hasattr(answer, "__next__") else answer


def _sequence(requests, waits, first):
    """Keys with their timeouts, and the waits between two requests of one group.

    A wait after the last request of a group is a plain router's, and for nothing.
    """
    found = []
    for number, request in enumerate(requests, first + 1):
        key = key_of(request)
        pause = sum(seconds for count, seconds in waits if count == number - 1)
        if found and found[-1][0][0] == key[0] and pause:
            found.append(("wait" if pause < 3 else "3 s or more" if pause < 7 else "7 s or more",))
        found.append((key, timeout_of(request)))
    return found


def plain(**told):
    import litellm

    return litellm.Router(**told)


def difference_of(cell):
    return next((difference for difference in DIFFERENCES if difference.applies(cell)), None)


class Compared:
    """A plain router and ours in the same cell."""

    def __init__(self, make_harness, sim, slept):
        self.make_harness, self.sim, self.slept = make_harness, sim, slept

    async def mismatch(self, cell):
        """What differs, and what the ledger has wrong; ``None``: nothing."""
        difference = difference_of(cell)
        like = difference.like(cell) if difference is not None else cell
        expected = await Situation(self.sim, like).observed(plain, self.slept)
        # a breaker opens when nothing answers, call after call, and refuses what LiteLLM would send
        breaker = cell.setting.calls == 1
        harness = self.make_harness(retry=BACKOFF | {"breaker": breaker})
        ours = await Situation(self.sim, cell).observed(harness.router, self.slept)
        if difference is not None:
            expected, ours = _bare(expected), _bare(ours)
        if ours != expected:
            return cell[1:], "expected", expected, "ours", ours
        gc.collect()
        held = len({row.id for row in harness.pipeline.ledger.rows()})
        sent, balance = self.sim.request_count, harness.pipeline.ledger.balance("global")
        # where all deployments of a group cool down, LiteLLM refuses what money was set aside for
        covered = held >= sent if cell.setting.calls > 1 else held == sent
        money = balance.pending_nanousd, balance.settled_nanousd
        if not covered or money != (0, self.sim.bill.total_nanousd):
            return cell[1:], f"{sent} requests, {self.sim.bill.total_nanousd} billed", f"{held} held, booked {money}"
        return None


def _bare(ends):
    """Which groups were asked, and whether one answered."""
    return [("".join(step[0][0] for step in sequence if len(step) == 2), end == "answer") for sequence, end in ends]


@pytest.fixture
def compared(make_harness, sim, slept):
    return Compared(make_harness, sim, slept)


SAMPLE = list(sample())


@pytest.mark.parametrize("name", dict.fromkeys(setting.name for setting in SETTINGS))
async def test_what_is_sent_waited_and_raised_is_what_a_plain_router_does(name, compared):
    cells = [cell for cell in SAMPLE if cell.setting.name == name]
    found = [mismatch for cell in cells if (mismatch := await compared.mismatch(cell)) is not None]
    assert found == [], "\n".join(map(str, found))


@pytest.mark.soak
@pytest.mark.parametrize("name", dict.fromkeys(setting.name for setting in SETTINGS))
async def test_the_whole_product(name, compared):
    cells = [cell for cell in product() if cell.setting.name == name]
    found = [mismatch for cell in cells if (mismatch := await compared.mismatch(cell)) is not None]
    assert found == [], "\n".join(map(str, found))
