"""A real ``litellm --config`` process over the simulator, with a ledger that a test can read beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import anthropic
import httpx
import openai
from ports import free_port

from llm_cost_middleware.budget.ledger import Ledger
from llm_cost_middleware.config import CostConfig
from llm_cost_middleware.simulator import Simulator

AUTH = """
from pathlib import Path

from litellm.proxy._types import UserAPIKeyAuth

SOCKETS = Path(__file__).with_name("sockets.txt")

def tell_sockets():  # its document leaves them out
    from litellm.proxy.proxy_server import app
    from starlette.routing import WebSocketRoute

    paths = {route.path for route in app.routes if isinstance(route, WebSocketRoute)}
    SOCKETS.write_text("\\n".join(sorted(paths)))

async def auth(request, api_key):
    if not SOCKETS.exists():
        tell_sockets()
    name = api_key.removeprefix("sk-")
    tags = {"tags": ["owned"]} if name.startswith("tagged") else {}
    user = None if name.startswith("shared") else name  # a key of many people
    return UserAPIKeyAuth(api_key=api_key, key_alias=f"{name}-key", user_id=user, team_id="blue", metadata=tags)
"""
MIXED = """model_list:
  - model_name: "fast"
    litellm_params: {{model: "openai/gpt-5-mini", api_base: "{gpt}", api_key: "k"}}
  - model_name: "fast"
    litellm_params: {{model: "anthropic/claude-haiku-4-5", api_base: "{claude}", api_key: "k"}}
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


class Providers(Simulator):
    """What a proxy calls. The lists of models that LiteLLM reads in the background count for none of its requests."""

    @property
    def request_count(self):
        return sum(not exchange.path.endswith("/models") for exchange in self.requests)


class Proxy:
    """The process, its simulator and its ledger.

    Args:
        folder: Where its files go.
        sim: The providers.
        cost: More of the configuration of costs.
        adjust: Changes LiteLLM's configuration, as a mapping, before it is written.
        env: More environment.
    """

    def __init__(self, folder, sim, *, cost="", adjust=None, env=None):
        self.sim, self.folder, self.cost = sim, folder, cost
        self.adjust, self.env = adjust, env or {}
        self.url = f"http://127.0.0.1:{free_port()}"
        self.ledger = Ledger.open(f"sqlite:///{folder}/ledger.db")

    def start(self, workers):
        from llm_cost_middleware.integrations.litellm import proxy_config

        cost = COST.format(ledger=self.folder / "ledger.db", claude=self.sim.anthropic_url, gpt=self.sim.openai_url)
        (self.folder / "cost.toml").write_text(cost + self.cost)
        (self.folder / "who.py").write_text(AUTH)
        config = CostConfig.from_toml(self.folder / "cost.toml", env={})
        text = proxy_config(config).replace(
            "model_list:\n", MIXED.format(claude=self.sim.anthropic_url, gpt=self.sim.openai_url)
        )
        text += 'general_settings:\n  custom_auth: "who.auth"\n'
        if self.adjust is not None:
            import yaml

            written = yaml.safe_load(text)
            self.adjust(written)
            text = yaml.safe_dump(written)
        (self.folder / "config.yaml").write_text(text)
        environment = os.environ | {
            "LLM_COST_CONFIG": str(self.folder / "cost.toml"),
            "LITELLM_MASTER_KEY": "sk-master",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "ANTHROPIC_API_KEY": "k",
            "OPENAI_API_KEY": "k",
            "PYTHONPATH": os.pathsep.join(sys.path),
            **self.env,
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
