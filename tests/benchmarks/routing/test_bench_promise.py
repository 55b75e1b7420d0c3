"""Whether a tuned policy keeps what it promises on prompts it has not seen, and does no harm where nothing can be had.

Each split fits and calibrates on one half and is judged on the other: by the quality measured there, so that the chance
of both halves counts. That is the kindest way to cut: the error of the difference is least where both parts are equal.
The naive threshold keeps no such promise; what it saves more is the price of the promise. "Least" is that price for
somebody who knows all outcomes and every split beforehand, and has only to name one share of calls that keeps the
promise in 95 % of the splits: he knows the mean of both halves, of which the others have to estimate one from the
other, and that error is twice as large.

The aim was a price of at most 3 points. It is missed: 200 splits cost 7 (MMLU) to 19 (mix) points of saving. "Least"
is 2.4 (MMLU) to 7.1 (mix) there, so that on four of the five pairs 3 points are beyond anybody, and twice "least", 5 to
14, is what an estimate has to pay. Of 20 splits one may fail, and the best share is picked with hindsight: the short
form says little about "least".
"""

from __future__ import annotations

import numpy as np
import pytest

from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.learning.calibration import QualityGuarantee, calibrate
from llm_cost_middleware.routing.policy import RoutingPolicy

pytestmark = pytest.mark.data

QUALITY = CONFIDENCE = 0.95
SHARES = np.linspace(0, 1, 201)
PAIRS = ("mmlu", "mmlu-pro", "mix", "gsm8k", "gsm claude")
WEAK, STRONG = ModelRef("openai", "weak"), ModelRef("openai", "strong")


def judged(found, rows, up):
    weak, strong = found.weak[rows], found.strong[rows]
    paid = np.where(up, found.strong_cost[rows], found.weak_cost[rows]).mean()
    quality = np.where(up, strong, weak).mean() / strong.mean()
    return quality, 1 - paid / found.strong_cost[rows].mean()


SHORT = 5_000  # prompts a pair in the short form


def split_once(found, design, seed, most, folds):
    """One random split: quality and saving of the calibrated and the naive threshold, and of every share of calls."""
    from llm_cost_middleware.routing.learning.fitting import fit

    rows = np.random.default_rng(seed).permutation(len(found))[:most]
    known, unseen = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    scores = np.zeros(len(known))
    for fold in range(folds):
        held = np.arange(fold, len(known), folds)
        others = np.setdiff1d(np.arange(len(known)), held)
        scores[held] = fit(design, known[others]).scores(design, known[held])
    later = fit(design, known).scores(design, unseen)

    def columns(picked):
        costs = ((array[picked] * 1e9).round().astype(int).tolist() for array in (found.weak_cost, found.strong_cost))
        return found.weak[picked].tolist(), found.strong[picked].tolist(), *costs

    chosen = calibrate(scores.tolist(), *columns(known), QualityGuarantee(QUALITY, horizon=len(unseen)))
    rank = np.argsort(np.argsort(-later, kind="stable"), kind="stable")
    return (
        judged(found, unseen, later >= chosen.chosen.threshold),
        judged(found, unseen, later >= chosen.naive.threshold),
        [judged(found, unseen, rank < share * len(unseen)) for share in SHARES],
    )


def least(runs):
    """What the thriftiest share of calls saves that keeps the promise in 95 % of the splits, known afterwards."""
    by_share = np.array([run[2] for run in runs])
    kept = (by_share[:, :, 0] >= QUALITY).mean(0) >= CONFIDENCE
    return float(by_share[:, :, 1].mean(0)[kept].max())


