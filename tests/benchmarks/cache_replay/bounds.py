"""What no rule can reach without knowing the future: lower bounds for the kinds that miss a goal.

Two arguments, each solved by the dynamic programme of the optimum, with all arrivals known but for one thing.

*The first call.* Before anything was seen, traffic that returns within five minutes and traffic that returns within an
hour look the same. So a rule does one of three things with its first prompt, whatever comes: nothing, a write for five
minutes, or one for an hour. ``first_call`` gives the least that each of the three leads to, if everything is known from
the second call on.

*The blind calls.* Until a prefix comes back, traffic that returns and traffic that never will look the same. A rule
that costs at most 1.01 of no caching on the one can write only so much on the other before then: one per cent of the
input of so many calls as insured traffic has, since it may end there. ``blind`` gives the least that leads to, if
everything is known afterwards. It is the Lagrangian bound: blind writes cost ``1 + price`` times their premium, and
what was allowed is given back; no choice within the allowance can cost less, whatever the price.

Both are below what is reachable: they forget that marks are at most four, that knowledge comes slowly, and that what
came back once may not come back again. ``python tests/benchmarks/cache_replay/bounds.py`` prints them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]

import compare_kinds  # noqa: E402 - from here on, what the two folders hold
import replay  # noqa: E402
from kinds_table import all_kinds  # noqa: E402
from optimum import Optimum  # noqa: E402
from rules import Blind, Planned  # noqa: E402
from traffic import Call  # noqa: E402

from llm_cost_middleware.prompt_cache.plan import LIFETIME_S, CachePrices  # noqa: E402
from llm_cost_middleware.providers import get_provider  # noqa: E402
from llm_cost_middleware.simulator import Answer, SimClock  # noqa: E402
from llm_cost_middleware.simulator.anthropic.dialect import MESSAGES  # noqa: E402
from llm_cost_middleware.simulator.engine import ServingEngine  # noqa: E402

MISSED = (
    "airline, people take 20 min",
    "desk agent, short",
    "desk agent, a person approves",
    "dialogue, 7 min",
    "dialogue, 25 min",
    "twenty tenants in turn",
    "sixty tenants in turn",
)
DEEDS = ("nothing", "5m", "1h")
ALLOWED = 0.01
"""Share of all input that blind writes may cost."""
INSURED_CALLS = 150
"""The longest of the insured kinds: whoever does not know when traffic ends has allowed for no more by then."""
_ENGINE = ServingEngine(
    clock=SimClock(), responder=lambda _: Answer(text="ok", output_tokens=0), worst_case_tokenizer=False, seed=0
)
_PRICES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0)


class Bound(Optimum):
    """The least cost under a restriction, as a sum over the nodes of the prefix tree."""

    def __init__(
        self,
        calls: Sequence[Call],
        prices: CachePrices,
        minimum: int,
        *,
        first: str | None = None,
        blind: int = 0,
        price: float = 0.0,
    ) -> None:
        """``first``: what is done at the first call. ``blind``: calls whose writes cost ``price`` premiums more."""
        self._first, self._blind, self._price = first, blind, price
        super().__init__(calls, prices, minimum)
        self._paths = [
            [(digest, end) for (digest, _), end in zip(path, lengths(call), strict=True)]
            for path, call in zip(self._paths, calls, strict=True)
        ]

    def _solve(self, numbers: tuple[int, ...]) -> dict[int, tuple[str, str]]:
        cost = self._least(numbers)
        self.costs = {**getattr(self, "costs", {}), numbers: cost}
        return dict.fromkeys(numbers, ("send", "5m"))

    def _least(self, numbers: tuple[int, ...]) -> float:
        """The least that the passes of one node cost, in pico-dollars a token."""
        times, count = [self._calls[number].at for number in numbers], len(numbers)
        from_here = [0.0] * (count + 1)
        for at in range(count - 1, -1, -1):
            forced = self._first if numbers[at] == 0 else None
            ways = [] if forced not in (None, "nothing") else [self._prices.uncached + from_here[at + 1]]
            for ttl, paid in self._prices.write.items():
                if forced in (None, ttl):
                    spent, until = self._run(times, at, LIFETIME_S[ttl])
                    premium = (paid - self._prices.uncached) * self._price if numbers[at] < self._blind else 0.0
                    ways.append(paid + premium + spent + from_here[until])
            from_here[at] = min(ways)
        return from_here[0]

    def total(self) -> float:
        """The whole cost, in pico-dollars: every stretch of tokens at the cost of the passes that it has."""
        found, done = 0.0, set()
        for path in self._paths:
            before = 0
            for digest, tokens in path:
                if digest not in done:
                    done.add(digest)
                    found += (tokens - before) * self.costs[self._passes[digest]]
                before = tokens
        return found


def lengths(call: Call) -> list[int]:
    """Where each block of a prompt ends, in tokens as the provider counts them."""
    prompt = _ENGINE.read(MESSAGES, dict(call.body), {}, 0).prompt
    return list(accumulate(block.tokens for block in prompt.blocks))


def input_cost(calls: Sequence[Call], prices: CachePrices, minimum: int) -> int:
    """What all input costs without caching, in pico-dollars."""
    return sum(path[-1][1] for path in Bound(calls, prices, minimum)._paths) * prices.uncached


def first_call(calls: Sequence[Call], prices: CachePrices, minimum: int) -> dict[str, float]:
    """The least that each deed at the first call leads to, in pico-dollars."""
    return {deed: Bound(calls, prices, minimum, first=deed).total() for deed in DEEDS}


def blind_calls(calls: Sequence[Call], prices: CachePrices, minimum: int) -> int:
    """How many calls pass before a prefix that is long enough to be cached has come back."""
    paths, seen = Bound(calls, prices, minimum)._paths, set()
    for number, path in enumerate(paths):
        long = {digest for digest, tokens in path if tokens >= minimum}
        if long & seen:
            return number
        seen |= long
    return len(paths)


def blind(calls: Sequence[Call], prices: CachePrices, minimum: int) -> tuple[int, float]:
    """How many calls are blind, and the least that is possible where their writes are insured.

    They are blind as long as the traffic looks like one of an insured kind, which may end at any of its calls: one per
    cent of ``INSURED_CALLS`` of them is what they may cost together.
    """
    count = blind_calls(calls, prices, minimum)
    allowed = ALLOWED * input_cost(calls[: max(count, INSURED_CALLS)], prices, minimum)
    return count, max(
        Bound(calls, prices, minimum, blind=count, price=price).total() - price * allowed for price in _PRICES
    )


def tables(kinds: Mapping[str, Sequence[Call]], report: Callable[[str], None]) -> None:
    """Both bounds for each kind, over its cheapest fixed rule, beside what the planner costs."""
    prices = replay.prices_of("anthropic", replay.MODEL)
    minimum = get_provider("anthropic").cache_capabilities(replay.MODEL).min_tokens
    columns = ("first: none", "first: 5m", "first: 1h", "blind calls", "insured", "optimum", "planned")
    report(f"Lower bounds, over the cheapest fixed rule\n{'traffic':<36}" + "".join(f"{each:>13}" for each in columns))
    for name, calls in kinds.items():
        bills = {each: replay.play(calls, Blind(place)).cost_nanousd for each, place in compare_kinds.RULES.items()}
        rule = min(bills.values())
        planned = replay.play(calls, Planned(prices, replay.MODEL)).cost_nanousd / rule
        # A few tokens of a prompt belong to no block: both are taken as shares of no caching.
        rule *= input_cost(calls, prices, minimum) / bills["none"]
        first = first_call(calls, prices, minimum)
        count, insured = blind(calls, prices, minimum)
        free = Bound(calls, prices, minimum).total() / rule
        shares = "".join(f"{cost / rule:>13.3f}" for cost in first.values())
        report(f"{name:<36}{shares}{count:>13}{insured / rule:>13.3f}{free:>13.3f}{planned:>13.3f}")


def main() -> None:
    """Print the bounds of the kinds that miss a goal, or of all."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--all", action="store_true", help="of every kind")
    kinds = all_kinds(replay.data_folder())
    if not options.parse_args().all:
        kinds = {name: kinds[name] for name in MISSED if name in kinds}
    tables(kinds, lambda text: print(text, flush=True))


if __name__ == "__main__":
    main()
