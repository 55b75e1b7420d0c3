"""The replay of many kinds of traffic through the real hosts: a short form, and what its last full run showed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "cache_replay"
SYNTHETIC = (
    "code agent, two steps",
    "dialogue, 20 s",
    "one question in 15 s",
    "two questions a document",
    "small users, one system",
    "burst of three each 10 min",
)


@pytest.fixture(scope="module")
def compare():
    """The comparison, imported from its folder."""
    sys.path.insert(0, str(FOLDER))
    try:
        import compare_kinds

        yield compare_kinds
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def kinds(compare):
    """Kinds that need no recorded data, shortened."""
    return {name: calls[:90] for name, calls in compare.all_kinds(None).items()}


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_plan_costs_no_more_than_the_best_fixed_rule(compare, kinds, name):
    hosts = compare.hosts
    with compare.provider() as (sim, clock), hosts.pipeline(sim, clock) as pipeline, hosts.client(sim) as client:
        bill = compare.through(kinds[name], hosts.always(hosts.sdk(client, pipeline)), sim, clock)
    assert bill.to_rule <= 1.02


def test_what_never_comes_back_costs_one_and_a_half_prompts_at_most(compare, kinds):
    hosts = compare.hosts
    with compare.provider() as (sim, clock), hosts.pipeline(sim, clock) as pipeline, hosts.client(sim) as client:
        bill = compare.through(kinds["nothing comes back"], hosts.always(hosts.sdk(client, pipeline)), sim, clock)
    assert bill.planned <= 1.0 + 1.5 / 90


@pytest.mark.parametrize("host", ["wrapped client", "guard", "instrument", "create_agent"])
def test_an_agent_is_within_three_per_cent_of_the_optimum_through_every_host(compare, kinds, host):
    pytest.importorskip("langchain_anthropic", reason="needs the demo extra: langchain-anthropic")
    hosts, calls = compare.hosts, kinds["code agent, one at a time"][:60]
    with (
        compare.provider() as (sim, clock),
        hosts.pipeline(sim, clock) as pipeline,
        hosts.open_host(host, sim, pipeline) as send,
    ):
        assert compare.through(calls, hosts.always(send), sim, clock).to_optimum <= 1.03


def test_there_are_forty_kinds_over_three_sets_of_tools_in_two_halves(compare):
    names = list(compare.all_kinds(None))
    assert len(names) + 8 >= 40  # eight more from the recorded conversations
    half = compare.chosen(dict.fromkeys(names))
    assert abs(2 * len(half) - len(names)) <= 1
    assert {path.stem for path in (FOLDER / "tools").glob("*.json")} == {"code", "desk"}  # the third is recorded
    assert compare.RESULTS.is_file()
