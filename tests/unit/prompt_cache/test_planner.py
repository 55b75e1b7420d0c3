from __future__ import annotations

import pytest

from llm_cost_middleware.prompt_cache.layout import read_layout
from llm_cost_middleware.prompt_cache.plan import CachePlan, CachePolicy, CachePrices
from llm_cost_middleware.prompt_cache.planner import NO_PLAN, plan
from llm_cost_middleware.providers import get_provider
from llm_cost_middleware.request import BlockRef, CallRequest, Message, ModelRef, Part
from llm_cost_middleware.sentences import unread

SOL = ModelRef("openai", "gpt-5.6-sol")
SOL_PRICES = CachePrices(400_000, {"30m": 5_000_000}, 4_000_000)
GPT5 = ModelRef("openai", "gpt-5")
GPT5_PRICES = CachePrices(125_000, {}, 1_250_000)


def ends(made):
    return [(mark.position.section, mark.position.message, mark.ttl) for mark in made.marks]


def test_a_short_question_gets_no_plan(player):
    request = CallRequest("anthropic", "m", (Message("user", (Part("text", "hello"),)),))
    assert player().plan(request)[1] is NO_PLAN


def test_a_prompt_below_the_models_minimum_gets_no_plan(conversation, prices):
    request = conversation(1, system="S" * 4_000, tools=1, text=100)
    for model, planned in (("claude-sonnet-4-6", True), ("claude-haiku-4-5", False)):
        ability = get_provider("anthropic").cache_capabilities(model)
        made = plan(read_layout(request), ability, prices, now=0.0)
        assert (made is not NO_PLAN) is planned


def test_off_is_off_and_a_model_without_cache_has_no_plan(conversation, prices):
    layout = read_layout(conversation(3))
    sonnet = get_provider("anthropic").cache_capabilities("claude-sonnet-4-6")
    assert plan(layout, sonnet, prices, policy=CachePolicy(mode="off"), now=0.0) is NO_PLAN
    assert plan(layout, get_provider("openai").cache_capabilities("gpt-4"), prices, now=0.0) is NO_PLAN


def test_the_classic_mode_marks_the_system_prompt_and_nothing_else(conversation, player):
    assert ends(player(mode="system").call(conversation(4, tools=3))) == [("system", 0, "5m")]
    assert ends(player(mode="system", ttl="1h").call(conversation(4))) == [("system", 0, "1h")]
    assert ends(player(mode="system").call(conversation(4, tools=8, system=""))) == [("tools", 0, "5m")]


def test_an_agent_is_marked_from_its_first_call_and_the_mark_moves(conversation, player):
    play = player()
    first = play.call(conversation(1, tools=4))
    assert first.marks
    assert first.warm == 0
    for turn in range(2, 12):
        made = play.call(conversation(turn, tools=4, results=True), after=5.0)
        assert made.marks[-1].position == BlockRef("messages", 2 * turn - 2, 0)
        assert made.warm > 0
        assert made.expected_now_nanousd > 0


def test_a_plan_says_why_when_it_is_asked(conversation, player):
    play = player()
    first, second = (play.call(conversation(turn, tools=4, results=True), after=5.0) for turn in (1, 3))
    for made in (first, second):
        assert not isinstance(unread(made, "reason"), str)
        lifetimes = "+".join(dict.fromkeys(mark.ttl for mark in made.marks))
        assert made.reason == f"{len(made.marks)} marks ({lifetimes}): {made.warm} tokens expected warm"
    assert second.without_marks().reason == f"no money for the writes of {second.reason}"
    (left,) = {play.call(conversation(1, system=f"{at:04}" * 2_000), after=10.0).reason for at in range(60)} - {
        "1 marks (5m): 0 tokens expected warm"
    }
    assert left == "reuse is not expected to pay for a write"


def test_heads_that_never_come_back_are_soon_left_alone(conversation, player):
    """A few are written on sight, for 1.4 prompts' price in all; and never the question behind them."""
    play = player()
    plans = [play.call(conversation(1, system=f"{at:04}" * 2_000), after=10.0) for at in range(60)]
    assert plans[0].marks
    assert all(mark.position.section == "system" for made in plans for mark in made.marks)
    assert sum(bool(made.marks) for made in plans) <= 8
    assert not any(made.marks for made in plans[20:])


