"""What a run is expected to spend to its end."""

from decimal import Decimal

import pytest

from llm_cost_middleware import CostPipeline, cost_context
from llm_cost_middleware.runs import RunPath, forecast_run


def paths(**runs):
    return {f"run:{name}": RunPath("agent:a", amounts) for name, amounts in runs.items()}


def test_runs_that_came_as_far_say_what_is_to_come():
    made = paths(me=[1, 1], a=[1, 1, 4, 4], b=[1, 1], c=[9, 9, 2], short=[50])
    found = forecast_run("run:me", made)
    assert (found.steps, found.runs, found.spent) == (2, 3, Decimal("0.000000002"))
    assert (found.median, found.high) == (Decimal("0.000000002"), Decimal("0.000000008"))
    assert found.expected == Decimal("0.000000004")  # 10 / 3, up: never too little


@pytest.mark.parametrize(
    "made",
    [
        {},
        paths(a=[1], b=[1], c=[1], d=[1]),
        paths(me=[1, 1], a=[1], b=[1], c=[1]),
        paths(me=[1], a=[1], b=[1]) | {"run:other": RunPath("agent:b", [1, 1])},
    ],
)
def test_what_too_few_runs_say_is_not_known(made):
    assert forecast_run("run:me", made) is None


def test_a_pipeline_reads_its_ledger(tmp_path):
    with CostPipeline({"ledger": {"url": f"sqlite:///{tmp_path}/l.db"}}) as pipeline:
        for run, count in (("a", 4), ("b", 4), ("c", 4), ("me", 2)):
            for _ in range(count):
                pipeline.ledger.book("0.01", [f"run:{run}", "agent:x"])
        pipeline.ledger.book("9", ["team:no-run"])
        found = pipeline.forecast("me")
        assert (found.expected, found.high, found.runs) == (Decimal("0.02"), Decimal("0.02"), 3)
        with cost_context(run="me"):
            assert pipeline.forecast() == found == pipeline.forecast("run:me")
        assert pipeline.forecast() is None
        assert pipeline.forecast("nobody") is None
