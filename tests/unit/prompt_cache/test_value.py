from __future__ import annotations

import itertools
import random

import pytest

from llm_cost_middleware.prompt_cache.plan import CachePrices
from llm_cost_middleware.prompt_cache.value import CacheCandidate, Choice, choose, write_value

PRICES = CachePrices(300_000, {"5m": 3_750_000, "1h": 6_000_000}, 3_000_000)
BOTH = ("5m", "1h")


def candidates(*odds, tokens=2_000, **states):
    return [
        CacheCandidate(
            at, at, (at + 1) * tokens, *((p, p, p) if isinstance(p, float) else p,) * 2, **states.get(f"c{at}", {})
        )
        for at, p in enumerate(odds)
    ]


def chosen(found, ttls=BOTH, slots=4, lookback=20, allowance=10**18):
    return choose(
        found, PRICES, ttls, slots=slots, lookback=lookback, write_allowance_picousd=allowance, trust_picousd=10**18
    )


@pytest.mark.parametrize(("ttl", "break_even"), [("5m", 0.75 / 3.45), ("1h", 3.0 / 5.7)])
def test_a_write_breaks_even_as_the_formula_predicts(ttl, break_even):
    alone = CachePrices(PRICES.read, {ttl: PRICES.write[ttl]}, PRICES.uncached)
    assert write_value((break_even,) * 3, (break_even,) * 3, alone, ttl) == pytest.approx(0, abs=1)
    assert write_value((break_even + 0.01,) * 3, (break_even + 0.01,) * 3, alone, ttl) > 0
    assert write_value((break_even - 0.01,) * 3, (break_even - 0.01,) * 3, alone, ttl) < 0


