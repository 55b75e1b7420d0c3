"""The first call on an event loop leaves the loading of tables to a thread."""

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.lifecycle.flow import CallFlow
from llm_cost_middleware.lifecycle.warm_up import WarmUp
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

PROGRAM = """
import asyncio, sys, threading
sys.path.insert(0, "tests/benchmarks")
from first_call import BODY, PROVIDERS, Refuses, open_stream, send
from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider

made_on_loop, reloaded = sys.argv[1] == "on the loop", sys.argv[1].startswith("reloaded")
heard, elsewhere, listening = [], [], []

def hear(event, given):
    if listening and event in {"import", "open", "compile"}:
        (heard if threading.current_thread() is threading.main_thread() else elsewhere).append(f"{event} {given[0]}")

def make():
    return [CostPipeline(CostConfig(budgets=[{"scope": "global", "limit": limit}])) for limit in ("90", "1e-7")]

def reload(pipeline):
    tiers = [{"name": "only", "models": [{"model": "openai/gpt-5.1", "reasoning_effort": "low"}]}]
    pipeline.reload(CostConfig(budgets=pipeline.config.budgets, tiers=tiers))
    return pipeline

async def main(pipelines):
    rich, poor = pipelines or make()
    request = get_provider("openai").read_request(BODY, "chat.completions")
    await send(None)  # imports what it is made of
    sys.addaudithook(hear)
    listening.append(True)
    await rich.arun(request, send, providers=PROVIDERS)
    async for _ in await rich.arun(request, open_stream, providers=PROVIDERS):
        pass
    await rich.arun(request, Refuses(), providers=PROVIDERS)
    try:
        await poor.arun(request, send, providers=PROVIDERS)
    except BudgetExceededError:
        listening.clear()
    assert not listening, "it was not refused"

made = None if made_on_loop else make()
if reloaded:
    sys.addaudithook(hear)
    listening.append(True)
    made = [reload(pipeline) for pipeline in made]
    assert any("parameters.toml" in one for one in heard), "it asks for nothing new: this shows nothing"
    heard.clear()
asyncio.run(main(made))
assert not (reloaded and any(".toml" in one for one in elsewhere)), elsewhere
loaded_beside = any("genai_prices" in one for one in elsewhere)
assert loaded_beside is made_on_loop, "they were loaded before: this shows nothing; or were not, when it was made"
assert "regex" not in sys.modules, "20 ms of imports"
print(*heard, sep="\\n")
"""


