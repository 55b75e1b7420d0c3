"""The first call on an event loop leaves the loading of tables to a thread."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.lifecycle.warm_up import WarmUp
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallResult
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

PROGRAM = """
import asyncio, sys, threading
sys.path.insert(0, "tests/benchmarks")
from first_call import BODY, send
from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.providers import get_provider

heard = {}

class Hears:
    def find_spec(self, name, path=None, target=None):
        heard.setdefault(name, threading.current_thread() is threading.main_thread())

pipeline = CostPipeline(CostConfig())
request = get_provider("openai").read_request(BODY, "chat.completions")
sys.meta_path.insert(0, Hears())
asyncio.run(pipeline.arun(request, send, providers=frozenset({"anthropic", "openai"})))
assert "genai_prices" in heard, "the prices were loaded before: this shows nothing"
print(*sorted(name for name, in_loop in heard.items() if in_loop and name.partition(".")[0] in PACKAGES))
""".replace("PACKAGES", repr({"genai_prices", "pydantic", "llm_cost_middleware"}))


def test_no_table_is_loaded_on_the_event_loop():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == []


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
    pipeline, began, start = CostPipeline(CostConfig()), [], threading.Thread.start

    def note(thread):
        began.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)

    async def main():
        calls = [asyncio.ensure_future(ask(pipeline)) for _ in range(50)]
        await asyncio.sleep(0)
        calls[0].cancel()
        return await asyncio.gather(*calls, return_exceptions=True)

    cancelled, *answers = asyncio.run(main())
    pipeline.close()
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

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert asyncio.run(ask()) == "said"
