"""The tracker: immutable, exact, constant-time."""

import copy
import pickle
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from llm_cost_middleware import CostRecord, CostTracker
from llm_cost_middleware.errors import InvalidAmountError
from llm_cost_middleware.lifecycle import CallOutcome
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.tracker import Booked
from llm_cost_middleware.usage import TokenUsage


def _record(cost="0.01", model="claude-haiku-4-5-20251001"):
    return CostRecord(model, 10, 5, cost)


def test_add_returns_a_new_tracker_and_leaves_the_old_one_alone():
    empty = CostTracker("1.00")
    one = empty.add(_record())
    assert (empty.total_cost, len(empty)) == (0, 0)
    assert (one.total_cost, len(one)) == (Decimal("0.01"), 1)


def test_adding_twice_to_one_version_gives_two_futures():
    base = CostTracker("1.00").add(_record())
    left, right = base.add(_record("0.02")), base.add(_record("0.03"))
    assert left.total_cost == Decimal("0.03")
    assert right.total_cost == Decimal("0.04")
    assert [record.cost_usd for record in right] == [Decimal("0.01"), Decimal("0.03")]


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        CostTracker().budget_limit = Decimal(5)
    with pytest.raises(FrozenInstanceError):
        _record().cost_usd = Decimal(5)


def test_over_budget_means_more_than_the_limit():
    tracker = CostTracker("0.02").add(_record()).add(_record())
    assert not tracker.over_budget
    assert tracker.add(_record("0.000000001")).over_budget
    assert not CostTracker(None, [_record("1000")]).over_budget


@pytest.mark.parametrize("limit", ["-1", float("nan"), "a lot"])
def test_a_limit_that_is_no_amount_is_refused(limit):
    with pytest.raises(InvalidAmountError, match="budget_limit"):
        CostTracker(limit)


def test_costs_and_counts_that_are_none_are_refused():
    with pytest.raises(InvalidAmountError):
        _record("-0.01")
    with pytest.raises(ValueError, match="negative"):
        CostRecord("m", -1, 0, "0")


@given(st.lists(st.decimals("0", "9", places=9), max_size=30), st.integers(0, 40))
def test_totals_are_the_sums_of_the_records_however_it_was_built_and_compacted(costs, keep):
    records = [CostRecord(f"m{i % 3}", i, i, cost) for i, cost in enumerate(costs)]
    tracker = CostTracker("5", records)
    added = CostTracker("5")
    for record in records:
        added = added.add(record)
    small = tracker.compact(keep)
    assert tracker == added
    assert tracker.total_cost == small.total_cost == sum(costs, Decimal(0))
    assert tracker.by_model() == small.by_model()
    assert sum(total.cost_usd for total in tracker.by_model().values()) == tracker.total_cost
    assert len(small) == min(keep, len(records))


def test_it_survives_copying_and_pickling():
    tracker = CostTracker("1", [_record(), _record("0.5", "gpt-5.1")]).compact(1)
    for other in (copy.copy(tracker), copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):  # noqa: S301 - ours
        assert other == tracker
        assert other.by_model() == tracker.by_model()
        assert hash(other) == hash(tracker)


def test_threads_adding_to_one_version_do_not_see_each_other():
    base = CostTracker("1", [_record()] * 10)
    with ThreadPoolExecutor(16) as pool:
        trackers = list(pool.map(lambda i: base.add(_record(f"0.{i:03d}")), range(200)))
    assert [tracker.records[-1].cost_usd for tracker in trackers] == [Decimal(f"0.{i:03d}") for i in range(200)]
    assert len(base) == 10


def test_a_record_of_checked_values_is_a_record_like_any_other():
    record = CostRecord("m", 1, 2, "0.5", provider="openai", scopes=("user:1",))
    same = CostRecord.of_checked(*(getattr(record, field.name) for field in fields(record)))
    assert type(same) is CostRecord
    assert same == record
    assert hash(same) == hash(record)
    assert pickle.loads(pickle.dumps(same)) == record  # noqa: S301 - our own
    with pytest.raises(FrozenInstanceError):
        same.model = "n"


_USAGE = TokenUsage(uncached_input=7, cache_read=3, output=5)