def test_heads_that_all_came_back_once_are_trusted_with_a_fifth_of_the_input(conversation, player):
    """Sixty systems in turn are written at their second arrival, on the evidence of the others; not all of them, as
    they may never come a third time."""
    play = player()
    systems = [f"{at:04}" * 2_000 for at in range(60)]
    plans = [play.call(conversation(1, system=each), after=9.0) for _ in range(2) for each in systems]
    second = [made for made in plans[60:] if made.marks]
    assert 10 <= len(second) <= 50
    prices = second[0].prices
    written = sum(made.write_risk_picousd / (1 - made.proven_share) for made in second)
    assert written <= 0.25 * 120 * 2_100 * prices.uncached


def test_a_system_prompt_that_keeps_coming_back_is_marked(conversation, player):
    play = player()
    plans = [play.call(conversation(1, salt=str(at)), after=30.0) for at in range(6)]
    assert [ends(made) for made in plans] == [[("system", 0, "5m")]] * 6
    assert plans[1].warm > 0
    assert plans[-1].warm > 0


def test_a_conversation_with_long_pauses_is_written_for_an_hour(conversation, player):
    play = player()
    plans = [play.call(conversation(turn), after=900.0) for turn in range(1, 14)]
    assert {mark.ttl for made in plans[-4:] for mark in made.marks} == {"1h"}
    assert plans[-1].warm > 0


def test_pauses_beyond_every_lifetime_stop_the_writes(conversation, player):
    play = player()
    plans = [play.call(conversation(turn), after=9_000.0) for turn in range(1, 14)]
    assert not any(made.marks for made in plans[6:])


def test_a_policy_of_one_lifetime_is_kept(conversation, player):
    play = player(ttl="1h")
    play.statistics._spent_pico = 10**15
    for turn in range(1, 8):
        made = play.call(conversation(turn, tools=4, results=True), after=5.0)
        assert {mark.ttl for mark in made.marks} <= {"1h"}
    assert made.marks


def test_marks_of_the_caller_leave_fewer_and_stay_in_order(conversation, player):
    marked = (
        Message("system", tuple(Part("text", f"{at}" * 4_000, "1h") for at in range(3))),
        *conversation(3, system="").messages,
    )
    made = player().call(CallRequest("anthropic", "m", marked))
    assert len(made.marks) == 1
    full = CallRequest("anthropic", "m", (Message("system", (*marked[0].parts, Part("text", "x", "5m"))), *marked[1:]))
    assert player().call(full).marks == ()


def test_automatic_caching_by_the_caller_takes_a_place_at_the_end(conversation, player):
    request = conversation(3, tools=3, params={"cache_control": {"type": "ephemeral"}})
    made = player().call(request)
    assert all(mark.position != BlockRef("messages", 4, 0) for mark in made.marks)
    assert len(made.marks) <= 3


def test_a_long_agent_turn_keeps_its_last_entry_in_reach(player):
    def request(rounds, width=12):
        messages = [Message("system", (Part("text", "S" * 8_000),)), Message("user", (Part("text", "go" * 400),))]
        for at in range(rounds):
            messages.append(Message("assistant", tuple(Part("tool_use", f"{at}.{n}" * 30) for n in range(width))))
            messages.append(Message("user", tuple(Part("tool_result", f"{at}.{n}" * 90) for n in range(width))))
        return CallRequest("anthropic", "m", tuple(messages))

    play = player()
    for rounds in range(1, 6):
        layout, made = play.plan(request(rounds))
        numbers = {each.ref: each.number for each in layout.boundaries}
        marked = [numbers[mark.position] for mark in made.marks]
        previous = layout.boundaries[layout.previous].number
        assert any(0 <= number - previous < 20 for number in marked)
        play.call(request(rounds), after=3.0)


def test_a_write_in_flight_is_waited_for_when_the_application_fans_out(conversation, player):
    play = player(warm_first=True)
    layout, first = play.plan(conversation(1, salt="a"))
    assert first.marks
    play.statistics.begin(layout, first, now=play.now)
    _, second = play.plan(conversation(1, salt="b"))
    assert second.wait_for == layout.boundaries[0].fingerprint
    assert play.statistics.is_pending(second.wait_for, play.now)
    play.now += 60.0
    assert not play.statistics.is_pending(second.wait_for, play.now)


def test_without_warm_first_a_cold_fan_out_is_not_written_many_times(conversation, player):
    play = player()
    for batch in range(5):
        plans = []
        for at in range(10):
            layout, made = play.plan(conversation(1, system=f"{batch}" * 8_000, salt=str(at)))
            play.statistics.begin(layout, made, now=play.now)
            plans.append(made)
        assert sum(bool(made.marks) for made in plans) <= 1
        play.now += 600.0


