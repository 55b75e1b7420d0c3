"""What processes share of prefixes: counts add up, the newest wins, and no text is in it."""

from __future__ import annotations

import json

import pytest

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.plan import CachePlan
from llm_cost_middleware.prompt_cache.returns import within
from llm_cost_middleware.prompt_cache.sharing import absorb, changed_keys, keys_of, merge
from llm_cost_middleware.prompt_cache.statistics import PrefixStatistics
from llm_cost_middleware.request import CacheBreakpoint
from llm_cost_middleware.usage import TokenUsage


class Process:
    """Statistics that read what a request needs, and write what it has changed."""

    def __init__(self, store, sonnet, prices):
        self.statistics, self.store, self.sonnet, self.prices = PrefixStatistics(), store, sonnet, prices

    def recall(self, layout, now):
        for key in keys_of(layout):
            absorb(self.statistics, key, self.store.get(key), now)

    def call(self, layout, now, *, save=True):
        self.recall(layout, now)
        plan = CachePlan((CacheBreakpoint(layout.boundaries[-1].ref, "5m"),), prices=self.prices, at=now)
        warm = self.statistics.deepest_warm(layout, self.sonnet, now)
        read = 0 if warm is None else layout.boundaries[warm].tokens
        self.statistics.begin(layout, plan, now=now)
        usage = TokenUsage(cache_read=read, cache_write_5m=layout.tokens - read)
        self.statistics.observe(layout, self.sonnet, plan, usage, now=now + 1.0)
        if save:
            self.save(layout, now + 1.0)
        return read

    def save(self, layout, now):
        for key in list(changed_keys(self.statistics, layout)):
            self.store[key] = merge(self.statistics, key, self.store.get(key), now)

    def odds(self, layout, at, now):
        return within(self.statistics.estimate(layout, at, now)[0].odds)


@pytest.fixture
def store():
    return {}


@pytest.fixture
def process(store, sonnet, prices):
    return lambda: Process(store, sonnet, prices)


def talk(conversation, turns=8):
    return [read_layout(conversation(turn, salt="talk", tools=2)) for turn in range(1, turns)]


@pytest.mark.parametrize("count", [1, 3, 100])
def test_any_number_of_processes_know_what_one_would(conversation, process, count):
    """``count`` processes in turn; a hundred are a new one for each call."""
    alone, fleet, now = process(), [process() for _ in range(count)], 0.0
    alone.store = {}
    for number, layout in enumerate(talk(conversation)):
        now += 20.0
        one = fleet[number % count]
        assert one.call(layout, now) == alone.call(layout, now)
    last = read_layout(conversation(8, salt="talk", tools=2))
    newest = process()
    newest.recall(last, now + 20.0)
    for at in range(len(last.boundaries)):
        assert newest.odds(last, at, now + 20.0) == pytest.approx(alone.odds(last, at, now + 20.0), abs=0.01)
    assert newest.statistics.insurance.saved == alone.statistics.insurance.saved
    assert newest.statistics.insurance.input_cost == alone.statistics.insurance.input_cost


def test_what_two_processes_learned_at_the_same_time_adds_up(conversation, process):
    one, two = process(), process()
    layouts = [read_layout(conversation(1, salt=f"{at}", tools=2)) for at in range(20)]
    for at, layout in enumerate(layouts):
        (one, two)[at % 2].call(layout, 30.0 * at, save=False)
    for process_ in (one, two):
        for layout in layouts:
            process_.save(layout, 700.0)
    prefix = next(key for key in keys_of(layouts[0]) if key.startswith("2p."))
    assert json.loads(one.store[prefix])["n"] == 20
    assert json.loads(one.store["2m"])["i"] == sum(layout.tokens for layout in layouts) * 3_000_000


def test_reading_again_changes_nothing(conversation, process):
    one, layout = process(), talk(conversation)[3]
    one.call(layout, 10.0)
    before = dict(one.store)
    for _ in range(3):
        one.recall(layout, 12.0)
        one.save(layout, 12.0)
    assert one.store == before


def test_a_correction_of_what_was_warm_beats_an_older_belief(conversation, process, sonnet):
    one, two, layout = process(), process(), talk(conversation)[2]
    one.call(layout, 10.0)
    two.recall(layout, 60.0)
    assert two.statistics.deepest_warm(layout, sonnet, 60.0) is not None
    plan = CachePlan((CacheBreakpoint(layout.boundaries[-1].ref, "5m"),), prices=two.prices, at=60.0)
    two.statistics.begin(layout, plan, now=60.0)
    two.statistics.observe(layout, sonnet, plan, TokenUsage(uncached_input=layout.tokens), now=61.0)
    two.save(layout, 61.0)
    one.recall(layout, 70.0)
    assert one.statistics.deepest_warm(layout, sonnet, 70.0) is None


def test_values_are_small_and_hold_no_text(conversation, process):
    one = process()
    for at in range(40):
        one.call(read_layout(conversation(6, salt=f"secret{at}", tools=2)), 5.0 * at)
    assert not [key for key, data in one.store.items() if b"secret" in data or b"SSS" in data or "secret" in key]
    assert max(len(data) for data in one.store.values()) < 4_096


@pytest.mark.parametrize("data", [b"[]", b"{}", b"null", b'{"n": "x"}', b'{"c": [1]}', b"nonsense", b"\xff"])
def test_a_value_that_cannot_be_read_is_as_good_as_none(conversation, process, data):
    one, layout = process(), talk(conversation)[2]
    one.store.update(dict.fromkeys(keys_of(layout), data))
    assert one.call(layout, 10.0) == 0
    assert one.call(layout, 20.0) > 0
    json.loads(one.store["2m"])
