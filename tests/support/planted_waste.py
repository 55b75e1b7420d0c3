"""Eight wastes, planted in one ledger through real clients and the simulator, and the same calls as advice has them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai

from llm_cost_middleware import BudgetExceededError, CostConfig, CostPipeline, cost_context
from llm_cost_middleware.integrations.anthropic import wrap_anthropic
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.simulator import Answer, Fault, SimClock, Simulator, ToolCall

SONNET, HAIKU, NEW_HAIKU, GPT = "claude-sonnet-5-5", "claude-haiku-4-5", "claude-haiku-5-5", "gpt-5.1"
SYSTEM = "Answer what is asked, in the words of the house, and name the page where it stands. " * 120
SCHEMA = {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}
NAMES = ("find", "shelve", "catalogue")
TOOLS = [
    {"name": name, "description": f"{name}: looks a thing up in the house. " * 150, "input_schema": SCHEMA}
    for name in NAMES
]
TIGHT = {"scope": "team:tight", "limit": "0.17", "window": "none"}


class Watch:
    """The simulator's time."""

    def __init__(self, clock: SimClock) -> None:
        self.now = self.monotonic = clock.now
        self.sleep = clock.advance


@dataclass
class House:
    """Clients of one application, over a simulator of its own."""

    sim: Simulator
    clock: SimClock
    url: str = "memory://"
    more: dict[str, Any] = field(default_factory=dict)
    """Configuration beside the house's own: lines of an advice."""
    refused: int = 0
    opened: list[Callable[[], None]] = field(default_factory=list)

    def pipeline(self, **own: Any) -> CostPipeline:
        providers = {
            "openai": {"base_url": self.sim.openai_url, **own.pop("openai", {})},
            "anthropic": {"base_url": self.sim.anthropic_url},
        }
        merged = {"ledger": {"url": self.url}, "budgets": [TIGHT], **own}
        for name, table in self.more.items():
            if name == "providers":
                for provider, keys in table.items():
                    providers[provider].update(keys)
            elif isinstance(table, dict):
                merged[name] = {**merged.get(name, {}), **table}
            else:
                merged[name] = table
        pipeline = CostPipeline(CostConfig(providers=providers, **merged), clock=Watch(self.clock))
        self.opened.append(pipeline.close)
        return pipeline

    def claude(self, pipeline: CostPipeline) -> Any:
        client = anthropic.Anthropic(base_url=self.sim.anthropic_url, api_key="k", max_retries=0)
        self.opened.append(client.close)
        return wrap_anthropic(client, pipeline)

    def gpt(self, pipeline: CostPipeline) -> Any:
        client = openai.OpenAI(base_url=self.sim.openai_url, api_key="k", max_retries=2)
        self.opened.append(client.close)
        return wrap_openai(client, pipeline)

    def close(self) -> None:
        for close in self.opened:
            close()


@contextmanager
def house(url: str = "memory://", **more: Any) -> Iterator[House]:
    """A house whose simulator and clients end with the block."""
    clock = SimClock()
    with Simulator(clock=clock, responder=lambda request: Answer(text="It stands on page 7. " * 8)) as sim:
        found = House(sim, clock, url, more)
        try:
            yield found
        finally:
            found.close()


def sibling(found: House, *, advised: bool = False) -> None:
    """A tier with a model of which a later one costs a tenth."""
    del advised
    tiers = [{"name": "small", "models": [f"anthropic/{HAIKU}"]}]
    client = found.claude(found.pipeline(tiers=tiers))
    with cost_context(site="chat"):
        for number in range(25):
            found.clock.advance(40)
            messages = [{"role": "user", "content": f"{number}: " + "Which page? " * 60}]
            client.messages.create(model="smart", max_tokens=500, messages=messages)


def effort(found: House, *, advised: bool = False) -> None:
    """An arm that thinks four times as much as one that was tried."""
    for level, calls in (("high", 30), ("low", 0 if advised else 25)):
        tiers = [{"name": "only", "models": [{"model": f"openai/{GPT}", "reasoning_effort": level}]}]
        client = found.gpt(found.pipeline(tiers=tiers))
        with cost_context(site="think"):
            for number in range(calls):
                found.clock.advance(40)
                client.chat.completions.create(
                    model="smart", messages=[{"role": "user", "content": f"{number}: which of them?"}]
                )


