"""What a batch may hold: by enumeration at the edges, and as the simulated providers refuse it."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from llm_cost_middleware.batches.limits import LIMITS, BatchLimits, custom_id, place_of, ranges, read_ranges, split
from llm_cost_middleware.routing.batch_lane import LEAST_REQUESTS, LEAST_SAVING_NANOUSD, why_no_batch
from llm_cost_middleware.simulator.anthropic import batches as of_anthropic
from llm_cost_middleware.simulator.openai import batches as of_openai

DAY_S = 86_400


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("most", range(1, 5))
@pytest.mark.parametrize("size", [1, 3, 6, 7, 100])
def test_every_request_is_in_one_batch_and_none_is_over_its_limits(count, most, size):
    sizes = [3] * count
    parts = [list(part) for part in split(sizes, BatchLimits(most, size))]
    assert [place for part in parts for place in part] == list(range(count))
    for part in parts:
        assert 1 <= len(part) <= most
        assert sum(sizes[place] for place in part) <= size or len(part) == 1
    for part, following in pairwise(parts):
        assert len(part) == most or sum(sizes[place] for place in (*part, following[0])) > size  # none is wasted


def test_the_limits_are_at_most_those_that_the_providers_enforce():
    assert LIMITS["anthropic"].requests == of_anthropic.MOST_REQUESTS
    assert LIMITS["anthropic"].size <= of_anthropic.MOST_BYTES
    assert LIMITS["openai"] == (of_openai.MOST_REQUESTS, of_openai.MOST_BYTES)


@pytest.mark.parametrize("place", [0, 9, 99_999])
def test_names_of_requests_have_the_characters_that_both_providers_take(place):
    key = f"b{'f' * 12}-99-999-100000"
    name = custom_id(key, place)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name)
    assert place_of(name, key) == place
    assert place_of(name, "b0-0-0-1") is None
    assert place_of("somebody-elses", key) is None


@pytest.mark.parametrize("places", [(), (0,), (0, 1, 2), (0, 2, 3, 9), tuple(range(0, 40, 2))])
def test_places_are_written_and_read(places):
    assert read_ranges(ranges(places)) == places


@pytest.mark.parametrize(
    ("requests", "saving", "patience", "batch"),
    [
        (1, 10**12, DAY_S, False),
        (2, LEAST_SAVING_NANOUSD, DAY_S, True),
        (2, LEAST_SAVING_NANOUSD - 1, DAY_S, False),
        (LEAST_REQUESTS - 1, LEAST_SAVING_NANOUSD - 1, DAY_S, False),
        (LEAST_REQUESTS, 1, DAY_S, True),
        (LEAST_REQUESTS, 0, DAY_S, False),
        (1_000, 10**12, DAY_S - 1, False),
        (1_000, 10**12, None, False),
    ],
)
def test_a_batch_is_for_many_or_dear_requests_that_can_wait_a_day(requests, saving, patience, batch):
    assert bool(why_no_batch(requests, saving, patience)) is not batch
