from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from llm_cost_middleware.errors import ConfigurationError, MissingExtraError
from llm_cost_middleware.money import NanoUSD
from llm_cost_middleware.routing.complexity import ngram_hashes, text_stats
from llm_cost_middleware.routing.decision_log import LoggedCall, Outcome, Settlement
from llm_cost_middleware.routing.learned import LearnedPolicy
from llm_cost_middleware.routing.learning import fitting
from llm_cost_middleware.routing.learning.calibration import QualityGuarantee
from llm_cost_middleware.routing.learning.labels import label_text, labels_from_log, read_labels
from llm_cost_middleware.routing.learning.tuning import tune
from llm_cost_middleware.routing.policy import RoutingPolicy

pytest.importorskip("sklearn")

HARD, EASY = "prove the theorem carefully", "translate this word please"


def outcome(rng, *, hard):
    return float(rng.random() < (0.35 if hard else 0.97)), float(rng.random() < 0.98)


@pytest.fixture
def labels():
    rng = random.Random(0)
    made = []
    for number in range(800):
        hard = number % 4 == 0
        weak, strong = outcome(rng, hard=hard)
        made.append(
            label_text(f"{HARD if hard else EASY} {rng.random():.6f}", weak, strong, 1_000_000, 10_000_000, "a")
        )
    return made


NO_CHANCE = "no exploration: set routing.explore or routing.shadow"


def test_tuning_finds_what_is_hard(labels, models):
    found = tune(labels, models["mini"], models["gpt"], current=RoutingPolicy())
    assert found.policy is not None, found.reason
    policy = LearnedPolicy.parse(found.policy.dump())
    hard, easy = policy.score(f"{HARD} 1", "a"), policy.score(f"{EASY} 1", "a")
    assert hard.score >= hard.threshold > easy.score
    assert 0.5 < found.saving[1] < found.saving[0] < found.saving[2] < 0.9
    assert found.tuned.quality >= 0.95 > found.current.quality
    assert policy.fitted["labels"] == 800


def test_the_same_labels_give_the_same_policy(labels, models):
    one, two = (tune(labels, models["mini"], models["gpt"], current=RoutingPolicy()) for _ in range(2))
    assert one.policy == two.policy


def test_a_policy_that_is_already_as_good_stays(labels, models):
    found = tune(labels, models["mini"], models["gpt"], current=RoutingPolicy())
    current = RoutingPolicy(kind="learned", learned=replace(found.policy, threshold=found.policy.threshold))
    again = tune(labels, models["mini"], models["gpt"], current=current)
    assert again.policy is None
    assert "the current policy keeps" in again.reason


def test_a_more_expensive_model_that_is_no_better_is_refused(labels, models):
    swapped = [label._replace(weak=label.strong, strong=label.weak) for label in labels]
    found = tune(swapped, models["mini"], models["gpt"], current=RoutingPolicy())
    assert found.policy is None
    assert "no better here" in found.reason


def test_a_promise_that_cannot_be_kept_is_refused(labels, models):
    found = tune(labels, models["mini"], models["gpt"], current=RoutingPolicy(), guarantee=QualityGuarantee(1.0, 0.999))
    assert found.policy is None
    assert "no threshold keeps 100%" in found.reason


def test_without_the_extra_the_error_names_the_command_that_installs_it(labels, models, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])

    monkeypatch.setattr(fitting, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"llm-cost-middleware\[learn\]"):
        tune(labels, models["mini"], models["gpt"], current=RoutingPolicy())


def test_labels_are_read_from_jsonl_and_parquet(tmp_path, models):
    pandas = pytest.importorskip("pandas")
    rows = [
        {"prompt": "p", "site": "s", "score__gpt-5-mini": 1, "score__openai/gpt-5.1": 0.5, "cost__gpt-5-mini": 0.1,
         "cost__gpt-5.1": 0.2},
        {"prompt": "q", "site": None, "score__gpt-5-mini": None, "score__openai/gpt-5.1": 1.0},
    ]  # fmt: skip
    lines, table = tmp_path / "o.jsonl", tmp_path / "o.parquet"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    pandas.DataFrame(rows).to_parquet(table)
    for path in (lines, table):
        (label,) = read_labels(path, models["mini"], models["gpt"])
        assert (label.site, label.weak, label.strong, label.weak_nanousd, label.strong_nanousd) == (
            "s",
            1.0,
            0.5,
            10**8,
            2 * 10**8,
        )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "is not JSON"),
        ("[1]", "is not a table"),
        ('{"prompt": "p", "score__gpt-5-mini": 2, "score__gpt-5.1": 1}', "outside 0 to 1"),
        ('{"prompt": "p", "score__gpt-5-mini": 1, "score__gpt-5.1": 1}', "has no cost"),
        ('{"score__gpt-5-mini": 1, "score__gpt-5.1": 1, "cost__gpt-5-mini": 1, "cost__gpt-5.1": 1}', "has no prompt"),
        ('{"prompt": "p"}', "has no row with a score of both"),
    ],
)
def test_a_file_that_cannot_be_learned_from_is_refused_with_the_line(tmp_path, models, line, what):
    path = tmp_path / "o.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigurationError, match=what) as caught:
        read_labels(path, models["mini"], models["gpt"])
    assert "o.jsonl" in str(caught.value)


