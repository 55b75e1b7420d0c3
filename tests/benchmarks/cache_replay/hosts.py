"""The hosts of this package, and layouts of processes, as functions that send a body of Anthropic's API."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from conversations import chat_body, langchain_call
from redis_servers import RedisServer, server_binaries
from traffic import MODEL

from llm_cost_middleware import CostConfig, CostPipeline

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ["REPLAY_KEY"] = os.environ["ANTHROPIC_API_KEY"] = "k"
for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_URL"):
    os.environ.pop(name, None)
warnings.filterwarnings("ignore")

Send = Callable[[dict[str, Any]], None]
HOSTS = ("wrapped client", "guard", "instrument", "create_agent", "router")
LAYOUTS = (
    ("4 workers, SQLite", 4, None, "sqlite"),
    ("16 workers, SQLite", 16, None, "sqlite"),
    ("4 workers, Valkey", 4, None, "valkey"),
    ("16 workers, Valkey", 16, None, "valkey"),
    ("a process a call, SQLite", 1, 1, "sqlite"),
    ("a process for 20 calls", 1, 20, "sqlite"),
)


class Watch:
    """The simulator's clock as a pipeline wants one."""

    def __init__(self, clock: Any) -> None:
        self.now = self.monotonic = clock.now
        self.sleep = clock.advance

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


def open_pipeline(sim: Any, clock: Any, url: str = "memory://") -> CostPipeline:
    """A pipeline for one model at the simulator."""
    config = CostConfig(
        ledger={"url": url},
        tiers=[{"name": "only", "models": [f"anthropic/{MODEL}"]}],
        providers={"anthropic": {"base_url": sim.anthropic_url, "api_key_env": "REPLAY_KEY"}},
    )
    return CostPipeline(config, clock=Watch(clock))


def always(send: Send) -> Callable[[int], Send]:
    """One process sends every call."""
    return lambda _: send


@contextmanager
def pipeline(sim: Any, clock: Any) -> Iterator[CostPipeline]:
    """A pipeline that is closed at the end."""
    with open_pipeline(sim, clock) as made:
        yield made


@contextmanager
def client(sim: Any) -> Iterator[Any]:
    """An SDK client of the simulator."""
    import anthropic

    with anthropic.Anthropic(base_url=sim.anthropic_url, api_key="k", max_retries=0) as made:
        yield made


def sdk(made: Any, governed: CostPipeline) -> Send:
    """Send through a wrapped client."""
    from llm_cost_middleware.integrations.anthropic import wrap_anthropic

    wrapped = wrap_anthropic(made, governed)
    return lambda body: wrapped.messages.create(**body)


def _chat_model(sim: Any) -> Any:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(model=MODEL, base_url=sim.anthropic_url, api_key="k", max_tokens=64, max_retries=0)


def _guard(sim: Any, governed: CostPipeline) -> Send:
    from llm_cost_middleware.integrations.langchain import guard

    model = guard(_chat_model(sim), governed)

    def send(body: dict[str, Any]) -> None:
        messages, tools, _ = langchain_call(body)
        (model.bind_tools(tools) if tools else model).invoke(messages)

    return send


def _instrument(sim: Any, governed: CostPipeline) -> Send:
    from llm_cost_middleware.integrations.langchain import instrument

    model = _chat_model(sim)

    def send(body: dict[str, Any]) -> None:
        messages, tools, _ = langchain_call(body)
        instrument(model.bind_tools(tools) if tools else model, governed).invoke(messages)

    return send


def _agent(sim: Any, governed: CostPipeline) -> Send:
    """One step of an agent for each call: it answers at once, as the simulator calls no tool."""
    from langchain.agents import create_agent

    from llm_cost_middleware.integrations.langchain import CostMiddleware

    model, middleware, agents = _chat_model(sim), CostMiddleware(governed), {}

    def send(body: dict[str, Any]) -> None:
        messages, tools, _ = langchain_call(body)
        system = messages.pop(0) if body.get("system") else None
        key = repr((system, [tool["name"] for tool in tools or ()]))
        if key not in agents:
            agents[key] = create_agent(model, tools or [], system_prompt=system, middleware=[middleware])
        agents[key].invoke({"messages": messages})

    return send


@contextmanager
def open_host(name: str, sim: Any, governed: CostPipeline) -> Iterator[Send]:
    """How to send through a host."""
    if name == "wrapped client":
        with client(sim) as made:
            yield sdk(made, governed)
    elif name == "router":
        from llm_cost_middleware.integrations.litellm import CostAwareRouter

        deployment = {"model": f"anthropic/{MODEL}", "api_base": sim.anthropic_url, "api_key": "k"}
        router = CostAwareRouter([{"model_name": "a", "litellm_params": deployment}], pipeline=governed)
        yield lambda body: router.completion("a", **chat_body(body))
    else:
        yield {"guard": _guard, "instrument": _instrument, "create_agent": _agent}[name](sim, governed)


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[str | None]:
    """The URL of an empty ledger; ``None`` where there is no server for it."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/ledger.db"
        return
    binary = next((path for name, path in server_binaries().items() if name.startswith("valkey")), None)
    if binary is None:
        yield None
        return
    with RedisServer(binary, folder) as server:
        yield server.url


@contextmanager
def fleet(
    sim: Any, clock: Any, url: str, workers: int, life: int | None, host: str = HOSTS[0]
) -> Iterator[Callable[[int], Send]]:
    """Which process sends a call: in turn, or a new one for every so many; an old one is left as if it was killed."""
    with ExitStack() as stack:

        def start() -> Send:
            governed = stack.enter_context(open_pipeline(sim, clock, url))
            return stack.enter_context(open_host(host, sim, governed))

        running = [start() for _ in range(workers)]

        def sender(number: int) -> Send:
            if life is not None and number and number % life == 0:
                running[0] = start()
            return running[number % workers]

        yield sender
