"""What agreement of two cheap models is worth on grade-school maths, their own calls counted.

The data say who was right, not what was said. Two right answers agree and a right one disagrees with a wrong one; two
wrong ones may do either. Quality is taken as if they always agreed (and were accepted), cost as if they never did.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from llm_cost_middleware.provider import UsageReport
from llm_cost_middleware.request import CallRequest, CallResult, Message, ModelRef, Part
from llm_cost_middleware.routing.cascade import review_answer
from llm_cost_middleware.routing.features import read_features
from llm_cost_middleware.routing.policy import RoutingPolicy
from llm_cost_middleware.routing.router import Candidate, RoutingContext, decide

pytestmark = pytest.mark.data

CHEAP = ("gpt-4o-mini-2024-07-18", "claude-3-haiku-20240307")
STRONG = ("gpt-4o-2024-08-06", "claude-3-5-sonnet-20241022", "claude-3-opus-20240229")


POLICY = RoutingPolicy(kind="cascade", accept="agreement")
REQUEST = CallRequest("x", "smart", (Message("user", (Part("text", "How many?"),)),))


def routed(targets):
    """A decision for the first of two cheap models, with a strong one above them."""
    fleet = [
        Candidate(target, tier, price, price, None, None, frozenset())
        for target, tier, price in zip(targets, (0, 0, 1), (10, 20, 1_000), strict=True)
    ]
    return decide(POLICY, fleet, REQUEST, read_features(REQUEST), RoutingContext("c", 0.0, random.Random(0)))


def run(decision, answers):
    """Drive the cascade over known answers: who was asked, and whose answer was taken."""
    asked, results = [decision.target], []
    while True:
        results.append(CallResult(asked[-1], UsageReport(), answers[asked[-1]]))
        verdict = review_answer(decision, POLICY, results, REQUEST, None)
        assert verdict is not None
        if isinstance(verdict, CallResult):
            return asked, verdict.response
        asked.append(verdict)


@pytest.mark.parametrize("strong", STRONG)
def test_agreement_keeps_the_quality_and_saves_most_of_the_cost(outcomes, data_folder, show, keep_figures, strong):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(data_folder / "routing" / "zeroeval_gsm.parquet")
    targets = tuple(ModelRef("x", model) for model in (*CHEAP, strong))
    decision = routed(targets)
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
            asked, answer = run(decision, answers)
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
