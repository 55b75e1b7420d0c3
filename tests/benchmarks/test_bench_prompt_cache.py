"""What cache planning saves, against the rules people use, and what it costs in time.

The replay here is a short form; ``python tests/benchmarks/cache_replay/replay.py`` (or ``--soak``) plays everything.
The figures of its last run lie in ``results/prompt_cache.json``.
"""

from __future__ import annotations

import json
import random
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.planner import plan
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import CallRequest, Message, ModelRef, Part
from llm_cost_middleware.usage import TokenUsage

FOLDER = Path(__file__).parent / "cache_replay"


@pytest.fixture(scope="module")
def replay():
    """The replay, imported from its folder."""
    sys.path.insert(0, str(FOLDER))
    try:
        import replay

        yield replay
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def short(replay):
    if not replay.data_folder().is_dir():
        pytest.skip("the recorded agent conversations are not here: set LLM_COST_DATA")
    return replay.all_kinds(replay.data_folder(), conversations=20, share=0.3)


def check(outcomes, base, totals, traffic):
    """What must hold of every comparison: two per cent above no caching at most, or one and a half prompts."""
    for kind, found in outcomes.items():
        most = 1.0 + max(0.02, 1.5 / len(traffic[kind]))
        assert found["planned"].cost_nanousd <= most * found[base].cost_nanousd, kind
    for rival in totals.keys() - {"planned", "optimum"}:
        assert totals["planned"] < totals[rival], rival


@pytest.mark.data
def test_planned_marks_beat_every_other_rule_at_claude(replay, short):
    outcomes = {kind: replay.compare(calls) for kind, calls in short.items()}
    print("\n" + replay.table(outcomes))
    check(outcomes, replay.BASE, replay.totals(outcomes), short)
    agents = outcomes["agents (recorded)"]
    assert agents["planned"].cost_nanousd <= 1.10 * agents["optimum"].cost_nanousd
    for kind, found in outcomes.items():  # the optimum is one
        assert found["optimum"].cost_nanousd <= min(each.cost_nanousd for each in found.values()), kind


@pytest.mark.data
def test_planned_breakpoints_beat_what_gpt_5_6_does_by_itself(replay, short):
    outcomes = {kind: replay.compare_openai(calls) for kind, calls in short.items()}
    print("\n" + replay.table(outcomes))
    for kind, found in outcomes.items():
        assert found["planned"].cost_nanousd <= 1.002 * found["as it comes"].cost_nanousd, kind
    assert replay.totals(outcomes)["planned"] < replay.totals(outcomes)["as it comes"]


def test_conversations_with_long_pauses_at_gpt_5_6_are_left_to_the_provider(replay):
    """Twelve that begin one after the other, before the first of them goes on after twelve minutes."""
    import traffic

    found = replay.compare_openai(traffic.slow(720.0))
    assert found["planned"].cost_nanousd <= 1.001 * found["as it comes"].cost_nanousd


