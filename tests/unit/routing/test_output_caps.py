"""Learned output caps: the next answer is longer with no more than the stated risk, in whatever order they come."""

from __future__ import annotations

import gzip
import json
from random import Random

import pytest

from llm_cost_middleware import CostConfig
from llm_cost_middleware.errors import ConfigurationError
from llm_cost_middleware.request import ModelRef
from llm_cost_middleware.routing.output_caps import LearnedCaps

MODEL = ModelRef("openai", "gpt-5.1")


def run(lengths, risk, site="s"):
    """How many of some answers were cut at a learned cap, how many had one, and the share of the room it left free."""
    caps, cut, capped, room = LearnedCaps(risk), 0, 0, 0
    for length in lengths:
        cap = caps.cap(site, MODEL)
        if cap is not None:
            capped, room = capped + 1, room + cap
            if length >= cap:
                cut += 1
                caps.note_cut(site, MODEL)
        caps.observe(site, MODEL, length)
    return cut, capped, room / capped if capped else 0


def test_no_cap_before_there_are_as_many_answers_as_the_risk_needs():
    caps = LearnedCaps(0.01)
    for number in range(98):
        caps.observe("s", MODEL, number)
        assert caps.cap("s", MODEL) is None
    caps.observe("s", MODEL, 500)
    assert caps.cap("s", MODEL) == 501
    assert caps.cap("other", MODEL) is None


@pytest.mark.parametrize("risk", [0.01, 0.05])
def test_of_answers_in_no_order_no_more_than_the_risk_are_cut(risk):
    rng = Random(5)
    cut = capped = 0
    for _ in range(40):
        some = run([int(rng.lognormvariate(5, 1)) for _ in range(1_000)], risk)
        cut, capped = cut + some[0], capped + some[1]
    assert capped > 30_000
    # The bound itself holds in expectation; three deviations of a binomial count are allowed on top.
    assert cut <= risk * capped + 3 * (risk * capped) ** 0.5


def test_lengths_that_drift_stay_within_the_risk_in_the_long_run():
    rng = Random(7)
    drifting = [int((100 + step / 10) * rng.lognormvariate(0, 0.4)) for step in range(20_000)]
    cut, capped, _ = run(drifting, 0.05)
    assert cut <= 0.05 * len(drifting)
    assert capped > 2_000


def test_a_jump_of_all_lengths_is_forgotten_again():
    cut, capped, _ = run([100] * 500 + [1_000] * 5_000, 0.01)
    assert cut <= 0.01 * 5_500
    assert capped > 3_000


@pytest.mark.data
@pytest.mark.parametrize("risk", [0.02, 0.05])
def test_answers_of_recorded_agents_are_cut_within_the_risk(data_folder, risk):
    """Each conversation in the order of its turns, one after the other, and split by kind of turn as call sites are."""
    with gzip.open(data_folder / "agent_traces" / "airline_conversations.jsonl.gz", "rt") as lines:
        found = [json.loads(line) for line in lines]
    lengths = {"tool": [], "words": []}
    for conversation in found:
        for message in conversation["messages"] if isinstance(conversation, dict) else conversation:
            if message["role"] == "assistant":
                kind = "tool" if message.get("tool_calls") else "words"
                text = json.dumps(message.get("tool_calls") or "") if kind == "tool" else message["content"] or ""
                lengths[kind].append(-(-len(text.encode()) // 4))
    every = [run(of_kind, risk, kind) for kind, of_kind in lengths.items()]
    assert all(capped > 100 for _, capped, _ in every)
    for cut, capped, _ in every:
        assert cut <= risk * capped + 2 * (risk * capped) ** 0.5


@pytest.mark.parametrize(("given", "read"), [(0.01, 0.01), ("1%", 0.01), (0, 0.0), ("off", 0.0), ("0.05", 0.05)])
def test_a_risk_is_read_as_people_write_it(given, read):
    assert CostConfig(output={"learned_caps": given}).output.learned_caps == read


@pytest.mark.parametrize("given", [1, 0.5, -0.1, True, "much", 0.0001, None, [0.01]])
def test_a_risk_that_is_none_is_refused(given):
    with pytest.raises(ConfigurationError, match="learned_caps"):
        CostConfig(output={"learned_caps": given})