def test_openai_before_5_6_gets_a_key_and_no_marks(conversation, player):
    play = player(GPT5, GPT5_PRICES)
    one = play.call(conversation(1, salt="x", provider="openai"))
    other = play.call(conversation(1, salt="y", provider="openai"), after=1.0)
    assert one.marks == ()
    assert one.cache_key == other.cache_key is not None
    assert one.retention is None
    assert not one.explicit


def test_a_day_of_retention_is_asked_for_only_when_the_policy_says_so(conversation, player):
    request = conversation(1, provider="openai")
    assert player(GPT5, GPT5_PRICES, ttl="1h").call(request).retention == "24h"
    assert player(ModelRef("openai", "gpt-4o"), GPT5_PRICES, ttl="1h").call(request).retention is None


def test_the_callers_own_key_stays(conversation, player):
    request = conversation(1, provider="openai", params={"prompt_cache_key": "mine"})
    assert player(GPT5, GPT5_PRICES).call(request).cache_key is None


def test_a_busy_prefix_is_split_and_a_conversation_keeps_its_key(conversation, player):
    play = player(GPT5, GPT5_PRICES)
    began = conversation(1, salt="0", provider="openai")
    first = play.call(began).cache_key
    requests = [conversation(1, salt=f"{at}", provider="openai") for at in range(1, 400)]
    for request in requests:
        play.call(request)  # two seconds each: thirty a minute
    keys = {
        play.plan(request)[1].cache_key
        for request in (conversation(1, salt=f"n{n}", provider="openai") for n in range(64))
    }
    assert 2 <= len(keys) <= 8
    assert play.plan(conversation(2, salt="0", provider="openai"))[1].cache_key == first


def test_a_burst_is_no_rate(conversation, player):
    play = player(GPT5, GPT5_PRICES)
    keys = set()
    for at in range(40):
        layout, made = play.plan(conversation(1, salt=f"{at}", provider="openai"))
        play.statistics.begin(layout, made, now=play.now)
        play.now += 0.1
        keys.add(made.cache_key)
    assert len(keys) == 1


def test_what_shares_the_shortest_prefix_that_is_cached_shares_a_key(conversation, player):
    """As it would without a key: a system prompt that differs, behind tools that are long enough, changes nothing."""
    play = player(GPT5, GPT5_PRICES)
    tools = {"provider": "openai", "tools": 9}
    one, other = (play.call(conversation(1, system=f"{at}" * 6_000, **tools)).cache_key for at in "ab")
    assert one == other is not None
    assert play.call(conversation(1, system="", provider="openai")).cache_key is None  # left to the provider


def test_from_5_6_on_the_provider_s_own_breakpoint_stays_until_ends_were_seen_not_to_return(conversation, player):
    play = player(SOL, SOL_PRICES)
    plans = [play.call(conversation(1, salt=f"{at}", provider="openai"), after=60.0) for at in range(40)]
    assert not plans[0].explicit
    assert plans[-1].explicit  # the paid write of a question that never comes back is switched off
    assert {mark.position.section for made in plans for mark in made.marks} == {"system"}


def test_from_5_6_on_a_conversation_is_left_to_write_its_own_end(conversation, player):
    play = player(SOL, SOL_PRICES)
    for turn in range(1, 6):
        made = play.call(conversation(turn, tools=4, results=True, provider="openai"), after=5.0)
        assert made.marks_end
        assert not made.explicit
        assert len(made.marks) <= 3
        assert all(mark.position.section != "tools" for mark in made.marks)
    assert made.warm > 0


def test_the_callers_own_cache_options_are_left_alone(conversation, player):
    request = conversation(3, provider="openai", params={"prompt_cache_options": {"mode": "implicit"}})
    made = player(SOL, SOL_PRICES).call(request)
    assert (made.marks, made.explicit) == ((), False)


def test_a_lifetime_without_a_price_is_not_used(conversation, player, sonnet):
    play = player(sonnet, CachePrices(300_000, {}, 3_000_000))
    assert play.call(conversation(3, tools=3)).marks == ()


def test_what_was_expected_is_what_the_usage_shows(conversation, player):
    """The saving a plan expects of its own call is the saving that the bill then shows, whatever the turn."""
    play = player()
    for turn in range(1, 8):
        layout, made = play.plan(conversation(turn, tools=4, results=True))
        sent = play.call(conversation(turn, tools=4, results=True), after=4.0)
        assert sent.expected_now_nanousd == pytest.approx(made.expected_now_nanousd)
        assert sent.expected_saving_nanousd >= sent.expected_now_nanousd
    assert layout.tokens > sent.warm > 0


def test_a_plan_is_a_value():
    assert CachePlan() == CachePlan()
    with pytest.raises(AttributeError):
        CachePlan().warm = 1