@pytest.fixture
def logged_calls(route, ask):
    """A log of calls, half of them explored, whose true qualities are known: strong 0.98; weak 0.35 or 0.97."""
    rng = random.Random(1)
    policy = RoutingPolicy(explore=0.5, tiers=("small", "large"))
    entries = []
    for number in range(3_000):
        hard = number % 4 == 0
        text = f"{HARD if hard else EASY} {rng.random():.6f}"
        decision = route(ask(text, context={"call_site": "a"}), policy, seed=number)._replace(call_id=str(number))
        weak, strong = outcome(rng, hard=hard)
        score = strong if decision.tier else weak
        entries.append(
            LoggedCall(
                decision,
                (Outcome(str(number), "feedback", score, 0.0),),
                Settlement(str(number), decision.target, NanoUSD(10_000_000 if decision.tier else 1_000_000), 9, 0.0),
            )
        )
    return entries


def test_labels_from_the_log_are_unbiased(logged_calls, models):
    labels, left_out, _, call_ids = labels_from_log(logged_calls, models["mini"], models["gpt"])
    assert left_out == {}
    assert call_ids == [entry.decision.call_id for entry in logged_calls]
    assert sum(label.weak for label in labels) / len(labels) == pytest.approx(0.75 * 0.97 + 0.25 * 0.35, abs=0.03)
    assert sum(label.strong for label in labels) / len(labels) == pytest.approx(0.98, abs=0.03)
    # each call's own, which sum up to what a call costs there on average
    assert sum(label.weak_nanousd for label in labels) / len(labels) == pytest.approx(10**6, rel=0.02)
    assert sum(label.strong_nanousd for label in labels) / len(labels) == pytest.approx(10**7, rel=0.02)


def test_a_policy_is_learned_from_the_log_alone(logged_calls, models):
    labels = labels_from_log(logged_calls, models["mini"], models["gpt"]).labels
    found = tune(labels, models["mini"], models["gpt"], current=RoutingPolicy())
    assert found.policy is not None, found.reason
    rng = random.Random(9)
    sent = {
        text: sum(scored.score >= scored.threshold for scored in scores) / len(scores)
        for text in (HARD, EASY)
        for scores in ([found.policy.score(f"{text} {rng.random():.6f}", "a") for _ in range(200)],)
    }
    assert sent[HARD] > 0.5
    assert sent[EASY] < 0.05


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_promise_holds_where_hard_and_easy_prompts_form_two_clusters(route, ask, models, seed, numbered):
    """A number that ends each prompt was seen once in the log and comes again: it moves all scores of live calls."""
    policy = RoutingPolicy(explore=0.5, tiers=("small", "large"))
    plain = route(ask("x", context={"call_site": "a"}), policy)

    def prompts(n, rng):
        for number in range(n):
            hard = rng.random() < 0.4
            words = rng.choices(HARD.split() if hard else EASY.split(), k=8)
            yield hard, " ".join(words) + (f" {number}" if numbered else "")

    entries, rng = [], random.Random(seed)
    for number, (hard, text) in enumerate(prompts(1_000, rng)):
        up = rng.random() < 0.25
        decision = plain._replace(
            call_id=str(number),
            target=models["gpt" if up else "mini"],
            propensity=0.25 if up else 0.75,
            ngrams=tuple(ngram_hashes(text).elements()),
            text_stats=text_stats(text),
        )
        cost = NanoUSD(30 if up else 10)
        entries.append(
            LoggedCall(
                decision,
                (Outcome(str(number), "feedback", float(up or not hard), 0.0),),
                Settlement(str(number), decision.target, cost, 9, 0.0),
            )
        )
    labels = labels_from_log(entries, models["mini"], models["gpt"]).labels
    found = tune(labels, models["mini"], models["gpt"], current=RoutingPolicy()).policy
    assert found is not None
    right = []
    for hard, text in prompts(400, random.Random(100 + seed)):
        scored = found.score(text, "a")
        right.append(not hard or scored.score >= scored.threshold)
    assert sum(right) >= 0.95 * 400
    assert found.fitted["saving"][0] > 0.3  # of 0.4 that can be had


def test_calls_without_information_are_left_out_with_the_reason(route, ask, models):
    plain = route(ask("x"))
    learning = route(ask("x"), RoutingPolicy(explore=1e-9))
    entries = [
        LoggedCall(route(ask("x", context={"forced_model": "claude-x"}))),
        LoggedCall(plain),
        LoggedCall(plain, (Outcome("call-1", "feedback", 1.0, 0.0),)),
        LoggedCall(learning, (Outcome("call-1", "feedback", 1.0, 0.0),)),
    ]
    labels, left_out, *_ = labels_from_log(entries, models["mini"], models["gpt"])
    assert labels == []
    assert left_out == {"another model": 1, "no outcome": 1, "no n-grams (learning was off)": 1, NO_CHANCE: 1}
