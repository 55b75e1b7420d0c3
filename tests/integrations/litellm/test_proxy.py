"""A real ``litellm --config`` process of several workers with one ledger, driven by the SDKs of both providers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.budget.model import Budget
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.integrations.litellm import proxy_config
from llm_cost_middleware.simulator import Fault, Simulator, fill

ASK = [{"role": "user", "content": "Count to forty."}]
AUTH = """
from litellm.proxy._types import UserAPIKeyAuth

async def auth(request, api_key):
    name = api_key.removeprefix("sk-")
    return UserAPIKeyAuth(api_key=api_key, key_alias=f"{name}-key", user_id=name, team_id="blue")
"""
COST = """
[ledger]
url = "sqlite:///{ledger}"
[[budgets]]
scope = "global"
limit = "100"
[[budgets]]
scope = "user:poor"
limit = "0.0000001"
window = "day"
[[budgets]]
scope = "tag:tight"
limit = "0.0000001"
[retry]
breaker = false
[providers.anthropic]
base_url = "{claude}"
[providers.openai]
base_url = "{gpt}"
"""


def free_port():
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Proxy:
    """The process, its simulator and its ledger."""

    def __init__(self, folder, sim):
        self.sim, self.folder = sim, folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.db")

    def start(self, workers):
        cost = COST.format(ledger=self.folder / "ledger.db", claude=self.sim.anthropic_url, gpt=self.sim.openai_url)
        (self.folder / "cost.toml").write_text(cost)
        (self.folder / "who.py").write_text(AUTH)
        config = CostConfig.from_toml(self.folder / "cost.toml", env={})
        text = proxy_config(config) + 'general_settings:\n  custom_auth: "who.auth"\n'
        (self.folder / "config.yaml").write_text(text)
        environment = os.environ | {
            "LLM_COST_CONFIG": str(self.folder / "cost.toml"),
            "LITELLM_MASTER_KEY": "sk-master",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "ANTHROPIC_API_KEY": "k",
            "OPENAI_API_KEY": "k",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        log = (self.folder / "proxy.log").open("w")
        command = [str(Path(sys.executable).with_name("litellm")), "--config", str(self.folder / "config.yaml")]
        port = self.url.rpartition(":")[2]
        self.process = subprocess.Popen(
            [*command, "--port", port, "--host", "127.0.0.1", "--num_workers", str(workers),
             "--timeout_worker_healthcheck", "200"],  # its own five seconds end workers that a busy machine delays
            env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True,
        )  # fmt: skip
        log.close()
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log[-3000:]
            try:
                if httpx.get(f"{self.url}/health/liveliness", timeout=2).status_code == 200:
                    return self
            except httpx.HTTPError:
                time.sleep(0.5)
        raise AssertionError(self.log[-3000:])

    def stop(self):
        os.killpg(self.process.pid, 15)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait(10)
        self.ledger.close()

    @property
    def log(self):
        return (self.folder / "proxy.log").read_text()

    def claude(self, name="alice", **options):
        return anthropic.Anthropic(base_url=self.url, api_key=f"sk-{name}", max_retries=0, **options)

    def gpt(self, name="alice", **options):
        options.setdefault("max_retries", 0)
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=f"sk-{name}", **options)

    def since(self):
        """Where ledger and bill stand."""
        return self.spent(), self.sim.bill.total_nanousd

    def wait_for_request(self, count):
        """Until the provider has got so many."""
        deadline = time.monotonic() + 60
        while self.sim.request_count < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.sim.request_count == count

    def rows(self, scope="global"):
        """The ledger's rows, oldest first."""
        return tuple(self.ledger.rows(scope=scope))

    def resolutions(self):
        """How reservations ended, in order."""
        return [row for row in self.rows() if row.kind != "reserve"]

    def spent(self, scope="global"):
        deadline = time.monotonic() + 60
        while (balance := self.ledger.balance(scope)).pending_nanousd and time.monotonic() < deadline:
            time.sleep(0.05)
        assert balance.pending_nanousd == 0
        return balance.settled_nanousd


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, request):
    """One proxy for all tests of this file, of two workers or, in the long form, four: it takes a while to start."""
    pytest.importorskip("fastapi", reason="needs the proxy extra, which has no LiteLLM >= 1.110 here")
    with Simulator(responder=fill) as sim:
        running = Proxy(tmp_path_factory.mktemp("proxy"), sim)
        try:
            running.start(workers=4 if request.config.getoption("--soak") else 2)
            yield running
        finally:
            running.stop()