def test_a_tuned_policy_keeps_its_promise(outcomes, show, keep_figures, soak):
    from llm_cost_middleware.routing.learning.fitting import design_of

    splits, table, kept = (200 if soak else 20), [], {}
    shape = (None, 5) if soak else (SHORT, 3)
    for name in PAIRS:
        found = outcomes(name)
        design = design_of(found.labels(sites=False))
        runs = [split_once(found, design, seed, *shape) for seed in range(splits)]
        qualities = np.array([run[0][0] for run in runs])
        naive = np.array([run[1][0] for run in runs])
        saved, naive_saved = (float(np.mean([run[arm][1] for run in runs])) for arm in (0, 1))
        kept[name] = {
            "splits": splits,
            "kept": float((qualities >= QUALITY).mean()),
            "quality_5th_percentile": float(np.percentile(qualities, 5)),
            "naive_kept": float((naive >= QUALITY).mean()),
            "saving": saved,
            "naive_saving": naive_saved,
            "saving_lost": naive_saved - saved,
            "least_loss_possible": naive_saved - least(runs),
        }
        at = kept[name]
        shares = ("naive_kept", "saving", "naive_saving", "saving_lost", "least_loss_possible")
        row = (name, f"{at['kept']:.1%}", f"{at['quality_5th_percentile']:.4f}")
        table.append((*row, *(f"{at[key]:.1%}" for key in shares)))
    show(
        f"A promise of 95 % quality with 95 % confidence, {splits} random halves",
        ("pair", "kept", "5th pct", "naive kept", "saved", "naive saved", "lost", "least"),
        table,
    )
    keep_figures("promise", kept)
    for name, at in kept.items():
        assert at["kept"] >= (0.95 if soak else 0.85), name  # 20 splits tell 95 % from 85 % no better
        assert at["saving"] >= 0, name


def test_without_signal_the_policy_stays_and_gives_the_reason(outcomes):
    from llm_cost_middleware.routing.learning.tuning import tune

    found, accepted = outcomes("gsm8k"), 0
    labels = found.labels(sites=False)
    for seed in range(12):
        shuffled = np.random.default_rng(seed).permutation(len(labels))
        blind = [
            label._replace(weak=labels[other].weak, strong=labels[other].strong)
            for label, other in zip(labels, shuffled, strict=True)
        ]
        tuned = tune(blind, WEAK, STRONG, current=RoutingPolicy(), folds=5)
        accepted += tuned.policy is not None
        assert tuned.policy is not None or "stays" in tuned.reason
    assert accepted <= 1  # one in twenty is what 95 % confidence allows


def test_too_few_labels_are_refused_with_their_number(outcomes):
    from llm_cost_middleware.routing.learning.tuning import tune

    tuned = tune(outcomes("mtbench").labels(sites=False), WEAK, STRONG, current=RoutingPolicy())
    assert tuned.policy is None
    assert "72 labels are too few" in tuned.reason


def test_no_policy_is_written_where_the_cheap_model_is_good_enough(outcomes):
    from llm_cost_middleware.routing.learning.tuning import tune

    tuned = tune(outcomes("gsm gpt").labels(sites=False), WEAK, STRONG, current=RoutingPolicy(), folds=5)
    assert tuned.policy is None
    assert "the cheaper model alone keeps 95%" in tuned.reason


def test_three_hundred_labels_recover_most_of_the_gain(outcomes, measures, show, keep_figures, soak):
    from llm_cost_middleware.routing.learning.fitting import cross_scores, design_of, fit

    kept, draws = {}, 60 if soak else 12
    for name in ("mix", "mmlu"):
        for sites in (False, True):
            found = outcomes(name)
            design = design_of(found.labels(sites=sites))
            full = measures.apgr(cross_scores(design, folds=5), found.weak, found.strong)
            few = []
            for seed in range(draws):
                rows = np.random.default_rng(seed).permutation(len(found))
                seen, unseen = rows[:300], rows[300:]
                scores = fit(design, seen).scores(design, unseen)
                few.append(measures.apgr(scores, found.weak[unseen], found.strong[unseen]))
            kept[f"{name}, {'task known' if sites else 'prompt only'}"] = {
                "full": full,
                "few": float(np.mean(few)),
                "few_error": float(np.std(few) / draws**0.5),
                "recovered": float((np.mean(few) - 0.5) / (full - 0.5)),
            }
    show(
        f"APGR with 300 labels, mean of {draws} draws",
        ("pair", "300 labels", "all labels", "recovered"),
        [
            (name, f"{at['few']:.3f} ± {at['few_error']:.3f}", f"{at['full']:.3f}", f"{at['recovered']:.0%}")
            for name, at in kept.items()
        ],
    )
    keep_figures("few_labels", kept)
    assert kept["mmlu, prompt only"]["recovered"] >= 0.45
    assert kept["mix, prompt only"]["recovered"] >= 0.75  # about 84 % over many draws: one below the 85 aimed at
    assert kept["mix, task known"]["recovered"] >= 0.80
