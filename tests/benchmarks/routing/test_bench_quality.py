"""How much of the gap between a random mix and the oracle each router closes, out of fold, on thirteen pairs.

APGR: 0.5 is a random mix. OGC: 0 is a random mix, 1 the oracle. save@95: the cost saved at 95 % of the strong quality.
"""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.data, pytest.mark.litellm]

FROM_PROMPT = {"mmlu": 0.69, "gsm8k": 0.63, "mmlu-pro": 0.75, "mix": 0.81}
WITH_TASK = {"mmlu": 0.70, "mmlu-pro": 0.83, "mix": 0.90}
SAMPLE = 150  # prompts a pair for LiteLLM's router in the short form: it is the slow one


def figures(measures, outcomes, scores, rows=None, *, draws=40):
    import numpy as np

    rows = np.arange(len(outcomes)) if rows is None else rows
    weak, strong = outcomes.weak[rows], outcomes.strong[rows]
    costs = outcomes.weak_cost[rows], outcomes.strong_cost[rows]
    scores = np.asarray(scores, float)
    low, high = measures.boot(measures.apgr, scores, weak, strong, n=draws)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(max(draws // 5, 8)):  # slower measures: fewer draws of the prompts
        at = rng.integers(0, len(weak), len(weak))
        if abs(strong[at].mean() - weak[at].mean()) > 1e-9:
            told = scores[at], weak[at], strong[at]
            drawn.append((measures.ogc(*told), measures.cost_at_quality(*told, *(each[at] for each in costs), 0.95)))
    ogc, save95 = np.nanpercentile(np.array(drawn), [2.5, 97.5], axis=0).T.tolist()
    share, quality, cost = measures.curve(scores, weak, strong, *costs)
    at = np.linspace(0, 1, 11)  # the cost-quality curve at every tenth of calls that go to the strong model
    return {
        "curve": [[float(np.interp(x, share, y)) for x in at] for y in (cost, quality)],
        "apgr": measures.apgr(scores, weak, strong),
        "interval": [float(low), float(high)],
        "ogc": measures.ogc(scores, weak, strong),
        "ogc_interval": ogc,
        "save95_interval": save95,
        "save95": measures.cost_at_quality(scores, weak, strong, *costs, 0.95),
    }


def reached(outcomes, measures, out_of_fold, name, *, sites):
    """Mean APGR over three ways to cut the folds, to the two decimals that the floors are given in."""
    found = outcomes(name)
    runs = [measures.apgr(out_of_fold(name, sites=sites, seed=seed), found.weak, found.strong) for seed in range(3)]
    return round(sum(runs) / len(runs), 2)


@pytest.mark.parametrize("name", FROM_PROMPT)
def test_a_router_that_learns_from_prompts_reaches_its_floor(outcomes, measures, out_of_fold, name):
    assert reached(outcomes, measures, out_of_fold, name, sites=False) >= FROM_PROMPT[name]


@pytest.mark.parametrize("name", WITH_TASK)
def test_a_router_that_knows_the_call_site_reaches_its_floor(outcomes, measures, out_of_fold, name):
    assert reached(outcomes, measures, out_of_fold, name, sites=True) >= WITH_TASK[name]


def test_fifteen_hundred_labels_of_mmlu_reach_their_floor(outcomes, measures):
    import numpy as np

    from llm_cost_middleware.routing.learning.fitting import design_of, fit

    found = outcomes("mmlu")
    design, reached = design_of(found.labels(sites=False)), []
    for seed in range(8):
        rows = np.random.default_rng(seed).permutation(len(found))
        seen, unseen = rows[:1500], rows[1500:]
        scores = fit(design, seen).scores(design, unseen)
        reached.append(measures.apgr(scores, found.weak[unseen], found.strong[unseen]))
    assert round(float(np.mean(reached)), 2) >= 0.64  # the floor is given to two decimals


def test_thirteen_pairs_in_one_table(
    outcomes, measures, out_of_fold, pair_names, litellm_score, show, keep_figures, soak
):
    import numpy as np

    table, kept = [], {}
    for name in pair_names:
        found = outcomes(name)
        rng = np.random.default_rng(0)
        rows = np.arange(len(found)) if soak else rng.permutation(len(found))[:SAMPLE]
        routers = {
            "length": ([len(text) for text in found.prompts], None),
            "litellm": ([litellm_score(found.prompts[row]) for row in rows], rows),
            "learned": (out_of_fold(name, sites=False), None),
            "with site": (out_of_fold(name, sites=True), None),
            "random mix": (np.zeros(len(found)), None),
            "oracle": (measures.oracle_score(found.weak, found.strong), None),
        }
        kept[name] = {
            router: figures(measures, found, *facts, draws=300 if soak else 40) for router, facts in routers.items()
        }
        for router, at in kept[name].items():
            low, high = at["interval"]
            closed, saved = at["ogc_interval"], at["save95_interval"]
            table.append(
                (f"{name} ({len(found)})", router, f"{at['apgr']:.3f}", f"{low:.3f}..{high:.3f}", f"{at['ogc']:+.3f}",
                 f"{closed[0]:+.2f}..{closed[1]:+.2f}", f"{at['save95']:.1%}", f"{saved[0]:.0%}..{saved[1]:.0%}")
            )  # fmt: skip
    means = {
        router: {
            key: float(np.nanmean([kept[name][router][key] for name in pair_names]))
            for key in ("apgr", "ogc", "save95")
        }
        for router in kept["mix"]
    }
    table += [
        ("mean of 13", router, f"{at['apgr']:.3f}", "", f"{at['ogc']:+.3f}", "", f"{at['save95']:.1%}", "")
        for router, at in means.items()
    ]
    show(
        "Routers on public outcomes, 5-fold out of fold",
        ("pair (prompts)", "router", "APGR", "95 %", "OGC", "95 %", "save@95", "95 %"),
        table,
    )
    keep_figures("quality", {"pairs": kept, "mean": means})
    assert means["learned"]["ogc"] > means["length"]["ogc"] > 0
    assert means["learned"]["ogc"] > means["litellm"]["ogc"]
    assert means["learned"]["save95"] > 0.33
    # The published figures stand on another thirteen pairs, where a random mix saves 22 %: what counts is the distance.
    assert means["learned"]["save95"] - means["random mix"]["save95"] > 0.33 - 0.22
    assert means["oracle"]["ogc"] == pytest.approx(1)
    assert means["random mix"]["apgr"] == pytest.approx(0.5)
