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
def openai(compare):
    """The comparison at OpenAI."""
    import compare_openai

    return compare_openai


@pytest.fixture(scope="module")
def bounds(compare):
    """The lower bounds."""
    import bounds

    return bounds


@pytest.fixture(scope="module")
def learning(compare):
    """What learning costs."""
    import learning

    return learning


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


@pytest.mark.parametrize("host", ["wrapped client", "guard", "instrument", "create_agent", "router"])
def test_examples_in_front_of_every_question_are_read_to_their_last_answer(compare, kinds, host):
    """Through every host a mark on the text of an answer arrives."""
    pytest.importorskip("langchain_anthropic", reason="needs the demo extra: langchain-anthropic")
    hosts, calls = compare.hosts, kinds["examples as turns"][:30]
    with (
        compare.provider() as (sim, clock),
        hosts.pipeline(sim, clock) as pipeline,
        hosts.open_host(host, sim, pipeline) as send,
    ):
        compare.through(calls, hosts.always(send), sim, clock)
        question = len(calls[0].body["messages"]) - 1
        assert "cache_control" in str(sim.requests[-1].body["messages"][question - 1])
        assert "cache_control" not in str(sim.requests[-1].body["messages"][question])
        reads = [line.tokens.read for line in sim.bill.lines]
    assert min(reads[3:]) == max(reads) > 0.85 * sim.bill.lines[-1].tokens.prompt


@pytest.mark.parametrize("name", ["code agent, six at once", "nothing comes back"])
def test_answers_that_overlap_change_no_figure(compare, kinds, name):
    """The provider holds each answer back, and calls leave meanwhile: agents six at a time, and single questions."""
    hosts, overlap, calls = compare.hosts, compare.overlap, kinds[name]
    with (
        overlap.provider() as (sim, clock, gate),
        hosts.pipeline(sim, clock) as pipeline,
        hosts.client(sim) as client,
        overlap.threads(hosts.sdk(client, pipeline)) as sender,
    ):
        bill = compare.at_once(calls, sender, sim, clock, gate)
    assert bill.to_optimum <= 1.03
    assert bill.to_rule <= 1.0 + 1.5 / len(calls)


def test_there_are_forty_kinds_over_three_sets_of_tools_in_two_halves(compare):
    names = list(compare.all_kinds(None))
    assert len(names) + 8 >= 40  # eight more from the recorded conversations
    half = compare.chosen(dict.fromkeys(names))
    assert abs(2 * len(half) - len(names)) <= 1
    assert {path.stem for path in (FOLDER / "tools").glob("*.json")} == {"code", "desk"}  # the third is recorded
    assert compare.RESULTS.is_file()


@pytest.mark.parametrize("name", SYNTHETIC)
def test_breakpoints_and_keys_at_openai_cost_no_more_than_leaving_it_alone(openai, kinds, name):
    for model in (openai.BREAKPOINTS, openai.KEYS):
        made = openai.compare(kinds[name], model)
        assert made.planned <= 1.001 or (model == openai.KEYS and made.busiest > openai.REQUESTS_PER_KEY)


def test_whoever_is_insured_cannot_follow_the_best_rule_where_tenants_take_turns(compare, bounds):
    """The twenty calls before the first return look like traffic that never returns; the rule writes them all."""
    calls = compare.all_kinds(None)["twenty tenants in turn"]
    prices = compare.replay.prices_of("anthropic", compare.replay.MODEL)
    least = bounds.Bound(calls, prices, 1_024).total()
    count, insured = bounds.blind(calls, prices, 1_024)
    assert count == 20
    assert insured > 1.05 * least
    # A bound is one: the optimum that is played costs no less, whatever the first call does.
    assert least <= min(bounds.first_call(calls, prices, 1_024).values())
    played = compare.replay.play(calls, bounds.Optimum(calls, prices, 1_024)).cost_nanousd * 1_000
    assert least <= 1.001 * played


def test_the_first_call_decides_between_five_minutes_and_an_hour_before_anything_is_known(compare, bounds):
    """Neither first mark is the best for both, and their first calls are alike."""
    kinds = compare.all_kinds(None)
    prices = compare.replay.prices_of("anthropic", compare.replay.MODEL)
    quick, slow = (
        bounds.first_call(kinds[name][:60], prices, 1_024)
        for name in ("code agent, two steps", "desk agent, a person approves")
    )
    assert quick["5m"] < quick["1h"]
    assert slow["1h"] < slow["5m"]


def test_tenants_in_turn_cost_what_the_best_rule_costs_whoever_is_insured(compare, learning):
    """Six whole prefixes are what may be written before one returns; from there on the planner is the best rule."""
    calls = compare.all_kinds(None)["twenty tenants in turn"]
    prices = compare.replay.prices_of("anthropic", compare.replay.MODEL)
    written, share = learning.insured(calls, prices, 1_024)
    assert written == 6
    assert learning.excess(calls, prices)[0] <= 1.002 * share


def test_no_first_mark_is_within_a_hundredth_of_the_best_rule_on_quick_and_on_slow_dialogues(kinds, learning):
    quick, slow = (learning.after_first(kinds[name], 3) for name in ("dialogue, 4 min", "dialogue, 7 min"))
    assert min(max(quick[deed], slow[deed]) for deed in quick) > 1.01