def test_a_fan_out_that_waits_for_its_first_call_is_written_once(replay):
    found = replay.warm_first(4)
    assert found["planned"].cost_nanousd < 0.25 * found[replay.BASE].cost_nanousd


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("gap_s", [20.0, 700.0])
def test_prompts_that_stop_coming_back_cannot_make_caching_expensive(replay, times, gap_s):
    """Each prompt is sent exactly so often: the rule that marks what was seen before always writes for nothing."""
    import traffic

    rng, calls, now = random.Random(times), [], 0.0
    for _ in range(240 // times):
        system, question = traffic._text(rng, 6_000), traffic._text(rng, 6_000)
        for _ in range(times):
            calls.append(traffic._call(now, system, [traffic._user(question)]))
            now += gap_s
    planned = replay.play(calls, replay.Planned(replay.prices_of("anthropic", traffic.MODEL), traffic.MODEL))
    uncached = replay.play(calls, replay.Blind(replay.uncached))
    assert planned.cost_nanousd <= 1.02 * uncached.cost_nanousd


@pytest.mark.parametrize("prompts", [60, 150])
def test_prompts_that_all_came_back_once_and_stop_cost_a_fifth_more_at_most(replay, prompts):
    """Sent in turn, after more than five minutes: at its return each looks as if it came back for ever."""
    import traffic

    rng = random.Random(prompts)
    sent = [(traffic._text(rng, 6_000), traffic._text(rng, 6_000)) for _ in range(prompts)]
    gap_s = 600.0 / prompts
    calls = [
        traffic._call(gap_s * at, system, [traffic._user(asked)]) for at, (system, asked) in enumerate([*sent, *sent])
    ]
    planned = replay.play(calls, replay.Planned(replay.prices_of("anthropic", traffic.MODEL), traffic.MODEL))
    uncached = replay.play(calls, replay.Blind(replay.uncached))
    assert planned.cost_nanousd <= 1.2 * uncached.cost_nanousd


def test_conversations_that_begin_together_beside_other_traffic_are_written_from_the_first_call(replay):
    """Fifty systems that nobody has seen before, at one moment: nothing has had the time to come back."""
    import kinds
    import traffic

    prices = replay.prices_of("anthropic", traffic.MODEL)

    def cost(calls, rule=None):
        return replay.play(calls, rule or replay.Planned(prices, traffic.MODEL)).cost_nanousd

    rng = random.Random(1)
    busy = kinds.agents(rng, tools="code", talks=6, steps=(12, 20), result=(300, 2_000), gap=(1.0, 5.0), between=20.0)
    talks = kinds.dialogue(rng, talks=50, turns=(4, 4), gap=20.0, between=0.001)
    talks = [call._replace(at=call.at + 60.0) for call in talks]
    both = sorted([*busy, *talks], key=lambda call: call.at)
    marked = replay.Blind(lambda body: {**body, "cache_control": {"type": "ephemeral"}})
    assert cost(both) - cost(busy) <= 1.06 * cost(talks, marked)


@pytest.mark.soak
@pytest.mark.data
def test_the_full_replay_gives_the_figures_that_are_checked_in(replay, short):
    kept = json.loads(replay.RESULTS.read_text())
    full = replay.all_kinds(replay.data_folder())
    outcomes = {kind: replay.compare(calls) for kind, calls in full.items()}
    print("\n" + replay.table(outcomes))
    check(outcomes, replay.BASE, replay.totals(outcomes), full)
    assert sum(len(calls) for kind, calls in full.items() if kind.startswith("agents")) == 1_698
    for kind, found in outcomes.items():
        assert {name: each._asdict() for name, each in found.items()} == kept[replay.MODEL][kind]


@pytest.fixture
def long_conversation():
    """Forty messages of 750 characters behind a system prompt of 6,000."""
    messages = [Message("system", (Part("text", "S" * 6_000),))]
    for at in range(39):
        kinds = [("user", "text"), ("assistant", "tool_use"), ("user", "tool_result"), ("assistant", "text")]
        role, kind = kinds[at % 4]
        messages.append(Message(role, (Part(kind, f"{at:03}" + "x" * 750),)))
    return CallRequest("anthropic", "claude-sonnet-4-6", tuple(messages))


@pytest.fixture
def warm(replay, long_conversation):
    """How to plan that conversation, by a planner that has seen it grow."""
    target = ModelRef("anthropic", "claude-sonnet-4-6")
    planned = replay.Planned(replay.prices_of(*target), target.model)
    ability, statistics, prices = (
        get_provider("anthropic").cache_capabilities(target.model),
        planned.statistics,
        planned._prices,
    )
    for turn in range(2, 40, 2):
        layout = read_layout(CallRequest(*target, long_conversation.messages[:turn]))
        made = plan(layout, ability, prices, statistics, now=5.0 * turn, target=target)
        statistics.begin(layout, made, now=5.0 * turn)
        usage = TokenUsage(cache_read=made.warm, cache_write_5m=max(layout.tokens - made.warm, 0))
        statistics.observe(layout, target, made, usage, now=5.0 * turn + 2.0)

    def work(request=long_conversation):
        return plan(read_layout(request), ability, prices, statistics, now=202.0, target=target)

    assert work().warm > 0
    return work


def test_bench_planning_forty_messages(benchmark, warm):
    benchmark(warm)


def test_bench_planning_a_short_question(benchmark, warm):
    short = CallRequest("anthropic", "claude-sonnet-4-6", (Message("user", (Part("text", "What is the time?"),)),))
    benchmark(warm, short)


def test_bench_the_raw_limit_of_planning(benchmark, long_conversation):
    """Hashing the text of the conversation, and nothing else."""

    def limit():
        digest = sha256()
        for message in long_conversation.messages:
            digest.update(message.parts[0].text.encode())
        return digest.digest()

    benchmark(limit)
