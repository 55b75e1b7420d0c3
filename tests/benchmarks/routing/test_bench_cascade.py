"""What agreement of two cheap models is worth on grade-school maths, their own calls counted.

The data say who was right, not what was said. Two right answers agree and a right one disagrees with a wrong one; two
wrong ones may do either. Quality is taken as if they always agreed (and were accepted), cost as if they never did.
"""

from __future__ import annotations

import numpy as np
import pytest

from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.cascade import Accept, Ask, CascadePlan, next_step

pytestmark = pytest.mark.data

CHEAP = ("gpt-4o-mini-2024-07-18", "claude-3-haiku-20240307")
STRONG = ("gpt-4o-2024-08-06", "claude-3-5-sonnet-20241022", "claude-3-opus-20240229")


def run(plan, answers):
    """Drive the cascade over known answers: who was asked, and whose answer was taken."""
    given = []
    while isinstance(step := next_step(plan, [answers[target] for target in given]), Ask):
        given.append(step.target)
    assert isinstance(step, Accept)
    return given, given[step.answer]


@pytest.mark.parametrize("strong", STRONG)
def test_agreement_keeps_the_quality_and_saves_most_of_the_cost(outcomes, data_folder, show, keep_figures, strong):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(data_folder / "routing" / "zeroeval_gsm.parquet")
    targets = tuple(ModelRef("x", model) for model in (*CHEAP, strong))
    plan = CascadePlan(targets[:2], targets[2], "agreement")
    score = {target: frame[f"score__{target.model}"].to_numpy(float) for target in targets}
    price = {target: frame[f"cost__{target.model}"].to_numpy(float) for target in targets}
    quality, cost = {}, {}
    for wrong_agree in (True, False):
        taken, paid = [], []
        for row in range(len(frame)):
            answers = {
                target: "42" if score[target][row] else f"wrong{'' if wrong_agree else number}"
                for number, target in enumerate(targets)
            }
            asked, answer = run(plan, answers)
            taken.append(score[answer][row])
            paid.append(sum(price[target][row] for target in asked))
        quality[wrong_agree] = float(np.mean(taken) / score[targets[2]].mean())
        cost[wrong_agree] = float(1 - np.mean(paid) / price[targets[2]].mean())
    show(
        f"Agreement of {CHEAP[0]} and {CHEAP[1]}, else {strong}",
        ("two wrong answers", "quality of strong", "saved"),
        [
            ("agree", f"{quality[True]:.2%}", f"{cost[True]:.1%}"),
            ("disagree", f"{quality[False]:.2%}", f"{cost[False]:.1%}"),
        ],
    )
    keep_figures(f"cascade_{strong}", {"quality_at_least": quality[True], "saving_at_least": cost[False]})
    assert quality[True] >= 0.99
    assert cost[False] >= 0.60
