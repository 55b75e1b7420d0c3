"""What learning costs on the kinds that miss a goal: the best fixed rule, followed as soon as it can be known.

The bounds of ``bounds.py`` know the future, and what that saves hides what not knowing costs. Here nothing is known
ahead: every row follows a kind's cheapest fixed rule to the letter, but for its first calls.

*Insured.* Before any prefix has come back, traffic that returns looks like traffic that never does. Whoever may cost
1.01 of no caching on the insured kinds can write so many whole prefixes until then, and not one more. The rest goes
uncached, and the rule is followed from the first return on.

*The first calls.* Two kinds begin alike, and one returns within five minutes, the other within an hour. What comes
before the first return of either is left, or written for the one or the other; from then on the rule of the kind is
followed. Whatever is done first, it is done on both kinds, so the worse of the two shares is what a rule must expect.
Means of ten seeds, since one long gap in a quick kind decides for the hour afterwards.

*Length.* What the planner pays beyond the best rule, in calls of usual size at the price of no caching, on a kind as it
is, twice and four times as long. Where that does not grow, the planner follows the best rule once it has learned, and
the share that is missing is one of the length that was played.

``python tests/benchmarks/cache_replay/learning.py`` prints the tables.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]

import bounds  # noqa: E402 - from here on, what the two folders hold
import compare_kinds  # noqa: E402
import kinds_table  # noqa: E402
import replay  # noqa: E402
from rules import Blind, Planned  # noqa: E402
from traffic import Call  # noqa: E402

from llm_cost_middleware.prompt_cache.plan import CachePrices  # noqa: E402
from llm_cost_middleware.usage import TokenUsage  # noqa: E402

PAIRS = (
    ("desk agent, short", "desk agent, a person approves"),
    ("airline, twelve only", "airline, people take 20 min"),
    ("dialogue, 4 min", "dialogue, 7 min"),
    ("dialogue, 4 min", "dialogue, 25 min"),
)
"""Kinds that begin alike: quick, slow."""
LENGTH = {
    "airline, people take 20 min": "talks",
    "desk agent, short": "talks",
    "desk agent, a person approves": "talks",
    "dialogue, 7 min": "talks",
    "dialogue, 25 min": "talks",
    "twenty tenants in turn": "count",
}
"""The argument that makes a kind longer."""
UNSEEN = range(10, 20)
"""Seeds on which nothing was chosen and nothing else is shown."""
_FIRST: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "nothing": compare_kinds.RULES["none"],
    "5m": compare_kinds.RULES["LangChain"],
    "1h": compare_kinds.RULES["LangChain 1h"],
}


class Follower(Blind):
    """A fixed rule, but for some calls that are sent otherwise."""

    def __init__(self, place: Any, otherwise: Mapping[int, Any]) -> None:
        super().__init__(place)
        self._otherwise = otherwise
        self.usage: dict[int, TokenUsage] = {}

    def send(self, number: int, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        """As ``Rule.send``."""
        return self._otherwise.get(number, self._place)(body)

    def answered(self, number: int, usage: TokenUsage, now: float) -> None:
        """As ``Rule.answered``."""
        self.usage[number] = usage


def cheapest(calls: Sequence[Call]) -> tuple[str, int, int]:
    """The best fixed rule, what it costs, and what no caching costs, in nano-dollars."""
    bills = {name: replay.play(calls, Blind(rule)).cost_nanousd for name, rule in compare_kinds.RULES.items()}
    best = min(bills, key=bills.__getitem__)
    return best, bills[best], bills["none"]


def insured(calls: Sequence[Call], prices: CachePrices, minimum: int) -> tuple[int, float]:
    """How many calls before the first return can be written, and what following the best rule costs then, over it."""
    best, least, _ = cheapest(calls)
    rule = compare_kinds.RULES[best]
    count = bounds.blind_calls(calls, prices, minimum)
    left = bounds.ALLOWED * bounds.input_cost(calls[: max(count, bounds.INSURED_CALLS)], prices, minimum)
    seen = Follower(rule, {})
    replay.play(calls, seen)
    unwritten, written = {}, 0
    for number in range(count):
        usage = seen.usage[number]
        five, hour = usage.cache_write_5m, usage.cache_write_1h
        premium = five * (prices.write["5m"] - prices.uncached) + hour * (prices.write["1h"] - prices.uncached)
        if premium <= left:
            left, written = left - premium, written + 1
        else:
            unwritten[number] = compare_kinds.RULES["none"]
    return written, replay.play(calls, Follower(rule, unwritten)).cost_nanousd / least


def after_first(calls: Sequence[Call], count: int) -> dict[str, float]:
    """What the best rule costs, over itself, where so many first calls are left or written for either lifetime."""
    best, least, _ = cheapest(calls)
    rule = compare_kinds.RULES[best]
    return {
        deed: replay.play(calls, Follower(rule, dict.fromkeys(range(count), place))).cost_nanousd / least
        for deed, place in _FIRST.items()
    }


def alike(makers: Mapping[str, Any], pair: tuple[str, str], prices: CachePrices) -> list[dict[str, float]]:
    """The same for two kinds, over the calls before the first return of either, as means over ``UNSEEN``."""
    sums: list[dict[str, float]] = [dict.fromkeys(_FIRST, 0.0) for _ in pair]
    for seed in UNSEEN:
        played = [makers[name](random.Random(f"{seed}{name}")) for name in pair]
        count = min(bounds.blind_calls(calls, prices, 1_024) for calls in played)
        for total, calls in zip(sums, played, strict=True):
            for deed, share in after_first(calls, count).items():
                total[deed] += share / len(UNSEEN)
    return sums


def excess(calls: Sequence[Call], prices: CachePrices) -> tuple[float, float]:
    """The planner over the best rule, and the difference in calls of usual size."""
    _, least, off = cheapest(calls)
    planned = replay.play(calls, Planned(prices, replay.MODEL)).cost_nanousd
    return planned / least, (planned - least) * len(calls) / off


def longer(make: Any, name: str, times: int, seed: int = 0) -> list[Call]:
    """A kind, so many times as long. The recorded conversations are fifty more at most, from the first."""
    more: dict[str, Any] = {}
    if times > 1:
        more = {LENGTH[name]: make.keywords[LENGTH[name]] * times}
        if "folder" in make.keywords:
            more["first"] = 0
    return make(random.Random(f"{seed}{name}"), **more)


def tables(folder: Path | None, report: Callable[[str], None]) -> None:
    """All three tables."""
    prices, minimum = replay.prices_of("anthropic", replay.MODEL), 1_024
    makers, kinds = kinds_table._table(folder), kinds_table.all_kinds(folder)
    report(f"{'the best rule from the first return on':<44}{'blind':>8}{'written':>9}{'/ rule':>8}{'planned':>9}")
    for name in (name for name in LENGTH if name in kinds):
        calls = kinds[name]
        written, share = insured(calls, prices, minimum)
        blind = bounds.blind_calls(calls, prices, minimum)
        report(f"{name:<44}{blind:>8}{written:>9}{share:>8.3f}{excess(calls, prices)[0]:>9.3f}")
    report(f"\n{'the best rule behind the first calls':<44}" + "".join(f"{deed:>9}" for deed in _FIRST))
    for pair in (pair for pair in PAIRS if kinds.keys() >= {*pair}):
        for name, shares in zip(pair, alike(makers, pair, prices), strict=True):
            report(f"{name:<44}" + "".join(f"{share:>9.3f}" for share in shares.values()))
    report(f"\n{'planned, in calls beyond the best rule':<44}{'once':>15}{'twice':>15}{'4 times':>15}{'ten seeds':>11}")
    for name in (name for name in LENGTH if name in kinds):
        shown = []
        for times in (1, 2, 4):
            share, calls_more = excess(longer(makers[name], name, times), prices)
            shown.append(f"{calls_more:>7.2f} ({share:.3f})")
        mean = sum(excess(longer(makers[name], name, 1, seed), prices)[0] for seed in UNSEEN) / len(UNSEEN)
        report(f"{name:<44}{''.join(f'{each:>15}' for each in shown)}{mean:>11.3f}")


if __name__ == "__main__":
    tables(replay.data_folder(), lambda text: print(text, flush=True))
