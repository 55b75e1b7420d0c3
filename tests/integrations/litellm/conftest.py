"""A ``CostAwareRouter`` over the simulator, and the one comparison that matters: ledger against bill."""

from __future__ import annotations

import asyncio
import gc
import pathlib
from functools import partial

import pytest
from platform_entries import azure_entry, bedrock_entry, google_account, vertex_entry
from proxy_process import Providers, Proxy

from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.pipeline import CostPipeline
from llm_cost_middleware.simulator import fill


class RouterHarness:
    """A router and its pipeline beside the simulator's bill."""

    def __init__(self, sim, **config):
        config.setdefault("budgets", [{"scope": "global", "limit": "100"}])
        config["retry"] = {"base_s": 0.01, "throttle_base_s": 0.01, **config.get("retry", {})}
        config["providers"] = {"anthropic": {"base_url": sim.anthropic_url}, "openai": {"base_url": sim.openai_url}}
        self.sim = sim
        self.pipeline = CostPipeline(CostConfig(**config))

    def router(self, model_list=None, **options):
        from llm_cost_middleware.integrations.litellm import CostAwareRouter

        return CostAwareRouter(model_list, pipeline=self.pipeline, **options)

    def deployment(self, name, model, **params):
        url = self.sim.anthropic_url if model.startswith("anthropic/") else self.sim.openai_url
        return {"model_name": name, "litellm_params": {"model": model, "api_base": url, "api_key": "k", **params}}

    @property
    def settled(self):
        gc.collect()
        balance = self.pipeline.ledger.balance("global")
        assert balance.pending_nanousd == 0
        return balance.settled_nanousd

    @property
    def statuses(self):
        return [record.status for record in self.pipeline.records()]

    async def reached(self, count=1):
        """Until the provider has got so many requests; however busy the machine is."""
        for _ in range(6_000):
            if self.sim.request_count >= count and self.sim.bill.total_nanousd:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.sim.request_count} requests of {count}")

    def agree(self):
        """Nothing is pending, and the ledger says what the provider bills."""
        assert self.settled == self.sim.bill.total_nanousd
        assert set(self.statuses) <= {"exact"}

    def cover(self):
        """Nothing is pending, and the ledger says at least what the provider bills, and does not call it exact."""
        assert self.settled >= self.sim.bill.total_nanousd
        assert self.statuses[-1] != "exact"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_KEY", "k")


@pytest.fixture
def make_harness(sim):
    sim.responder = fill
    return lambda **config: RouterHarness(sim, **config)


@pytest.fixture
def harness(make_harness):
    return make_harness()


@pytest.fixture
def router(harness):
    return harness.router()


@pytest.fixture(scope="session")
def account():
    """A Google account."""
    pytest.importorskip("google.auth", reason="google-auth is of the extra google")
    with google_account() as made:
        yield made


@pytest.fixture
def bedrock(sim):
    """Make an entry of Bedrock: its group, its model, more parameters."""
    pytest.importorskip("boto3", reason="boto3 is of the extra aws")
    return partial(bedrock_entry, sim.url)


@pytest.fixture
def vertex(sim, account):
    """Make an entry of Vertex: its group, its place, its model, more parameters."""
    return partial(vertex_entry, sim.url, account)


@pytest.fixture
def azure(sim):
    """Make an entry of Azure: its group, its deployment, more parameters."""
    return partial(azure_entry, sim.url)


_LISTENERS = ("callbacks", "success_callback", "_async_success_callback", "failure_callback",
              "_async_failure_callback", "input_callback")  # fmt: skip


@pytest.fixture
def listeners(monkeypatch):
    """Who listens to LiteLLM: nobody but those that a test adds, and to no call of an earlier test.

    LiteLLM's worker carries what it has not reported when a loop ends over to the next loop: it is told to nobody here.
    """
    import litellm
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    for name in _LISTENERS:
        monkeypatch.setattr(litellm, name, [])
    asyncio.run(asyncio.wait_for(GLOBAL_LOGGING_WORKER.flush(), 60))
    return litellm.callbacks


def as_written_once(written):
    """A configuration of LiteLLM's as this package wrote it before it said that a client's cap is to stay."""
    for entry in written["model_list"]:
        entry["litellm_params"].get("complexity_router_config", {}).pop("max_tokens_from_tier_model", None)


EMBEDDING_DEPLOYMENTS = """
[platforms.azure.deployments]
"eu--text-embedding-3-large" = { model = "text-embedding-3-large", region = "swedencentral" }
"""


def embedding_deployments(sim):
    """One of OpenAI's, one of Azure's."""
    azure = {"api_base": sim.openai_url.removesuffix("/v1"), "api_version": "2024-10-21"}
    return [
        {"model_name": name, "litellm_params": {"model": model, "api_key": "k", **where}}
        for name, model, where in (
            ("embed", "openai/text-embedding-3-small", {"api_base": sim.openai_url}),
            ("embed-eu", "azure/eu--text-embedding-3-large", azure),
        )
    ]


@pytest.fixture(scope="session")
def proxy(tmp_path_factory, request):
    """One proxy for all tests of this folder, of two workers or, in the long form, four: it takes a while to start."""
    pytest.importorskip("fastapi", reason="needs the proxy extra, which has no LiteLLM >= 1.110 here")
    with Providers(responder=fill) as sim:

        def adjust(written):
            as_written_once(written)
            written["model_list"] += embedding_deployments(sim)

        running = Proxy(tmp_path_factory.mktemp("proxy"), sim, cost=EMBEDDING_DEPLOYMENTS, adjust=adjust)
        try:
            running.start(workers=4 if request.config.getoption("--soak") else 2)
            yield running
        finally:
            running.stop()


# Warnings turned into errors change what LiteLLM does: it swallows them, half-way through.
_THEIRS = ("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="session", params=["warn", "deny"])
def watched(tmp_path_factory, request):
    """A proxy that warns of what is not governed, or refuses it, and what leaves it."""
    pytest.importorskip("fastapi", reason="needs the proxy extra, which has no LiteLLM >= 1.110 here")
    from proxy_watch import watched_proxy

    with watched_proxy(tmp_path_factory.mktemp("watched"), request.param) as running:
        yield running


def pytest_collection_modifyitems(items):
    """Everything here imports LiteLLM, whose own warnings are not ours."""
    here = str(pathlib.Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.litellm)
            for theirs in _THEIRS:
                item.add_marker(pytest.mark.filterwarnings(theirs))
