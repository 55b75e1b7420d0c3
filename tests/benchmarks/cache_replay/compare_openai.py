"""Every kind of traffic as chats at OpenAI, against leaving the provider alone.

``python tests/benchmarks/cache_replay/compare_openai.py`` shows two things: what our explicit breakpoints cost at a
model whose writes are paid for, against the breakpoint that it sets by itself; and what our ``prompt_cache_key`` costs
at a model that caches by itself, where the provider partitions strictly by key, as the simulator does. OpenAI routes by
key and prefix, and keeps up with about fifteen requests a minute a key; above that it spills over to machines that have
nothing, which the simulator does not play: there a key is split on purpose. ``--short`` plays ninety calls of each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parent)]

import replay  # noqa: E402 - from here on, what the folder holds
from kinds_table import all_kinds  # noqa: E402
from rules import Blind, OpenAIPlanned, implicit  # noqa: E402
from traffic import Call, to_openai  # noqa: E402

from llm_cost_middleware.prompt_cache.statistics import REQUESTS_PER_KEY  # noqa: E402
from llm_cost_middleware.simulator.openai.dialects import CHAT  # noqa: E402

BREAKPOINTS, KEYS = "gpt-5.6-sol", "gpt-5.1"


class Compared(NamedTuple):
    """What a kind cost planned, over what it costs as the provider has it."""

    planned: float
    busiest: float
    """Requests in its busiest minute, over five minutes."""


def compare(calls: Sequence[Call], model: str) -> Compared:
    """One kind at one model."""
    shaped = [Call(call.at, to_openai(call.body, model)) for call in calls]
    planned, alone = (
        replay.play(shaped, rule, CHAT).cost_nanousd
        for rule in (OpenAIPlanned(replay.prices_of("openai", model), model), Blind(implicit))
    )
    return Compared(planned / alone, busiest(calls))


def busiest(calls: Sequence[Call]) -> float:
    """The most requests a minute, averaged over five minutes."""
    times, first, most = sorted(call.at for call in calls), 0, 0
    for at, now in enumerate(times):
        while times[first] < now - 300.0:
            first += 1
        most = max(most, at + 1 - first)
    return most / 5.0


def tables(kinds: Mapping[str, Sequence[Call]], report: Callable[[str], None]) -> dict[str, dict[str, Compared]]:
    """Both models over all kinds."""
    found: dict[str, dict[str, Compared]] = {}
    for model in (BREAKPOINTS, KEYS):
        report(f"\n{model}, as the provider has it: 1.000\n{'traffic':<44}{'calls':>6}{'planned':>9}")
        for name, calls in kinds.items():
            made = found.setdefault(model, {})[name] = compare(calls, model)
            crowded = " above the documented rate" if made.busiest > REQUESTS_PER_KEY else ""
            report(f"{name:<44}{len(calls):>6}{made.planned:>9.3f}{crowded if made.planned > 1.0 else ''}")
        shares = {name: made.planned for name, made in found[model].items()}
        worst = max(shares, key=shares.__getitem__)
        dear = sum(each > 1.001 for each in shares.values())
        report(
            f"{model}: worst {shares[worst]:.3f} ({worst}), mean {sum(shares.values()) / len(shares):.3f}, "
            f"{dear} of {len(shares)} above 1.001"
        )
    return found


def main() -> None:
    """Play and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--short", action="store_true", help="ninety calls of each kind")
    kinds = all_kinds(replay.data_folder())
    if options.parse_args().short:
        kinds = {name: calls[:90] for name, calls in kinds.items()}
    tables(kinds, lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
