"""Whether the promise of a tuned policy is kept where live calls are not quite like its labels.

Each split tunes on labels and then sends the next calls, one by one, through the written policy and the watch that
guards it. "Same mix": the next calls are drawn as the labels were, but two in three carry the name of a customer of
whom there is no label. "Near mix" and "other mix": the tasks have other shares, drawn anew for each split. "Half
unlabelled": half of the tasks have no label at all.

What is promised is 95 % of the strong model's quality with 95 % confidence. A policy that is refused promises nothing,
and one that fell back has said that its promise is over: both are counted apart. The limit of the watch is the usual
reading of its index, and was chosen on none of these pairs.

With 300 labels of the same mix the aim, 95 % of what was accepted and stayed, is met on all three: 149 of 152 on the
mix of tasks, 128 of 131 on MMLU-Pro, 96 of 101 on MMLU. The luck that a calibration takes off was set on seven others.
Before it was taken off, the three kept 96.6, 92.9 and 86.5 %, of 119, 85 and 52 policies that were accepted.

"Least" is, as in the table of random halves, what is lost beside a threshold without an error bar by somebody who knows
the best share of calls afterwards.
"""

from __future__ import annotations

import numpy as np
import pytest

from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.drift import DriftCounts
from llm_cost_middleware.routing.learning.calibration import QualityGuarantee
from llm_cost_middleware.routing.policy import RoutingPolicy

pytestmark = pytest.mark.data

QUALITY = CONFIDENCE = 0.95
WEAK, STRONG = ModelRef("openai", "weak"), ModelRef("openai", "strong")
PAIRS = ("mix", "mmlu-pro", "mmlu")
KINDS = ("same mix", "near mix", "other mix", "half unlabelled")
SPREAD = {"near mix": 5.0, "other mix": 1.0}  # of a Dirichlet distribution: the smaller, the farther apart
LIVE, LOOK, REGULARS = 1_500, 25, 40
SHARES = np.linspace(0, 1, 101)


def weights(rng, tasks, kind):
    """The chance of each row among the labels, and among the live calls."""
    names = sorted(set(tasks))
    index = np.array([names.index(task) for task in tasks])
    even = np.ones(len(tasks))
    if kind in SPREAD:
        return tuple(rng.dirichlet(np.full(len(names), SPREAD[kind]))[index] for _ in range(2))
    if kind == "half unlabelled":
        labelled = rng.permutation(len(names)) < len(names) / 2
        return np.where(labelled[index], 1.0, 0.0), even
    return even, even


def named(rng, labels, tasks, kind):
    """Labels with a site each: the task, and in "same mix" the task's template with a customer's name in it."""
    if kind != "same mix":
        return labels
    customers = [rng.integers(REGULARS) if rng.random() < 1 / 3 else rng.integers(REGULARS, 10**9) for _ in labels]
    return [
        label._replace(site=f"{task} {customer}", groups=(f"alike:{task}", "task:0"))
        for label, task, customer in zip(labels, tasks, customers, strict=True)
    ]


def live(policy, labels):
    """Send calls through a policy and its watch: who is asked for each, and the call at which it fell back."""
    counts, reference, up, scores, fell = DriftCounts(), policy.drift, [], [], None
    for number, label in enumerate(labels, 1):
        scored = policy.score_counts(label.ngrams, label.text_stats, label.site, label.groups)
        up.append(scored.strong or fell is not None)
        scores.append(scored.score)
        counts.observe(reference, scored.score, label.site, label.groups)
        if fell is None and number % LOOK == 0 and counts.judge(reference):
            fell = number
    return np.array(up), fell, np.array(scores)


def judged(labels, up):
    weak, strong = np.array([label.weak for label in labels]), np.array([label.strong for label in labels])
    costs = np.array([(label.weak_nanousd, label.strong_nanousd) for label in labels], float)
    paid = np.where(up, costs[:, 1], costs[:, 0]).sum()
    return np.where(up, strong, weak).sum() / strong.sum(), 1 - paid / costs[:, 1].sum()


