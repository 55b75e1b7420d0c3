"""Fixtures and rules shared by all tests."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import postgres_servers
import pytest
import reaper
from postgres_servers import PostgresServer

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # importing litellm must not fetch anything
ROOT = Path(__file__).resolve().parent.parent
# Each client reads all authorities that the machine trusts, in 24 ms; no test asks beyond the loopback interface.
os.environ["SSL_CERT_FILE"] = str(ROOT / "tests" / "support" / "authority.pem")
KEEPERS = b"resource_tracker"  # of multiprocessing: they end with the process that they keep house for


def _data_folder() -> Path:
    return Path(os.environ.get("LLM_COST_DATA") or ROOT.parent / "shared" / "data")


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long form of the long tests")


def pytest_configure():
    """An example is wrong or right, however long it takes: Hypothesis would also fail it for a slow machine."""
    from hypothesis import HealthCheck, settings

    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def _reaper(tmp_path_factory, request):
    """Mark everything that this run starts, so that nothing outlives it, whatever ends it.

    Fixtures stop their servers; a signal runs no fixture, and ``kill -9`` no handler. So the mark stands in the
    environment that children inherit, and a process in a session of its own waits for this one to end.
    """
    if sys.platform != "linux":
        yield
        return
    mark, folder = f"{os.getpid()}-{time.time_ns()}", str(tmp_path_factory.getbasetemp().resolve())
    unmarked = {name: value for name, value in os.environ.items() if name != reaper.VARIABLE}
    os.environ[reaper.VARIABLE] = mark
    waiting = subprocess.Popen(
        [sys.executable, "-IS", reaper.__file__, str(os.getpid()), mark, folder],
        # neither a signal to the group of this run nor the reaper of a run around this one may end it too early
        env=unmarked, cwd="/", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    # A fork has the environment that this process began with, which is not marked: the kernel ends it with this thread.
    prctl, pr_set_pdeathsig = ctypes.CDLL(None).prctl, 1
    os.register_at_fork(after_in_child=lambda: prctl(pr_set_pdeathsig, signal.SIGKILL))
    yield
    request.config.started = lambda: reaper.belonging(mark, folder)
    request.config.reaper = waiting  # a handle that is dropped would be warned of


def pytest_sessionfinish(session):
    """A run whose tests are done leaves nothing for the reaper: a server that still runs is a fixture's fault.

    With workers (``-n``) each looks after what it started, and tells the process that counts the failures.
    """
    started, left = getattr(session.config, "started", set), getattr(session.config, "left", {})
    until = time.monotonic() + 5  # what was asked to end may still be about it
    while running := {pid: line for pid in started() - {os.getpid()} if (line := _command_line(pid))}:
        if time.monotonic() > until:
            left = left | running
            break
        time.sleep(0.05)
    if left and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = left
    elif left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("", *(f"still runs: {pid} {line}" for pid, line in left.items()), sep="\n")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node):
    """Keep what a worker left running."""
    left = getattr(node, "workeroutput", {}).get("left", {})
    node.config.left = getattr(node.config, "left", {}) | left


def _command_line(pid):
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return "" if KEEPERS in line else line.replace(b"\0", b" ").decode(errors="replace").strip()


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
    """A test of recorded data may not be skipped where the data are, and none of Redis where CI promises a server."""
    report = yield
    if report.skipped and "no Redis" in str(report.longrepr) and os.environ.get("CI", "").lower() == "true":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where CI promises a server: {report.longrepr}"
    if report.skipped and "data" in item.keywords and "soak" not in item.keywords and _data_folder().is_dir():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {_data_folder().name} is there: {report.longrepr}"
    return report


def pytest_collection_finish():
    """What the test modules import lives as long as the run: no collection looks at it again.

    The hosts are a million objects: with them, each collection that a test asks for takes seconds.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _collect_what_litellm_leaves(request):
    """What a module with LiteLLM leaves behind is collected at its own end, not in some other test.

    What is there before its first test is set aside meanwhile: LiteLLM's hundreds of thousands of objects would make
    every collection that a test asks for cost a second.
    """
    uses = any(item.module is request.module and item.get_closest_marker("litellm") for item in request.session.items)
    heard = _listeners(importlib.import_module("litellm")) if uses else {}
    before = {name: list(found) for name, found in heard.items()}
    gc.freeze()
    yield
    gc.unfreeze()
    for name, found in heard.items():  # LiteLLM takes no more than a hundred, and each router adds its own
        found[:] = before[name]
    if uses:
        gc.collect()


def _listeners(litellm):
    """The lists of those that LiteLLM tells of calls."""
    return {name: found for name in dir(litellm) if name.endswith("callback") or name == "callbacks"
            if isinstance(found := getattr(litellm, name), list)}  # fmt: skip


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
    for cached in (providers.get_provider, providers.foreign_cache_fields, providers.foreign_block_keys):
        cached.cache_clear()


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL that is running."""
    postgres_servers.needed()
    with PostgresServer(("fsync", "off")) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server):
    """The URL of an empty database."""
    import psycopg

    name = f"d{time.time_ns()}"
    with psycopg.connect(postgres_server.url, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")
    return postgres_server.url.removesuffix("postgres") + name
