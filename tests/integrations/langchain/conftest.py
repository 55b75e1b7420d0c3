"""Real LangChain models over loopback, guarded by a pipeline whose every event is kept."""

from __future__ import annotations

import gc
import time
import warnings
from typing import NamedTuple

import pytest
from watching import Watch

from llm_cost_middleware.events import Reserved, Settled, Voided
from llm_cost_middleware.simulator import auto

TIERS = (
    {"name": "small", "models": ["anthropic/claude-haiku-4-5-20251001", "openai/gpt-5-mini"]},
    {"name": "large", "models": ["anthropic/claude-sonnet-4-6", "openai/gpt-5.1"]},
)
HAIKU, SONNET, MINI, GPT = "claude-haiku-4-5-20251001", "claude-sonnet-4-6", "gpt-5-mini", "gpt-5.1"


_OUTCOMES = pytest.StashKey[dict]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Remember how the tests of each class ended, so that classes can be compared."""
    report = yield
    if item.cls is None:
        return report
    if report.failed and not getattr(item.cls, "judged", True):
        report.outcome, report.wasxfail = "skipped", "reason: not our class, and not our failure"
    if report.when == "call" or not report.passed:
        ended = "xfailed" if report.skipped and hasattr(report, "wasxfail") else report.outcome
        item.config.stash.setdefault(_OUTCOMES, {}).setdefault(item.cls.__name__, {})[item.name] = ended
    return report


@pytest.fixture
def outcomes(request):
    """How the tests of a class have ended in this run, by name."""
    return lambda kind: request.config.stash.get(_OUTCOMES, {}).get(kind.__name__, {})


class RecordingObserver(Watch):
    """Observer that also tells calls that have ended."""

    @property
    def ended(self):
        return [*self.of(Settled), *self.of(Voided)]


class Harness(NamedTuple):
    """A pipeline, its harness, and the provider that bills."""

    pipeline: object
    observer: RecordingObserver
    sim: object

    def await_requests(self, count):
        """What a client left at once, a busy provider reads a little later."""
        patience = time.monotonic() + 20
        while self.sim.request_count < count and time.monotonic() < patience:
            time.sleep(0.005)

    def check(self, *, exact=True):
        """Requests, rows and bill agree; nothing is left pending."""
        balance = self.pipeline.ledger.balance("global")
        self.await_requests(len(self.observer.of(Reserved)))
        assert balance.pending == 0
        asked = [request for request in self.sim.requests if not request.path.endswith("count_tokens")]
        assert len(self.observer.of(Reserved)) == len(self.observer.ended) == len(asked)
        booked, billed = sum(event.amount_nanousd for event in self.observer.of(Settled)), self.sim.bill.total_nanousd
        assert int(balance.settled.scaleb(9)) == booked
        if exact:
            assert {record.status for record in self.pipeline.records()} <= {"exact"}
            assert booked == billed
        assert booked >= billed


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sim():
    from llm_cost_middleware.simulator import Simulator

    with Simulator(responder=auto) as simulator:
        yield simulator


@pytest.fixture
def forget_connections():
    """Drop what plain models leave behind: LangChain keeps one asynchronous transport for all event loops."""
    yield
    from langchain_anthropic import _client_utils as anthropic_clients
    from langchain_openai.chat_models import _client_utils as openai_clients

    for module in (anthropic_clients, openai_clients):
        for made in vars(module).values():
            if callable(getattr(made, "cache_clear", None)):
                made.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # a veto leaves the other handlers of its event unawaited
        gc.collect()


@pytest.fixture
def make_harness(sim):
    """Make a pipeline of the simulator: ``make_harness(retry={...}, budgets=[...])``."""
    from llm_cost_middleware.config import CostConfig
    from llm_cost_middleware.pipeline import CostPipeline

    made = []

    def make(*, timeout_s=30.0, limit="50", observers=(), **sections):
        providers = {
            "anthropic": {"base_url": sim.anthropic_url, "timeout_s": timeout_s},
            "openai": {"base_url": sim.openai_url, "timeout_s": timeout_s},
        }
        budgets = sections.pop("budgets", [{"scope": "global", "limit": limit}])
        sections.setdefault("tiers", TIERS)
        observer = RecordingObserver()
        config = CostConfig(providers=providers, budgets=budgets, **sections)
        pipeline = CostPipeline(config, observers=(observer, *observers))
        made.append(pipeline)
        return Harness(pipeline, observer, sim)

    yield make
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def claude(sim):
    """Make a plain ChatAnthropic."""
    from langchain_anthropic import ChatAnthropic

    def make(model=HAIKU, **settings):
        return ChatAnthropic(model=model, api_key="k", base_url=sim.anthropic_url, **settings)

    return make


@pytest.fixture
def gpt(sim):
    """Make a plain ChatOpenAI."""
    from langchain_openai import ChatOpenAI

    def make(model=MINI, **settings):
        return ChatOpenAI(model=model, api_key="k", base_url=sim.openai_url, **settings)

    return make
