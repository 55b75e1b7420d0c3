"""What follows a try at flex, by the kind of its failure."""

from random import Random

import pytest

from llm_cost_middleware.provider import Failure, FailureKind
from llm_cost_middleware.retry.flex import MOST_TRIES, FlexTry, NextLane, after_flex, as_flex

K = FailureKind
BACK = {
    K.RATE_LIMITED, K.OVERLOADED, K.TIMEOUT, K.SERVER_ERROR, K.CONNECTION, K.INTERRUPTED_STREAM, K.CONFLICT,
    K.INVALID_REQUEST, K.PERMISSION, K.NOT_FOUND,
}  # fmt: skip


def failed(kind, *, billed="no", retry_after=None, tries=1, left=600.0):
    return FlexTry(Failure(kind, True, retry_after, billed, ""), tries, left, 30.0)


@pytest.mark.parametrize("kind", K)
def test_every_kind_goes_back_to_standard_or_is_no_matter_of_lanes(kind):
    following = after_flex(failed(kind, tries=MOST_TRIES), Random(1))
    assert (following.action if following else None) == ("standard" if kind in BACK else None)


def test_capacity_is_asked_for_again_with_growing_waits_while_there_is_time():
    waits = [after_flex(failed(K.OVERLOADED, tries=tries), Random(1)) for tries in range(1, MOST_TRIES + 1)]
    assert [each.action for each in waits] == ["flex"] * (MOST_TRIES - 1) + ["standard"]
    assert waits[0].delay_s < waits[1].delay_s < waits[2].delay_s
    assert after_flex(failed(K.OVERLOADED, left=31.0), Random(1)).action == "standard"
    assert after_flex(failed(K.OVERLOADED, billed="unknown"), Random(1)).action == "standard"


def test_a_rate_limit_is_waited_for_only_where_there_is_time():
    assert after_flex(failed(K.RATE_LIMITED, retry_after=20, tries=MOST_TRIES), Random(1)).delay_s == 20
    told = "rate_limited at flex: on to the standard tier"
    assert after_flex(failed(K.RATE_LIMITED, retry_after=4_000), Random(1)) == NextLane("standard", 0.0, told)


@pytest.mark.parametrize(("kind", "status", "billed"), [
    (K.TIMEOUT, 408, "unknown"), (K.SERVER_ERROR, 504, "unknown"), (K.SERVER_ERROR, 500, "no"),
    (K.OVERLOADED, 429, "no"), (K.TIMEOUT, None, "unknown"),
])  # fmt: skip
def test_what_timed_out_may_be_billed(kind, status, billed):
    error = Exception()
    error.status_code = status
    assert as_flex(Failure(kind, True, None, "no", ""), error).billed == billed