@pytest.mark.parametrize("again", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("ttl", BOTH)
def test_the_value_of_a_write_is_what_it_saves_over_all_returns(ttl, again):
    """Against the traffic itself: it comes back with these odds, and is then kept as is cheapest."""
    alone = CachePrices(PRICES.read, {ttl: PRICES.write[ttl]}, PRICES.uncached)
    price, rng, saved, rounds = PRICES.write[ttl], random.Random(f"{ttl}{again}"), 0, 8_000
    kept = again * PRICES.read + (1 - again) * price < PRICES.uncached  # otherwise never written again
    for _ in range(rounds):
        returns = [rng.random() < again for _ in range(60)]
        for written in (True, False):
            cost, warm = price if written else PRICES.uncached, written
            for alive in returns:
                if warm and alive:
                    cost += PRICES.read
                else:
                    cost, warm = cost + (price if kept else PRICES.uncached), kept
            saved += -cost if written else cost
    expected = write_value((again,) * 3, (again,) * 3, alone, ttl)
    assert saved / rounds == pytest.approx(expected, rel=0.05, abs=20_000)


def test_a_single_return_pays_for_five_minutes_and_not_for_an_hour():
    once, never = (1.0,) * 3, (0.0,) * 3
    assert write_value(once, never, PRICES, "5m") == pytest.approx(2_700_000 - 750_000)
    assert write_value(once, never, PRICES, "1h") == pytest.approx(2_700_000 - 3_000_000)


def test_nothing_is_marked_below_the_break_even():
    assert chosen(candidates(0.2, 0.1)) == Choice()


def test_a_likely_end_is_marked_and_a_likelier_start_too():
    assert chosen(candidates(0.95, 0.5)).marks == ((0, "5m"), (1, "5m"))


def test_one_mark_serves_boundaries_that_return_together():
    assert chosen(candidates(0.8, 0.8, 0.8)).marks == ((2, "5m"),)


def test_what_returns_after_five_minutes_is_written_for_an_hour():
    assert chosen(candidates((0.05, 0.9, 0.9), (0.05, 0.9, 0.9))).marks == ((1, "1h"),)


def test_a_long_lifetime_stands_before_a_short_one():
    found = chosen(candidates((0.3, 0.95, 0.95), (0.9, 0.3, 0.3)))
    assert [ttl for _, ttl in found.marks] == sorted((ttl for _, ttl in found.marks), reverse=False)


def test_what_is_warm_is_read_and_not_written_again():
    found = chosen(candidates(0.0, 0.0, c0={"warm": "5m"}))
    assert found == Choice(((0, "5m"),), 2_000, 0, 0, 2_000 * 2_700_000)


def test_an_entry_written_for_an_hour_never_gets_a_mark_of_five_minutes():
    found = chosen(candidates(0.9, 0.9, 0.3, c0={"warm": "1h", "ends_section": True}))
    assert found.marks[0] == (0, "1h")
    assert ("5m" in dict(found.marks).values()) == (len(found.marks) > 1)


def test_a_mark_for_an_hour_keeps_what_is_read_before_it():
    """What is warm would expire before it comes back; the new tokens alone pay for the longer lifetime."""
    odds = (0.02, 0.9, 0.9)
    old = CacheCandidate(0, 0, 20_000, odds, odds, warm="5m")
    new = CacheCandidate(1, 1, 20_400, odds, odds)
    assert chosen([old, new]).marks[-1] == (1, "1h")
    often = {"reuse": (0.95, 0.96, 0.96), "reuse_again": (0.95, 0.96, 0.96)}
    assert chosen([old._replace(**often), new._replace(**often, tokens=23_000)]).marks[-1] == (1, "5m")


def test_a_free_slot_marks_the_end_of_tools_and_of_system():
    ends = {"ends_section": True}
    found = chosen(candidates(0.9, 0.9, 0.9, 0.9, c0=ends, c1=ends))
    assert [at for at, _ in found.marks] == [0, 1, 3]
    assert [at for at, _ in chosen(candidates(0.9, 0.9, 0.9, 0.9, c0=ends, c1=ends), slots=2).marks] == [1, 3]


def test_what_evidence_proves_is_not_at_risk():
    proven = {"proven": (0.75, 0.75, 0.75)}
    sure, hoped = chosen(candidates(0.9, c0=proven)), chosen(candidates(0.9))
    assert (sure.write_cost_picousd, hoped.write_cost_picousd) == (2_000 * 750_000,) * 2
    assert (sure.write_risk_picousd, hoped.write_risk_picousd) == (500 * 750_000, 2_000 * 750_000)


def test_an_entry_out_of_reach_of_the_last_mark_gets_a_mark_of_its_own():
    near = [
        CacheCandidate(0, 0, 2_000, *((0.9,) * 3,) * 2, warm="5m"),
        CacheCandidate(1, 19, 4_000, *((0.9,) * 3,) * 2),
    ]
    far = [near[0], near[1]._replace(number=20)]
    assert [at for at, _ in chosen(near).marks] == [1]
    assert [at for at, _ in chosen(far).marks] == [0, 1]


def test_without_a_lookback_an_entry_is_found_at_its_own_block_only():
    found = chosen(candidates(0.9, 0.9, c0={"warm": "5m"}), ttls=("5m",), lookback=None)
    assert [at for at, _ in found.marks] == [0, 1]


def test_a_forgotten_entry_out_of_reach_is_looked_for():
    found = [
        CacheCandidate(0, 0, 2_000, *((0.9,) * 3,) * 2, presumed=True),
        CacheCandidate(1, 40, 4_000, *((0.9,) * 3,) * 2),
    ]
    assert [at for at, _ in chosen(found).marks] == [0, 1]


def test_what_another_call_writes_just_now_is_not_written_twice():
    assert chosen(candidates(0.9, 0.9, tokens=2_000, c0={"pending": True})).marks  # the rest is worth it
    heavy = [
        CacheCandidate(0, 0, 9_000, *((0.9,) * 3,) * 2, pending=True),
        CacheCandidate(1, 1, 9_100, *((0.9,) * 3,) * 2),
    ]
    assert chosen(heavy) == Choice()


def test_the_allowance_cuts_a_write_short():
    found = chosen(candidates(0.9, 0.8, 0.7), allowance=2_000 * 750_000)
    assert found.marks == ((0, "5m"),)
    assert found.write_risk_picousd == 2_000 * 750_000


def test_marks_of_the_caller_count_and_bind_the_order():
    before_long = candidates(0.95, 0.5, 0.3, c0={"ttls": ("1h",)}, c1={"mark": "1h"})
    assert chosen(before_long, slots=3).marks == ((0, "1h"), (2, "5m"))
    after_short = candidates((0.3, 0.95, 0.95), (0.0, 0.9, 0.9), c0={"mark": "5m"}, c1={"ttls": ("5m",)})
    assert all(ttl == "5m" for _, ttl in chosen(after_short, slots=3).marks)


def test_breakpoints_go_to_the_deepest_boundaries():
    found = chosen(candidates(0.99, 0.9, 0.8, 0.7, 0.6, 0.5), slots=2)
    assert len(found.marks) == 2
    assert found.marks[-1][0] == 5


def test_the_choice_of_the_deepest_mark_is_the_best_there_is():
    """Against every single mark with either lifetime, on random instances."""
    rng = random.Random(7)
    for _ in range(300):
        count = rng.randint(1, 6)
        levels = sorted((rng.random() for _ in range(count)), reverse=True)
        found = candidates(*levels, tokens=rng.randint(100, 5_000))
        best = 0.0
        for at, ttl in itertools.product(range(count), BOTH):
            tokens = found[at].tokens
            best = max(best, tokens * write_value(found[at].reuse, found[at].reuse_again, PRICES, ttl))
        assert chosen(found).expected_value_picousd >= int(best) - 1