def chat(proxy, client, **kwargs):
    return client.chat.completions.create(messages=ASK, max_completion_tokens=40, **{"model": "smart", **kwargs})


def responses(proxy, client, **kwargs):
    return client.responses.create(input="Count to forty.", max_output_tokens=40, **{"model": "gpt-5-mini", **kwargs})


def messages(proxy, client, **kwargs):
    kwargs = {"model": "claude-sonnet-4-6", **kwargs}
    return client.messages.create(messages=ASK, max_tokens=40, **kwargs)


DOORS = {"chat": (chat, "gpt"), "responses": (responses, "gpt"), "messages": (messages, "claude")}
every_door = pytest.mark.parametrize("name", DOORS)


@every_door
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["smart", "claude-sonnet-4-6", "gpt-5-mini"])
def test_every_route_is_settled_at_its_price(name, stream, model, proxy):
    door, sdk = DOORS[name]
    before = proxy.since()
    with getattr(proxy, sdk)() as client:
        answer = door(proxy, client, model=model, stream=stream)
        if stream:
            assert len(list(answer)) > 1
    after = proxy.since()
    assert after[0] - before[0] == after[1] - before[1] > 0


@every_door
def test_a_refusal_is_a_429_that_no_sdk_retries(name, proxy):
    door, sdk = DOORS[name]
    sent = proxy.sim.request_count
    with (
        getattr(proxy, sdk)("poor").with_options(max_retries=3) as client,
        pytest.raises((anthropic.RateLimitError, openai.RateLimitError)) as refused,
    ):
        door(proxy, client)
    error = refused.value
    assert error.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in error.response.headers
    assert "resets_at" in error.response.text
    assert "user:poor" in error.response.text
    assert proxy.sim.request_count == sent


def test_a_request_that_cannot_be_read_is_a_400_and_costs_nothing(proxy):
    before = proxy.since()
    with proxy.gpt() as client, pytest.raises(openai.BadRequestError):
        chat(proxy, client, stream=True, extra_body={"stream_options": "x"})
    assert proxy.since() == before  # waits until nothing is pending


def test_tags_have_budgets_too(proxy):
    with proxy.gpt() as client, pytest.raises(openai.RateLimitError, match="tag:tight"):
        chat(proxy, client, extra_body={"metadata": {"tags": ["tight"]}})


def test_a_client_cannot_claim_the_scopes_of_another(proxy):
    with proxy.gpt("poor") as client, pytest.raises(openai.RateLimitError, match="user:poor"):
        chat(proxy, client, extra_body={"metadata": {"llm_cost": {"user": "rich"}}})


def test_keys_users_and_teams_are_booked_by_the_proxys_identity(proxy):
    with proxy.gpt("carol") as client:
        chat(proxy, client)
    assert proxy.spent("user:carol") == proxy.spent("key:carol-key") > 0
    assert proxy.spent("team:blue") >= proxy.spent("user:carol")


def test_headers_report_the_cost_and_the_remaining_budget(proxy):
    with proxy.gpt("dora") as client:
        raw = client.chat.completions.with_raw_response.create(model="smart", messages=ASK, max_completion_tokens=40)
    assert float(raw.headers["x-llm-cost-usd"]) * 1e9 == pytest.approx(proxy.spent("user:dora"))
    assert 0 < float(raw.headers["x-llm-cost-remaining-usd"]) < 100


@every_door
def test_a_provider_that_fails_costs_nothing_and_is_asked_once(name, proxy):
    door, sdk = DOORS[name]
    before, sent = proxy.since(), proxy.sim.request_count
    proxy.sim.script(Fault.status(500))
    with getattr(proxy, sdk)() as client, pytest.raises((anthropic.APIStatusError, openai.APIStatusError)):
        door(proxy, client, model="claude-sonnet-4-6")
    assert proxy.sim.request_count == sent + 1
    assert proxy.since() == before


