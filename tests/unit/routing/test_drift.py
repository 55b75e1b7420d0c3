"""Drift: what is like the labels raises no alarm, what is not does, and every process learns of it."""

from __future__ import annotations

import random

import pytest

from llm_cost_middleware import CostConfig, CostPipeline
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.events import PolicyDrifted
from llm_cost_middleware.integrations.openai import wrap_openai
from llm_cost_middleware.routing.drift import MIN_CALLS, WINDOW, DriftCounts, DriftReference
from llm_cost_middleware.testing import FakeClock

SITES = ("a", "b", "c", "d")


def calls(seed, n, *, shift=0.0, mix=(4, 3, 2, 1)):
    rng = random.Random(seed)
    return [(rng.gauss(shift, 1), rng.choices(SITES, mix)[0]) for _ in range(n)]


def reference_of(seed, n=300, promised=None):
    seen = calls(seed, n)
    return DriftReference.of([score for score, _ in seen], [(site, ()) for _, site in seen], promised)


def watch(reference, live, every=25):
    """The call at which the policy fell back, and the reason; ``None`` where it never did."""
    counts = DriftCounts()
    for number, (score, site) in enumerate(live, 1):
        counts.observe(reference, score, site, ())
        if number % every == 0 and (reason := counts.judge(reference)):
            return number, reason
    return None


def test_calls_like_the_labels_raise_no_alarm():
    alarms = sum(watch(reference_of(seed), calls(1_000 + seed, 1_500)) is not None for seed in range(60))
    assert alarms == 0


@pytest.mark.parametrize(
    ("change", "named"), [({"shift": 1.0}, "scores"), ({"mix": (1, 1, 1, 9)}, "call sites")], ids=["scores", "sites"]
)
def test_a_major_shift_is_seen_within_a_few_hundred_calls_and_named(change, named):
    for seed in range(20):
        found = watch(reference_of(seed), calls(1_000 + seed, 800, **change))
        assert found is not None
        number, reason = found
        assert MIN_CALLS <= number <= 400
        assert named in reason


def test_new_names_of_sites_alike_are_no_drift():
    scores = [score for score, _ in calls(1, 300)]
    reference = DriftReference.of(scores, [(f"exact {n}", ("alike:1", "task:1")) for n in range(300)], None)
    assert dict(reference.sites) == {"alike:1": 1.0}
    counts = DriftCounts()
    for number in range(500):
        counts.observe(reference, scores[number % 300], f"new {number}", ("alike:1", "task:1"))
    assert counts.judge(reference) == ""
    for number in range(500):
        counts.observe(reference, scores[number % 300], f"new {number}", ("alike:2", "task:2"))
    assert "call sites" in counts.judge(reference)


def test_answers_rated_below_the_promise_end_it():
    reference, counts = reference_of(1, promised=0.9), DriftCounts()
    for number in range(200):
        counts.outcome(float(number % 10 != 0))
    assert counts.judge(reference) == ""
    for number in range(200):
        counts.outcome(float(number % 2))
    assert "under the promised 0.900" in counts.judge(reference)


def test_counts_fade_and_survive_their_way_through_the_ledger():
    reference, total, part = reference_of(1), DriftCounts(), DriftCounts()
    for score, site in calls(5, 50):
        part.observe(reference, score, site, ())
    for _ in range(100):
        total.add(part)
    assert total.calls < WINDOW
    assert DriftCounts.load(total.dump()) == total
    for damaged in (None, b"", b"[2]", b"{", b"[1,2,3]"):
        assert DriftCounts.load(damaged) == DriftCounts()


def test_a_reference_that_cannot_be_read_is_refused():
    reference = reference_of(1)
    assert DriftReference.read(reference.to_mapping()).edges == reference.edges
    with pytest.raises(ConfigurationError, match="drift"):
        DriftReference.read({"labels": 3})


def test_a_policy_that_drifted_falls_back_in_every_process_and_says_so_once(tmp_path, sim, clients, monkeypatch):
    pytest.importorskip("sklearn")
    from llm_cost_middleware.request import ModelRef
    from llm_cost_middleware.routing.learning.labels import label_text
    from llm_cost_middleware.routing.learning.tuning import tune
    from llm_cost_middleware.routing.policy import RoutingPolicy

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    weak, strong = ModelRef("openai", "gpt-5-mini"), ModelRef("openai", "gpt-5.1")
    rng = random.Random(0)
    labels = [
        label_text(f"{'prove' if n % 2 else 'list'} {rng.random():.3f}", float(rng.random() > n % 2), 1.0, 10, 50, "a")
        for n in range(400)
    ]
    found = tune(labels, weak, strong, current=RoutingPolicy())
    assert found.policy is not None, found.reason
    (tmp_path / "policy.json").write_text(found.policy.dump(), encoding="utf-8")
    config = CostConfig(
        ledger={"url": f"sqlite:///{tmp_path / 'ledger.db'}"},
        tiers=[{"name": "small", "models": [str(weak)]}, {"name": "large", "models": [str(strong)]}],
        routing={"policy": "learned", "policy_file": str(tmp_path / "policy.json")},
    )
    seen = []
    observer = type("Seen", (), {"on_event": lambda _, event: seen.append(event)})()

    def ask(client, text, n):
        for number in range(n):
            client.chat.completions.create(
                model="smart",
                messages=[{"role": "user", "content": f"{text} 0.{number:03}"}],
                extra_body={"metadata": {"llm_cost_site": "a"}},
            )

    with CostPipeline(config, observers=[observer]) as one:
        ask(wrap_openai(clients["openai"], one), "list", MIN_CALLS + 30)
        told = [event for event in seen if isinstance(event, PolicyDrifted)]
        assert len(told) == 1
        assert told[0].policy_version == found.policy.version
        assert "has fallen back" in one.decisions()[-1].reason
        assert one.decisions()[-1].target == strong
        assert one.decisions()[0].target == weak
    (key,) = [f"drift.{found.policy.version}"]
    with CostPipeline(config) as reader:  # who calls nobody takes up what others saw, and writes nothing
        before = reader.ledger.shared_state.read([key])
        assert before[0] is not None
    with CostPipeline(config) as other:
        assert other.ledger.shared_state.read([key]) == before
        ask(wrap_openai(clients["openai"], other), "list", 1)
        assert other.decisions()[-1].target == strong


class Shared:
    """Values of other processes, and the keys that are changed."""

    def __init__(self, stored):
        self.stored, self.changed = stored, []

    def read(self, keys):
        return [self.stored for _ in keys]

    def change(self, keys, to, at):
        self.changed += keys


@pytest.mark.parametrize("fallen", [False, True])
def test_a_watch_that_is_made_only_reads(fallen):
    from dataclasses import replace

    from llm_cost_middleware.lifecycle.stages.drift import DriftStage
    from llm_cost_middleware.request import ModelRef
    from llm_cost_middleware.routing.learned import LearnedPolicy
    from llm_cost_middleware.routing.policy import RoutingPolicy

    learned = LearnedPolicy("v", ModelRef("openai", "a"), ModelRef("openai", "b"), 0.0, 0.0, {}, (), {})
    learned = replace(learned, fitted={"drift": reference_of(0).to_mapping()})
    counts = DriftCounts()
    for score, site in calls(9, 300, shift=2.0 if fallen else 0.0):
        counts.observe(learned.drift, score, site, ())
    shared = Shared(counts.dump())
    stage = DriftStage(RoutingPolicy(kind="learned", learned=learned), shared, FakeClock())
    assert bool(stage.fallen_back) == fallen
    assert shared.changed == []