def split_once(found, seed, kind, size):
    """One split; ``None`` where the policy was refused."""
    from llm_cost_middleware.routing.learning.tuning import tune

    rng = np.random.default_rng(seed)
    known, ahead = weights(rng, found.tasks, kind)
    order = np.argsort(rng.exponential(size=len(found)) / np.maximum(known, 1e-12))[: min(size, int((known > 0).sum()))]
    ahead = ahead.copy()
    ahead[order] = 0.0
    rest = min(LIVE, int((ahead > 0).sum()))
    fresh = np.argsort(rng.exponential(size=len(found)) / np.maximum(ahead, 1e-12))[:rest]
    every = found.labels(sites=True, rows=[*order, *fresh])
    every = named(rng, every, [found.tasks[row] for row in (*order, *fresh)], kind)
    seen, later = every[: len(order)], every[len(order) :]
    guarantee = QualityGuarantee(QUALITY, CONFIDENCE, len(later))
    tuned = tune(seen, WEAK, STRONG, current=RoutingPolicy(), guarantee=guarantee, rated=False)
    if tuned.policy is None:
        return None
    up, fell, scores = live(tuned.policy, later)
    naive = scores >= tuned.calibration.naive.threshold
    rank = np.argsort(np.argsort(-scores, kind="stable"), kind="stable")
    by_share = [judged(later, rank < share * len(later)) for share in SHARES]
    return judged(later, up), fell, tuned.saving[0], judged(later, naive), by_share


def summary(runs):
    accepted = [run for run in runs if run is not None]
    stayed = [run for run in accepted if run[1] is None]
    fell = [run for run in accepted if run[1] is not None]
    facts = {
        "splits": len(runs),
        "refused": sum(run is None for run in runs) / len(runs),
        "fell_back": len(fell) / len(runs),
        "calls_before_fallback": float(np.median([run[1] for run in fell])) if fell else None,
        "kept_of_those_that_stayed": float(np.mean([run[0][0] >= QUALITY for run in stayed])) if stayed else None,
        "broken_of_all_splits": sum(run[0][0] < QUALITY for run in stayed) / len(runs),
        "kept_of_all_accepted": float(np.mean([run[0][0] >= QUALITY for run in accepted])) if accepted else None,
    }
    if stayed:
        saved, told, naive = (float(np.mean([pick(run) for run in stayed])) for pick in (
            lambda run: run[0][1], lambda run: run[2], lambda run: run[3][1]
        ))  # fmt: skip
        curve = np.array([run[4] for run in stayed])
        safe = (curve[:, :, 0] >= QUALITY).mean(0) >= CONFIDENCE
        best = float(curve[:, :, 1].mean(0)[safe].max())
        facts |= {"told": told, "saving": saved, "saving_lost": naive - saved, "least_loss_possible": naive - best}
    return facts


@pytest.mark.parametrize("size", [300, 1_000])
def test_the_promise_where_calls_are_not_quite_the_labels(outcomes, show, keep_figures, soak, size):
    splits, kept, table = (200 if soak else 3), {}, []
    cells = [(name, kind) for kind in KINDS for name in PAIRS]
    if size != 300:  # where most fall back, more labels of the others say no more
        cells = [(name, kind) for name, kind in cells if kind in KINDS[:2] or name == "mix"]
    for name, kind in cells if soak else [("mix", kind) for kind in KINDS[: len(KINDS) if size == 300 else 1]]:
        found = outcomes(name)
        at = summary([split_once(found, seed, kind, size) for seed in range(splits)])
        kept[f"{name}, {kind}"] = at
        shown = [
            at.get(key) for key in (
                "refused", "fell_back", "kept_of_those_that_stayed", "broken_of_all_splits", "told", "saving",
                "saving_lost", "least_loss_possible",
            )
        ]  # fmt: skip
        table.append((f"{name}, {kind}", *("-" if value is None else f"{value:.1%}" for value in shown)))
        keep_figures(f"shifts_{size}", kept)
    head = ("pair, calls", "refused", "fell back", "kept", "broken of all", "told", "saved", "lost", "least")
    show(f"The promise where calls are not quite its {size} labels, {splits} splits each", head, table)
    for name, at in kept.items():
        # of three splits one may break it; what is missed under a shift is printed, not hidden
        assert at["broken_of_all_splits"] <= (0.05 if soak and "same mix" in name else 0.34), name
        if soak and "same mix" in name:
            assert at["kept_of_those_that_stayed"] >= CONFIDENCE, name
