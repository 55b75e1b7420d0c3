"""What cascades are worth: agreement of two cheap models, and the default, which goes up where an answer visibly fails.

Agreement is measured on grade-school maths, its own calls counted.

The data say who was right, not what was said. Two right answers agree and a right one disagrees with a wrong one; two
wrong ones may do either. Quality is taken as if they always agreed (and were accepted), cost as if they never did.

Nor do they say how many wrong answers show it (cut off, refused, not in the demanded form). So the default cascade
stands beside the thresholds alone for each share of the wrong answers that do, each drawn by chance, with one right
answer in fifty that seems to fail. With none that show it the two are the same.
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


THRESHOLDS = RoutingPolicy()
DEFAULT = RoutingPolicy(kind="cascade", accept="no_failure")
VISIBLE = (0.0, 0.25, 0.5, 1.0)
FALSE_ALARM = 0.02


def played(policy, found, rows, visible):
    """Quality and saving, each as a share of the strong model's: every call is driven to its end and paid for."""
    fleet = [
        Candidate(ModelRef("x", name), tier, price, price, None, None, frozenset())
        for tier, (name, price) in enumerate((("weak", 10), ("strong", 100)))
    ]
    rng, got, paid = random.Random(1), 0.0, 0.0
    for row in rows:
        asked = REQUEST._replace(messages=(Message("user", (Part("text", found.prompts[row]),)),))
        decision = decide(policy, fleet, asked, read_features(asked), RoutingContext("c", 0.0, random.Random(0)))
        scores, prices = (found.weak[row], found.strong[row]), (found.weak_cost[row], found.strong_cost[row])
        tier = decision.tier
        paid += prices[tier]
        if tier == 0:
            shows = rng.random() < (FALSE_ALARM if scores[0] >= 0.5 else visible)
            result = CallResult("answer", UsageReport(), "text")
            verdict = review_answer(decision, policy, [result], asked, None, ("truncated",) if shows else ())
            if isinstance(verdict, ModelRef):
                tier = 1
                paid += prices[1]
        got += scores[tier]
    return got / found.strong[rows].sum(), 1 - paid / found.strong_cost[rows].sum()


def test_the_default_cascade_beside_the_thresholds_alone(outcomes, pair_names, show, keep_figures, soak):
    table, kept = [], {}
    for name in pair_names:
        found = outcomes(name)
        rows = np.random.default_rng(0).permutation(len(found))[: None if soak else 300]
        alone = played(THRESHOLDS, found, rows, 0.5)
        cascades = {share: played(DEFAULT, found, rows, share) for share in VISIBLE}
        kept[name] = {
            "thresholds": {"quality": alone[0], "saving": alone[1]},
            **{f"{share:.0%} visible": {"quality": q, "saving": s} for share, (q, s) in cascades.items()},
        }
        cells = [f"{quality:.1%} / {saving:.1%}" for quality, saving in (alone, *cascades.values())]
        table.append((name, *cells))
        if name != "mtbench":  # graded: an answer is neither right nor wrong
            assert [at[0] for at in cascades.values()] == sorted(at[0] for at in cascades.values())
            assert cascades[1.0][0] >= 0.99
        assert cascades[0.0][0] >= alone[0] - FALSE_ALARM
    show(
        "Quality of the strong model / saved, by the share of wrong answers that show it",
        ("pair", "thresholds alone", *(f"{share:.0%}" for share in VISIBLE)),
        table,
    )
    keep_figures("default_cascade", kept)
