"""Plays traffic through the simulated providers under each rule, and reads what they billed.

The simulator's own engine is driven in this process: its cache, its validation and its bill are those of the server.
Answers cost nothing here: output is the same under every rule, and would only dilute the comparison.

``python tests/benchmarks/cache_replay/replay.py`` plays everything, prints the tables and writes
``tests/benchmarks/results/prompt_cache.json``.
"""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from optimum import Optimum
from rules import Blind, OpenAIPlanned, Planned, Rule, classic, implicit, langchain, litellm, switched_off, uncached
from traffic import ANSWER_S, MODEL, READABLE_S, Call, all_kinds, fan_out, to_openai

from llm_cost_middleware.pricing.catalogue import Catalogue
from llm_cost_middleware.prompt_cache.plan import CachePolicy, CachePrices
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.simulator import Answer, SimClock
from llm_cost_middleware.simulator.anthropic.dialect import MESSAGES
from llm_cost_middleware.simulator.engine import ServingEngine
from llm_cost_middleware.simulator.openai.dialects import CHAT

RESULTS = Path(__file__).parent.parent / "results" / "prompt_cache.json"
OPENAI_MODEL = "gpt-5.6-sol"
BASE = "no caching"
_RETRY_S = 0.1
_SEND, _BEGIN, _ANSWER = range(3)


class Outcome(NamedTuple):
    """What a rule cost."""

    cost_nanousd: int
    read: int
    written: int
    prompt: int


def play(calls: Sequence[Call], rule: Rule, dialect=MESSAGES) -> Outcome:
    """Play ``calls`` in time; what an answer wrote can be read once it has begun. A rule may hold a call back."""
    clock = SimClock()
    start = clock.now()
    engine = ServingEngine(
        clock=clock, responder=lambda _: Answer(text="ok", output_tokens=0), worst_case_tokenizer=False, seed=0
    )
    read_usage = get_provider(dialect.provider).read_usage
    events: list[tuple[float, int, int, Any]] = [(call.at, _SEND, number, None) for number, call in enumerate(calls)]
    heapq.heapify(events)
    while events:
        at, kind, number, served = heapq.heappop(events)
        clock.set(start + at)
        if kind == _SEND:
            body = rule.send(number, calls[number].body, start + at)
            if body is None:
                heapq.heappush(events, (at + _RETRY_S, _SEND, number, None))
                continue
            served = engine.begin(dialect, engine.read(dialect, dict(body), {}, number), "key")
            heapq.heappush(events, (at + READABLE_S, _BEGIN, number, served))
        elif kind == _BEGIN:
            engine.started(served)
            heapq.heappush(events, (at + ANSWER_S - READABLE_S, _ANSWER, number, served))
        else:
            served.close("complete")
            rule.answered(number, read_usage(dialect.reply(served.out)).usage, start + at)
    lines = [line.tokens for line in engine.bill.lines]
    return Outcome(
        engine.bill.total_nanousd,
        sum(tokens.read for tokens in lines),
        sum(tokens.write + tokens.write_1h for tokens in lines),
        sum(tokens.prompt for tokens in lines),
    )


def prices_of(provider: str, model: str) -> CachePrices:
    """A model's cache prices, from the package's own catalogue."""
    level = Catalogue().rates(provider, model, at=SimClock().now()).levels[0]
    lifetimes = get_provider(provider).cache_capabilities(model).ttls
    # A lifetime without a price of its own is written for nothing.
    write = {ttl: price for ttl in lifetimes if (price := getattr(level, f"cache_write_{ttl}", None)) is not None}
    return CachePrices(read=level.cache_read, write=write, uncached=level.uncached_input)


def compare(calls: Sequence[Call]) -> dict[str, Outcome]:
    """Every rule over the same traffic, at Claude."""
    prices = prices_of("anthropic", MODEL)
    rules: dict[str, Rule] = {
        BASE: Blind(uncached),
        "classic mark": Blind(classic),
        "LangChain": Blind(langchain),
        "LiteLLM": Blind(litellm),
        "planned": Planned(prices, MODEL),
        "optimum": Optimum(calls, prices, get_provider("anthropic").cache_capabilities(MODEL).min_tokens),
    }
    return {name: play(calls, rule) for name, rule in rules.items()}


def compare_openai(calls: Sequence[Call]) -> dict[str, Outcome]:
    """The same traffic at GPT-5.6, whose writes are paid for: caching off, as it comes, planned."""
    prices = prices_of("openai", OPENAI_MODEL)
    rules: dict[str, Rule] = {
        BASE: Blind(switched_off),
        "as it comes": Blind(implicit),
        "planned": OpenAIPlanned(prices, OPENAI_MODEL),
    }
    shaped = [Call(call.at, to_openai(call.body, OPENAI_MODEL)) for call in calls]
    return {name: play(shaped, rule, CHAT) for name, rule in rules.items()}


def warm_first(count: int = 12) -> dict[str, Outcome]:
    """A fan-out whose application says so: the first call writes, the others wait for it."""
    prices, calls = prices_of("anthropic", MODEL), fan_out(count)
    rules: dict[str, Rule] = {BASE: Blind(uncached), "planned": Planned(prices, MODEL, CachePolicy(warm_first=True))}
    return {name: play(calls, rule) for name, rule in rules.items()}


def table(outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """Costs relative to no caching, a line a kind of traffic, with the total."""
    names = list(next(iter(outcomes.values())))
    lines = [f"{'traffic':<20}" + "".join(f"{name:>14}" for name in names)]
    for kind, found in outcomes.items():
        base = found[BASE].cost_nanousd
        lines.append(f"{kind:<20}" + "".join(f"{found[name].cost_nanousd / base:>14.4f}" for name in names))
    sums = totals(outcomes)
    lines.append(f"{'total':<20}" + "".join(f"{sums[name] / sums[BASE]:>14.4f}" for name in names))
    lines.append(f"{'total, USD':<20}" + "".join(f"{sums[name] / 1e9:>14.4f}" for name in names))
    return "\n".join(lines)


def totals(outcomes: Mapping[str, Mapping[str, Outcome]]) -> dict[str, int]:
    """Nano-dollars by rule over all traffic."""
    names = next(iter(outcomes.values()))
    return {name: sum(found[name].cost_nanousd for found in outcomes.values()) for name in names}


def data_folder() -> Path:
    """Where the recorded conversations lie."""
    default = Path(__file__).parents[4] / "shared" / "data"
    return Path(os.environ.get("LLM_COST_DATA") or default) / "agent_traces"


def main() -> None:
    """Play everything, print, and keep the figures."""
    traffic = all_kinds(data_folder())
    claude = {kind: compare(calls) for kind, calls in traffic.items()}
    print(f"{MODEL}: input cost by rule, relative to no caching\n{table(claude)}\n")
    openai = {kind: compare_openai(calls) for kind, calls in traffic.items()}
    print(f"{OPENAI_MODEL}: the same\n{table(openai)}\n")
    fanned = {"fan-out": warm_first()}
    print(f"{MODEL}: fan-out with warm_first\n{table(fanned)}")
    kept = {
        "calls": {kind: len(calls) for kind, calls in traffic.items()},
        **{
            name: {kind: {rule: each._asdict() for rule, each in found.items()} for kind, found in outcomes.items()}
            for name, outcomes in ((MODEL, claude), (OPENAI_MODEL, openai), ("warm_first", fanned))
        },
    }
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