def _booked(nanousd=1_234, usage=_USAGE):
    known = NanoUSD(nanousd), usage, 1.5, "exact", "call-1", 2, "small", "smart", "r-1", "list 1", True
    return Booked(("openai", "gpt-5-mini"), *known, NanoUSD(9_000), -4, 6, ("user:1",), "flex")


def test_what_was_booked_is_read_as_a_record_with_every_field_in_its_place():
    booked = _booked()
    record = booked.record()
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    tokens = {"input_tokens": 10, "output_tokens": 5}
    told = {"provider": "openai", "model": "gpt-5-mini", "cost_usd": Decimal("0.000001234"), **tokens}
    told |= {name: value for name, value in asdict(booked).items() if name not in {"target", "amount"}}
    assert found == told
    assert record == CostRecord(**told)
    assert _booked(usage=None).record().usage is None


def test_a_tracker_of_what_was_booked_is_one_of_its_records():
    booked, records = [_booked(amount) for amount in range(30)], [_booked(amount).record() for amount in range(30)]
    for tracker, same in (
        (CostTracker(None).add_all(booked), CostTracker(None).add_all(records)),
        (CostTracker(None).add_all(booked).compact(10), CostTracker(None).add_all(records).compact(10)),
        (CostTracker(None, booked), CostTracker(None, records)),
    ):
        assert tracker.total_cost == same.total_cost
        assert tracker.by_model() == same.by_model()
        assert tracker.of_call("call-1") == same.of_call("call-1")
        assert tracker == same
        assert tracker.records == same.records
        assert all(type(record) is CostRecord for record in tracker)
        assert tracker.records[0] is tracker.records[0]
        assert pickle.loads(pickle.dumps(tracker)) == same  # noqa: S301 - our own


def test_the_end_of_a_call_shows_records_however_it_is_read():
    record = _booked().record()
    outcome = CallOutcome("answer", "call-1", None, (_booked(),))
    response, call_id, _, records = outcome
    assert (response, call_id, records) == ("answer", "call-1", (record,))
    assert outcome.records == outcome[3] == outcome[-1] == tuple(outcome)[3] == (record,)
    assert outcome == CallOutcome("answer", "call-1", None, (record,))
    assert hash(outcome) == hash(CallOutcome("answer", "call-1", None, (record,)))
    assert outcome._replace(response="other").records == (record,)
    assert outcome._asdict()["records"] == (record,)
    assert outcome != CallOutcome("answer", "call-2", None, (record,))
    kept = pickle.loads(pickle.dumps(outcome))  # noqa: S301 - our own
    assert kept == outcome
    assert kept.records == (record,)


OF_A_TUPLE = {
    "__add__": [(1,)], "__contains__": ["answer"], "__eq__": [()], "__ge__": [()], "__getitem__": [slice(2, 4)],
    "__gt__": [()], "__hash__": [], "__iter__": [], "__le__": [()], "__len__": [], "__lt__": [()], "__mul__": [2],
    "__ne__": [()], "__repr__": [], "__rmul__": [2], "count": ["answer"], "index": ["answer"],
}  # fmt: skip
"""What a tuple answers out of what it holds, and what it is asked here."""


def test_it_answers_as_a_named_tuple_of_records_would():
    known = {*OF_A_TUPLE, *dir(object), "__class_getitem__", "__getnewargs__"}
    assert set(dir(tuple)) <= known, "a newer Python's tuple answers more"
    names = CallOutcome._fields
    plain = namedtuple("CallOutcome", names)("answer", "call-1", None, (_booked().record(),))  # noqa: PYI024 - of these very names
    outcome = CallOutcome("answer", "call-1", None, (_booked(),))
    for name, args in OF_A_TUPLE.items():
        said, wanted = getattr(outcome, name)(*args), getattr(plain, name)(*args)
        assert tuple(said) == tuple(wanted) if name == "__iter__" else said == wanted, name
    assert outcome.__getnewargs__() == plain.__getnewargs__()
    assert repr(outcome) == repr(plain) == f"{outcome}"
    records = plain.records
    assert records in outcome
    assert (outcome.count(records), outcome.index(records)) == (1, 3)
    same = copy.copy(outcome)
    assert outcome == same == plain
    assert not outcome != same  # noqa: SIM202 - the other operator
    assert tuple(plain) == outcome == tuple(plain)
    assert (*outcome, 1) == outcome + (1,)  # noqa: RUF005 - the operator
    assert not outcome < same
