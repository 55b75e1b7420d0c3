"""Every kind of traffic through the real hosts over HTTP, against the fixed rules and the offline optimum.

Each call goes through a host of this package to the simulated provider, in the time that the kind gives it, and the
provider writes the bill. The bodies that arrived are taken as the traffic: without marks they are billed again under
each fixed rule and under the optimum, so that all are judged on the same bytes. Only input is counted.

``python tests/benchmarks/cache_replay/compare_kinds.py`` plays every kind through a wrapped client, and a part of them
through every other host and layout of processes, prints the tables and writes ``results/cache_kinds.txt``; ``--short``
plays a sample of each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")]

import hosts  # noqa: E402 - from here on, what the two folders hold
import overlap  # noqa: E402
import replay  # noqa: E402
from kinds_table import all_kinds, chosen  # noqa: E402
from optimum import Optimum  # noqa: E402
from rules import EPHEMERAL, Blind, Planned  # noqa: E402
from traffic import Call  # noqa: E402

from llm_cost_middleware.providers import get_provider  # noqa: E402
from llm_cost_middleware.simulator import SimClock, Simulator  # noqa: E402
from llm_cost_middleware.simulator.bill import cost_nanousd  # noqa: E402
from llm_cost_middleware.simulator.catalogue import catalogue  # noqa: E402

RESULTS = Path(__file__).parent.parent / "results" / "cache_kinds.txt"
HOUR = {"type": "ephemeral", "ttl": "1h"}
AGENTS = ("airline, in turn", "code agent, one at a time", "desk agent, short", "desk dialogue")
HOSTED = (*AGENTS, "examples as turns")
FLEETS = ("airline, overlapping", "code agent, own system", "dialogue, 20 s", "dialogue, 7 min", "one question in 15 s")
INSURED = ("nothing comes back", "nothing comes back, with tools", "time first in system", "tools shuffled each call",
           "each prompt once", "one question in 70 min", "dialogue, 70 min")  # fmt: skip
SAMPLE = 90
"""Calls of a kind that are played in a layout, unless all are asked for."""
SHORT = (
    "code agent, two steps",
    "dialogue, 20 s",
    "one question in 15 s",
    "nothing comes back",
    "two questions a document",
)


class Bill(NamedTuple):
    """What a kind cost through a host, and under each rule, as shares of no caching."""

    planned: float
    rules: Mapping[str, float]
    optimum: float

    @property
    def best(self) -> str:
        """The cheapest fixed rule."""
        return min(self.rules, key=self.rules.__getitem__)

    @property
    def to_rule(self) -> float:
        """Against the cheapest fixed rule."""
        return self.planned / self.rules[self.best]

    @property
    def to_optimum(self) -> float:
        """Against the least of the optimum and all rules."""
        return self.planned / min(self.optimum, self.rules[self.best])


def marked(body: Mapping[str, Any], control: Mapping[str, Any], *, system_only: bool = False) -> dict[str, Any]:
    """The body with fixed marks: at the end of system; or of tools, of system and of the request."""
    out = dict(body)
    for section in ("system",) if system_only else ("tools", "system"):
        if out.get(section):
            out[section] = [*out[section][:-1], {**out[section][-1], "cache_control": control}]
    return out if system_only else {**out, "cache_control": control}


RULES: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "none": lambda body: body,
    "classic": lambda body: marked(body, EPHEMERAL, system_only=True),
    "LangChain": lambda body: marked(body, EPHEMERAL),
    "LangChain 1h": lambda body: marked(body, HOUR),
}


def bare(value: Any) -> Any:
    """Without marks."""
    if isinstance(value, list):
        return [bare(each) for each in value]
    if isinstance(value, dict):
        return {name: bare(each) for name, each in value.items() if name != "cache_control"}
    return value


def as_blocks(body: Mapping[str, Any]) -> dict[str, Any]:
    """Without marks, with texts as the blocks that they stand for."""
    out = bare(dict(body))
    if isinstance(out.get("system"), str):
        out["system"] = [{"type": "text", "text": out["system"]}]
    out.setdefault("system", [])
    for message in out["messages"]:
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
    return out


@contextmanager
def provider() -> Iterator[tuple[Simulator, SimClock]]:
    """A loopback provider whose clock the replay advances."""
    clock = SimClock()
    with Simulator(responder=overlap.shortest, clock=clock) as sim:
        yield sim, clock


def through(calls: Sequence[Call], sender: Callable[[int], Callable[[dict[str, Any]], None]], sim, clock) -> Bill:
    """Send every call, one after the other in the time that it has, and judge what arrived."""
    _begin(sim, clock)
    start = clock.now()
    for number, call in enumerate(calls):
        clock.set(max(start + call.at, clock.now()))
        sender(number)(call.body)
    return judged(calls, sim)


def at_once(calls: Sequence[Call], sender: overlap.Sender, sim, clock, gate: overlap.Gate) -> Bill:
    """Send every call at its time, whether the ones before it are answered or not, and judge what arrived."""
    _begin(sim, clock)
    overlap.send_all(calls, sender, clock, gate)
    return judged(calls, sim)


def _begin(sim: Simulator, clock: Any) -> None:
    clock.set(clock.now() + 200_000.0)
    sim.reset()


def judged(calls: Sequence[Call], sim: Simulator) -> Bill:
    """What arrived, billed under every rule."""
    exchanges = sim.requests
    assert all(exchange.status == 200 for exchange in exchanges)
    assert len(exchanges) == len(calls)
    sent = [Call(call.at, as_blocks(exchange.body)) for call, exchange in zip(calls, exchanges, strict=True)]
    prices = replay.prices_of("anthropic", replay.MODEL)
    bills = {name: replay.play(sent, Blind(rule)).cost_nanousd for name, rule in RULES.items()}
    minimum = get_provider("anthropic").cache_capabilities(replay.MODEL).min_tokens
    least = replay.play(sent, Optimum(sent, prices, minimum)).cost_nanousd
    off = bills["none"]
    return Bill(_input_cost(sim) / off, {name: bill / off for name, bill in bills.items()}, least / off)


def _input_cost(sim: Simulator) -> int:
    """What the provider billed for input, in nano-dollars."""
    return sum(cost_nanousd(catalogue()[line.model], replace(line.tokens, output=0)) for line in sim.bill.lines)


def line(name: str, count: int, bill: Bill) -> str:
    """A line of the table."""
    shares = [*(bill.rules[rule] for rule in RULES), bill.optimum, bill.planned]
    flags = ("" if bill.to_rule <= 1.01 else " above the best rule") + (
        "" if bill.to_optimum <= 1.15 else ", above 1.15 of the optimum"
    )
    ratios = f"{bill.to_rule:>8.3f}{bill.to_optimum:>8.3f}"
    return f"{name:<44}{count:>6}" + "".join(f"{share:>9.3f}" for share in shares) + ratios + flags


COLUMNS = ("none", "classic", "LangCh.", "LC 1h", "optimum", "planned")
HEAD = f"{'traffic':<44}{'calls':>6}" + "".join(f"{name:>9}" for name in COLUMNS) + f"{'/ rule':>8}{'/ opt.':>8}"


def summary(bills: Sequence[Bill]) -> str:
    """The goals over some kinds."""
    to_rule, to_optimum = [bill.to_rule for bill in bills], [bill.to_optimum for bill in bills]
    return (
        f"{len(bills)} kinds: {sum(each <= 1.01 for each in to_rule)} within 1.01 of the best rule, "
        f"worst {max(to_rule):.3f}; of the optimum mean {sum(to_optimum) / len(bills):.3f}, "
        f"worst {max(to_optimum):.3f}, {sum(each > 1.15 for each in to_optimum)} above 1.15"
    )


def every_kind(kinds: Mapping[str, Sequence[Call]], report: Callable[[str], None]) -> None:
    """All kinds through a wrapped client, one process each, answers overlapping as they come."""
    report(f"Every kind through a wrapped client over HTTP, answers overlapping, shares of no caching\n{HEAD}")
    found: dict[str, Bill] = {}
    with overlap.provider() as (sim, clock, gate):
        for name, calls in kinds.items():
            with (
                hosts.pipeline(sim, clock) as pipeline,
                hosts.client(sim) as client,
                overlap.threads(hosts.sdk(client, pipeline)) as sender,
            ):
                found[name] = at_once(calls, sender, sim, clock, gate)
            report(line(name, len(calls), found[name]))
    conclude(kinds, found, report)


def in_this_process(kinds: Mapping[str, Sequence[Call]], report: Callable[[str], None]) -> None:
    """All kinds by the planner alone, without a host and without HTTP: the same figures in less time."""
    report(f"Every kind by the planner in this process, shares of no caching\n{HEAD}")
    prices = replay.prices_of("anthropic", replay.MODEL)
    minimum = get_provider("anthropic").cache_capabilities(replay.MODEL).min_tokens
    found: dict[str, Bill] = {}
    for name, calls in kinds.items():
        bills = {rule: replay.play(calls, Blind(place)).cost_nanousd for rule, place in RULES.items()}
        least = replay.play(calls, Optimum(calls, prices, minimum)).cost_nanousd
        planned, off = replay.play(calls, Planned(prices, replay.MODEL)).cost_nanousd, bills["none"]
        found[name] = Bill(planned / off, {rule: bill / off for rule, bill in bills.items()}, least / off)
        report(line(name, len(calls), found[name]))
    conclude(kinds, found, report)


def conclude(kinds: Mapping[str, Any], found: Mapping[str, Bill], report: Callable[[str], None]) -> None:
    """The goals over all kinds, over either half, and over the insured ones."""
    half = set(chosen(kinds))
    report(f"all: {summary(list(found.values()))}")
    for title, part in (
        ("parameters chosen on", [bill for name, bill in found.items() if name in half]),
        ("reported on the others", [bill for name, bill in found.items() if name not in half]),
        ("insured", [bill for name, bill in found.items() if name in INSURED]),
    ):
        if part:
            report(f"{title}: {summary(part)}")


def every_host(kinds: Mapping[str, Sequence[Call]], report: Callable[[str], None]) -> None:
    """Agents, and examples as turns, through every host, answers overlapping as they come."""
    report(f"\nAgents through every host, answers overlapping\n{HEAD}")
    for name in kinds:
        for host in hosts.HOSTS:
            with (
                overlap.provider() as (sim, clock, gate),
                hosts.pipeline(sim, clock) as pipeline,
                hosts.open_host(host, sim, pipeline) as send,
                overlap.threads(send) as sender,
            ):
                bill = at_once(kinds[name], sender, sim, clock, gate)
                report(line(f"{name}: {host}", len(kinds[name]), bill))


def in_layout(calls: Sequence[Call], layout: Sequence[Any], host: str) -> Bill | None:
    """Through a host in a layout of separate processes; ``None`` where there is no server for its ledger."""
    _, workers, life, storage = layout
    with tempfile.TemporaryDirectory() as folder, hosts.storage(storage, Path(folder)) as url:
        if url is None:
            return None
        with overlap.provider() as (sim, clock, gate):
            shared = overlap.SharedClock(clock)
            with overlap.processes(sim, shared, url, workers, life, host) as sender:
                return at_once(calls, sender, sim, shared, gate)


def first(kinds: Mapping[str, Sequence[Call]], names: Sequence[str], most: int | None) -> dict[str, Sequence[Call]]:
    """Some kinds, and so many calls of each."""
    return {name: kinds[name][:most] for name in names if name in kinds}


def every_layout(kinds: Mapping[str, Sequence[Call]], report: Callable[[str], None]) -> None:
    """Processes over one ledger, and processes that live for a call or twenty; answers overlap."""
    report(f"\nLayouts of separate processes, through a wrapped client, answers overlapping\n{HEAD}")
    for name, calls in kinds.items():
        for layout in hosts.LAYOUTS:
            bill = in_layout(calls, layout, hosts.HOSTS[0])
            label = f"{name}: {layout[0]}"
            report(line(label, len(calls), bill) if bill else f"{label} was not played, no server for it")


def every_cell(kinds: Mapping[str, Sequence[Call]], report: Callable[[str], None], *, whole: bool) -> None:
    """Agents and what never comes back through every host, in layouts of separate processes, answers overlapping.

    Each host and kind in one layout, another one for each in turn; with ``whole`` in all of them.
    """
    report("\nEvery host in layouts of separate processes: agents / optimum, what never comes back / no caching")
    for row, (name, calls) in enumerate(kinds.items()):
        for column, host in enumerate(hosts.HOSTS):
            at = (row + column) % len(hosts.LAYOUTS)
            for layout in hosts.LAYOUTS if whole else hosts.LAYOUTS[at : at + 1]:
                bill = in_layout(calls, layout, host)
                share = f"{bill.planned if name in INSURED else bill.to_optimum:.3f}" if bill else "no server"
                report(f"{name:<32}{len(calls):>6}  {host:<16}{layout[0]:<28}{share:>9}")


def main() -> None:
    """Play, print, and keep the tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--short", action="store_true", help="a sample of each, in less than a minute")
    options.add_argument("--whole", action="store_true", help="every host in every layout, and all calls of each kind")
    options.add_argument("--parts", default="planner,kinds,hosts,layouts,cells,insured", help="which tables")
    options.add_argument("--out", type=Path, default=RESULTS, help="where they are kept")
    asked = options.parse_args()
    lines: list[str] = []

    def report(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    began = time.process_time()
    kinds = all_kinds(replay.data_folder())
    if asked.short:
        kinds = {name: kinds[name][:60] for name in SHORT}
    parts, most = asked.parts.split(","), None if asked.whole else SAMPLE
    if "planner" in parts:
        in_this_process(kinds, report)
    if "kinds" in parts:
        every_kind(kinds, report)
    if "hosts" in parts:
        every_host(first(kinds, HOSTED if not asked.short else SHORT[:1], most), report)
    if "layouts" in parts:
        every_layout(first(kinds, FLEETS if not asked.short else SHORT[1:2], most), report)
    if "cells" in parts:
        every_cell(first(kinds, AGENTS if not asked.short else SHORT[:1], most), report, whole=asked.whole)
    if "insured" in parts:
        every_cell(first(kinds, INSURED if not asked.short else SHORT[3:4], None), report, whole=asked.whole)
    report(f"\n{time.process_time() - began:.0f} s of processor time")
    if not asked.short:
        asked.out.write_text("\n".join(each.rstrip() for each in "\n".join(lines).splitlines()) + "\n")


if __name__ == "__main__":
    main()
