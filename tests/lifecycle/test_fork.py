"""A process that forks while its threads make calls: the child's calls must not wait for threads it does not have."""

import os
import signal
import sys
import threading

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware import pipeline as pipeline_module
from llm_cost_middleware.request import CallRequest, CallResult, Message, Part
from llm_cost_middleware.usage import BilledItem, TokenUsage, UsageReport

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # a fork beside threads: that is what is tried here
]
REQUEST = CallRequest("anthropic", "claude-haiku-4-5", (Message("user", (Part("text", "hi"),)),), max_tokens=10)
READING = UsageReport((BilledItem(TokenUsage(uncached_input=3, output=7)),), "claude-haiku-4-5", complete=True)
FORKS, PATIENCE_S = 20, 30


def call(pipeline):
    return pipeline.run(REQUEST, lambda _: CallResult("hello", READING), providers=frozenset({"anthropic"}))


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_a_child_makes_calls_of_its_own(storage, tmp_path):
    url = "memory://" if storage == "memory" else f"sqlite:///{tmp_path}/ledger.db"
    with CostPipeline(CostConfig(ledger={"url": url})) as pipeline:
        call(pipeline)
        done = threading.Event()

        def go_on():
            while not done.is_set():
                call(pipeline)

        threads = [threading.Thread(target=go_on) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            statuses = [_status_of_child(pipeline) for _ in range(FORKS)]
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert statuses == [0] * FORKS


def _status_of_child(pipeline):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE_S)
        try:
            before = len(pipeline.tracker)
            ok = call(pipeline) == "hello" and len(pipeline.tracker) == before + 1
        except BaseException:  # noqa: BLE001 - whatever it is, the child must not go on as a second pytest
            sys.excepthook(*sys.exc_info())
            ok = False
        os._exit(0 if ok else 1)
    return os.waitpid(child, 0)[1]


def test_a_child_makes_its_default_pipeline_though_a_thread_of_its_parent_was_about_to(tmp_path, monkeypatch):
    (tmp_path / "llm-cost.toml").write_text('[ledger]\nurl = "memory://"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_COST_CONFIG", raising=False)
    monkeypatch.setattr(pipeline_module, "_default", [])
    held, done = threading.Event(), threading.Event()

    def hold():
        with pipeline_module._default_lock.held:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        child = os.fork()
        if child == 0:
            signal.alarm(PATIENCE_S)  # ends a child that waits for ever
            os._exit(CostPipeline.default().ledger is None)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join()
