"""Fixtures and rules shared by all tests."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # importing litellm must not fetch anything
ROOT = Path(__file__).resolve().parent.parent


def _data_folder() -> Path:
    return Path(os.environ.get("LLM_COST_DATA") or ROOT.parent / "shared" / "data")


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long form of the long tests")


def pytest_configure():
    """An example is wrong or right, however long it takes: Hypothesis would also fail it for a slow machine."""
    from hypothesis import HealthCheck, settings

    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


def pytest_collection_modifyitems(config, items):
    modules = {item.module for item in items if item.get_closest_marker("litellm")}
    for item in items:
        if item.module in modules:
            # LiteLLM leaves event loops and clients to the garbage collector, and pydantic warns of its types
            for kind in (
                "pytest.PytestUnraisableExceptionWarning",
                "ResourceWarning",
                "UserWarning",
                "DeprecationWarning",
            ):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
    if config.getoption("--soak"):
        return
    skip = pytest.mark.skip(reason="long form; run with --soak")
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test of recorded data may not be skipped where the data are."""
    report = yield
    if report.skipped and "data" in item.keywords and "soak" not in item.keywords and _data_folder().is_dir():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {_data_folder().name} is there: {report.longrepr}"
    return report


@pytest.fixture(scope="module", autouse=True)
def _collect_what_litellm_leaves(request):
    """What a module with LiteLLM leaves behind is collected at its own end, not in some other test."""
    yield
    if any(item.module is request.module and item.get_closest_marker("litellm") for item in request.session.items):
        gc.collect()


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of recorded data; the test is skipped where it is absent."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip("recorded data are absent: set LLM_COST_DATA")
    return folder


@pytest.fixture
def soak(request) -> bool:
    """Whether the long form was asked for."""
    return request.config.getoption("--soak")


@pytest.fixture
def sim():
    """A loopback provider of its own for each test."""
    from llm_cost_middleware.simulator import Simulator

    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def clients(sim):
    """Real SDK clients that talk to ``sim``, by provider, closed at the end."""
    import anthropic
    import openai

    with (
        anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k") as claude,
        openai.OpenAI(base_url=sim.openai_url, api_key="k") as gpt,
    ):
        yield {"anthropic": claude, "openai": gpt}


@pytest.fixture
async def async_clients(sim):
    """The same, asynchronous."""
    import anthropic
    import openai

    async with (
        anthropic.AsyncAnthropic(base_url=sim.anthropic_url, api_key="k") as claude,
        openai.AsyncOpenAI(base_url=sim.openai_url, api_key="k") as gpt,
    ):
        yield {"anthropic": claude, "openai": gpt}


@pytest.fixture
def toy_provider(monkeypatch):
    """The name of a provider that is registered for one test, from a package outside the tree."""
    from llm_cost_middleware import providers

    monkeypatch.syspath_prepend(str(ROOT / "tests" / "toy_provider"))
    providers.register("toy", "toy_provider")
    yield "toy"
    providers._PACKAGES.pop("toy")
    for cached in (providers.get_provider, providers.foreign_cache_fields):
        cached.cache_clear()