def patience(found: House, *, advised: bool = False) -> None:
    """A nightly burst at the price of those who wait."""
    del advised
    client = found.gpt(found.pipeline())
    with cost_context(site="nightly-summary"):
        for number in range(25):
            found.clock.advance(0.2)
            client.chat.completions.create(
                model=GPT, max_completion_tokens=400,
                messages=[{"role": "user", "content": f"{number}: " + "Sum it up. " * 80}],
            )  # fmt: skip


def cache(found: House, *, advised: bool = False) -> None:
    """The time at the head of a long system prompt; where it is taken out, it stands in the question."""
    client = found.claude(found.pipeline())
    with cost_context(site="desk"):
        for number in range(25):
            found.clock.advance(20)
            now = f"It is 09:{number:02} o'clock. "
            question = f"Question {number}: where?"
            client.messages.create(
                model=SONNET, max_tokens=500, system=SYSTEM if advised else now + SYSTEM,
                messages=[{"role": "user", "content": now + question if advised else question}],
            )  # fmt: skip


def step(found: House, *, advised: bool = False) -> None:
    """Prompts a tenth longer than where every token costs twice as much."""
    client = found.claude(found.pipeline())
    with cost_context(site="archive"):
        for number in range(20):
            found.clock.advance(400)
            words = f"{number} is the volume. " + f"Page {number} of the archive. " * 20_000
            client.messages.create(
                model=NEW_HAIKU, max_tokens=500,
                messages=[{"role": "user", "content": words[: 4 * 99_980 if advised else 4 * 110_000]}],
            )  # fmt: skip


def failure(found: House, *, advised: bool = False) -> None:
    """A timeout that is shorter than some answers take: the provider goes on, and bills."""
    client = found.gpt(found.pipeline(openai={"timeout_s": 0.15}))
    with cost_context(site="slow"):
        for number in range(20):
            found.clock.advance(40)
            if number % 4 == 0:
                found.sim.script(Fault.slow(delay_s=0.3) if advised else Fault.hang(billed=True))
            client.chat.completions.create(
                model=GPT, max_completion_tokens=400,
                messages=[{"role": "user", "content": f"{number}: " + "Sum it up. " * 80}],
            )  # fmt: skip


def tools(found: House, *, advised: bool = False) -> None:
    """Three tools in every call, of which two are never called."""
    client = found.claude(found.pipeline())
    found.sim.responder = lambda request: Answer(tool_calls=(ToolCall("find", {"where": "here"}),))
    with cost_context(site="agent"):
        for number in range(60):
            found.clock.advance(400)  # longer than a cache entry lives
            client.messages.create(
                model=SONNET, max_tokens=500, tools=TOOLS[:1] if advised else TOOLS,
                messages=[{"role": "user", "content": f"{number}: " + "where does it stand? " * 20}],
            )  # fmt: skip
    found.sim.responder = lambda request: Answer(text="It stands on page 7. " * 8)


def holds(found: House, *, advised: bool = False) -> None:
    """Holds for answers a hundred times as long as any, in a budget that has room for all the bills."""
    del advised
    output = {"on_insufficient": ["raise"], **found.more.get("output", {})}
    before, found.more = found.more, {**found.more, "output": output}
    client = found.gpt(found.pipeline())
    found.more = before
    with cost_context(site="tight", team="tight"):
        for number in range(25):
            found.clock.advance(40)
            try:
                client.chat.completions.create(
                    model=GPT, messages=[{"role": "user", "content": f"{number}: " + "which of them? " * 10}]
                )
            except BudgetExceededError:
                found.refused += 1


WASTES: dict[str, Callable[..., None]] = {
    "sibling": sibling, "effort": effort, "patience": patience, "cache": cache, "step": step, "failure": failure,
    "tools": tools, "holds": holds,
}  # fmt: skip
SITES = {
    "sibling": "", "effort": "think", "patience": "nightly-summary", "cache": "desk", "step": "archive",
    "failure": "slow", "tools": "agent", "holds": "",
}  # fmt: skip


def lines_of(configuration: list[str]) -> dict[str, Any]:
    """The configuration in the lines of an advice, where it is one."""
    with suppress(tomllib.TOMLDecodeError):
        return tomllib.loads("\n".join(configuration))
    return {}