@every_door
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "gpt-5-mini"])
def test_a_request_whose_connection_is_lost_is_sent_once_and_booked(name, stream, model, proxy):
    door, sdk = DOORS[name]
    before, sent, rows = proxy.since(), proxy.sim.request_count, proxy.resolutions()
    proxy.sim.script(Fault.reset(billed=True))
    with getattr(proxy, sdk)() as client, pytest.raises((anthropic.APIError, openai.APIError)):
        list(door(proxy, client, model=model, stream=stream))
    after = proxy.since()
    assert proxy.sim.request_count == sent + 1
    assert [row.status for row in proxy.resolutions()[len(rows) :]] == ["unconfirmed"]
    assert after[0] - before[0] >= after[1] - before[1] > 0


@every_door
@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "gpt-5-mini"])
def test_a_client_that_goes_away_mid_stream_is_settled(name, model, proxy):
    door, sdk = DOORS[name]
    before = proxy.since()
    proxy.sim.script(Fault.slow(per_chunk_s=0.05))
    with getattr(proxy, sdk)() as client:
        stream = door(proxy, client, model=model, stream=True)
        next(iter(stream))
        stream.close()
    after = proxy.since()
    assert after[0] - before[0] >= after[1] - before[1] > 0


def test_the_usage_chunk_reaches_only_callers_who_asked(proxy):
    with proxy.gpt() as client:
        assert all(chunk.usage is None for chunk in chat(proxy, client, model="gpt-5-mini", stream=True))
        asked = chat(proxy, client, model="gpt-5-mini", stream=True, stream_options={"include_usage": True})
        assert any(chunk.usage is not None for chunk in asked)


def test_embeddings_pass_with_a_warning(proxy):
    with proxy.gpt() as client, pytest.raises(openai.APIStatusError):
        client.embeddings.create(model="text-embedding-3-small", input="x")
    assert "aembedding" in proxy.log or "embedding" in proxy.log


RACE = {"model": "gpt-5-mini", "max_completion_tokens": 400, "service_tier": "default"}


def race(proxy, name, limit_nanousd):
    """Fifty at once by one user with a budget of his own: how many were answered, and what the provider bills."""
    proxy.ledger.set_budget(Budget(f"user:{name}", f"{limit_nanousd}e-9"))
    sent, billed = proxy.sim.request_count, proxy.sim.bill.total_nanousd

    def call(_):
        with proxy.gpt(name, timeout=120) as client:
            try:
                return client.chat.completions.create(messages=ASK, **RACE)
            except openai.RateLimitError:
                return None

    with ThreadPoolExecutor(50) as pool:
        answers = [answer for answer in pool.map(call, range(50)) if answer is not None]
    assert len(answers) == proxy.sim.request_count - sent
    bill = proxy.sim.bill.total_nanousd - billed
    assert proxy.spent(f"user:{name}") == bill
    return len(answers), bill


def test_the_race_over_the_workers_sends_exactly_the_five_that_fit(proxy):
    with proxy.gpt("probe") as client:
        client.chat.completions.create(messages=ASK, **RACE)
    # an answer runs up to its cap: what five of them give back is less than a sixth call reserves
    (bound,) = (row.amount_nanousd for row in proxy.rows("user:probe") if row.kind == "reserve")
    count, bill = race(proxy, "racer", 5 * bound)
    assert count == 5
    assert 0 < bill <= 5 * bound


def test_the_race_for_a_budget_of_five_true_costs_never_bills_more(proxy):
    with proxy.gpt("pricer") as client:
        client.chat.completions.create(messages=ASK, **RACE)
    cost = proxy.spent("user:pricer")
    count, bill = race(proxy, "runner", 5 * cost)
    assert 0 < count <= 5
    assert bill <= 5 * cost


async def test_a_request_that_its_client_cancels_is_settled(proxy):
    before, sent = proxy.since(), proxy.sim.request_count
    proxy.sim.script(Fault.slow(delay_s=1.0))
    async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-alice", max_retries=0) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(model="gpt-5-mini", messages=ASK, max_completion_tokens=40)
        )
        await asyncio.to_thread(proxy.wait_for_request, sent + 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    after = await asyncio.to_thread(proxy.since)
    assert after[0] - before[0] >= after[1] - before[1] > 0