@pytest.mark.parametrize("made", ["before the loop", "on the loop", "reloaded before the loop"])
def test_the_first_call_stream_retry_and_refusal_load_nothing_on_the_event_loop(made):
    ran = subprocess.run([sys.executable, "-c", PROGRAM, made], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split("\n") == ["", ""]


STEPS = """
import asyncio, sys, threading, time
from llm_cost_middleware import CostConfig, CostPipeline

steps = [{"modules": 0, "tables": 0}]

def look(frame, event, given):
    code = frame.f_code
    if event == "c_call" and given is time.sleep:
        steps.append({"modules": 0, "tables": 0})
    elif event == "call" and code.co_name in {"<module>", "loads"}:
        steps[-1]["modules" if code.co_name == "<module>" else "tables"] += 1

async def main():
    pipeline = CostPipeline(CostConfig())
    while not pipeline._flow.is_ready:
        await asyncio.sleep(0.01)

threading.setprofile(look)
asyncio.run(main())
most = {kind: max(step[kind] for step in steps) for kind in steps[0]}
assert sum(step["modules"] for step in steps) > 20 and sum(step["tables"] for step in steps) > 4, steps
assert most["modules"] <= 12 and most["tables"] == 1, steps
assert not any(step["modules"] and step["tables"] for step in steps), steps
"""


def test_the_thread_that_loads_makes_way_before_each_package_and_each_table():
    """An event loop may wait as long as the longest of its steps."""
    ran = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_pipeline_is_made_of_no_more_than_it_needs():
    """It may be made on an event loop, which waits for what is imported meanwhile."""
    program = "import sys, llm_cost_middleware as m; m.CostPipeline(m.CostConfig()); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    listeners = {f"llm_cost_middleware.{name}" for name in ("alerts.channels", "alerts.service", "observers.otel")}
    assert not {*listeners, "llm_cost_middleware.reports", "http.client", "regex"}.intersection(ran.stdout.split())


UNDER_TRIO = """
import sys, threading, trio
sys.path.insert(0, "tests/benchmarks")
from first_call import BODY, PROVIDERS, usage
from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult

heard, elsewhere, answer = [], [], CallResult("said", usage())

def hear(event, given):
    if event == "open":
        (heard if threading.current_thread() is threading.main_thread() else elsewhere).append(str(given[0]))

async def send(_):
    return answer

async def main():
    pipeline = CostPipeline(CostConfig())
    sys.addaudithook(hear)
    request = get_provider("openai").read_request(BODY, "chat.completions")
    assert await pipeline.arun(request, send, providers=PROVIDERS) == "said"

trio.run(main)
assert not any("prices" in one for one in heard), heard
assert any("prices" in one for one in elsewhere)
"""


def test_a_pipeline_made_under_trio_is_loaded_beside_its_loop():
    pytest.importorskip("trio", reason="needs trio; the extra test brings it")
    ran = subprocess.run([sys.executable, "-c", UNDER_TRIO], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("absent", ["in_trio_run", "lowlevel"])
def test_a_trio_that_is_old_or_half_imported_is_no_loop(monkeypatch, absent):
    """Whoever imports httpcore has it in ``sys.modules``, of whatever version, and whether or not it is used."""
    trio = pytest.importorskip("trio", reason="needs trio; the extra test brings it")
    monkeypatch.delattr(trio.lowlevel if absent == "in_trio_run" else trio, absent)
    with CostPipeline(CostConfig()) as pipeline:
        pipeline.reload(CostConfig())


FORKS = """
import asyncio, os, signal, sys, time
sys.path.insert(0, "tests/benchmarks")
from first_call import BODY, PROVIDERS, usage
from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult

async def main():
    pipeline, answer = CostPipeline(CostConfig()), CallResult("said", usage())
    before = time.monotonic()
    while "llm_cost_middleware.providers.openai" not in sys.modules and time.monotonic() < before + 20:
        time.sleep(0)  # and not on the loop: it is to fork while the other thread is importing
    child = os.fork()
    if not child:
        signal.alarm(20)
        request = get_provider("openai").read_request(BODY, "chat.completions")
        os._exit(pipeline.run(request, lambda _: answer, providers=PROVIDERS) != "said")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_fork_while_tables_are_loaded_locks_nothing_in_the_child():
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


def test_published_prices_are_not_asked_for_when_a_pipeline_is_made(monkeypatch):
    asked = []
    monkeypatch.setattr("llm_cost_middleware.pricing.genai._published", asked.append)
    with CostPipeline(CostConfig(update_prices=True)):
        assert asked == []


@pytest.fixture
def ask():
    """A first call of a new pipeline, each time."""
    request = get_provider("openai").read_request(
        {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello"}]}, "chat.completions"
    )
    usage = UsageReport(items=(BilledItem(TokenUsage(uncached_input=7, output=3)),), complete=True)

    async def send(_):
        return CallResult("said", usage)

    pipelines = []

    def first_call(pipeline=None):
        if pipeline is None:
            pipelines.append(pipeline := CostPipeline(CostConfig()))
        return pipeline.arun(request, send, providers=frozenset({"openai"}))

    yield first_call
    for pipeline in pipelines:
        pipeline.close()


def test_it_waits_for_no_worker_that_waits_for_it(ask):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        calls = [asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(ask(), loop).result(20)) for _ in range(2)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == ["said", "said"]


def test_it_is_made_on_a_loop_whose_executor_is_shut(ask):
    async def main():
        await asyncio.get_running_loop().shutdown_default_executor()
        return await ask()

    assert asyncio.run(main()) == "said"


def test_many_at_once_share_one_thread_and_one_that_is_cancelled_stops_none(ask, monkeypatch):
    began, start, go = [], threading.Thread.start, threading.Event()

    def note(thread):
        began.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    monkeypatch.setattr(CallFlow, "_look_up", lambda *_: go.wait(20))  # tables that take long to load

    async def main():
        with CostPipeline(CostConfig()) as pipeline:
            calls = [asyncio.ensure_future(ask(pipeline)) for _ in range(50)]
            await asyncio.sleep(0)
            calls[0].cancel()
            go.set()
            return await asyncio.gather(*calls, return_exceptions=True)

    cancelled, *answers = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert answers == ["said"] * 49
    assert began.count("llm-cost-warm-up") == 1


def test_its_work_ahead_may_fail_outlive_its_loop_and_be_left_behind_by_a_fork(caplog):
    warm_up, go = WarmUp(), threading.Event()

    def work():
        go.wait(20)
        raise ValueError("no table")

    loop = asyncio.new_event_loop()  # closed under a call that nobody cancels
    waiting = loop.create_task(warm_up.wait(work))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    waiting._log_destroy_pending = False
    here, done = warm_up._under_way
    warm_up._under_way = here + 1, Future()  # as a forked process finds it: begun by another, and never done
    asyncio.run(asyncio.wait_for(warm_up.wait(lambda: None), 20))
    warm_up._under_way = here, done
    go.set()
    asyncio.run(asyncio.wait_for(warm_up.wait(work), 20))
    assert caplog.records == []


def test_no_thread_to_be_had_is_no_reason_to_fail_it(ask, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    async def main():  # made on the loop
        return await ask()

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert asyncio.run(main()) == "said"
