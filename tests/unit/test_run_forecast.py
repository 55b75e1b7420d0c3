"""What a run is expected to spend to its end."""

import asyncio
import pickle
from decimal import Decimal

import pytest
from plain_call import BOTH, COST, answer, request

from llm_cost_middleware import Budget, BudgetExceededError, CostPipeline, cost_context
from llm_cost_middleware.context import current_context
from llm_cost_middleware.events import BudgetRefused, ThresholdCrossed
from llm_cost_middleware.integrations.langchain.endings import last_message
from llm_cost_middleware.money import NanoUSD
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


class Seen(list):
    only_warnings = False

    def on_event(self, event):
        self.append(event)


def run_of(pipeline, name, calls):
    with cost_context(run=name, agent="x"):
        for _ in range(calls):
            pipeline.run(request()._replace(context=current_context()), lambda _: answer(), providers=BOTH)


@pytest.mark.parametrize("like", [2, 3])
def test_refusals_and_warnings_of_a_run_say_what_it_is_expected_to_spend(tmp_path, like):
    seen = Seen()
    config = {"ledger": {"url": f"sqlite:///{tmp_path}/l.db"}, "budgets": [{"scope": "run:*", "limit": "1"}]}
    with CostPipeline(config, observers=[seen]) as pipeline:
        for number in range(like):
            run_of(pipeline, f"r{number}", 3)
        pipeline.ledger.set_budget(Budget("run:me", "0.01", warn_at="0.001"))
        run_of(pipeline, "me", 1)
        pipeline.ledger.set_budget(Budget("run:me", NanoUSD(COST)))
        with pytest.raises(BudgetExceededError) as refused:
            run_of(pipeline, "me", 1)
        error = refused.value
        told = [one for one in seen if isinstance(one, BudgetRefused)][-1]
        warned = [one for one in seen if isinstance(one, ThresholdCrossed)][-1]
        text = str(error)
        if like < 3:
            assert error.forecast is told.forecast is warned.forecast is None
            assert "like runs" not in text
        else:
            assert error.forecast == told.forecast == warned.forecast
            assert (error.forecast.expected, error.forecast.runs) == (NanoUSD(2 * COST).usd, 3)
            assert "3 like runs that came as far spent" in text
            assert pickle.loads(pickle.dumps(error)).forecast == error.forecast  # noqa: S301 - our own
            assert "expected" in last_message(error).response_metadata["llm_cost"]


def test_a_refusal_reads_the_ledger_when_it_is_asked_and_never_on_an_event_loop(tmp_path, monkeypatch):
    config = {"ledger": {"url": f"sqlite:///{tmp_path}/l.db"}, "budgets": [{"scope": "run:*", "limit": "0.0000001"}]}
    with CostPipeline(config) as pipeline:
        asked = []
        monkeypatch.setattr(pipeline, "_paths", lambda days: asked.append(days) or {})
        with pytest.raises(BudgetExceededError) as refused:
            run_of(pipeline, "me", 1)
        assert asked == []

        async def tell():
            return str(refused.value)

        asyncio.run(tell())
        assert asked == []
        str(refused.value)
        assert refused.value.forecast is None
        assert asked == [1.0]


def test_other_scopes_have_no_forecast():
    with CostPipeline({"budgets": [{"scope": "global", "limit": "0.0000001"}]}) as pipeline:
        with pytest.raises(BudgetExceededError) as refused:
            run_of(pipeline, "me", 1)
        assert refused.value.forecast is None
